"""The view: what a client is told, so that its numbers and ours never part."""

from array import array

import pytest

from services.imap.view import Changes, Dialect, FlagRow, OutOfView, View, number_set
from services.imap.wire.responses import Exists, Raw, Recent, Response

PLAIN = Dialect()


def view(uids: list[int], *, cn: int = 10, recent_from: int = 1 << 32) -> View:
    made = View(cn=cn, uidnext=uids[-1] + 1 if uids else 1, total=len(uids), recent=0, first_recent=recent_from)
    made.load(uids)
    return made


def changes(
    cn: int, *, flags: list[FlagRow] | None = None, gone: list[int] | None = None, new: list[int] | None = None
) -> Changes:
    return Changes(cn, max(new or [0]) + 1, 0, flags or [], gone or [], new or [])


def told(responses: list[Response]) -> bytes:
    lines = b""
    for response in responses:
        match response:
            case Raw(octets):
                lines += octets
            case Exists(count):
                lines += b"* %d EXISTS\r\n" % count
            case Recent(count):
                lines += b"* %d RECENT\r\n" % count
            case _:
                raise AssertionError(response)
    return lines


def test_a_folder_that_lost_nothing_needs_no_list() -> None:
    whole = View(cn=5, uidnext=10_001, total=10_000, recent=0, first_recent=10_001)
    assert whole.known == range(1, 10_001)
    assert whole.seq(7) == 7
    assert View(cn=5, uidnext=10_001, total=9_999, recent=0, first_recent=10_001).uids is None


def test_expunges_are_told_from_the_end_so_that_each_number_still_holds() -> None:
    seen = view([1, 3, 5, 7])
    assert told(seen.apply(changes(11, gone=[3, 7]), PLAIN, expunges=True)) == b"* 4 EXPUNGE\r\n* 2 EXPUNGE\r\n"
    assert list(seen.known) == [1, 5]
    assert seen.cn == 11


def test_what_may_not_be_told_now_keeps_its_number_until_it_may() -> None:
    seen = view([1, 2, 3])
    assert seen.apply(changes(11, gone=[1]), PLAIN, expunges=False) == []
    assert seen.seq(3) == 3
    assert told(seen.apply(changes(12, new=[4]), PLAIN, expunges=False)) == b"* 4 EXISTS\r\n* 1 RECENT\r\n"
    assert told(seen.apply(changes(12), PLAIN, expunges=True)) == b"* 1 EXPUNGE\r\n"
    assert list(seen.known) == [2, 3, 4]


def test_flags_of_a_message_that_is_gone_are_not_told() -> None:
    seen = view([1, 2])
    rows = [FlagRow(1, 11, 16, ()), FlagRow(2, 12, 0, ())]
    assert told(seen.apply(changes(12, flags=rows, gone=[2]), PLAIN, expunges=False)) == (
        b"* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n"
    )


def test_own_changes_are_told_once_and_what_others_did_meanwhile_still_is() -> None:
    seen = view([1, 2, 3])
    seen.tell_own(11, 12)
    rows = [FlagRow(1, 11, 1, ()), FlagRow(2, 12, 1, ()), FlagRow(3, 13, 2, ())]
    assert told(seen.apply(changes(13, flags=rows), PLAIN, expunges=True)) == b"* 3 FETCH (UID 3 FLAGS (\\Flagged))\r\n"
    again = seen.apply(changes(14, flags=[FlagRow(1, 14, 0, ())]), PLAIN, expunges=True)
    assert told(again) == b"* 1 FETCH (UID 1 FLAGS ())\r\n"


def test_a_qresync_client_is_told_uids_and_numbers() -> None:
    seen = view([1, 2, 3, 9])
    dialect = Dialect(modseq=True, vanished=True)
    rows = [FlagRow(9, 14, 0, ["$Junk"])]
    assert told(seen.apply(changes(14, flags=rows, gone=[1, 2]), dialect, expunges=True)) == (
        b"* VANISHED 1:2\r\n* 2 FETCH (UID 9 FLAGS ($Junk) MODSEQ (14))\r\n"
    )


def test_a_view_without_list_counts_on_and_asks_for_the_list_only_when_numbers_are_needed() -> None:
    idle = View(cn=10, uidnext=9, total=3, recent=1, first_recent=8)
    arrived = changes(11, new=[9, 10])
    assert not idle.needs_uids(arrived, PLAIN, expunges=True)
    assert told(idle.apply(arrived, PLAIN, expunges=True)) == b"* 5 EXISTS\r\n* 3 RECENT\r\n"
    assert idle.needs_uids(changes(12, gone=[2]), PLAIN, expunges=True)
    vanishing = Dialect(vanished=True)
    assert not idle.needs_uids(changes(12, gone=[2]), vanishing, expunges=True)
    assert told(idle.apply(changes(12, gone=[2]), vanishing, expunges=True)) == b"* VANISHED 2\r\n"
    assert idle.total == 4


def test_what_came_and_went_unseen_is_never_mentioned() -> None:
    seen = view([1])
    assert seen.apply(Changes(15, 5, 1, [], [3], []), PLAIN, expunges=True) == []
    assert list(seen.known) == [1]


def test_growth_and_loss_keep_the_list_right_in_either_shape() -> None:
    seen = View(cn=1, uidnext=4, total=3, recent=0, first_recent=4)
    seen.apply(changes(2, new=[4, 5]), PLAIN, expunges=True)
    assert seen.known == range(1, 6)
    seen.apply(changes(3, new=[8]), PLAIN, expunges=True)
    assert list(seen.known) == [1, 2, 3, 4, 5, 8]
    assert isinstance(seen.known, array)
    seen.apply(changes(4, gone=[1, 2, 3, 4, 5, 8]), PLAIN, expunges=True)
    assert len(seen.known) == 0
    assert seen.total == 0
    seen.apply(changes(5, new=[9]), PLAIN, expunges=True)
    assert list(seen.known) == [9]


@pytest.mark.parametrize(
    ("ranges", "by_uid", "found"),
    [
        (((1, 0),), False, [10, 20, 30]),
        (((0, 0),), False, [30]),
        (((3, 2), (1, 1)), False, [10, 20, 30]),
        (((15, 25),), True, [20]),
        # RFC 9051 9: 559:* names the last message even when its uid is smaller.
        (((559, 0),), True, [30]),
        (((1, 9), (31, 40)), True, []),
    ],
)
def test_sets_name_messages(ranges: tuple[tuple[int, int], ...], by_uid: bool, found: list[int]) -> None:
    seen = view([10, 20, 30])
    assert seen.pick(seen.spans(ranges, by_uid=by_uid)) == found


def test_a_number_nobody_has_is_an_error_but_a_uid_is_not() -> None:
    seen = view([10])
    with pytest.raises(OutOfView):
        seen.spans(((1, 2),), by_uid=False)
    assert seen.spans(((11, 12),), by_uid=True) == []
    assert view([]).spans(((1, 0),), by_uid=False) == []


def test_number_set_is_the_shortest() -> None:
    assert number_set([1, 2, 3, 5, 7, 8]) == b"1:3,5,7:8"

"""STORE and UID STORE (RFC 9051 6.4.6) with UNCHANGEDSINCE (RFC 7162 3.1.3)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import NamedTuple

from services.core.store.messages import FlagChange
from services.core.store.numbers import LIMIT
from services.imap import queries
from services.imap.feature import SELECTED, Command, Feature
from services.imap.flagtext import parse_flags
from services.imap.session import Session
from services.imap.view import Changes, FlagRow, number_set
from services.imap.wire.cursor import Cursor
from services.imap.wire.responses import Code, Ok, Raw, Response
from services.imap.wire.sequence import SequenceSet


class Args(NamedTuple):
    """Which messages, what to do, and how much to say about it."""

    messages: SequenceSet
    by_uid: bool
    sign: str  # "+", "-" or "": replace
    flags: tuple[str, ...]
    silent: bool
    unchanged_since: int | None


def flag_change(session: Session, sign: str, names: tuple[str, ...]) -> FlagChange:
    """The change that those flag names ask for, keywords as the folder spells them."""
    flags, seen, words = parse_flags(names)
    keywords = session.selected.view.keywords
    words = tuple(keywords.spell(word) for word in words)
    if sign != "-":
        keywords.meet(words)
    match sign:
        case "+":
            return FlagChange(add=flags, seen=True if seen else None, add_keywords=words)
        case "-":
            return FlagChange(remove=flags, seen=False if seen else None, remove_keywords=words)
        case _:
            return FlagChange.replace(flags, seen, words)


async def store(session: Session, args: Args) -> AsyncGenerator[Response, None]:
    """Change flags and, unless silent, say what they are now."""
    selected = session.writable()
    view = await session.view()
    uids = view.pick(session.spans(args.messages, by_uid=args.by_uid))
    if args.unchanged_since is not None:
        session.enable("CONDSTORE")
    if not uids:
        yield Ok("No such messages.")
        return
    since = LIMIT if args.unchanged_since is None else args.unchanged_since
    stored = await session.change_flags(uids, flag_change(session, args.sign, args.flags), unchanged_since=since)
    for response in session.news():
        yield response
    mine = range(stored.cn - len(stored.changed) + 1, stored.cn + 1) if stored.changed else range(0)
    if args.silent and not session.dialect.modseq:
        view.tell_own(mine.start, mine.stop - 1)
    elif not args.silent:
        # One picture of the folder tells both what others did and what this command did.
        changes = await session.changes()
        if changes is not None:
            view.tell_own(mine.start, mine.stop - 1)
            refused = set(stored.modified)
            rows = await _rows(session, changes, [uid for uid in uids if uid not in refused])
            yield Raw(view.flag_lines(rows, session.dialect))
            for response in await session.tell(changes, expunges=args.by_uid):
                yield response
            session.fresh = True
    elif stored.changed:
        # RFC 7162 3.1.3: silent or not, a CONDSTORE client learns the new numbers.
        view.tell_own(mine.start, mine.stop - 1)
        yield Raw(_modseqs(session, stored.changed, mine))
    if stored.modified:
        told = stored.modified if args.by_uid else view.seqs(stored.modified)
        yield Ok("Some were changed by others.", Code("MODIFIED", number_set(told)))
        return
    if len(stored.changed) < len(uids) and selected.view.gone:
        yield Ok("Some of the messages are gone.", Code("EXPUNGEISSUED"))
        return
    yield Ok("Stored.")


async def _rows(session: Session, changes: Changes, uids: list[int]) -> list[FlagRow]:
    """The flags of those messages: mostly among what changed just now, else read."""
    wanted = set(uids)
    rows = [row for row in changes.flags if row.uid in wanted]
    missing = sorted(wanted.difference(row.uid for row in rows))
    if missing:
        columns = ("uid", "modseq", "bits", "keywords")
        which = queries.Which(missing[0], missing[-1], missing)
        found = await queries.rows(session.store, session.account_id, session.selected.fid, which, columns)
        rows += [FlagRow(*row) for row in found]
    return rows


def _modseqs(session: Session, uids: Sequence[int], numbers: range) -> bytes:
    view = session.selected.view
    # The store numbers a change in uid order.
    return b"".join(
        [
            b"* %d UIDFETCH (MODSEQ (%d))\r\n" % (uid, number)
            if session.dialect.uidonly
            else b"* %d FETCH (UID %d MODSEQ (%d))\r\n" % (view.seq(uid), uid, number)
            for uid, number in zip(uids, numbers, strict=True)
        ]
    )


def _parse(cursor: Cursor, *, by_uid: bool) -> Args:
    cursor.space()
    messages = cursor.sequence_set()
    cursor.space()
    unchanged_since = None
    if cursor.accept(b"("):
        cursor.keyword("UNCHANGEDSINCE")
        cursor.space()
        unchanged_since = cursor.number()
        cursor.expect(b")")
        cursor.space()
    word = cursor.atom().upper()
    sign = word[0] if word[0] in "+-" else ""
    if word[len(sign) :] not in ("FLAGS", "FLAGS.SILENT"):
        raise cursor.error("FLAGS is expected")
    cursor.space()
    flags = cursor.flags()
    cursor.end()
    return Args(messages, by_uid, sign, flags, word.endswith(".SILENT"), unchanged_since)


FEATURE = Feature(
    (),
    rfc=9051,
    commands=(
        Command("STORE", SELECTED, partial(_parse, by_uid=False), store),
        Command("UID STORE", SELECTED, partial(_parse, by_uid=True), store),
    ),
)

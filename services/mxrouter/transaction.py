"""One letter over one connection: MAIL, RCPT, the message, and what became of each recipient. Pure.

Where the peer has PIPELINING a transaction costs two round trips, the second one with the message in it. Recipients
beyond what the peer takes at once follow in transactions of their own. What happens when the connection dies:

- before the message was asked for, or with part of it still here: nothing was taken, another host may be tried;
- after the last octet and before the reply: nobody knows (RFC 1047). The message may have been taken, yet is tried
  again later: a copy too many is the lesser evil.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from services.mxrouter import envelope
from services.mxrouter.carriage import Addressee, Letter, Outcome
from services.mxrouter.dialogue import Act, Broken, Peer, Say, Stage
from services.mxrouter.heard import Reply

_NOTHING_SAID: Final = envelope.later("4.4.2", "the connection was closed")


class Verdict(NamedTuple):
    """One recipient's outcome at one host; `elsewhere`: another host of the destination may still take it."""

    outcome: Outcome
    elsewhere: bool = False


class Delivery(NamedTuple):
    """What one host made of a letter, and what state the connection is in.

    `usable`: another letter may follow, after RSET where `reset` says so. `began`: the host answered something, so a
    kept connection had not simply died of age.
    """

    verdicts: tuple[Verdict, ...]
    usable: bool
    reset: bool
    began: bool
    transactions: int


def deliver(peer: Peer, letter: Letter, host: str, at_once: int, reset: bool = False) -> Act[Delivery]:
    """Hand the letter over, at most `at_once` recipients a transaction. Raises nothing."""
    refused = envelope.refusal(peer, letter, host)
    if refused is not None:
        # Too big is too big; what one host lacks, another of the destination may have.
        verdict = Verdict(refused, elsewhere=refused.enhanced in ("5.6.7", "5.7.30"))
        return Delivery((verdict,) * len(letter.addressees), True, reset, True, 0)
    verdicts: dict[int, Verdict] = {}
    waiting = []
    for number, addressee in enumerate(letter.addressees):
        if (outcome := envelope.unaddressable(peer, addressee, host)) is not None:
            verdicts[number] = Verdict(outcome, elsewhere=outcome.enhanced == "5.6.7")
        else:
            waiting.append(number)
    at_once = min(at_once, peer.limit("RCPTMAX") or at_once)
    usable, began, count, parting = True, False, 0, _NOTHING_SAID
    while waiting and usable:
        lot = _Lot(peer, letter, host, tuple(waiting[:at_once]), reset)
        yield from lot.send()
        usable, reset, parting = lot.usable, lot.reset, lot.parting
        began = began or lot.began
        count += 1
        verdicts |= lot.verdicts
        waiting = [number for number in waiting if number not in verdicts]
    verdicts |= dict.fromkeys(waiting, Verdict(parting, elsewhere=True))
    ordered = tuple(verdicts[number] for number in range(len(letter.addressees)))
    return Delivery(ordered, usable, reset, began or not count, count)


@dataclass(slots=True)
class _Lot:
    """One transaction. Recipients that it leaves without a verdict belong into the next, or to another host."""

    peer: Peer
    letter: Letter
    host: str
    numbers: tuple[int, ...]
    reset: bool
    usable: bool = True
    began: bool = False
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    parting: Outcome = _NOTHING_SAID  # why those that come after cannot be told

    def send(self) -> Act[None]:
        said, broken = yield from self._open()
        accepted = self._recipients(said)
        if broken is not None:
            return self._lost(broken)
        try:
            ready = yield from self._ready(accepted, said[1 + len(self.numbers) :])
        except Broken as lost:
            return self._lost(lost)
        if ready is None:
            return None
        parts = ready if accepted else (b".\r\n",)  # RFC 2920 3.1: the server wants a message that nobody gets
        try:
            (reply,) = yield Say(parts, (Stage.MESSAGE,))
        except Broken as lost:
            return self._lost(lost, () if lost.unsent else accepted)
        self._close_if_told(reply)
        self.reset = self.peer.offers("CHUNKING") and not reply.positive  # RFC 3030 2: a failed BDAT ends by RSET
        for number in accepted:
            if reply.positive:
                self.verdicts[number] = Verdict(envelope.sent(reply, self.host, self.peer))
            else:
                self.verdicts[number] = Verdict(envelope.heard(reply, self.host), elsewhere=reply.code == 421)
        return None

    # ---- the envelope ------------------------------------------------------------------------------------------

    def _commands(self) -> list[tuple[Stage, bytes]]:
        addressees: Sequence[Addressee] = [self.letter.addressees[number] for number in self.numbers]
        utf8 = envelope.wants_utf8(self.letter) or any(not each.address.isascii() for each in addressees)
        commands = [(Stage.MAIL, envelope.mail(self.peer, self.letter, utf8))]
        commands += [(Stage.RCPT, envelope.rcpt(self.peer, each, utf8)) for each in addressees]
        return commands

    def _open(self) -> Act[tuple[tuple[Reply, ...], Broken | None]]:
        """MAIL and RCPT, all in one group where the peer has PIPELINING: what was said from MAIL on, and what broke."""
        commands = self._commands()
        before = [(Stage.RSET, b"RSET\r\n")] if self.reset else []
        if not self.peer.offers("PIPELINING"):
            return (yield from self._one_by_one(before + commands, len(before)))
        group = before + commands
        if not self.peer.offers("CHUNKING"):
            group.append((Stage.DATA, b"DATA\r\n"))
        broken = None
        try:
            said = yield Say((b"".join(octets for _, octets in group),), tuple(stage for stage, _ in group))
        except Broken as lost:
            said, broken = lost.heard, lost
        self.began = bool(said)
        return said[len(before) :], broken or _not_anew(said[: len(before)])

    def _one_by_one(
        self, commands: list[tuple[Stage, bytes]], before: int
    ) -> Act[tuple[tuple[Reply, ...], Broken | None]]:
        said: list[Reply] = []
        for stage, octets in commands:
            try:
                said += yield Say((octets,), (stage,))
            except Broken as lost:
                return tuple(said[before:]), lost
            self.began = True
            if (broken := _not_anew(said[:before])) is not None:
                return (), broken
            if stage is not Stage.RSET and (said[-1].code == 421 or not said[before].positive):
                break
        return tuple(said[before:]), None

    def _recipients(self, said: tuple[Reply, ...]) -> list[int]:
        """Enter what is final of the replies to MAIL and RCPT; who was accepted."""
        if not said:
            return []
        opened, *replies = said
        self._close_if_told(opened)
        self.reset = opened.positive
        if not opened.positive:
            # 4xx here is about the host (load, space, our address); 5xx is its word on the message.
            verdict = Verdict(envelope.heard(opened, self.host), elsewhere=not opened.permanent)
            self.verdicts |= dict.fromkeys(self.numbers, verdict)
            return []
        accepted: list[int] = []
        for number, reply in zip(self.numbers, replies, strict=False):  # DATA's may come last
            if reply.positive:
                accepted.append(number)
            elif reply.code == 421:
                self._close_if_told(reply)
                self.verdicts[number] = Verdict(envelope.heard(reply, self.host), elsewhere=True)
            elif not (accepted and _too_many(reply)):
                # 4xx to RCPT is about the mailbox, and greylisting: the backup's word would be the same.
                self.verdicts[number] = Verdict(envelope.heard(reply, self.host))
        return accepted

    # ---- the message -------------------------------------------------------------------------------------------

    def _ready(self, accepted: list[int], answers: tuple[Reply, ...]) -> Act[tuple[bytes, ...] | None]:
        """What is to be sent as the message, after the pipelined DATA's answer if there is one; None: nothing is."""
        if not answers and not (accepted and self.usable):
            return None
        if self.peer.offers("CHUNKING"):
            return b"BDAT %d LAST\r\n" % len(self.letter.octets), self.letter.octets
        (answer,) = answers or (yield Say((b"DATA\r\n",), (Stage.DATA,)))
        self._close_if_told(answer)
        if answer.code == 354:
            return envelope.stuffed(self.letter.octets)
        for number in accepted:
            self.verdicts[number] = Verdict(envelope.heard(answer, self.host), elsewhere=answer.code == 421)
        if answer.positive:
            # It takes what would follow for commands: there is no telling what it is.
            self._shut(envelope.later("4.5.0", f"{answer.code} is no answer to DATA: {answer.text}", self.host))
        return None

    # ---- the end -----------------------------------------------------------------------------------------------

    def _close_if_told(self, reply: Reply) -> None:
        if reply.code == 421:  # RFC 5321 3.8: it closes the connection
            self._shut(envelope.heard(reply, self.host))

    def _shut(self, parting: Outcome) -> None:
        if self.usable:
            self.usable, self.parting = False, parting

    def _lost(self, broken: Broken, taken: Sequence[int] = ()) -> None:
        """The connection is gone; `taken`: those for whom the message may have been taken."""
        self._shut(envelope.later("4.4.2", str(broken), self.host))
        text = f"{broken}; it may have been taken, and may arrive twice"
        self.verdicts |= dict.fromkeys(taken, Verdict(envelope.later("4.4.2", text, self.host)))


def _not_anew(said: Sequence[Reply]) -> Broken | None:
    """What a reply to RSET breaks, if there was one."""
    if not said or said[0].positive:
        return None
    return Broken(f"the peer does not begin anew: {said[0].code} {said[0].text}")


def _too_many(reply: Reply) -> bool:
    # RFC 5321 4.5.3.1.10: 452, and 552 of servers that mean it; with an enhanced code it must not be about the mailbox.
    return reply.code in (452, 552) and reply.enhanced in ("", "4.5.3", "5.5.3")

"""A server on paper: what it says to each command, in memory, over whatever cuts of its octets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from services.mxrouter.carriage import Addressee, Letter
from services.mxrouter.dialogue import Act, Exchange, Peer
from services.mxrouter.heard import Replies

T = TypeVar("T")

MESSAGE = b"Subject: x\r\n\r\n.one\r\n..two\r\n"


def letter(*recipients: str, octets: bytes = MESSAGE, sender: str = "alice@posta.test", **more: object) -> Letter:
    addressees = tuple(Addressee(each) for each in recipients or ("carol@remote.test",))
    return Letter("0", sender, addressees, octets, **more)  # type: ignore[arg-type]


def peer(*keywords: str) -> Peer:
    return Peer({line.partition(" ")[0]: line.partition(" ")[2] for line in keywords})


class Paper:
    """Runs acts over one connection. `answers` are the server's replies in order; None hangs up."""

    def __init__(self, *answers: str | None, cut: Callable[[bytes], Iterable[bytes]] = lambda octets: [octets]) -> None:
        self.answers = list(answers)
        self.said: list[bytes] = []
        self.replies = Replies()
        self._cut = cut

    def run(self, act: Act[T]) -> T:
        exchange = Exchange(act, self.replies)
        while exchange.stage is not None:
            out = b"".join(exchange.take())
            if out:
                self.said.append(out)
            answer = self.answers.pop(0) if self.answers else None
            if answer is None:
                exchange.fail("the connection was lost")
                continue
            for piece in self._cut(answer.encode() + b"\r\n"):
                self.replies.feed(piece)
                exchange.hear()
        return exchange.result

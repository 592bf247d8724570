"""`make fuzz`: coverage-guided fuzzing of every grammar that strangers write to, by atheris.

`make fuzz ARGS="smtp 600"` tries one of them for ten minutes; without words each is tried for a minute. An input that
makes a grammar raise anything but its own errors is kept in `fuzz-findings/` and ends the run with its traceback.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

FINDINGS = Path(__file__).resolve().parents[2] / "fuzz-findings"

with atheris.instrument_imports(include=["services"]):
    from services.core.address import BadAddress, parse_path
    from services.core.mime.facts import facts
    from services.core.mime.headers import header_end, parse_fields
    from services.core.smtp.hooks import Answered
    from services.core.smtp.parameters import parse_mail, parse_rcpt
    from services.core.smtp.wire import Framer as SmtpFramer
    from services.core.smtp.wire import Line
    from services.filter.origin import arc, dkim, dmarc, key, signature, spf_record, tags
    from services.imap.feature import Registry
    from services.imap.features import FEATURES
    from services.imap.session import reply_to
    from services.imap.wire.cursor import Cursor
    from services.imap.wire.framer import Framer as ImapFramer
    from services.imap.wire.framer import NeedLiteral, Request
    from services.mxrouter import heard, mtasts
    from services.pop import wire as pop

COMMANDS = Registry(FEATURES).commands


def _cut(octets: bytes) -> list[bytes]:
    """The octets in packets whose sizes they say themselves."""
    packets, at = [], 0
    while at < len(octets):
        size = 1 + octets[at] % 61
        packets.append(octets[at : at + size])
        at += size
    return packets


def imap(octets: bytes) -> None:
    """Requests and the arguments of every command."""
    framer = ImapFramer(line_octets=4096, request_octets=4096)
    for packet in _cut(octets):
        framer.feed(packet)
        while (frame := framer.next()) is not None:
            if isinstance(frame, NeedLiteral):
                framer.accept()
            elif isinstance(frame, Request) and frame.name in COMMANDS:
                try:
                    COMMANDS[frame.name].parse(Cursor(frame))
                except Exception as error:
                    if reply_to(error) is None:
                        raise


def smtp(octets: bytes) -> None:
    """Command lines, DATA and BDAT as a server reads them."""
    framer = SmtpFramer()
    for packet in _cut(octets):
        framer.feed(packet)
        while (event := framer.take()) is not None:
            # What the server would read next is said by the line itself.
            if isinstance(event, Line) and event.octets.startswith(b"DATA"):
                framer.want_message(1000)
            elif isinstance(event, Line) and event.octets.startswith(b"BDAT"):
                framer.want_chunk(len(event.octets), keep=True)


def parameters(octets: bytes) -> None:
    """What follows MAIL and RCPT."""
    text = octets.decode("utf-8", "surrogateescape")
    with suppress(Answered, BadAddress):
        parse_mail("FROM:" + text, True, 1 << 20, tls=True)
    with suppress(Answered, BadAddress):
        parse_rcpt("TO:" + text, True, True, "posta.test")
    with suppress(BadAddress):
        parse_path(text)


def replies(octets: bytes) -> None:
    """What other servers answer."""
    framer = heard.Replies()
    with suppress(heard.NotSmtp):
        for packet in _cut(octets):
            framer.feed(packet)
            while framer.take() is not None:
                continue


def pop3(octets: bytes) -> None:
    """Lines of POP clients."""
    framer = pop.Framer()
    with suppress(pop.TooLong):
        for packet in _cut(octets):
            for line in framer.feed(packet):
                pop.parse(line)


def mime(octets: bytes) -> None:
    """Whole messages."""
    facts(octets)


def origin(octets: bytes) -> None:
    """Signatures, chains, policies and records of senders."""
    text = octets.decode("latin-1")
    for parse, errors in (
        (tags.parse, tags.BadTags),
        (signature.parse, signature.BadSignature),
        (key.parse, key.BadKey),
        (spf_record.parse, spf_record.BadRecord),
        (mtasts.parse, mtasts.BadPolicy),
    ):
        with suppress(errors):
            parse(text)
    fields, _ = parse_fields(octets, 0, header_end(octets, 0, len(octets)), 1000)
    dkim.signatures(octets, tuple(fields))
    dmarc.authors(octets, tuple(fields))
    with suppress(arc.BadChain):
        arc.chain(octets, tuple(fields))


TARGETS: tuple[Callable[[bytes], None], ...] = (imap, smtp, parameters, replies, pop3, mime, origin)


def main(words: list[str]) -> None:
    """One grammar for so many seconds in this process, or each in a process of its own."""
    named = {target.__name__: target for target in TARGETS}
    if not words:
        for name in named:
            done = subprocess.run([sys.executable, "-m", "tests.fuzz", name, "60"], check=False)
            if done.returncode:
                sys.exit(done.returncode)
        return
    name, seconds = words[0], words[1] if len(words) > 1 else "60"
    if name not in named or not seconds.isdigit():
        sys.exit(f"fuzz: expected one of {', '.join(named)} and a number of seconds")
    FINDINGS.mkdir(exist_ok=True)
    corpus = Path(__file__).parent / "corpus" / name
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={FINDINGS}/{name}-", "-timeout=10", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *flags, *([str(corpus)] if corpus.is_dir() else [])], named[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])

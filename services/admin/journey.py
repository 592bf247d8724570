"""`helm test`: a real message from submission to IMAP and POP, and what must be refused is.

Every step is a promise that an operator may rely on; each prints one line.
"""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid

from services.admin.clients import Failed, Way, addresses, ends, imap, pop, smtp
from services.core.settings import Probe

Say = Callable[[str], None]
_EICAR = ("X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*")  # apart, or scanners find us
_LOOK_S = 0.5


class Journey:
    """One run, as the user `login`."""

    def __init__(self, probe: Probe, way: Way, login: tuple[str, str], say: Say) -> None:
        self._probe, self._way, self._login, self._say = probe, way, login, say
        self._address = login[0]

    def run(self) -> None:
        """Every step in order. Raises `Failed` at the first that does not go as it must."""
        message = letter(self._address, "A message of helm test.\r\n")
        seen_as = self.submitted(message)
        self.arrived(message["Message-ID"], seen_as)
        self.popped(message["Message-ID"])
        self.refuses_a_virus()
        self.refuses_to_relay()
        self.tells_other_pods()
        if self._way.proxy:
            self.refuses_without_a_header()

    def submitted(self, message: EmailMessage) -> str:
        """Hand it in; the client address that must be recorded. Raises `Failed`."""
        seen_as, code, text = submit(self._probe, self._way, self._login, message)
        if code != 250:
            raise Failed(f"submission answered {code} {text}")
        self._say(f"submission took the message: {code} {text}")
        return seen_as

    def arrived(self, message_id: str, seen_as: str) -> None:
        """It is in INBOX, and its first Received line names the client's own address. Raises `Failed`."""
        fetched = wait_for(self._probe, self._way, self._login, message_id)
        received = fetched.partition(b"Received:")[2].partition(b"\r\nFrom:")[0].decode("latin-1")
        if seen_as not in received:
            raise Failed(f"the client was {seen_as}, recorded is: {' '.join(received.split())[:300]}")
        self._say(f"IMAP shows it, and the client address recorded is {seen_as}")

    def popped(self, message_id: str) -> None:
        """POP has it too. Raises `Failed`."""
        with pop(self._way.secured(*ends(self._probe.pop)), self._login) as client:
            count = client.stat()[0]
            heads = (b"\n".join(client.top(number, 0)[1]) for number in range(count, 0, -1))
            if not any(message_id.encode() in head for head in heads):
                raise Failed(f"POP has {count} messages, none of them {message_id}")
        self._say("POP shows it")

    def refuses_a_virus(self) -> None:
        """EICAR gets its 5xx inside the session. Raises `Failed`."""
        _, code, text = submit(self._probe, self._way, self._login, letter(self._address, "".join(_EICAR) + "\r\n"))
        if not 500 <= code <= 599:
            raise Failed(f"EICAR was answered {code} {text}")
        self._say(f"EICAR is refused: {code} {text}")

    def refuses_to_relay(self) -> None:
        """Nobody's mail for elsewhere is taken on port 25, wherever it comes from. Raises `Failed`."""
        if not self._probe.mx:
            return
        with smtp(self._way.connect(*ends(self._probe.mx))) as client:
            client.mail("")
            code, text = client.rcpt("somebody@elsewhere.invalid")
        if not 500 <= code <= 599:
            raise Failed(f"the MX took a recipient that is not ours: {code} {text!r}")
        self._say(f"the MX does not relay: {code} {text.decode('utf-8', 'replace')}")

    def tells_other_pods(self) -> None:
        """A flag that is set on one IMAP pod is seen by a session on another. Raises `Failed`."""
        _, port = ends(self._probe.imap)
        hosts = addresses(self._probe.imap)
        one, other = hosts[0], hosts[-1]
        with (
            imap(self._way.secured(one, port), self._login) as setting,
            imap(self._way.secured(other, port), self._login) as seeing,
        ):
            setting.store("1", "+FLAGS", r"(\Flagged)")
            deadline = time.monotonic() + self._probe.patience_s
            while b"\\Flagged" not in (_bytes(seeing.fetch("1", "(FLAGS)"))):
                if time.monotonic() > deadline:
                    raise Failed(f"a flag set on {one} is not seen on {other}")
                seeing.noop()
                time.sleep(_LOOK_S)
        where = f"on {other}, set on {one}" if one != other else f"in another session on {one}, the only pod"
        self._say(f"a flag is seen {where}")

    def refuses_without_a_header(self) -> None:
        """A trusted network that says no PROXY header is not served. Raises `Failed`."""
        bare = Way(self._way.server_name, self._way.ca, proxy=False, timeout_s=15.0)
        try:
            with smtp(bare.secured(*ends(self._probe.submission))):
                pass
        except (Failed, OSError):
            self._say("a connection without a PROXY header is refused")
            return
        raise Failed("a connection without a PROXY header was served")


def letter(address: str, body: str) -> EmailMessage:
    """A message from `address` to itself."""
    message = EmailMessage()
    message["From"] = message["To"] = address
    message["Subject"] = "Posta looks after itself"
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = make_msgid(domain=address.rpartition("@")[2])
    message.set_content(body)
    return message


def submit(probe: Probe, way: Way, login: tuple[str, str], message: EmailMessage) -> tuple[str, int, str]:
    """Hand in over implicit TLS: the address we are seen as, the last code and its text. Raises `Failed`."""
    try:
        sock = way.secured(*ends(probe.submission))
    except OSError as error:
        raise Failed(f"submission at {probe.submission}: {error}") from None
    seen_as = way.seen_as(sock)
    with smtp(sock) as client:
        client.login(*login)
        client.mail(login[0])
        client.rcpt(login[0])
        try:
            code, text = client.data(message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        except smtplib.SMTPDataError as error:
            code, text = error.smtp_code, error.smtp_error if isinstance(error.smtp_error, bytes) else b""
    return seen_as, code, text.decode("utf-8", "replace")


def wait_for(probe: Probe, way: Way, login: tuple[str, str], message_id: str) -> bytes:
    """The header of the message once INBOX has it. Raises `Failed` when patience ends."""
    deadline = time.monotonic() + probe.patience_s
    try:
        sock = way.secured(*ends(probe.imap))
    except OSError as error:
        raise Failed(f"IMAP at {probe.imap}: {error}") from None
    with imap(sock, login) as client:
        while not (found := client.search(None, "HEADER", "Message-ID", message_id)[1][0].split()):
            if time.monotonic() > deadline:
                raise Failed(f"{message_id} did not arrive within {probe.patience_s:g} s")
            time.sleep(_LOOK_S)
            client.noop()
        return _bytes(client.fetch(found[-1].decode(), "(BODY.PEEK[HEADER])"))


def tidy(probe: Probe, way: Way, login: tuple[str, str]) -> None:
    """Leave no message behind. Raises `Failed`."""
    try:
        sock = way.secured(*ends(probe.imap))
    except OSError as error:
        raise Failed(f"IMAP at {probe.imap}: {error}") from None
    with imap(sock, login) as client:
        client.store("1:*", "+FLAGS.SILENT", r"(\Deleted)")
        client.expunge()


def _bytes(answer: tuple[str, Sequence[object]]) -> bytes:
    flat = [part for each in answer[1] for part in (each if isinstance(each, tuple) else (each,))]
    return b" ".join(part for part in flat if isinstance(part, bytes))

"""`helm test`: a real message from submission to IMAP and POP, and what must be refused is.

Every step is a promise that an operator may rely on; each prints one line.
"""

from __future__ import annotations

import json
import re
import smtplib
import time
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from email.utils import format_datetime, localtime, make_msgid

from services.admin.clients import Api, Failed, Way, addresses, ends, imap, pop, smtp
from services.core.settings import Probe

Say = Callable[[str], None]
_EICAR = ("X5O!P%@AP[4\\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*")  # apart, or scanners find us
_GTUBE = ("XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X")
_HELD = re.compile(r"held for review, id (\S+)")
_KEPT = re.compile(r"kept as (\S+)")
_LOOK_S = 0.5


class Journey:
    """One run, as the user `login`; `api` shows what is held for review, where there is one."""

    def __init__(self, probe: Probe, way: Way, login: tuple[str, str], api: Api | None, say: Say) -> None:
        self._probe, self._way, self._login, self._api, self._say = probe, way, login, api, say
        self._address = login[0]

    def run(self) -> None:
        """Every step in order. Raises `Failed` at the first that does not go as it must."""
        message = letter(self._address, "A message of helm test.\r\n")
        seen_as = self.submitted(message)
        self.arrived(message["Message-ID"], seen_as)
        self.popped(message["Message-ID"])
        self.refuses_a_virus()
        self.judges_spam()
        self.refuses_to_relay()
        self.tells_other_pods()
        if self._way.proxy:
            self.refuses_without_a_header()

    def submitted(self, message: EmailMessage) -> str:
        """Hand it in; the client address that must be recorded. Raises `Failed`."""
        deadline = time.monotonic() + self._probe.patience_s
        while True:
            seen_as, code, text = submit(self._probe, self._way, self._login, message)
            # As a mail program does: pods that have only just come up may not have found each other.
            if not 400 <= code <= 499 or time.monotonic() > deadline:
                break
            self._say(f"submission answered {code} {text}, and is asked again")
            time.sleep(_LOOK_S)
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
        """EICAR gets its 5xx inside the session, or is held where the policy has it so. Raises `Failed`."""
        _, code, text = submit(self._probe, self._way, self._login, letter(self._address, "".join(_EICAR) + "\r\n"))
        # A domain may let the senders of held mail hear 250.
        kept = _KEPT.search(text) if code == 250 else None
        held = kept is not None and self._api is not None and self.is_held(kept[1])
        if not held and not 500 <= code <= 599:
            raise Failed(f"EICAR was answered {code} {text}")
        self._say(f"EICAR is {'held for review' if held else 'refused'}: {code} {text}")

    def judges_spam(self) -> None:
        """GTUBE is refused, held for review or put into Junk, whatever the policy says. Raises `Failed`."""
        message = letter(self._address, "".join(_GTUBE) + "\r\n")
        _, code, text = submit(self._probe, self._way, self._login, message)
        held, kept = _HELD.search(text), _KEPT.search(text)
        if code == 250:
            where = self.is_junk(message["Message-ID"], kept[1] if kept else "")
            self._say(f"GTUBE is in {where}: {code} {text}")
        elif not 500 <= code <= 599:
            raise Failed(f"GTUBE was answered {code} {text}")
        elif held is None:
            self._say(f"GTUBE is refused: {code} {text}")
        else:
            if self._api is not None and not self.is_held(held[1]):
                raise Failed(f"the admin API does not know {held[1]}, which the door said is held")
            self._say(f"GTUBE is held for review: {code} {text}")

    def is_held(self, spool_id: str) -> bool:
        """Whether the admin API shows it as held for us; it is settled then. Raises `Failed`."""
        assert self._api is not None
        status, text = self._api.ask("GET", f"/api/v1/quarantine/{spool_id}")
        if status == 404:
            return False
        if status != 200:
            raise Failed(f"the admin API answers {status} for {spool_id}")
        held = json.loads(text)
        if held["state"] != "held" or self._address not in [each["address"] for each in held["recipients"]]:
            raise Failed(f"{spool_id} is not held for {self._address}: {text[:300]}")
        self._api.ask("POST", f"/api/v1/quarantine/{spool_id}/delete")
        return True

    def is_junk(self, message_id: str, spool_id: str) -> str:
        """Where an accepted GTUBE went: Junk or quarantine. Raises `Failed` when it is in INBOX, or nowhere in time."""
        sock = self._way.secured(*ends(self._probe.imap))
        deadline = time.monotonic() + self._probe.patience_s
        with imap(sock, self._login) as client:
            while time.monotonic() < deadline:
                for folder in ("Junk", "INBOX"):
                    client.select(folder, readonly=True)
                    if client.search(None, "HEADER", "Message-ID", message_id)[1][0].split():
                        if folder == "INBOX":
                            raise Failed("GTUBE is in INBOX")
                        return folder
                if self._api is not None and self.is_held(spool_id):
                    return "quarantine"
                time.sleep(_LOOK_S)
        raise Failed(f"GTUBE was accepted as {spool_id}, and is neither in Junk nor in quarantine")

    def refuses_to_relay(self) -> None:
        """Nobody's mail for elsewhere is taken on port 25, wherever it comes from. Raises `Failed`."""
        if not self._probe.mx:
            return
        with smtp(self._way.connect(*ends(self._probe.mx))) as client:
            code, text = client.mail("")
            if code != 250:
                raise Failed(f"the MX does not listen to a sender: {code} {text!r}")
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
    """Hand in over implicit TLS: the address we are seen as, the deciding code and its text. Raises `Failed`."""
    try:
        sock = way.secured(*ends(probe.submission))
    except OSError as error:
        raise Failed(f"submission at {probe.submission}: {error}") from None
    seen_as = way.seen_as(sock)
    with smtp(sock) as client:
        client.login(*login)
        code, text = client.mail(login[0])
        if code == 250:
            code, text = client.rcpt(login[0])
        if code == 250:
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

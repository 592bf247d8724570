"""What people read in a message: text to search, a preview, the subject without its Re: and Fwd:."""

import html
import re
from typing import NamedTuple

from services.core.mime.addresses import Address, GroupStart, Mailbox
from services.core.mime.envelope import Letterhead, letterhead
from services.core.mime.params import param
from services.core.mime.section import decode_body
from services.core.mime.structure import Message, Part
from services.core.mime.words import clean, decode_8bit, decode_charset, decode_words, fold

SEARCH_LIMIT = 1 << 20
# Threads and sorting compare subjects; none that people tell apart is longer, and an index row must take it.
SUBJECT_LIMIT = 500

# What is not shown: comments, and elements whose content is not text.
_HIDDEN = re.compile(r"<(?:(!--)|(script|style|head|title)\b)", re.I)
_CLOSING = {name: re.compile(rf"</{name}\b", re.I) for name in ("script", "style", "head", "title")}
# The letters ahead spare most tags the twenty comparisons: six times as fast on pages.
_INLINE_TAG = re.compile(
    r"</?(?=[abcefimstuw])(?:a|abbr|b|big|code|em|font|i|mark|s|small|span|strong|sub|sup|tt|u|wbr)\b[^<>]*+>", re.I
)
_TAG = re.compile(r"<[!/?A-Za-z][^<>]*+>?")

_TRAILER = re.compile(r"(?:\s|\(fwd\))*+\Z", re.I)
_BLOB = re.compile(r"\[[^\[\]]*+\]\s*+")
_LEADER = re.compile(r"(?:\[[^\[\]]*+\]\s*+)*+(?:re|fwd?)\s*+(?:\[[^\[\]]*+\]\s*+)?:\s*+", re.I)


class Readable(NamedTuple):
    """The decoded text of one text part; markup gone if it was HTML."""

    text: str
    is_html: bool
    is_attachment: bool


def strip_html(markup: str) -> str:
    """The text of HTML: hidden elements, comments and tags gone, entities decoded. Linear in its length."""
    kept: list[str] = []
    pos = 0
    while (hidden := _HIDDEN.search(markup, pos)) is not None:
        kept.append(markup[pos : hidden.start()])
        if hidden[1]:
            end = markup.find("-->", hidden.end())
            pos = end + 3 if end >= 0 else hidden.end()
            if end < 0:
                break
        else:
            closing = _CLOSING[hidden[2].lower()].search(markup, hidden.end())
            if closing is None:  # never closed: a browser would hide the rest, a search should not
                pos = hidden.start()
                break
            pos = closing.start()
    kept.append(markup[pos:])
    text = _TAG.sub(" ", _INLINE_TAG.sub("", " ".join(kept)))
    return " ".join((html.unescape(text) if "&" in text else text).split())


def _readable(part: Part, data: bytes, limit: int) -> Readable:
    # Encoding and markup take room; text longer than the limit is cut somewhere in any case.
    raw = data[part.body_start : min(part.body_end, part.body_start + 2 * limit)]
    text = decode_charset(decode_body(raw, part.encoding), param(part.params, "charset"))
    is_html = part.subtype in ("html", "xhtml+xml")
    text = strip_html(text) if is_html else text.replace("\r\n", "\n")
    return Readable(text[:limit], is_html, part.disposition is not None and part.disposition.kind == "attachment")


def read_texts(msg: Message, data: bytes, limit: int = SEARCH_LIMIT) -> list[Readable]:
    """The text parts of a message and of those enclosed, in order: decoded, about `limit` characters in all."""
    out: list[Readable] = []
    waiting = [msg.root]
    while waiting and limit > 0:
        part = waiting.pop()
        if part.type == "text":
            out.append(_readable(part, data, limit))
            limit -= len(out[-1].text)
        else:
            waiting.extend(reversed(part.children))
    return out


def part_name(part: Part) -> str | None:
    """The file name of a part: of its disposition, else of its type."""
    if part.disposition is not None and part.disposition.params:
        name = param(part.disposition.params, "filename")
        if name:
            return name
    return param(part.params, "name") if part.params else None


def _part_names(part: Part) -> list[str]:
    names: list[str] = []
    waiting = [part]
    while waiting:
        part = waiting.pop()
        name = part_name(part)
        if name:
            names.append(name)
        waiting.extend(reversed(part.children))
    return names


def _written(address: Address) -> str:
    if isinstance(address, Mailbox):
        name, _, local, domain = address
        spec = decode_8bit(b"%b@%b" % (local, domain))
        return f"{decode_words(name)} {spec}" if name else spec
    return decode_words(address.name) if isinstance(address, GroupStart) else ""


def people(head: Letterhead) -> dict[bytes, str]:
    """The addresses of each address field there is as a person reads them: names decoded, groups named, casefolded."""
    return {
        name: clean(fold(", ".join([_written(address) for address in addresses])))
        for name, addresses in head.addresses.items()
    }


def search_lines(
    msg: Message, subject: str, head: Letterhead, names: dict[bytes, str], texts: list[Readable], limit: int
) -> str:
    """`search_text` from pieces that are there already; `names` are the `people` of `head`."""
    lines = [subject, *names.values()]
    for name in (b"message-id", b"list-id"):
        if name in head.values:
            lines.append(decode_words(head.values[name]))
    lines.extend(_part_names(msg.root))
    lines.extend([readable.text for readable in texts])
    return clean(fold("\n".join(lines)[:limit])[:limit])


def search_text(msg: Message, data: bytes, limit: int = SEARCH_LIMIT) -> str:
    """Everything in a message that a person would search for, casefolded, at most `limit` characters.

    Line by line: subject, addresses (From, Sender, Reply-To, To, Cc, Bcc) with names decoded, Message-ID, List-Id,
    names of attachments, then the text parts in order, HTML without its markup. `data` is what `msg` was parsed from.
    """
    head = letterhead(msg.root.fields, data)
    subject = decode_words(head.values.get(b"subject", b""))
    return search_lines(msg, subject, head, people(head), read_texts(msg, data, limit), limit)


def preview_of(texts: list[Readable], length: int = 200) -> str:
    """`preview` from texts that are there already."""
    shown = [readable for readable in texts if not readable.is_attachment]
    for wants_html in (False, True):
        for text, is_html, _ in shown:
            if is_html is wants_html:
                words = " ".join(text[: 2 * length].split())
                if len(words) < length < len(text):  # much white space; what is behind thousands of it is no preview
                    words = " ".join(text[: 50 * length].split())
                if words:
                    return clean(words[:length]).strip()
    return ""


def preview(msg: Message, data: bytes, length: int = 200) -> str:
    """The first `length` characters a reader would see, white space collapsed (RFC 8970): of the first plain text with
    any, else of the first HTML. `data` is what `msg` was parsed from."""
    return preview_of(read_texts(msg, data), length)


def base_subject(subject: str) -> str:
    """The base subject (RFC 5256 2.1) of a decoded subject, casefolded since it only serves to compare.

    Reads and returns at most `SUBJECT_LIMIT` characters.
    """
    text = " ".join(clean(subject[: 4 * SUBJECT_LIMIT]).split())[:SUBJECT_LIMIT]
    while True:
        trailer = _TRAILER.search(text)
        text = text[: trailer.start()] if trailer else text
        while True:
            leader = _LEADER.match(text)
            if leader is not None:
                text = text[leader.end() :]
                continue
            blob = _BLOB.match(text)
            if blob is None or blob.end() == len(text):  # step 4: never remove all there is
                break
            text = text[blob.end() :]
        # Step 6: "[fwd: ... ]"
        if not (text[:5].lower() == "[fwd:" and text.endswith("]")):
            return text.casefold()[:SUBJECT_LIMIT]
        text = text[5:-1].strip()

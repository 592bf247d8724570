"""Whatever a header or a zone says, each grammar gives a value or its own error: any other would hold mail up."""

from contextlib import suppress
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.dkim.canonical import Bodies
from services.core.mime.structure import parse as parse_message
from services.filter.origin import arc, covered, dkim, dmarc, key, signature, spf, spf_macros, spf_record, tags
from services.filter.origin.results import Result
from tests.unit.filter.origin.zone import Zone

WORDS = """v= spf1 DKIM1 1 ; = : / // . % { } %{d %{i1r-} - ~ all a mx ip4 ip6 include exists redirect exp ptr p b bh h
    from d s c l t x i q relaxed simple rsa-sha256 k cv none example.org AAAA 99999999999"""
PIECES = [*WORDS.split(), " ", "\r\n ", "\u00fc", "\x00"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=60)


@settings(max_examples=400, deadline=None)
@given(text=TEXT)
async def test_grammars(text: str) -> None:
    with suppress(tags.BadTags):
        tags.parse(text)
    with suppress(key.BadKey):
        key.parse(text)
    for isarc in (False, True):
        with suppress(signature.BadSignature):
            signature.parse(text, arc=isarc)
    with suppress(spf_record.BadRecord):
        for directive in spf_record.parse(f"v=spf1 {text}").directives:
            letters = spf_macros.values(ip_address("192.0.2.1"), "a@b.example", "b.example", "mx", "unknown")
            assert isinstance(spf_macros.expand(directive.domain, letters), str)


@settings(max_examples=200, deadline=None)
@given(text=TEXT, sender=st.text(max_size=30))
async def test_zones(text: str, sender: str) -> None:
    zone = Zone({"example.org": [f"TXT v=spf1 {text}"], "_dmarc.example.org": [f"TXT v=DMARC1; {text}"]})
    assert isinstance((await spf.check(zone, ip_address("192.0.2.1"), f"{sender}@example.org", sender)).result, Result)
    await dmarc.discover(zone, SUFFIXES, "example.org")
    await dkim.fetch(zone, text)


SUFFIXES = dmarc.Suffixes()
FIELD = st.sampled_from(
    ["DKIM-Signature", "ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results", "From", "Subject"]
)


@settings(max_examples=200, deadline=None)
@given(fields=st.lists(st.tuples(FIELD, TEXT), max_size=8), body=st.binary(max_size=40))
def test_messages(fields: list[tuple[str, str]], body: bytes) -> None:
    octets = "".join(f"{name}: {text}\r\n" for name, text in fields).encode() + b"\r\n" + body
    message = parse_message(octets)
    found = message.root.fields
    bodies = Bodies(octets, message.root.body_start)
    for one in dkim.signatures(octets, found):
        dkim.verify(octets, found, bodies, one, dkim.Outcome(Result.TEMPERROR, ""), 0)
        covered.unsigned(octets, one.field, "relaxed")
    with suppress(arc.BadChain):
        arc.chain(octets, found)
    assert all(name.isascii() for name in dmarc.authors(octets, found).domains)

"""The DNS records that a domain needs so that its mail comes here, and is believed elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, NamedTuple

from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT

from services.core.dkim import zone
from services.core.dkim.rotation import unshown
from services.core.dns import Dns, DnsError, NoSuchName
from services.core.store.dkim import ACTIVE, PUBLISHED, Key

# RFC 6761 and RFC 2606: no such name is ever in the public DNS.
_RESERVED = frozenset(("test", "example", "invalid", "localhost"))


class Record(NamedTuple):
    """How one record stands, and the line of a zone that would mend it."""

    state: Literal["ok", "note", "wrong"]
    says: str
    do: str = ""


def is_reserved(domain: str) -> bool:
    """Whether nobody outside can look the domain up, whatever a zone says."""
    return domain.rpartition(".")[2].lower() in _RESERVED


async def domain_records(dns: Dns, domain: str, host: str, keys: Sequence[Key]) -> list[Record]:
    """How MX, SPF, DKIM and DMARC of a domain stand whose mail `host` takes and signs with `keys`."""
    # Whether mail is signed is known even where the DNS says nothing.
    return [*await _shown(dns, domain, host, keys), *_unsigned(domain, keys)]


async def _shown(dns: Dns, domain: str, host: str, keys: Sequence[Key]) -> list[Record]:
    try:
        mx, spf = await _mx(dns, domain, host), await _spf(dns, domain)
        return [*mx, spf, *await _dkim(dns, domain, keys), await _dmarc(dns, domain)]
    except NoSuchName:
        return [Record("wrong", f"{domain} does not exist in the DNS", "register it and publish its zone")]
    except DnsError as error:
        return [Record("wrong", f"the DNS does not answer for {domain}: {error}", "see its name servers, or try again")]


def _unsigned(domain: str, keys: Sequence[Key]) -> list[Record]:
    if any(key.state == ACTIVE for key in keys):
        return []
    says = f"mail from {domain} is not signed, and doubted elsewhere: it has no active DKIM key"
    then = f"once its zone shows the records, `posta domain dkim activate {domain}`"
    if any(key.state == PUBLISHED for key in keys):
        return [Record("note", says, f"`posta domain dkim {domain}` shows the records of those that wait; {then}")]
    make = f"rotate {domain}" if keys else domain
    return [Record("note", says, f"`posta domain dkim {make}` makes a pair and shows its records; {then}")]


async def _mx(dns: Dns, domain: str, host: str) -> list[Record]:
    answer = await dns.query(domain, "MX")
    hosts = [each.exchange.to_text(omit_final_dot=True).lower() for each in answer.records if isinstance(each, MX)]
    line = f"{domain}. MX 10 {host}."
    if not hosts:
        return [Record("wrong", f"{domain} has no MX record: mail for it does not come here", line)]
    if hosts == [""] or hosts == ["."]:
        return [Record("wrong", f"{domain} says that it takes no mail (RFC 7505)", line)]
    found = [Record("ok", f"mail for {domain} goes to {', '.join(hosts)}")]
    if host.lower() not in hosts:
        says = f"mail for {domain} goes to {', '.join(hosts)}, and not to {host}"
        found = [Record("note", says, f"fine where one of them is a name of ours; else {line}")]
    for each in hosts:
        try:
            known = bool(await dns.addresses(each))
        except NoSuchName:
            known = False
        if not known:
            found.append(Record("wrong", f"{each}, an MX of {domain}, has no address", f"{each}. A <our address>"))
    return found


async def _spf(dns: Dns, domain: str) -> Record:
    found = [text for text in await _texts(dns, domain) if text.lower().split(" ")[0] == "v=spf1"]
    if len(found) > 1:
        # RFC 7208 4.5: permerror, as if there were a broken one.
        return Record("wrong", f"{domain} has {len(found)} SPF records: neither counts", "leave one of them")
    if not found:
        says = f"{domain} has no SPF record: its mail is doubted elsewhere"
        return Record("wrong", says, f'{domain}. TXT "v=spf1 mx -all"')
    return Record("ok", f"SPF of {domain}: {found[0]}")


async def _dkim(dns: Dns, domain: str, keys: Sequence[Key]) -> list[Record]:
    if not any(key.state == ACTIVE for key in keys):
        return []
    found = []
    for key, fault in zip(keys, await asyncio.gather(*(unshown(dns, key) for key in keys)), strict=True):
        name = zone.name(domain, key.selector)
        if not fault:
            found.append(Record("ok", f"DKIM of {domain}: {name} is shown ({key.state})"))
        elif key.state == ACTIVE:
            line = zone.line(domain, key.selector, key.algorithm, key.public_key)
            found.append(Record("wrong", f"mail from {domain} is signed in vain: {fault}", line))
    return found


async def _dmarc(dns: Dns, domain: str) -> Record:
    try:
        found = [text for text in await _texts(dns, f"_dmarc.{domain}") if text.startswith("v=DMARC1")]
    except NoSuchName:
        found = []
    if len(found) == 1:
        return Record("ok", f"DMARC of {domain}: {found[0]}")
    says = f"{domain} has {len(found)} DMARC records: anybody can write in its name" if found else ""
    do = f'_dmarc.{domain}. TXT "v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}"'
    return Record("note", says or f"{domain} has no DMARC record: anybody can write in its name", do)


async def _texts(dns: Dns, name: str) -> list[str]:
    answer = await dns.query(name, "TXT")
    return [b"".join(each.strings).decode("utf-8", "replace") for each in answer.records if isinstance(each, TXT)]

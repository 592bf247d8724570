"""What Thunderbird and Outlook are told, and what those are told who pretend to be them."""

from __future__ import annotations

from xml.etree import ElementTree

import httpx
import pytest

OUTLOOK = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
RESPONSE = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"
MOBILE = "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006"


def asking(address: str, schema: str = OUTLOOK) -> bytes:
    return (
        '<?xml version="1.0"?><Autodiscover xmlns="x"><Request>'
        f"<EMailAddress>{address}</EMailAddress><AcceptableResponseSchema>{schema}</AcceptableResponseSchema>"
        "</Request></Autodiscover>"
    ).encode()


@pytest.mark.parametrize("path", ["/mail/config-v1.1.xml", "/.well-known/autoconfig/mail/config-v1.1.xml"])
async def test_thunderbird_finds_the_doors(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, params={"emailaddress": "anyone@posta.test"}, headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/xml; charset=utf-8"
    provider = ElementTree.fromstring(answer.content)[0]
    assert (provider.get("id"), provider.findtext("domain")) == ("posta.test", "posta.test")
    doors = [
        (door.get("type"), door.findtext("hostname"), door.findtext("port"), door.findtext("socketType"))
        for door in provider
        if door.get("type")
    ]
    # RFC 8314 3: implicit TLS first; the port that is 0 in the settings is not told
    host = "mail.posta.test"
    assert doors == [
        ("imap", host, "2993", "SSL"), ("imap", host, "2143", "STARTTLS"), ("pop3", host, "995", "SSL"),
        ("smtp", host, "465", "SSL"), ("smtp", host, "2587", "STARTTLS"),
    ]  # fmt: skip
    assert {door.findtext("username") for door in provider if door.get("type")} == {"%EMAILADDRESS%"}


@pytest.mark.parametrize(
    ("host", "domain"),
    [("autoconfig.posta.test", "posta.test"), ("autoconfig.Posta.Test:2080", "posta.test"), ("x.test", "x.test")],
)
async def test_without_an_address_the_host_tells_the_domain(client: httpx.AsyncClient, host: str, domain: str) -> None:
    answer = await client.get("/mail/config-v1.1.xml", headers={"Host": host})
    assert ElementTree.fromstring(answer.content)[0].get("id") == domain


@pytest.mark.parametrize("host", ["[::1", "a b", "-", "<script>", ""])
@pytest.mark.parametrize("address", ["", 'x@"><script>', "x@\x00.test", "x@" + "a" * 300])
async def test_what_is_no_domain_gets_a_400(client: httpx.AsyncClient, host: str, address: str) -> None:
    answer = await client.get("/mail/config-v1.1.xml", params={"emailaddress": address}, headers={"Host": host})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["/autodiscover/autodiscover.xml", "/Autodiscover/Autodiscover.xml"])
async def test_outlook_finds_the_best_door_of_each_kind(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, content=asking("o&apos;neil@posta.test"))
    assert answer.headers["content-type"] == "text/xml; charset=utf-8"
    protocols = ElementTree.fromstring(answer.content).findall(f".//{{{OUTLOOK}}}Protocol")
    told = [{child.tag.removeprefix(f"{{{OUTLOOK}}}"): child.text for child in each} for each in protocols]
    assert [(each["Type"], each["Port"], each["Encryption"]) for each in told] == [
        ("IMAP", "2993", "SSL"),
        ("POP3", "995", "SSL"),
        ("SMTP", "465", "SSL"),
    ]
    assert {each["LoginName"] for each in told} == {"o'neil@posta.test"}


BOMB = b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + asking("&b;&b;")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "600"),
        (b"\xff\xfe\x00", "600"),
        (asking("nobody"), "600"),
        (asking("a@b.test&#0;"), "600"),
        (BOMB, "600"),
        (asking("alice@posta.test") + b" " * 20_000, "600"),
        (asking("alice@posta.test", MOBILE), "601"),
    ],
)
async def test_outlook_is_told_what_it_did_wrong(client: httpx.AsyncClient, body: bytes, code: str) -> None:
    answer = await client.post("/autodiscover/autodiscover.xml", content=body)
    assert answer.status_code == 200
    error = ElementTree.fromstring(answer.content).find(f".//{{{RESPONSE}}}Error")
    assert error is not None
    assert error.findtext(f"{{{RESPONSE}}}ErrorCode") == code
    assert error.get("Time")


async def test_newer_outlooks_are_sent_to_the_older_answer(client: httpx.AsyncClient) -> None:
    path = "/autodiscover/autodiscover.json/v1.0/alice@posta.test"
    answer = await client.get(path, params={"Protocol": "AutodiscoverV1"})
    assert answer.json() == {"Protocol": "AutodiscoverV1", "Url": "http://sync.test/autodiscover/autodiscover.xml"}
    other = await client.get(path, params={"Protocol": "ActiveSync"})
    assert (other.status_code, other.json()["ErrorCode"]) == (400, "ProtocolNotSupported")
    none = await client.get("/autodiscover/autodiscover.json")
    assert (none.status_code, none.json()["ErrorCode"]) == (400, "MandatoryParameterMissing")

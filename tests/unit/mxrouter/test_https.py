"""Web servers that strangers name: where they may be, and who they must be."""

from __future__ import annotations

import pytest

from services.mxrouter.https import Https, HttpsError
from services.mxrouter.resolve import Resolver
from services.mxrouter.security import trusting
from tests.unit.mxrouter.web import Web
from tests.unit.mxrouter.world import World


@pytest.mark.parametrize(
    "host",
    [
        *("inside.far.test", "127.0.0.4", "[::1]", "[::ffff:127.0.0.4]", "0.0.0.0", "[::]", "10.1.2.3", "192.168.1.1"),
        *(
            "172.16.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "224.0.0.1",
            "[fe80::1]",
            "[::ffff:100.64.0.1]",
            "[64:ff9b::a00:1]",
            "[2002:7f00:1::1]",
            "[::127.0.0.1]",
            "[fd00::1]",
            "255.255.255.255",
        ),
    ],
)
async def test_nobody_has_us_talk_to_what_only_we_can_reach(world: World, host: str) -> None:
    files, tls = world.certificate("inside.far.test", "127.0.0.4")
    web = await Web.at("127.0.0.4", tls, world)
    world.zone("far.test", "inside IN A 127.0.0.4\ninside IN AAAA ::ffff:127.0.0.4\ninside IN A 10.0.0.1\n")
    asks = Https(Resolver(world.dns, ()), trusting(files.ca), timeout_s=3.0)

    with pytest.raises(HttpsError, match="has no public address"):
        await asks.get(f"https://{host}:{web.port}/", 100)
    assert web.asked == []
    # A setting says that it may be.
    allowed = Https(Resolver(world.dns, ()), trusting(files.ca), timeout_s=3.0, private=True)
    if host in ("inside.far.test", "127.0.0.4"):
        assert (await allowed.get(f"https://{host}:{web.port}/", 100)).status == 200


async def test_who_has_proven_one_name_has_not_proven_another(world: World) -> None:
    files, tls = world.certificate("one.far.test")
    web = await Web.at("127.0.0.4", tls, world)
    web.keeps = True
    world.zone("far.test", "one IN A 127.0.0.4\nother IN A 127.0.0.4\n")
    asks = Https(Resolver(world.dns, ()), trusting(files.ca), timeout_s=3.0, private=True)

    assert (await asks.get(f"https://one.far.test:{web.port}/", 100)).status == 200
    with pytest.raises(HttpsError) as refused:
        await asks.get(f"https://other.far.test:{web.port}/", 100)
    assert refused.value.untrusted
    assert len(web.asked) == 1


async def test_no_more_is_read_than_was_asked_for(world: World) -> None:
    files, tls = world.certificate("one.far.test")
    web = await Web.at("127.0.0.4", tls, world)
    web.body = "x" * (8 << 20)
    world.zone("far.test", "one IN A 127.0.0.4\n")
    asks = Https(Resolver(world.dns, ()), trusting(files.ca), timeout_s=3.0, private=True)

    assert 1000 < len((await asks.get(f"https://one.far.test:{web.port}/", 1000)).octets) < 1 << 20
    for wrong in ("http://one.far.test/", "https://one.far.test:x/", "https:///"):
        with pytest.raises(HttpsError):
            await asks.get(wrong, 100)

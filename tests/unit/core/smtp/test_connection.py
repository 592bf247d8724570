"""Timeouts, backpressure, drain, and peers that leave."""

import asyncio
from typing import Any

from services.core.smtp.options import Timeouts


async def test_a_silent_peer_hears_421_and_is_gone(meet: Any, door: Any) -> None:
    peer = meet(timeouts=Timeouts(command_s=0.02))
    await peer.begin()
    assert (await peer.hear())[0].startswith("421 4.4.2")
    await peer.ended()
    assert door.disconnected == 1


async def test_a_message_that_stops_coming_is_given_up(meet: Any, door: Any) -> None:
    peer = meet(timeouts=Timeouts(block_s=0.02))
    await peer.enter()
    await peer.say(b"DATA\r\n")
    peer.feed(b"half a mess")
    assert (await peer.hear())[0].startswith("421 4.4.2")
    await peer.ended()
    assert door.messages == []


async def test_a_line_dripped_octet_by_octet_has_the_time_of_one_line(meet: Any) -> None:
    peer = meet(timeouts=Timeouts(command_s=0.05))
    await peer.begin()
    while not peer.pipe.closed:
        peer.feed(b"N")
        await asyncio.sleep(0.005)
    assert (await peer.hear())[0].startswith("421 4.4.2")


async def test_noop_does_not_keep_a_useless_session_alive(meet: Any) -> None:
    peer = meet(timeouts=Timeouts(command_s=5, idle_s=0.1))
    await peer.begin()
    heard = ""
    while not heard.startswith("421"):
        heard = await peer.say(b"NOOP\r\n")
        await asyncio.sleep(0.01)
    assert heard.startswith("421 4.4.2")


async def test_a_slow_hook_is_no_silence_of_the_peer(meet: Any, door: Any) -> None:
    peer = meet(timeouts=Timeouts(command_s=0.03, block_s=0.03))
    await peer.enter()
    door.go_on.clear()
    await peer.say(b"DATA\r\n")
    peer.feed(b"x\r\n.\r\n")
    await door.in_data.wait()
    asyncio.get_running_loop().call_later(0.1, door.go_on.set)
    assert (await peer.hear())[0].startswith("250")


async def test_drain_ends_idle_sessions_at_once(meet: Any) -> None:
    peer = meet()
    await peer.enter()
    peer.connection.drain()
    assert (await peer.hear())[0].startswith("421 4.3.2")
    await peer.ended()


async def test_drain_waits_for_the_message_and_its_reply(meet: Any, door: Any) -> None:
    peer = meet()
    await peer.enter()
    door.go_on.clear()
    await peer.say(b"DATA\r\n")
    peer.feed(b"x\r\n")
    peer.connection.drain()
    peer.feed(b".\r\n")
    await door.in_data.wait()
    door.go_on.set()
    assert [reply[:9] for reply in await peer.hear(2)] == ["250 2.0.0", "421 4.3.2"]
    await peer.ended()
    assert len(door.messages) == 1


async def test_drain_waits_between_chunks(meet: Any, door: Any) -> None:
    peer = meet()
    await peer.enter()
    await peer.say(b"BDAT 3\r\na\r\n")
    peer.connection.drain()
    assert [reply[:9] for reply in (peer.feed(b"BDAT 0 LAST\r\n"), await peer.hear(2))[1]] == ["250 2.0.0", "421 4.3.2"]
    assert len(door.messages) == 1


async def test_a_peer_lost_during_the_hook_does_not_undo_it(meet: Any, door: Any) -> None:
    peer = meet()
    await peer.enter()
    door.go_on.clear()
    await peer.say(b"DATA\r\n")
    peer.feed(b"x\r\n.\r\nMAIL FROM:<>\r\n")
    await door.in_data.wait()
    peer.connection.connection_lost(ConnectionResetError())
    door.go_on.set()
    await peer.task
    assert len(door.messages) == 1
    assert door.disconnected == 1


async def test_what_was_pipelined_before_the_end_of_input_is_answered(peer: Any, door: Any) -> None:
    peer.feed(b"MAIL FROM:<>\r\nRCPT TO:<bob@posta.test>\r\nBDAT 3 LAST\r\na\r\nNOOP\r\n")
    assert peer.connection.eof_received() is True
    assert [reply[:3] for reply in await peer.hear(4)] == ["250"] * 4
    await peer.ended()
    assert len(door.messages) == 1


async def test_half_a_message_at_the_end_of_input_is_no_message(meet: Any, door: Any) -> None:
    peer = meet()
    await peer.enter()
    await peer.say(b"DATA\r\n")
    peer.feed(b"x\r\n.\r")
    peer.connection.eof_received()
    await peer.ended()
    assert door.messages == []


async def test_a_peer_that_sends_far_ahead_is_made_to_wait(meet: Any, door: Any) -> None:
    peer = meet()
    await peer.enter()
    door.go_on.clear()
    await peer.say(b"DATA\r\n")
    peer.feed(b"x\r\n.\r\n")
    await door.in_data.wait()
    for _ in range(100):
        peer.feed(b"NOOP\r\n" * 1000)
        if not peer.pipe.reading:
            break
    assert not peer.pipe.reading
    sent = 6 * 1000 * (_ + 1)
    assert sent < 300_000
    door.go_on.set()
    heard = await peer.hear(1 + sent // 6)
    assert heard[-1] == "250 2.0.0 OK"
    await peer.say(b"NOOP\r\n")
    assert peer.pipe.reading


async def test_a_peer_that_does_not_read_is_not_written_to(meet: Any) -> None:
    peer = meet(timeouts=Timeouts(block_s=0.05))
    await peer.begin()
    peer.connection.pause_writing()
    peer.feed(b"NOOP\r\n")
    await asyncio.sleep(0)
    peer.connection.resume_writing()
    assert await peer.hear() == ["250 2.0.0 OK"]
    peer.connection.pause_writing()
    peer.feed(b"NOOP\r\n" * 1000)
    await peer.ended()
    assert sum(map(len, peer.pipe.writes)) < 1000

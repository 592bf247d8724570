"""Questions to a server on this machine: is it ready?"""

import asyncio
import json

HOST = "127.0.0.1"
PATIENCE_S = 3.0


async def readyz(port: int) -> str:
    """Why the service with this health port is not ready, empty when it is."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
    except TimeoutError:
        return f"/readyz does not answer within {PATIENCE_S:g} s"
    except OSError:
        return "not listening"
    if b" 200 " in head.split(b"\r\n", 1)[0]:
        return ""
    return "; ".join(body.decode("utf-8", "replace").split("\n")).strip("; ") or "not ready"


async def rspamd(port: int) -> str:
    """Why the rspamd worker on this port does not take messages, empty when it does."""
    return await _says(port, b"GET /ping HTTP/1.0\r\n\r\n", b"pong")


async def clamd(port: int) -> str:
    """Why the clamd on this port does not take messages, empty when it does."""
    return await _says(port, b"zPING\0", b"PONG")


async def _says(port: int, question: bytes, word: bytes) -> str:
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(question)
                answer = await reader.read(65536)
            finally:
                writer.close()
    except TimeoutError:
        return f"does not answer within {PATIENCE_S:g} s"
    except OSError:
        return "not listening"
    return "" if word in answer else "not ready"


async def nats(port: int) -> str:
    """Why the NATS server on this port does not take work, empty when it does and JetStream is on."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                greeting = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return f"no greeting within {PATIENCE_S:g} s"
    except OSError:
        return "not listening"
    word, _, facts = greeting.partition(b" ")
    try:
        ready = word == b"INFO" and bool(json.loads(facts).get("jetstream"))
    except ValueError:
        ready = False
    return "" if ready else "no JetStream yet"


# Id 1, recursion desired, one question: localhost. IN A
_QUESTION = b"\0\1\1\0\0\1" + bytes(6) + b"\x09localhost\0\0\1\0\1"


async def dns(port: int) -> str:
    """Why the name server on this port does not answer, empty when it does."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(len(_QUESTION).to_bytes(2) + _QUESTION)
                answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            finally:
                writer.close()
    except TimeoutError:
        return f"no answer within {PATIENCE_S:g} s"
    except (OSError, asyncio.IncompleteReadError):
        return "not listening"
    return "" if answer.startswith(_QUESTION[:2]) else "it does not speak DNS"

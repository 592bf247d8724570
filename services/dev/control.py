"""How a verb talks to the platform that runs in a home: one JSON line each way over a Unix socket."""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from services.dev.home import Home
from services.dev.trouble import Trouble

SOCKET = "control"
LONGEST_LINE = 1 << 20
Answer = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


async def serve(home: Home, answer: Answer) -> asyncio.Server:
    """Listen for verbs; each gets `answer(verb, arguments)`, a Trouble becomes {"error": line}.

    Only the owner of the home can reach the socket.
    """

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(await reader.readline())
            try:
                said = await answer(asked.pop("do"), asked)
            except Trouble as trouble:
                said = {"error": str(trouble)}
            writer.write(json.dumps(said).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, KeyError, AttributeError):
            # A caller that went away or speaks something else is owed nothing.
            return
        finally:
            writer.close()

    path = home.socket(SOCKET)
    # Whoever holds the home's lock owns the name: a file that is still there is a dead platform's.
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(one, path, limit=LONGEST_LINE)
    os.chmod(path, 0o600)
    return server


def close(home: Home, server: asyncio.Server) -> None:
    """Stop listening and take the socket away."""
    server.close()
    with suppress(OSError, Trouble):
        home.socket(SOCKET).unlink(missing_ok=True)


def ask(home: Home, verb: str, timeout_s: float = 60.0, **arguments: str) -> dict[str, Any]:
    """The running platform's answer. Raises Trouble where none runs in this home, or with what it refuses."""
    if not home.is_held():
        raise Trouble(f"posta is not running in {home.root}: `posta up` starts it")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(timeout_s)
            line.connect(str(home.socket(SOCKET)))
            line.sendall(json.dumps({"do": verb, **arguments}).encode() + b"\n")
            with line.makefile("rb") as answers:
                said = json.loads(answers.readline(LONGEST_LINE))
    except (OSError, ValueError) as error:
        pid = home.last_state().get("pid", "unknown")
        raise Trouble(
            f"the platform in {home.root} (pid {pid}) does not answer: {error or type(error).__name__}"
        ) from None
    if not isinstance(said, dict):
        raise Trouble(f"the platform in {home.root} answers nonsense")
    if "error" in said:
        raise Trouble(str(said["error"]))
    return said

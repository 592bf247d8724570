"""How much a request may bring, checked before anything of it is looked at."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.sync.problems import problem


class BodyLimit:
    """Refuses bodies of more than `octets` with 413, whether they say their length or not.

    The application would otherwise hold all of one in memory before it asks who sent it.
    """

    def __init__(self, app: ASGIApp, octets: int) -> None:
        self._app, self._octets = app, octets
        self._detail = f"A request may have at most {octets} octets"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._octets:
            await problem(413, self._detail, {"Connection": "close"})(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._octets:
                raise HTTPException(413, self._detail, {"Connection": "close"})
            return message

        await self._app(scope, counted, send)

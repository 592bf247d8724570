"""Who may use the admin API, and for what: everything for the platform's token, some domains for the others."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from services.core.auth.login import AuthThrottled, network_of
from services.core.auth.throttle import Throttle, keys_of
from services.core.settings import Login as Limits
from services.core.store import tokens
from services.core.store.engine import Store, StoreUnavailable
from services.core.telemetry import Logger
from services.sync.reach import Reach, keeps_within

_bearer = HTTPBearer(auto_error=False)
_LOOKS = ("GET", "HEAD")
_TOLD = ("domain", "domains", "address", "targets", "name", "sender", "recipient", "host", "spool_ids")


class Guard:
    """One per process. `admit` is the one dependency of every route of the admin API."""

    def __init__(
        self,
        store: Store,
        platform: SecretStr | None,
        limits: Limits,
        log: Logger,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`platform`: the token that is good for everything; without one nobody has it. `limits`: as for logins."""
        self._store, self._platform, self._log = store, platform, log
        self._throttle = Throttle(store, limits, sleep)

    async def admit(
        self, request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> AsyncIterator[None]:
        """Let the bearer in as far as the token reaches, and tell the log of what was changed.

        401: no token, or a wrong one, which is slowed as a failed login is (429 where too many wait). 403: the route
        is the platform's.
        """
        shown = credentials.credentials if credentials else ""
        reach = await self._reach(shown) if shown else None
        if reach is None:
            if shown:
                await self._slow(request.client.host if request.client else "")
            raise HTTPException(401, "A valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
        route: APIRoute = request.scope["route"]
        if reach.domains is not None and not keeps_within(route.dependant):
            raise HTTPException(403, "This is for the platform's own token")
        request.state.reach = reach
        yield  # to the handler; what it refuses is raised here
        if request.method not in _LOOKS:
            facts = {"method": request.method, "path": request.url.path, "query": request.url.query}
            self._log.info("changed", token=reach.token, **facts, **await _named(request, route))

    async def _reach(self, shown: str) -> Reach | None:
        platform = self._platform.get_secret_value() if self._platform else ""
        if platform and secrets.compare_digest(shown.encode(), platform.encode()):
            return Reach(tokens.PLATFORM, None)
        async with self._store.query("admin.bearer") as conn:
            found = await tokens.bearer(conn, shown)
        if found is None:
            return None
        with suppress(StoreUnavailable):  # a standby has answered above; it is not worth a refusal
            async with self._store.query("admin.used") as conn:
                await tokens.used(conn, found.name)
        return Reach(found.name, list(found.domains))

    async def _slow(self, client: str) -> None:
        """Let a wrong token wait before it hears so. Right ones do not: nobody finds one by trying."""
        network = network_of(client)
        counted = keys_of(f"admin token from {network}", network)
        with self._throttle.attempt(counted):
            try:
                await self._throttle.wait(counted)
            except AuthThrottled as error:
                wait = {"Retry-After": str(int(error.retry_s) + 1)}
                raise HTTPException(429, "Too many wrong tokens", wait) from error
            await self._throttle.failed(counted)


async def _named(request: Request, route: APIRoute) -> dict[str, Any]:
    """What the body says of what was changed, without anything secret."""
    if route.body_field is None:
        return {}
    body = json.loads(await request.body() or b"{}")
    return {name: body[name] for name in _TOLD if name in body}

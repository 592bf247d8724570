"""Our MTA-STS policy (RFC 8461 3.2): other servers learn from it that mail for us goes by TLS, and to which hosts."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Response

from services.core.settings import Sync

# RFC 8461 3.2 wants weeks or more; in testing, what is wrong is to be forgotten within a day.
_AGES_S: Final = {"none": 86_400, "testing": 86_400, "enforce": 30 * 86_400}


def policy(settings: Sync, hostname: str) -> str:
    """The document; empty where none is to be told."""
    if not settings.mta_sts:
        return ""
    hosts = settings.mta_sts_mx or (settings.public_hostname or hostname,)
    lines = ("version: STSv1", f"mode: {settings.mta_sts}", *(f"mx: {host}" for host in hosts))
    return "".join(f"{line}\r\n" for line in (*lines, f"max_age: {_AGES_S[settings.mta_sts]}"))


def router(settings: Sync, hostname: str) -> APIRouter:
    """The well-known address, whichever domain's `mta-sts` name led to it: one set of MX hosts serves them all."""
    routes, text = APIRouter(tags=["MTA-STS"]), policy(settings, hostname)

    @routes.get("/.well-known/mta-sts.txt", response_class=Response)
    async def mta_sts() -> Response:
        return Response(text or "no policy\n", 200 if text else 404, media_type="text/plain")

    return routes

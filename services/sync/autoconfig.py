"""The addresses at which clients look for their settings."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import unescape

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from services.core.address import BadAddress, domain, parse
from services.sync.doors import Door, autoconfig, autodiscover, autodiscover_error
from services.sync.problems import Problem

_XML = "application/xml; charset=utf-8"
_POX = "text/xml; charset=utf-8"
# The fields that matter, found without an XML parser: the document comes from anybody.
_EMAIL = re.compile(r"<(?:\w+:)?EMailAddress>\s*([^<>\s]{3,320})\s*</", re.IGNORECASE)
_WANTED = re.compile(r"<(?:\w+:)?AcceptableResponseSchema>\s*([^<>\s]{1,200})\s*</", re.IGNORECASE)
_OUTLOOK = "/outlook/responseschema/"
_BODY_LIMIT = 16_384


def router(found: tuple[Door, ...]) -> APIRouter:
    """Thunderbird's and Outlook's well-known addresses."""
    routes = APIRouter(tags=["client setup"], responses={422: {"model": Problem}})

    @routes.get("/mail/config-v1.1.xml")
    @routes.get("/.well-known/autoconfig/mail/config-v1.1.xml")
    async def thunderbird(request: Request, emailaddress: str = "") -> Response:
        asked = emailaddress.rpartition("@")[2] or _host(request).removeprefix("autoconfig.")
        try:
            return Response(autoconfig(found, domain(asked)), media_type=_XML)
        except BadAddress as error:
            return Response(f"{error}\n", 400, media_type="text/plain; charset=utf-8")

    # Outlook's paths match whatever their case is.
    @routes.post("/autodiscover/autodiscover.xml")
    @routes.post("/Autodiscover/Autodiscover.xml", include_in_schema=False)
    @routes.post("/AutoDiscover/AutoDiscover.xml", include_in_schema=False)
    async def outlook(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _BODY_LIMIT:
                break
        return Response(_pox(found, body, datetime.now(UTC)), media_type=_POX)

    @routes.get("/autodiscover/autodiscover.json")
    @routes.get("/autodiscover/autodiscover.json/v1.0/{address}")
    async def outlook_json(request: Request, address: str = "") -> Response:
        protocol = request.query_params.get("Protocol", "")
        if protocol.lower() == "autodiscoverv1":
            url = f"{request.url.scheme}://{request.headers.get('host', '')}/autodiscover/autodiscover.xml"
            return JSONResponse({"Protocol": "AutodiscoverV1", "Url": url})
        code = "ProtocolNotSupported" if protocol else "MandatoryParameterMissing"
        return JSONResponse(
            {"ErrorCode": code, "ErrorMessage": f"Protocol {protocol[:64] or 'is missing'}"}, status_code=400
        )

    return routes


def _pox(found: tuple[Door, ...], body: bytes, now: datetime) -> bytes:
    text = body.decode("utf-8", "replace")
    asked, wanted = _EMAIL.search(text), _WANTED.search(text)
    if asked is None or len(body) > _BODY_LIMIT:
        return autodiscover_error(600, "Invalid Request", now)
    if wanted is not None and _OUTLOOK not in wanted[1].lower():
        # ActiveSync asks at the same address and would take an answer for Outlook as its own.
        return autodiscover_error(601, "Provider is not available", now)
    try:
        return autodiscover(found, str(parse(unescape(asked[1]))))
    except BadAddress:
        return autodiscover_error(600, "Invalid Request", now)


def _host(request: Request) -> str:
    # Not `request.url.hostname`, which raises on what some send as Host.
    host = request.headers.get("host", "")
    return host if host.startswith("[") else host.partition(":")[0]

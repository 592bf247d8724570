"""Errors as `application/problem+json` (RFC 9457): one table from domain errors to status codes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from services.core.address import BadAddress
from services.core.auth.passwords import BadPassword
from services.core.bus import BusUnavailable
from services.core.dkim.keys import KeyUnusable
from services.core.dkim.rotation import RotationRefused
from services.core.journeys import NoSuchJourney
from services.core.seal import NoSeal, Unopened
from services.core.store.accounts import AlreadyExists, InUse, NoSuchAccount, NoSuchAddress, NoSuchDomain
from services.core.store.credentials import NoSuchCredential
from services.core.store.engine import StoreUnavailable
from services.core.store.quarantine import NoSuchMessage
from services.core.store.queued import NotQueued
from services.core.store.routes import BadRule, NoSuchRule
from services.core.store.tokens import BadToken, NoSuchToken
from services.core.telemetry import logger

_STATUS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (BadAddress, HTTPStatus.UNPROCESSABLE_ENTITY),
    (BadPassword, HTTPStatus.UNPROCESSABLE_ENTITY),
    (BadRule, HTTPStatus.UNPROCESSABLE_ENTITY),
    (BadToken, HTTPStatus.UNPROCESSABLE_ENTITY),
    (KeyUnusable, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NoSuchAccount, HTTPStatus.NOT_FOUND),
    (NoSuchDomain, HTTPStatus.NOT_FOUND),
    (NoSuchAddress, HTTPStatus.NOT_FOUND),
    (NoSuchCredential, HTTPStatus.NOT_FOUND),
    (NoSuchRule, HTTPStatus.NOT_FOUND),
    (NoSuchToken, HTTPStatus.NOT_FOUND),
    (NoSuchJourney, HTTPStatus.NOT_FOUND),
    (NotQueued, HTTPStatus.NOT_FOUND),
    (NoSuchMessage, HTTPStatus.NOT_FOUND),
    (AlreadyExists, HTTPStatus.CONFLICT),
    (InUse, HTTPStatus.CONFLICT),
    (RotationRefused, HTTPStatus.CONFLICT),
    (NoSeal, HTTPStatus.CONFLICT),
    (Unopened, HTTPStatus.CONFLICT),
    (BusUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Problem(BaseModel):
    """An RFC 9457 problem, sent as `application/problem+json`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: object) -> JSONResponse:
    """One problem document."""
    status = HTTPStatus(status)
    return JSONResponse(
        {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail, **more},
        status_code=int(status),
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )


async def _domain_error(_request: Request, error: Exception) -> JSONResponse:
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    away = status == HTTPStatus.SERVICE_UNAVAILABLE
    what = "mail store" if isinstance(error, StoreUnavailable) else "message bus"
    detail, headers = (f"The {what} cannot be reached", {"Retry-After": "10"}) if away else (str(error), None)
    return problem(status, detail or status.phrase, headers)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    # What it was is for the log: it may hold what the asker should not see.
    logger("sync").error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here, and has been logged")


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return problem(error.status_code, str(error.detail), error.headers)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    wrong = [{"field": ".".join(str(part) for part in e["loc"]), "reason": e["msg"]} for e in error.errors()]
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "The request is not of the expected form", errors=wrong)


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document."""
    for kind, _ in _STATUS:
        app.add_exception_handler(kind, _domain_error)
    app.add_exception_handler(Exception, _unexpected)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)

"""The HTTP application: one tuple of protocols, each a router."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from services.sync import problems
from services.sync.limits import BodyLimit

BODY_LIMIT = 1 << 20


def application(protocols: tuple[APIRouter, ...]) -> FastAPI:
    """Everything under one roof; OpenAPI at `/openapi.json`, for people at `/docs`."""
    app = FastAPI(title="Posta", version="1", redoc_url=None)
    problems.install(app)
    app.add_middleware(BodyLimit, octets=BODY_LIMIT)
    for protocol in protocols:
        app.include_router(protocol)
    return app

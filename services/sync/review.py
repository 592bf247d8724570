"""Where a digest's link leads: a page that shows one held message, and a button that releases it."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from services.core import passes
from services.core.review import VIRUS, Review
from services.core.store import quarantine
from services.core.store.engine import Store
from services.core.store.quarantine import Addressee, NoSuchMessage, Shown

# The page has no scripts, loads nothing, and tells no other site where it was reached.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Cache-Control": "no-store",
}
_STYLE = "body{font:16px/1.5 sans-serif;margin:3em auto;max-width:40em;padding:0 1em}dt{font-weight:bold}"
_GONE = "This link is not good any more: the message has expired, or the link was not copied whole."
_SETTLED = {
    "released": "The message has been released. It is in your inbox, or will be in a moment.",
    "deleted": "The message has been deleted.",
    "expired": "The message has expired.",
}


def router(store: Store, review: Review) -> APIRouter:
    """The pages under `/quarantine`. GET changes nothing: programs that look at links in mail release nothing."""
    pages = APIRouter(prefix="/quarantine", include_in_schema=False)

    @pages.get("/{word}")
    async def look(word: str) -> HTMLResponse:
        found = await _found(store, word)
        if found is None:
            return _page(_GONE, status=HTTPStatus.NOT_FOUND)
        message, recipient = found
        if recipient.state != "held":
            return _page(_SETTLED[recipient.state])
        return _page("This message is held for you.", _facts(message, recipient) + _button(message))

    @pages.post("/{word}")
    async def release(word: str) -> HTMLResponse:
        found = await _found(store, word)
        if found is None:
            return _page(_GONE, status=HTTPStatus.NOT_FOUND)
        message, recipient = found
        if recipient.state in ("deleted", "expired"):
            return _page(_SETTLED[recipient.state], status=HTTPStatus.GONE)
        if message.kind == VIRUS:
            return _page("Only your postmaster can release a message with a virus.", status=HTTPStatus.FORBIDDEN)
        await review.release(message.spool_id, recipient.address, [recipient.n])
        return _page(_SETTLED["released"])

    return pages


async def _found(store: Store, word: str) -> tuple[Shown, Addressee] | None:
    claim = passes.read(word)
    if claim is None:
        return None
    try:
        message = await quarantine.get(store, claim.spool_id)
    except NoSuchMessage:
        return None
    recipient = next((each for each in message.recipients if each.n == claim.n), None)
    return (message, recipient) if recipient is not None and passes.holds(claim, message.secret) else None


def _facts(message: Shown, recipient: Addressee) -> str:
    lines = (
        ("From", message.from_text or message.sender),
        ("Subject", message.subject or "(none)"),
        ("To", recipient.address),
        ("Held because", f"{message.reason} (score {message.score:.1f})"),
        ("Arrived", f"{message.received_at:%d %b %Y %H:%M} UTC"),
        ("Kept until", f"{message.expires_at:%d %b %Y}"),
        ("Id", message.spool_id),
    )
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in lines) + "</dl>"


def _button(message: Shown) -> str:
    if message.kind == VIRUS:
        return "<p>It may do harm: only your postmaster can release it.</p>"
    return '<form method="post"><button type="submit">Deliver it to me</button></form>'


def _page(words: str, body: str = "", status: HTTPStatus = HTTPStatus.OK) -> HTMLResponse:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Mail quarantine</title>'
        f"<style>{_STYLE}</style></head><body><h1>Mail quarantine</h1><p>{escape(words)}</p>{body}</body></html>"
    )
    return HTMLResponse(text, status, _HEADERS)

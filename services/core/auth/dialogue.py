"""Runs any SASL mechanism over any door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_never

from services.core.auth.authenticator import Authenticator, Offer
from services.core.auth.login import AuthFailed, Client, ExchangeBroken, Login, MechanismUnknown
from services.core.auth.sasl import MECHANISMS, Accepted, Attempt, Broken, Challenge, KeysWanted, ProofGiven

_BEGIN = {mechanism.name: mechanism.begin for mechanism in MECHANISMS}


async def authenticate(
    authenticator: Authenticator,
    mechanism: str,
    initial: bytes | None,
    ask: Callable[[bytes], Awaitable[bytes]],
    client: Client,
) -> Login:
    """Who logs in by this mechanism; the door tells its success without further data.

    `initial` is the decoded initial response, None where there was none. `ask` sends one challenge and returns the
    client's decoded answer; it raises `Cancelled` for "*" and `ExchangeBroken` for what is no base64, and what it
    raises comes through. Raises `MechanismUnknown`, `ExchangeBroken`, and what `Authenticator.verify` raises.
    """
    begin = _BEGIN.get(mechanism.upper())
    if begin is None:
        raise MechanismUnknown(mechanism)
    exchange = begin()
    step = exchange.start(initial)
    offer: Offer | None = None
    login: Login | None = None
    while True:
        match step:
            case Challenge(octets=octets):
                step = exchange.answer(await ask(octets))
            case Attempt(username=username, password=password, authzid=authzid):
                _acts_as_itself(username, authzid)
                return await authenticator.verify(username, password, client)
            case KeysWanted(username=username, authzid=authzid):
                _acts_as_itself(username, authzid)
                offer = await authenticator.scram_offer(username, client)
                step = step.go_on(offer.salt, offer.iterations)
            case ProofGiven(auth_message=auth_message, proof=proof):
                if offer is None:
                    raise ExchangeBroken("a proof before its challenge")
                login, signature = await authenticator.scram_verify(offer, client, auth_message, proof)
                step = step.go_on(signature)
            case Accepted():
                if login is None:
                    raise ExchangeBroken("an end before its proof")
                return login
            case Broken(reason=reason):
                raise ExchangeBroken(reason)
            case _:
                assert_never(step)


def _acts_as_itself(username: str, authzid: str) -> None:
    # RFC 4422 3.4.1: acting for another user needs a right that nobody has here.
    if authzid and authzid.lower() != username.lower():
        raise AuthFailed("acting for another user is not allowed")

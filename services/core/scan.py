"""How a door asks for a verdict."""

from __future__ import annotations

from services.contracts.v1.mail_pb2 import ScanRequest, Verdict
from services.core.bus import Bus, NoResponders, Timeout, Unavailable, scan


async def ask(bus: Bus, request: ScanRequest, deadline_s: float) -> Verdict:
    """The verdict of one of the filters, or TEMPFAIL 451 4.7.1 that says why none could be had within `deadline_s`.

    Raises nothing but CancelledError. Mail is never let through because nobody looked at it.
    """
    try:
        verdict = await bus.request(scan(), request, Verdict, deadline_s)
    except NoResponders:
        return _later("No filter is running, try again later")
    except Timeout:
        return _later("The filter did not answer in time, try again later")
    except Unavailable as error:
        bus.log.warning("no verdict", spool_id=request.envelope.spool_id, reason=str(error))
        return _later("The filter cannot be reached, try again later")
    if verdict.action == Verdict.ACTION_UNSPECIFIED:
        # An empty reply parses as an empty verdict; so may that of a filter of another version.
        return _later("The filter gave no verdict, try again later")
    return verdict


def _later(text: str) -> Verdict:
    return Verdict(action=Verdict.TEMPFAIL, code=451, enhanced="4.7.1", text=text)

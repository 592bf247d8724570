"""How a person's judgement reaches the engines that learn."""

from __future__ import annotations

from services.contracts.v1.mail_pb2 import Envelope, Lesson
from services.core.bus import Bus, work_learn
from services.core.ids import BlobId, SpoolId


def learn(bus: Bus, spool_id: SpoolId, blob_id: BlobId, *, spam: bool) -> bool:
    """Tell them that these octets are spam, or are not. False: the bus is away, and nobody has learned."""
    return bus.publish_hint(work_learn(), Lesson(envelope=Envelope(spool_id=spool_id), blob_id=blob_id, spam=spam))

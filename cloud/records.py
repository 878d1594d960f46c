"""What lies in Kafka, written once: the shape of every record of every topic.

========== ============================================= =====================================
topic      key                                           value
========== ============================================= =====================================
samples    ``edge/epoch/seq/partition``                  msgpack `SamplesRecord`, pseudonymous
fhir       subject                                       FHIR R4 transaction Bundle, JSON
alerts     ``subject/episode`` or ``edge/episode``       JSON `AlertEvent`
identity   subject                                       sealed msgpack `Identity`
quarantine edge                                          sealed msgpack `QuarantineRecord`
state      ``partition/...``                             detector state, msgpack
========== ============================================= =====================================

The place a sealed value is bound to is ``topic:key`` (see `place`).
"""

import msgspec

from vitals.columns import Columns
from vitals.reading import Patient, Reading, Rejected


class SamplesRecord(msgspec.Struct, frozen=True):
    """The readings of one frame that belong to one partition.

    ``floor``: the edge's word that every seq below it is acknowledged; consumers treat anything
    below as seen, so that their memory of (edge, epoch, seq) stays small.
    """

    edge: str
    epoch: str
    seq: int
    floor: int
    ingested_ms: int
    columns: Columns
    """``sources`` hold pseudonymous device and subject, never a patient."""
    frame_readings: int | None = None
    """Readings of the whole frame, as the gateway counted and sealed them: what its records in all
    partitions add up to. None: written by an older ingest."""


class Identity(msgspec.Struct, frozen=True):
    """Who a subject is and where; sealed in Kafka and in Redis."""

    subject: str
    patient: Patient
    device: str
    """Pseudonymous device id."""
    edge: str
    time_ms: int
    """When the gateway learned it; the newest wins."""


class QuarantineRecord(msgspec.Struct, frozen=True):
    """Refused input of one frame; or a frame that could not be opened, whole."""

    edge: str
    epoch: str
    seq: int
    ingested_ms: int
    rejects: list[Rejected]
    reason: str = ""
    """Set when the frame itself was set aside: malformed, forged, epoch."""
    frame: bytes = b""


GATEWAY = "gateway"
"""`AlertEvent.kind` of what is wrong with a gateway, not with a patient."""


class AlertEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step in the life of an alert episode. Times are milliseconds of UTC."""

    episode: str
    """One id from the first sample of the condition to its end."""
    subject: str
    kind: str
    """Detector: ``threshold`` for now; ``gateway`` of a gateway, whose name is the subject."""
    vital: str
    priority: str
    """high, medium or low."""
    state: str
    """active, or ended."""
    text: str
    """Such as ``SpO2 84<90``: worst value against limit."""
    limit: float
    worst: float
    began_ms: int
    """First sample of the condition."""
    raised_ms: int
    """When its delay was over, in event time."""
    at_ms: int
    """This step, in event time."""
    policy: str
    """Version of the policy that decided."""
    ended_ms: int | None = None
    retrospective: bool = False
    """True: late data; "would have alerted", rings nothing."""
    evidence: list[str] = []
    """Ids of the FHIR Observations it rests on (first, worst, last)."""


_samples_encoder = msgspec.msgpack.Encoder()
_samples_decoder = msgspec.msgpack.Decoder(SamplesRecord)


def samples_key(edge: str, epoch: str, seq: int, partition: int) -> bytes:
    """Return the key of a samples record."""
    return f"{edge}/{epoch}/{seq}/{partition}".encode()


def encode(record: msgspec.Struct) -> bytes:
    """Return any record as msgpack."""
    return _samples_encoder.encode(record)


def decode_samples(value: bytes) -> SamplesRecord:
    """Return a samples record; raises msgspec.DecodeError."""
    return _samples_decoder.decode(value)


def place(topic: str, key: str) -> bytes:
    """Return what a sealed value in ``topic`` under ``key`` is bound to."""
    return f"{topic}:{key}".encode()


class LiveUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What project tells the REST servers as it happens, over Redis pub/sub, sealed."""

    subject: str
    readings: list[Reading] = []
    """The newest of each vital in the batch."""
    alert: AlertEvent | None = None
    identity: Identity | None = None

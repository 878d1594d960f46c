"""What lies in Kafka, written once: the shape of every record of every topic.

=========== ============================================= =====================================
topic       key                                           value
=========== ============================================= =====================================
samples     ``edge/epoch/seq/partition``                  msgpack `SamplesRecord`, pseudonymous
fhir        subject                                       FHIR R4 transaction Bundle, JSON
alerts      ``subject/episode`` or ``edge/episode``       JSON `AlertEvent`
identity    subject                                       sealed msgpack `Identity`
quarantine  edge                                          sealed msgpack `QuarantineRecord`
commands    subject, edge or policy                       JSON `Instruction`, pseudonymous
state       ``partition/...``                             detector state, msgpack
undelivered subject                                       msgpack `Undelivered`, pseudonymous
=========== ============================================= =====================================

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

LIMIT = "limit"
"""`AlertEvent.kind` of a limit that somebody changed: told, and no alert."""


class AlertEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step in the life of an alert episode. Times are milliseconds of UTC."""

    episode: str
    """One id from the first sample of the condition to its end."""
    subject: str
    kind: str
    """Detector: threshold, signal_loss, silence, trend, news2, device; ``gateway`` of a gateway,
    whose name is the subject; ``limit`` of a limit that was changed."""
    vital: str
    priority: str
    """high, medium or low."""
    state: str
    """active (true), latched (no longer true, nobody has acknowledged it yet), or ended."""
    text: str
    """Such as ``SpO2 84<90``: worst value against limit."""
    limit: float
    worst: float
    began_ms: int
    """First sample of the condition."""
    raised_ms: int
    """When its delay was over, in event time."""
    at_ms: int
    """This step: in event time when a reading caused it, in clock time otherwise."""
    policy: str
    """Version of the policy that decided."""
    ended_ms: int | None = None
    retrospective: bool = False
    """True: late data; "would have alerted", rings nothing."""
    evidence: list[str] = []
    """Ids of the FHIR Observations it rests on (first, worst, last)."""
    rule: str = ""
    """Name of the rule that decided, unique within a subject but for ``channel``."""
    channel: int = 0
    step: str = ""
    """What happened: a step of cloud/detect/ALERTS.md, such as raised or acknowledged."""
    number: int = 0
    """Steps of one episode are numbered from 1; the highest stands."""
    who: str = ""
    """User who caused the step; empty: the system."""
    why: str = ""
    """The user's reason, or the system's in a closed word."""
    acknowledged_ms: int | None = None
    acknowledged_by: str = ""
    shelved_until_ms: int | None = None
    suppressed_by: str = ""
    """Episode of the root cause, while there is one."""
    level: int = 0
    """Escalation: 0 the nurse, and one more each time nobody answered."""
    standing: bool = False
    """Flapping: one standing alert instead of many."""
    quality: list[str] = []
    """Doubts about the evidence (flat_line, jump, motion); the alert rings all the same."""


class Command(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="command"):
    """What somebody wants done about a subject's alerts; applied once, in the topic's order."""

    id: str
    """32 hex digits, made by whoever sends it; a repeated id changes nothing."""
    kind: str
    """acknowledge, shelve, unshelve, clear, or limit."""
    subject: str
    who: str
    at_ms: int
    why: str = ""
    episode: str = ""
    """For all kinds but ``limit``."""
    until_ms: int | None = None
    """End of a shelving (required) or of a limit (none: until changed again)."""
    rule: str = ""
    """For ``limit``: the rule's name."""
    limit: float | None = None
    """For ``limit``: the new one in the vital's unit; None takes the change back."""


class Presence(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="presence"):
    """Ingest's word on a gateway's session, to every partition.

    Every few seconds while the session lasts, and once when it ends.
    """

    edge: str
    connected: bool
    at_ms: int


class NewPolicy(msgspec.Struct, frozen=True, tag_field="type", tag="policy"):
    """A policy that holds from here on, to every partition."""

    version: str
    toml: str
    """Its text: beds and patients by pseudonym."""
    who: str
    at_ms: int


Instruction = Command | Presence | NewPolicy
"""A record of ``commands``: tagged by its field ``type``."""


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


class Undelivered(msgspec.Struct, frozen=True):
    """What a FHIR server refused of a record of ``fhir``, for somebody to look at and send again.

    The same (partition, offset, url) may come more than once: a process that was killed between
    letter and offset writes it again.
    """

    reason: str
    """malformed (never sent), refused, conflict or fault."""
    status: int
    """HTTP status of the last answer; 0: never sent."""
    partition: int
    offset: int
    """Where the record lies in ``fhir``."""
    at_ms: int
    url: str
    """``Observation/xyz``, to PUT ``body`` to; empty: the body is the whole record."""
    body: bytes
    """As it was; empty when over `cloud.deliver.letters.BODY_BYTES_MAX`: see partition, offset."""
    outcome: bytes = b""
    """The server's answer, its beginning: free text that may repeat values, so never logged."""


class LiveUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What project tells the REST servers as it happens, over Redis pub/sub, sealed."""

    subject: str
    readings: list[Reading] = []
    """The newest of each vital in the batch."""
    alert: AlertEvent | None = None
    identity: Identity | None = None

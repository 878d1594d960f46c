"""One sealed frame -> the Kafka records it becomes. The heart of ingest, without I/O.

Law: every frame becomes records: its readings, its rejected inputs, or itself set aside whole with
the reason. Nothing is dropped and nothing is retried for ever. No record carries a name in clear.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from cloud import records
from cloud.ingest.alarm import Alarms
from cloud.ingest.known import KnownAssociations
from cloud.ingest.split import Pseudonyms, associations, split
from vitals import columns as columns_
from vitals import limits, topics
from vitals.errors import (
    UNREADABLE,
    EpochError,
    FrameForged,
    FrameMalformed,
    FrameTooLarge,
    SessionError,
)
from vitals.frame import MAGIC, FrameOpener, Header, Lane, read_header, read_readings, read_rejects
from vitals.sealed import Sealer

# A frame set aside is kept up to this; more would not fit a Kafka record of RECORD_BYTES_MAX
# together with its seal. Honest gateways stay under limits.FRAME_BYTES_MAX.
SET_ASIDE_BYTES_MAX: Final = limits.FRAME_BYTES_MAX

# Largest record this process writes; a frame that becomes more is set aside (1 MiB) instead.
# The topics are made with max.message.bytes of the same size.
RECORD_BYTES_MAX: Final = 2 * 1024 * 1024

assert SET_ASIDE_BYTES_MAX < RECORD_BYTES_MAX  # noqa: S101

REASONS: Final = ("malformed", "forged", "too-large", "epoch-unknown", "epoch-key", "refused")
"""Why a frame is set aside whole: bytes, seal, size, an epoch nobody announced, an epoch wrapped
to a key not held here, or a record that the broker refuses for ever."""


class WrongEdge(SessionError):
    """A frame names another gateway than the certificate: the session ends."""


class Record(NamedTuple):
    """One Kafka record to be produced."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Batch(NamedTuple):
    """What one frame became. ``epoch`` is empty when its header could not be read at all."""

    epoch: str
    seq: int
    records: list[Record]
    readings: int = 0
    rejects: int = 0
    set_aside: str = ""
    """A member of REASONS, or empty."""


class _Name(msgspec.Struct, frozen=True, array_like=True):
    """As much of a header of any version as names the frame."""

    version: int
    edge: str
    epoch: str
    seq: int


_name_decoder = msgspec.msgpack.Decoder(_Name)


def frame_name(frame: bytes) -> tuple[str, int]:
    """Return (epoch, seq) if the header of any version tells, else ("", -1)."""
    start = len(MAGIC) + 2
    if frame[: len(MAGIC)] == MAGIC and len(frame) >= start:
        size = int.from_bytes(frame[len(MAGIC) : start], "big")
        try:
            name = _name_decoder.decode(frame[start : start + size])
        except UNREADABLE:
            return "", -1
        if 0 <= name.seq <= limits.EPOCH_FRAMES_MAX:
            return name.epoch, name.seq
    return "", -1


class Unpacker:
    """Turns the frames of every gateway into records; one a process."""

    def __init__(
        self,
        pseudonyms: Pseudonyms,
        identity: Sealer,
        quarantine: Sealer,
        known: KnownAssociations,
        alarms: Alarms | None = None,
    ) -> None:
        """Take the keys' users; ``known`` decides which associations are news."""
        self._alarms = alarms or Alarms()
        self._pseudonyms = pseudonyms
        self._identity = identity
        self._quarantine = quarantine
        self._known = known

    def unpack(
        self,
        edge: str,
        opener: Callable[[str], FrameOpener | None],
        frame: bytes,
        floor: int,
        now_ms: int,
    ) -> Batch:
        """Return what ``frame`` becomes.

        ``opener`` gives the opener of an epoch, None if the session never announced it, and
        raises EpochError if its key cannot be unwrapped. Raises WrongEdge.
        """
        try:
            header = read_header(frame)
        except FrameTooLarge:
            return self.set_aside(edge, *frame_name(frame), frame, "too-large", now_ms)
        except FrameMalformed:
            return self.set_aside(edge, *frame_name(frame), frame, "malformed", now_ms)
        if header.edge != edge:
            raise WrongEdge(f"a frame of another gateway in epoch {header.epoch[:32]}")
        reason = "epoch-unknown"
        try:
            with_key = opener(header.epoch)
            if with_key is not None:
                opened, body = with_key.open(frame)
                return self._records(opened, body, min(floor, header.seq), now_ms)
        except EpochError:
            reason = "epoch-key"
        except FrameForged:
            reason = "forged"
        except FrameTooLarge:
            reason = "too-large"
        except FrameMalformed:
            reason = "malformed"
        return self.set_aside(edge, header.epoch, header.seq, frame, reason, now_ms)

    def _records(self, header: Header, body: bytes, floor: int, now_ms: int) -> Batch:
        if header.lane == Lane.QUARANTINE:
            rejects = read_rejects(body)
            record = records.QuarantineRecord(
                header.edge, header.epoch, header.seq, now_ms, rejects
            )
            made = self._quarantined(record, "rejects", len(rejects))
            return Batch(header.epoch, header.seq, [made], 0, len(rejects))
        columns = read_readings(body)
        made_of = self._identities(header, columns)
        for partition, part in split(header.edge, columns, self._pseudonyms).items():
            value = records.encode(
                records.SamplesRecord(
                    header.edge, header.epoch, header.seq, floor, now_ms, part, header.count
                )
            )
            key = records.samples_key(header.edge, header.epoch, header.seq, partition)
            made_of.append(Record(topics.SAMPLES.name, partition, key, value, []))
        return Batch(header.epoch, header.seq, made_of, len(columns))

    def _identities(self, header: Header, columns: columns_.Columns) -> list[Record]:
        made = []
        for found in associations(header.edge, columns, self._pseudonyms, header.last_ms):
            patient = self._known.news(found)
            if patient is None:
                continue
            identity = records.Identity(
                found.subject, patient, found.device, header.edge, found.time_ms
            )
            sealed = self._identity.seal(
                records.encode(identity), records.place(topics.IDENTITY.name, found.subject)
            )
            partition = topics.partition_of(found.subject)
            made.append(Record(topics.IDENTITY.name, partition, found.subject.encode(), sealed, []))
        return made

    def set_aside(
        self, edge: str, epoch: str, seq: int, frame: bytes, reason: str, now_ms: int
    ) -> Batch:
        """Return the frame as one quarantine record, whole up to SET_ASIDE_BYTES_MAX."""
        record = records.QuarantineRecord(
            edge, epoch, seq, now_ms, [], reason, frame[:SET_ASIDE_BYTES_MAX]
        )
        made = [self._quarantined(record, "frame", 0)]
        alert = self._alarms.set_aside(edge, reason, now_ms)
        if alert is not None:
            key = f"{alert.subject}/{alert.episode}".encode()
            made.append(Record(topics.ALERTS.name, 0, key, msgspec.json.encode(alert), []))
        return Batch(epoch, seq, made, 0, 0, reason)

    def _quarantined(self, record: records.QuarantineRecord, kind: str, count: int) -> Record:
        topic = topics.QUARANTINE.name
        sealed = self._quarantine.seal(records.encode(record), records.place(topic, record.edge))
        headers = [
            ("kind", kind.encode()),
            ("count", str(count).encode()),
            ("epoch", record.epoch.encode()),
            ("seq", str(record.seq).encode()),
        ]
        return Record(topic, 0, record.edge.encode(), sealed, headers)

    def forget(self) -> None:
        """Tell every association and alert again: some record of it may not have arrived."""
        self._known.forget()
        self._alarms.forget()

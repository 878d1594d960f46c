"""One poll's records, reduced to what must be written.

Law: pure; no Redis, no Kafka, no clock. A record that cannot be read is counted and passed over:
one poison record never stops the ward.
"""

import hashlib
from collections import Counter
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from cloud import records
from cloud.project import layout
from cloud.records import AlertEvent, Identity, SamplesRecord
from vitals import columns, topics
from vitals.columns import Columns
from vitals.errors import FrameMalformed, SealError
from vitals.reading import Reading
from vitals.sealed import Sealer

_alert_decoder: Final = msgspec.json.Decoder(AlertEvent)
_alert_encoder: Final = msgspec.json.Encoder()
_identity_decoder: Final = msgspec.msgpack.Decoder(Identity)
_encoder: Final = msgspec.msgpack.Encoder()

# Of no bed, and what somebody set rather than what was found: the topic keeps both.
_NO_EPISODES: Final = frozenset({records.GATEWAY, records.LIMIT})


class Record(NamedTuple):
    """One message of Kafka, whatever client brought it."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None


class Held(NamedTuple):
    """A value that competes for a place: the greater ``head`` stays."""

    head: bytes
    plain: bytes


def _tie(plain: bytes) -> int:
    """Return a number that makes the order of two values of one time and rank certain.

    It follows the content, so it would tell equal values apart from different ones if it stood
    alone; behind the time of measurement it says nothing that the time does not.
    """
    return int.from_bytes(hashlib.blake2b(plain, digest_size=4).digest(), "big")


def held(time_ms: int, rank: int, plain: bytes) -> Held:
    """Return a competing value."""
    return Held(layout.head(time_ms, rank, _tie(plain)), plain)


class Batch:
    """What a poll's records come to; fill with `add`, hand to `writer.Writer.write`."""

    def __init__(self, identity: Sealer) -> None:
        """Start empty; ``identity`` opens the identity topic."""
        self._identity = identity
        self.offsets: dict[str, int] = {}
        """``topic/partition`` -> next offset."""
        self.latest: dict[str, dict[str, Held]] = {}
        self.newest: dict[str, dict[str, Reading]] = {}
        """The readings behind ``latest``, for the live channel."""
        self.recent: dict[tuple[str, int], dict[str, bytes]] = {}
        """(subject, minute) -> frame -> columns of that subject."""
        self.identities: dict[str, tuple[Held, Identity]] = {}
        self.alerts: dict[str, dict[str, tuple[Held, AlertEvent]]] = {}
        self.records: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.readings = 0

    def add(self, record: Record) -> None:
        """Take one record in."""
        self.records[record.topic] += 1
        at = f"{record.topic}/{record.partition}"
        self.offsets[at] = max(self.offsets.get(at, 0), record.offset + 1)
        try:
            if record.value is None:
                return  # a tombstone: compaction forgets the key in Kafka, Redis keeps the newest
            if record.topic == topics.SAMPLES.name:
                self._samples(records.decode_samples(record.value))
            elif record.topic == topics.ALERTS.name:
                self._alert(_alert_decoder.decode(record.value))
            elif record.topic == topics.IDENTITY.name:
                place = records.place(record.topic, record.key.decode())
                self._identify(_identity_decoder.decode(self._identity.open(record.value, place)))
        except (msgspec.DecodeError, FrameMalformed, SealError, UnicodeDecodeError):
            self.refused[record.topic] += 1

    def _samples(self, record: SamplesRecord) -> None:
        columns.check(record.columns)
        frame = f"{record.edge}/{record.epoch}/{record.seq}"
        sources = record.columns.sources
        rows = sorted(
            (sources[source].subject, reading.time_ms // layout.MINUTE_MS, at, source, reading)
            for at, (source, reading) in enumerate(record.columns.rows())
        )
        self.readings += len(rows)
        for (subject, minute), grouped in groupby(rows, key=lambda row: row[:2]):
            listed = [(source, reading) for _, _, _, source, reading in grouped]
            for source, reading in listed:
                self._compete(subject, sources[source].device, reading)
            bucket = self.recent.setdefault((subject, minute), {})
            bucket[frame] = columns.encode(_only(record.columns, listed))

    def _compete(self, subject: str, device: str, reading: Reading) -> None:
        field = layout.latest_field(reading)
        fields = self.latest.setdefault(subject, {})
        standing = fields.get(field)
        # the tie-break hashes; skip it for what a later reading of the batch beats anyway
        if standing and layout.head(reading.time_ms, reading.received_ms, 0xFFFFFFFF) < standing[0]:
            return
        plain = _encoder.encode(layout.Latest(device, reading))
        challenger = held(reading.time_ms, reading.received_ms, plain)
        if standing is None or challenger.head > standing.head:
            fields[field] = challenger
            self.newest.setdefault(subject, {})[field] = reading

    def _identify(self, identity: Identity) -> None:
        challenger = held(identity.time_ms, 0, _encoder.encode(identity))
        standing = self.identities.get(identity.subject)
        if standing is None or challenger.head > standing[0].head:
            self.identities[identity.subject] = (challenger, identity)

    def _alert(self, event: AlertEvent) -> None:
        if event.kind in _NO_EPISODES:
            return
        plain = _alert_encoder.encode(event)
        challenger = Held(layout.alert_head(event, _tie(plain)), plain)
        episodes = self.alerts.setdefault(event.subject, {})
        standing = episodes.get(event.episode)
        if standing is None or challenger.head > standing[0].head:
            episodes[event.episode] = (challenger, event)

    def __len__(self) -> int:
        return self.records.total()


def _only(whole: Columns, rows: list[tuple[int, Reading]]) -> Columns:
    """Return columns of some rows, with the sources that they use."""
    used = sorted({source for source, _ in rows})
    place = {source: at for at, source in enumerate(used)}
    return columns.pack(
        [whole.sources[source] for source in used],
        [(place[source], reading) for source, reading in rows],
    )

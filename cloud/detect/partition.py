"""What detect remembers of one partition, and what one samples record makes of it.

Law: pure of I/O. A record is taken whole or not at all: everything that can be wrong with it is
found before anything is remembered. A frame seen before changes nothing but a count.

State topic, keys and values (msgpack):

================================== ========================================================
``{partition}/dedupe/{edge}/{epoch}`` `Seen`: floor, ranges of seq, what was taken, what came again
``{partition}/subject/{subject}``     `lanes.State`: the subject's conditions
================================== ========================================================

``readings``, ``frames`` and ``sums`` tell what was taken once, below the floor too; ``again``
counts the records that changed nothing. They are written in the transaction of what was made of
the records, so the audit may compare them with the edges'.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from cloud.detect.detectors import Ready, advance
from cloud.detect.lanes import Pair, State
from cloud.fhir import chart
from cloud.fhir.ids import is_subject
from cloud.records import AlertEvent, SamplesRecord, decode_samples
from vitals import columns as columns_of
from vitals.errors import VitalsError
from vitals.interval import IntervalSet
from vitals.reading import Reading
from vitals.tally import Sums, Tally
from vitals.topics import partition_of


class Poison(Exception):
    """A record that is no samples record, or not of this partition. Says why in a closed word."""

    def __init__(self, reason: str) -> None:
        """``reason``: malformed, range, subject or partition."""
        super().__init__(reason)
        self.reason = reason


class Seen(msgspec.Struct, frozen=True):
    """The stored form of what was seen of one (edge, epoch)."""

    floor: int
    ranges: list[tuple[int, int]]
    readings: int
    frames: int
    again: int = 0
    """Records that had been seen before."""
    sums: Sums | None = None
    """Of `vitals.tally` over the frames taken; None: begun by a version that kept none."""


class Message(NamedTuple):
    """One message to produce to the record's own partition."""

    key: bytes
    value: bytes


class Made(NamedTuple):
    """What one record gives."""

    fhir: list[Message]
    alerts: list[AlertEvent]
    readings: int
    duplicate: bool


class _Edge:
    """Memory of one (edge, epoch)."""

    __slots__ = ("again", "seen", "summed", "tally")

    def __init__(self, stored: Seen | None = None) -> None:
        if stored is None:
            stored = Seen(0, [], 0, 0, 0, (0, 0, 0))
        self.seen = IntervalSet(stored.ranges, stored.floor)
        self.tally = Tally(stored.frames, stored.readings, stored.sums or (0, 0, 0))
        self.again = stored.again
        self.summed = stored.sums is not None

    def stored(self) -> Seen:
        return Seen(
            self.seen.floor,
            list(self.seen),
            self.tally.readings,
            self.tally.frames,
            self.again,
            self.tally.sums if self.summed else None,
        )


_encoder: Final = msgspec.msgpack.Encoder()
_seen_decoder: Final = msgspec.msgpack.Decoder(Seen)
_state_decoder: Final = msgspec.msgpack.Decoder(dict[str, Pair])
_alert_encoder: Final = msgspec.json.Encoder()


class Partition:
    """The state of one partition; `restore` it, then `take` records, then write `changed`."""

    def __init__(self, number: int) -> None:
        """Begin empty."""
        self.number = number
        self._edges: dict[tuple[str, str], _Edge] = {}
        self._subjects: dict[str, State] = {}
        self._changed_edges: set[tuple[str, str]] = set()
        self._changed_subjects: set[str] = set()

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Take one record of the state topic; raises Poison for one that nobody of us wrote.

        A value of None (a tombstone) forgets.
        """
        try:
            number, kind, rest = key.decode("ascii").split("/", 2)
            if int(number) != self.number:
                raise Poison("partition")
            if kind == "dedupe":
                edge, _, epoch = rest.rpartition("/")
                if value is None:
                    self._edges.pop((edge, epoch), None)
                else:
                    self._edges[edge, epoch] = _Edge(_seen_decoder.decode(value))
            elif kind == "subject":
                if value is None:
                    self._subjects.pop(rest, None)
                else:
                    self._subjects[rest] = _state_decoder.decode(value)
            else:
                raise Poison("malformed")
        except (ValueError, msgspec.DecodeError) as error:
            raise Poison("malformed") from error

    def read(self, value: bytes | None) -> SamplesRecord:
        """Return a samples record that is safe to `take`; raises Poison."""
        try:
            record = decode_samples(value or b"")
            columns_of.check(record.columns)
        except (msgspec.DecodeError, VitalsError) as error:
            raise Poison("malformed") from error
        for source in record.columns.sources:
            if not (is_subject(source.subject) and is_subject(source.device)):
                raise Poison("subject")
            if partition_of(source.subject) != self.number:
                raise Poison("partition")
        if record.seq < 0 or record.floor < 0:
            raise Poison("range")
        return record

    def take(self, record: SamplesRecord, policy: Ready) -> Made:
        """Return what a record of `read` gives, remembering it; raises Poison, remembering nothing.

        A frame seen before gives nothing, but is counted and may raise the floor.
        """
        name = (record.edge, record.epoch)
        edge = self._edges.get(name)
        if edge is not None and record.seq in edge.seen:
            edge.seen.raise_floor(record.floor)
            edge.again += 1
            self._changed_edges.add(name)
            return Made([], [], 0, duplicate=True)
        try:
            fhir = bundles(record)
            states, alerts = self._judge(record, policy)
        except (ValueError, KeyError, IndexError) as error:
            raise Poison("range") from error
        if edge is None:
            edge = self._edges[name] = _Edge()
        edge.seen.add(record.seq)
        edge.seen.raise_floor(record.floor)
        edge.tally.add(record.seq, len(record.columns))
        self._changed_edges.add(name)
        self._subjects.update(states)
        self._changed_subjects.update(states)
        return Made(fhir, alerts, len(record.columns), duplicate=False)

    def _judge(
        self, record: SamplesRecord, policy: Ready
    ) -> tuple[Mapping[str, State], list[AlertEvent]]:
        rows: dict[str, list[Reading]] = {}
        sources = record.columns.sources
        for at, reading in record.columns.rows():
            rows.setdefault(sources[at].subject, []).append(reading)
        states: dict[str, State] = {}
        alerts: list[AlertEvent] = []
        for subject, readings in rows.items():
            before = self._subjects.get(subject, {})
            after, told = advance(before, subject, readings, record.ingested_ms, policy)
            if after != before:
                states[subject] = after
            alerts += told
        return states, alerts

    def changed(self) -> list[Message]:
        """Return the state records that bring the topic up to date, and begin counting anew."""
        out = []
        for edge, epoch in sorted(self._changed_edges):
            key = f"{self.number}/dedupe/{edge}/{epoch}".encode()
            out.append(Message(key, _encoder.encode(self._edges[edge, epoch].stored())))
        for subject in sorted(self._changed_subjects):
            key = f"{self.number}/subject/{subject}".encode()
            out.append(Message(key, _encoder.encode(self._subjects[subject])))
        self._changed_edges.clear()
        self._changed_subjects.clear()
        return out


def bundles(record: SamplesRecord) -> list[Message]:
    """Return a record's transaction Bundles: one a subject, cut at chart.BUNDLE_BYTES_MAX."""
    made = chart.of({}).bundles(record.columns)
    return [Message(subject.encode(), bundle) for subject, bundle in made]


def alert_message(alert: AlertEvent) -> Message:
    """Return an alert event as it lies in its topic."""
    key = f"{alert.subject}/{alert.episode}".encode()
    return Message(key, _alert_encoder.encode(alert))

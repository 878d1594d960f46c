"""Reads Kafka for the audit: from the first record to the last, then only what is new.

Law: reads committed records only, joins no group's balancing, commits nothing.
"""

import re
import time
from collections import Counter as Counted
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cloud import records
from cloud.audit.errors import Unreachable
from cloud.audit.evidence import EpochName, Held, Part, Produced, Quarantined
from cloud.settings import Kafka, kafka_config
from vitals import topics
from vitals.errors import UNREADABLE
from vitals.interval import IntervalSet
from vitals.tally import Sums, Tally

# A broker that gives nothing for this long is down.
ANSWER_S_MAX: Final = 15.0
BATCH_RECORDS: Final = 5_000

# A reason is a closed word of detect's; whatever else stands in a key is not repeated.
_WORD: Final = re.compile(r"[a-z-]{1,32}")


class TopicReader:
    """One topic, all partitions; `new` yields what was not yielded before, up to the end."""

    def __init__(self, kafka: Kafka, topic: topics.Topic, starts: dict[int, int] | None = None):
        """``starts``: offsets to begin at, otherwise the beginning. Raises Unreachable."""
        self._topic = topic
        self._client = Consumer(
            {
                **kafka_config(kafka),
                "client.id": "audit",
                "group.id": "audit",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "log_level": 2,
            }
        )
        self._at: dict[int, int] = {}
        self.trimmed = False
        """True when the beginning of some partition has been deleted."""
        for partition in range(topic.partitions):
            try:
                low, _high = self._client.get_watermark_offsets(
                    TopicPartition(topic.name, partition), timeout=ANSWER_S_MAX
                )
            except KafkaException as error:
                self._client.close()
                raise Unreachable("kafka", error.args[0].name()) from error
            self.trimmed = self.trimmed or low > 0
            self._at[partition] = max(low, (starts or {}).get(partition, low))

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def new(self) -> Iterator[Any]:
        """Yield messages up to the present end of every partition; raise Unreachable."""
        self._client.assign(
            [TopicPartition(self._topic.name, p, offset) for p, offset in self._at.items()]
        )
        waiting = set(self._at)
        deadline = time.monotonic() + ANSWER_S_MAX
        while waiting:
            for message in self._client.consume(BATCH_RECORDS, 0.5):
                error = message.error()
                if error is None:
                    deadline = time.monotonic() + ANSWER_S_MAX
                    self._at[message.partition()] = message.offset() + 1
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(message.partition())
                elif not error.retriable():
                    raise Unreachable("kafka", error.name())
            if waiting and time.monotonic() > deadline:
                raise Unreachable("kafka", f"{self._topic.name} gives no answer")
        self._client.unassign()


class SamplesReader:
    """Distinct frames and readings on the samples topic."""

    def __init__(self, kafka: Kafka) -> None:
        """Connect; raises Unreachable."""
        self._reader = TopicReader(kafka, topics.SAMPLES)
        self.held: dict[EpochName, Produced] = {}

    @property
    def trimmed(self) -> bool:
        """True when the oldest samples are deleted."""
        return self._reader.trimmed

    def read(self) -> dict[EpochName, Produced]:
        """Return everything up to now; raises Unreachable."""
        for message in self._reader.new():
            try:
                record = records.decode_samples(message.value() or b"")
            except UNREADABLE:
                continue  # archive and detect count these as refused; they hold no reading
            name = EpochName(record.edge, record.epoch)
            self.held.setdefault(name, Produced()).add(
                message.partition(),
                record.seq,
                len(record.columns),
                # Two records of one frame differ in their time and floor alone.
                digest=hash(records.encode(record.columns)),
                frame_readings=record.frame_readings,
                at_ms=record.ingested_ms,
            )
        return self.held

    def close(self) -> None:
        """Close the client."""
        self._reader.close()


class Dedupe(msgspec.Struct):
    """What detect keeps of one epoch in one partition, under ``{p}/dedupe/{edge}/{epoch}``."""

    floor: int
    ranges: list[tuple[int, int]]
    readings: int
    frames: int = 0
    again: int = 0
    sums: Sums | None = None


_dedupe_decoder = msgspec.msgpack.Decoder(Dedupe)


def dedupe_of(entries: dict[str, bytes]) -> dict[EpochName, Held]:
    """Return what detect has taken, of the latest value of each of its dedupe keys."""
    found: dict[EpochName, Held] = {}
    for key, value in entries.items():
        partition, _word, edge, epoch = key.split("/", 3)
        entry = _dedupe_decoder.decode(value)
        held = found.setdefault(EpochName(edge, epoch), Held())
        held.parts[int(partition)] = Part(
            IntervalSet(entry.ranges, entry.floor),
            Tally(entry.frames, entry.readings, entry.sums or (0, 0, 0)),
            entry.again,
            summed=entry.sums is not None,
        )
    return found


class DetectReader:
    """What detect's changelog says it has taken."""

    def __init__(self, kafka: Kafka) -> None:
        """Connect; raises Unreachable."""
        self._reader = TopicReader(kafka, topics.STATE)
        self._latest: dict[str, bytes] = {}

    def read(self) -> dict[EpochName, Held]:
        """Return the latest state of every epoch; raises Unreachable."""
        for message in self._reader.new():
            key = (message.key() or b"").decode("utf-8", "replace")
            if key.split("/", 2)[1:2] != ["dedupe"]:
                continue
            value = message.value()
            if value is None:
                self._latest.pop(key, None)
            else:
                self._latest[key] = value
        try:
            return dedupe_of(self._latest)
        except (ValueError, *UNREADABLE) as error:
            raise Unreachable("detect", "its dedupe state is of another version") from error

    def close(self) -> None:
        """Close the client."""
        self._reader.close()


class QuarantineReader:
    """Rejected inputs and set-aside frames, by the headers ingest gives their sealed records."""

    def __init__(self, kafka: Kafka) -> None:
        """Connect; raises Unreachable."""
        self._reader = TopicReader(kafka, topics.QUARANTINE)
        self.held: dict[EpochName, Quarantined] = {}

    def read(self) -> dict[EpochName, Quarantined]:
        """Return everything up to now; raises Unreachable."""
        for message in self._reader.new():
            headers = {name: (value or b"").decode() for name, value in message.headers() or ()}
            name = EpochName((message.key() or b"").decode(), headers.get("epoch", ""))
            self.held.setdefault(name, Quarantined()).add(
                headers.get("kind", "frame"),
                int(headers.get("seq", "-1")),
                int(headers.get("count", "0")),
                message.timestamp()[1],
            )
        return self.held

    def close(self) -> None:
        """Close the client."""
        self._reader.close()


class PoisonReader:
    """Records detect set aside, by the reason in their keys (``partition/offset/reason``)."""

    def __init__(self, kafka: Kafka, since_ms: int = 0) -> None:
        """Connect, to count what was set aside at ``since_ms`` or later; raises Unreachable."""
        self._reader = TopicReader(kafka, topics.POISON)
        self._since_ms = since_ms
        self._held: Counted[str] = Counted()

    def read(self) -> dict[str, int]:
        """Return reason -> records, everything up to now; raises Unreachable."""
        for message in self._reader.new():
            if message.timestamp()[1] < self._since_ms:
                continue
            reason = (message.key() or b"").decode("ascii", "replace").rpartition("/")[2]
            self._held[reason if _WORD.fullmatch(reason) else "unknown"] += 1
        return dict(sorted(self._held.items()))

    def close(self) -> None:
        """Close the client."""
        self._reader.close()


def count_after(kafka: Kafka, topic: topics.Topic, offsets: dict[int, int]) -> int:
    """Return how many committed records lie at or after ``offsets``; raises Unreachable.

    Counted, not subtracted: the markers of transactions take offsets too.
    """
    reader = TopicReader(kafka, topic, offsets)
    try:
        return sum(1 for _ in reader.new())
    finally:
        reader.close()


Counter = Callable[[topics.Topic, dict[int, int]], int]
"""`count_after` with Kafka given, as `cloud.audit.others.project_lag` wants it."""

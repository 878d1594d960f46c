"""Kafka around one contender of `bench.streams`: a broker of its own, loads, what came out.

Law: a load becomes visible in one moment, the commit of one transaction, so that nobody's work
overlaps with the loading; done is when the group's committed offsets are at the end of the load.
"""

import collections
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from bench.streams_data import Keyed
from tests.cloud.detect.broker import Broker
from vitals import topics

CHUNK: Final = 20_000
"""Records handed to the producer at once."""

CALL_S: Final = 60.0
POLL_S: Final = 0.01
PARTITIONS: Final = topics.SUBJECT_PARTITIONS


class Kafka:
    """One broker, new and empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._broker = Broker(folder)
        self._broker.start()
        self.bootstrap = self._broker.bootstrap
        self.pid = self._broker.pid
        self._loads = 0
        self._ends = [0] * PARTITIONS
        """Offset after the last record of ``samples``, by partition."""

    def stop(self) -> None:
        """End the broker."""
        self._broker.stop()

    @contextlib.contextmanager
    def loaded(self, records: Iterable[Keyed]) -> Iterator[None]:
        """Write records into ``samples``; they become visible at the end of the block."""
        self._loads += 1
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "transactional.id": f"bench-load-{self._loads}",
                "transaction.timeout.ms": 600_000,
                "linger.ms": 20,
                "batch.size": 1_000_000,
                "compression.type": "zstd",
                "queue.buffering.max.messages": 2 * CHUNK * PARTITIONS,
                "queue.buffering.max.kbytes": 2_000_000,
            }
        )
        producer.init_transactions(CALL_S)
        producer.begin_transaction()
        highs = [self._high("samples", at) for at in range(PARTITIONS)]
        parts: list[list[dict[str, bytes]]] = [[] for _ in range(PARTITIONS)]
        counts = [0] * PARTITIONS
        for partition, key, value, _ in records:
            parts[partition].append({"key": key, "value": value})
            counts[partition] += 1
            if len(parts[partition]) == CHUNK:
                self._send(producer, partition, parts[partition])
                parts[partition] = []
        for partition, rest in enumerate(parts):
            self._send(producer, partition, rest)
        if producer.flush(CALL_S):
            raise RuntimeError("the load did not reach Kafka in time")
        yield
        producer.commit_transaction(CALL_S)
        self._ends = [
            high + count if count else end
            for high, count, end in zip(highs, counts, self._ends, strict=True)
        ]

    @staticmethod
    def _send(producer: Any, partition: int, messages: list[dict[str, bytes]]) -> None:
        producer.produce_batch("samples", messages, partition=partition)
        if any("_error" in message for message in messages):
            raise RuntimeError("the load does not fit the producer's buffer")
        producer.poll(0)
        while len(producer) > CHUNK * PARTITIONS:
            producer.poll(0.01)

    def _high(self, topic: str, partition: int) -> int:
        consumer = self._consumer("bench-look", "read_uncommitted")
        try:
            return int(consumer.get_watermark_offsets(TopicPartition(topic, partition), CALL_S)[1])
        finally:
            consumer.close()

    def _consumer(self, group: str, isolation: str) -> Any:
        return Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": group,
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 262_144,
            }
        )

    def wait(self, group: str, children: Sequence[Any], bound_s: float) -> None:
        """Return when the group has committed everything loaded; raise when it cannot."""
        consumer = self._consumer(group, "read_committed")
        asked = [TopicPartition("samples", at) for at in range(PARTITIONS)]
        ends_s = time.monotonic() + bound_s
        try:
            while True:
                at = consumer.committed(asked, CALL_S)
                if all(one.offset >= self._ends[one.partition] for one in at if one.offset >= 0):
                    missing = [
                        one for one in at if one.offset < 0 and self._ends[one.partition] > 0
                    ]
                    if not missing:
                        return
                for child in children:
                    if child.poll() is not None:
                        raise RuntimeError(f"a contender ended with {child.returncode}")
                if time.monotonic() > ends_s:
                    raise TimeoutError(f"{group}: not done within {bound_s:.0f} s")
                time.sleep(POLL_S)
        finally:
            consumer.close()

    def committed(self, topic: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of everything committed in a topic."""
        consumer = self._consumer("bench-read", "read_committed")
        left = set(range(PARTITIONS))
        consumer.assign([TopicPartition(topic, at, 0) for at in left])
        try:
            while left:
                for message in consumer.consume(10_000, 0.2):
                    error = message.error()
                    if error is None:
                        yield message.key(), message.value()
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(message.partition())
        finally:
            consumer.close()

    def raised(self) -> "collections.Counter[tuple[str, str, int, int]]":
        """Return how often each alert was raised: subject, vital, began_ms, raised_ms.

        Only of the two limits that every contender watches.
        """
        found: set[tuple[str, tuple[str, str, int, int]]] = set()
        for key, value in self.committed("alerts"):
            event = json.loads(value)
            watched = (event["vital"], event["limit"]) in {("spo2", 90), ("heart_rate", 130)}
            if watched and event["kind"] == "threshold":
                name = (event["subject"], event["vital"], event["began_ms"], event["raised_ms"])
                found.add((key.decode(), name))
        return collections.Counter(name for _, name in found)


@contextlib.contextmanager
def running() -> Iterator[Kafka]:
    """Start a broker in a folder of its own; leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="hs-streams-"))
    kafka = None
    try:
        kafka = Kafka(folder)
        yield kafka
    finally:
        if kafka is not None:
            kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)

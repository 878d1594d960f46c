"""Kafka clients of detect and what restores a partition: the settings exactly-once hangs on.

Law: whoever makes a client here closes it. A static group membership (``group.instance.id``) makes
a restarted process take up its own partitions at once instead of after the session timeout, and
Kafka fences the older of two that use the same.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, IsolationLevel, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from cloud.brokers import BrokerWatch
from vitals import topics

Settings = Mapping[str, str | int | bool]

GROUP: Final = "detect"

# A killed process's transaction holds back every reader of its partitions until it times out or
# its successor begins: short, yet far longer than any commit.
TRANSACTION_TIMEOUT_MS: Final = 15_000

SESSION_TIMEOUT_MS: Final = 10_000

# What librdkafka may hold fetched: bounds memory and a batch's size under backlog.
QUEUED_KBYTES_MAX: Final = 16_384

# What may be handed to the producer and not yet be taken: one batch's output and room.
BUFFERED_KBYTES_MAX: Final = 524_288

# librdkafka's own lines go to stderr: warnings and worse only (syslog's scale).
LOG_LEVEL: Final = 4

# Of one request to one partition, before compression.
BATCH_BYTES: Final = topics.MESSAGE_BYTES_MAX // 2

ASK_S: Final = 10.0
RESTORE_S_MAX: Final = 60.0


def consumer(base: Settings, identity: str, watch: BrokerWatch) -> Any:
    """Return the consumer of ``samples``, not yet subscribed."""
    return Consumer(
        {
            **base,
            **watch.config,
            "log_level": LOG_LEVEL,
            "group.id": GROUP,
            "client.id": identity,
            "group.instance.id": identity,
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "heartbeat.interval.ms": 1_000,
            "fetch.wait.max.ms": 50,
            "fetch.queue.backoff.ms": 5,
            "fetch.error.backoff.ms": 100,
            "queued.min.messages": 10_000,
            "queued.max.messages.kbytes": QUEUED_KBYTES_MAX,
        }
    )


def asker(base: Settings, identity: str) -> dict[str, Any]:
    """Return the settings of a member of no name: its coming makes the group share out anew."""
    return {
        **base,
        "log_level": LOG_LEVEL,
        "group.id": GROUP,
        "client.id": f"{identity}-asks",
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "session.timeout.ms": SESSION_TIMEOUT_MS,
    }


def producer(base: Settings, identity: str) -> Any:
    """Return the transactional producer, not yet initialised."""
    return Producer(
        {
            **base,
            "log_level": LOG_LEVEL,
            "client.id": identity,
            "transactional.id": identity,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "acks": "all",
            "linger.ms": 5,
            # Few large requests: with the five of an idempotent producer under way and more
            # waiting, librdkafka 2.16 polls without a pause (48 µs of CPU for a message of 5 KB,
            # against 17 like this). Topics take twice as much, should a batch not compress.
            "message.max.bytes": BATCH_BYTES,
            # A transaction begun while the last one's markers are still being written is told to
            # try again; the default of 100 ms would be most of a batch's latency.
            "retry.backoff.ms": 3,
            "retry.backoff.max.ms": 500,
            "batch.size": BATCH_BYTES,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": BUFFERED_KBYTES_MAX,
        }
    )


def admin(base: Settings) -> Any:
    """Return a client that asks about topics and groups."""
    return AdminClient({**base, "log_level": LOG_LEVEL})


def end_offsets(base: Settings, partitions: Iterable[int]) -> dict[int, int]:
    """Return the state topic's next offsets, open transactions included; raises KafkaException."""
    asking = admin(base)  # held: with it its answers would go
    asked = asking.list_offsets(
        {TopicPartition(topics.STATE.name, p): OffsetSpec.latest() for p in partitions},
        isolation_level=IsolationLevel.READ_UNCOMMITTED,
        request_timeout=ASK_S,
    )
    return {at.partition: future.result().offset for at, future in asked.items()}


def alone(base: Settings, name: str) -> dict[str, Any]:
    """Return the settings of a consumer that is told where to read, and tells nobody."""
    return {
        **base,
        "log_level": LOG_LEVEL,
        "group.id": GROUP,
        "client.id": name,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,
    }


def commands(base: Settings, identity: str) -> Any:
    """Return the consumer of ``commands``, not yet assigned.

    It belongs to no group: how far it is stands in each partition's memory.
    """
    return Consumer({**alone(base, f"{identity}-commands"), "enable.partition.eof": False})


class Samples:
    """Reads again what was committed of ``samples``, for turns that are replayed."""

    def __init__(
        self, base: Settings, identity: str, ranges: Mapping[int, tuple[int, int]]
    ) -> None:
        """Begin reading each partition's [begin, end)."""
        self._consumer = Consumer(alone(base, f"{identity}-replay"))
        self._ends = {p: end for p, (begin, end) in ranges.items() if end > begin}
        self._consumer.assign(
            [TopicPartition(topics.SAMPLES.name, p, ranges[p][0]) for p in self._ends]
        )

    def records(self) -> Iterable[tuple[int, int, bytes | None]]:
        """Yield (partition, offset, value), each partition's in order, until all were read.

        What retention has removed is left out. Raises TimeoutError after RESTORE_S_MAX seconds.
        """
        left = dict(self._ends)
        deadline = time.monotonic() + RESTORE_S_MAX
        while left:
            for message in self._consumer.consume(10_000, 0.1):
                number, error, offset = message.partition(), message.error(), message.offset()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    continue  # librdkafka tries again by itself; the deadline bounds it
                end = left.get(number)
                if end is None:
                    continue
                if error is None and offset < end:
                    yield number, offset, message.value()
                    offset += 1
                if offset >= end:
                    del left[number]
                    self._consumer.pause([TopicPartition(topics.SAMPLES.name, number)])
            if left and time.monotonic() > deadline:
                raise TimeoutError("samples were not read again in time")

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


class Restored:
    """Reads state partitions from where it is enough to what was their end when asked.

    The end is taken with open transactions included, after the group's offsets were found stable:
    so a predecessor's last commit, whose markers reach partitions one by one, is waited for, and
    what is read is as far as the offsets are.
    """

    def __init__(self, base: Settings, identity: str, floors: Mapping[int, int]) -> None:
        """Ask for the ends and begin reading at ``floors``; raises KafkaException."""
        self._ends = end_offsets(base, floors)
        self._consumer = Consumer(alone(base, f"{identity}-restore"))
        wanted = [p for p, floor in floors.items() if self._ends[p] > floor]
        self._left = set(wanted)
        self._consumer.assign([TopicPartition(topics.STATE.name, p, floors[p]) for p in wanted])

    def records(self) -> Iterable[tuple[int, bytes, bytes | None, int]]:
        """Yield (partition, key, value, offset) until every end is reached.

        Raises TimeoutError after RESTORE_S_MAX seconds.
        """
        deadline = time.monotonic() + RESTORE_S_MAX
        while self._left:
            for message in self._consumer.consume(10_000, 0.1):
                number, error = message.partition(), message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    continue  # librdkafka tries again by itself; the deadline bounds it
                reached = message.offset()
                if error is None:
                    yield number, message.key() or b"", message.value(), message.offset()
                    reached += 1
                if reached >= self._ends[number]:
                    self._left.discard(number)
            if self._left and time.monotonic() > deadline:
                raise TimeoutError("the state topic was not read to its end in time")

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

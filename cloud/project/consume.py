"""The loop: poll, reduce, write; and after any doubt, start again from the offsets in Redis.

Law: Kafka's own group offsets are never used. Where to read from lies beside the data in Redis,
so a Redis that lost its last second pulls the reader back by as much. While Redis is down the
loop polls only to stay in the group; what it polls then is dropped and read again.

======== ================================== ==========================================
state    meaning                            next
======== ================================== ==========================================
waiting  no partitions yet                  assigned -> lost
lost     offsets unknown, partitions paused offsets read -> sought
sought   reading and writing                Redis error or new assignment -> lost
======== ================================== ==========================================
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

import redis
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from cloud.brokers import BrokerWatch
from cloud.project.batch import Batch, Record
from cloud.project.metrics import Metrics
from cloud.project.writer import Written
from healthsync.runtime.log import Log
from vitals import topics

TOPICS: Final = (topics.IDENTITY.name, topics.SAMPLES.name, topics.ALERTS.name)

# Records of one write: keeps the script in Redis to a few milliseconds.
BATCH_RECORDS_MAX: Final = 200

# Readings of one write; a poll of backlog frames stops adding records beyond it.
BATCH_READINGS_MAX: Final = 10_000

POLL_S: Final = 0.5
BACKOFF_S_MIN: Final = 0.05
BACKOFF_S_MAX: Final = 2.0
LAG_EVERY_MS: Final = 1_000


class Store(Protocol):
    """What the loop needs of `writer.Writer`."""

    def offsets(self) -> dict[str, int]:
        """Return next offsets."""
        ...

    def write(self, batch: Batch) -> Written:
        """Apply a batch."""
        ...

    def close(self) -> None:
        """Close."""
        ...


class Loop:
    """Owns the consumer's assignment and the writer's life."""

    def __init__(
        self,
        consumer: Any,
        watch: BrokerWatch,
        open_store: Callable[[], Store],
        new_batch: Callable[[], Batch],
        metrics: Metrics,
        log: Log,
        now_ms: Callable[[], int],
    ) -> None:
        """Take a confluent_kafka.Consumer, not yet subscribed; who made it closes it."""
        self._consumer = consumer
        self._watch = watch
        self._open_store = open_store
        self._new_batch = new_batch
        self._metrics = metrics
        self._log = log
        self._now_ms = now_ms
        self._store: Store | None = None
        self._assigned: list[Any] = []
        self._sought = False
        self._backoff_s = BACKOFF_S_MIN
        self._lag_at_ms = 0

    @property
    def ready(self) -> bool:
        """True while reading and writing."""
        return self._sought

    def subscribe(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            list(TOPICS),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        self._assigned = list(partitions)
        self._sought = False
        consumer.assign(partitions)
        consumer.pause(partitions)

    def _on_revoke(self, consumer: Any, _partitions: list[Any]) -> None:
        self._assigned = []
        self._sought = False
        consumer.unassign()

    def step(self) -> None:
        """Do one turn of the loop: at most POLL_S when idle, at most a backoff when Redis fails.

        Raises KafkaException or Deserted when the consumer will never work again.
        """
        self._watch.check()
        if not self._sought:
            self._seek()
            return
        batch = self._new_batch()
        self._poll(batch)
        if not self._sought or not len(batch):
            return  # a rebalance came with the poll: what was read belongs to the assignment before
        try:
            written = self._write(batch)
        except redis.RedisError as error:
            self._fail(error)
            return
        self._metrics.wrote(batch, written, self._now_ms())
        self._observe_lag()

    def _write(self, batch: Batch) -> Written:
        if self._store is None:
            raise redis.ConnectionError("no connection")
        return self._store.write(batch)

    def _poll(self, batch: Batch) -> None:
        message = self._consumer.poll(POLL_S)
        while message is not None:
            error = message.error()
            if error is None:
                batch.add(
                    Record(
                        message.topic(),
                        message.partition(),
                        message.offset(),
                        message.key() or b"",
                        message.value(),
                    )
                )
            elif error.fatal():
                raise KafkaException(error)
            elif error.code() != KafkaError._PARTITION_EOF:
                self._log.warning("kafka-error", code=str(error.name()))
            if len(batch) >= BATCH_RECORDS_MAX or batch.readings >= BATCH_READINGS_MAX:
                return
            message = self._consumer.poll(0)

    def _seek(self) -> None:
        if not self._assigned:
            self._consumer.poll(POLL_S)
            return
        try:
            if self._store is None:
                self._store = self._open_store()
            offsets = self._store.offsets()
        except redis.RedisError as error:
            self._fail(error)
            return
        self._consumer.assign(
            [
                TopicPartition(
                    at.topic,
                    at.partition,
                    offsets.get(f"{at.topic}/{at.partition}", OFFSET_BEGINNING),
                )
                for at in self._assigned
            ]
        )
        self._consumer.resume(self._assigned)  # a pause outlives a new assignment
        self._sought = True
        self._backoff_s = BACKOFF_S_MIN
        self._log.info("sought", partitions=len(self._assigned), known=len(offsets))

    def _fail(self, error: redis.RedisError) -> None:
        """Drop the writer, pause, wait a bounded while, and go back to lost."""
        self._metrics.redis_errors.inc()
        self._log.warning("redis-error", error=type(error).__name__, retry_s=self._backoff_s)
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._sought and self._assigned:
            self._consumer.pause(self._assigned)
        self._sought = False
        self._consumer.poll(self._backoff_s)  # dropped: the seek reads it again
        self._backoff_s = min(self._backoff_s * 2, BACKOFF_S_MAX)

    def _observe_lag(self) -> None:
        now = self._now_ms()
        if now - self._lag_at_ms < LAG_EVERY_MS:
            return
        self._lag_at_ms = now
        lag = 0
        for at in self._consumer.position(self._assigned):
            _low, high = self._consumer.get_watermark_offsets(at, cached=True)
            if high >= 0 and at.offset >= 0:
                lag += max(0, high - at.offset)
        self._metrics.lag.set(lag)

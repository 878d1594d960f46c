"""``healthsync cloud archive --config FILE``: the process around `Archiver`.

Ends: SIGTERM or SIGINT -> what is gathered is put once, exit 0; a Kafka client that can never
work again -> exit 75; a damaged newest file -> exit 70 (nothing is written after a file that
cannot be read); wrong configuration -> exit 78. S3, KMS and Kafka being down end nothing.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cloud.archive import metrics
from cloud.archive.archiver import Archiver
from cloud.archive.config import ArchiveConfig
from cloud.archive.envelope import parquet_keys
from cloud.archive.errors import ArchiveDamaged
from cloud.archive.store import Store
from cloud.brokers import BrokerWatch, Deserted
from cloud.settings import Kafka, kafka_config
from healthsync.runtime import config as config_
from healthsync.runtime import metrics as metrics_
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify, watchdog_interval_s
from healthsync.runtime.stop import Stop
from vitals.errors import ConfigError
from vitals.topics import SAMPLES

GROUP: Final = "archive"
BATCH_RECORDS: Final = 2_000
POLL_S: Final = 0.2

# A killed process gives its partitions up after this; heartbeats come from librdkafka's thread.
SESSION_MS: Final = 10_000

# How often the lag is measured.
LAG_S: Final = 2.0


def consumer_config(kafka: Kafka) -> dict[str, Any]:
    """Return the consumer's settings. Offsets in Kafka only show the lag; files are the truth."""
    return {
        **kafka_config(kafka),
        "client.id": GROUP,
        "group.id": GROUP,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": SESSION_MS,
        "partition.assignment.strategy": "cooperative-sticky",
        "fetch.message.max.bytes": 4 * 1024 * 1024,
        "queued.max.messages.kbytes": 32 * 1024,
        "log_level": 2,
    }


class ArchiveConsumer:
    """The Kafka side: assignment, hold, seek, commit. `Archiver` decides, this obeys."""

    def __init__(self, config: dict[str, Any], log: Log) -> None:
        """Make the client; `subscribe` connects it."""
        self.fatal = False
        self._log = log
        self._error = ""
        self._assigned: set[int] = set()
        self._watch = BrokerWatch()
        self._client = Consumer({**config, **self._watch.config, "error_cb": self._on_error})

    def _on_error(self, error: KafkaError) -> None:
        self.fatal = self.fatal or bool(error.fatal())
        if error.name() != self._error:
            self._error = error.name()
            self._log.warning("kafka-error", code=error.name(), fatal=bool(error.fatal()))

    def subscribe(self, archiver: Archiver) -> None:
        """Join the group; partitions come and go through ``archiver``."""

        def on_assign(client: Any, partitions: list[TopicPartition]) -> None:
            client.incremental_assign([TopicPartition(p.topic, p.partition, 0) for p in partitions])
            for partition in partitions:
                self._assigned.add(partition.partition)
                archiver.assigned(partition.partition)

        def on_revoke(client: Any, partitions: list[TopicPartition]) -> None:
            for partition in partitions:
                self._assigned.discard(partition.partition)
                archiver.revoked(partition.partition)
            client.incremental_unassign(partitions)

        self._client.subscribe(
            [SAMPLES.name], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke
        )

    def poll(self, archiver: Archiver) -> None:
        """Take what has come; raise Deserted when nothing ever will."""
        self._watch.check()
        for message in self._client.consume(BATCH_RECORDS, POLL_S):
            error = message.error()
            if error is None:
                archiver.take(message.partition(), message.offset(), message.value())
            elif error.code() != KafkaError._PARTITION_EOF:
                self._on_error(error)

    def hold(self, partition: int) -> None:
        """Fetch nothing of the partition."""
        self._client.pause([TopicPartition(SAMPLES.name, partition)])

    def send_on(self, partition: int, offset: int) -> bool:
        """Seek and fetch; False while the assignment is not in force yet."""
        try:
            self._client.seek(TopicPartition(SAMPLES.name, partition, offset))
        except KafkaException:
            return False
        self._client.resume([TopicPartition(SAMPLES.name, partition)])
        return True

    def commit(self, offsets: dict[int, int]) -> None:
        """Tell Kafka how far the files go, for those who watch the lag."""
        if offsets:
            listed = [TopicPartition(SAMPLES.name, p, offset) for p, offset in offsets.items()]
            try:
                self._client.commit(offsets=listed, asynchronous=True)
            except KafkaException as error:
                self._log.warning("commit", code=error.args[0].name())

    def lag(self) -> int:
        """Return how many records of our partitions are not taken yet, as far as is known."""
        total = 0
        ours = [TopicPartition(SAMPLES.name, partition) for partition in self._assigned]
        for at in self._client.position(ours):
            _low, high = self._client.get_watermark_offsets(at, cached=True)
            if at.offset >= 0 and high > at.offset:
                total += high - at.offset
        return total

    def close(self) -> None:
        """Leave the group."""
        self._client.close()


def run(config: Path) -> int:
    """Archive until told to stop; return the exit code."""
    settings = config_.load(config, ArchiveConfig)
    log = Log("archive", now_ms)
    stop = Stop()
    store = Store(settings.s3, sse_kms=settings.sse_kms)
    keys = parquet_keys(settings.kms, os.urandom, now_ms)
    try:
        consumer = ArchiveConsumer(consumer_config(settings.kafka), log)
    except KafkaException as error:
        raise ConfigError(f"{config}: the Kafka client cannot be made: {error}") from error
    archiver = Archiver(
        store, keys, consumer, int(settings.flush_s * 1000), settings.rows_max, now_ms, log
    )
    metrics_.serve(settings.metrics.port)
    consumer.subscribe(archiver)
    log.info("serving", bucket=settings.s3.bucket)
    notify("READY=1")
    try:
        outcome = _loop(consumer, archiver, stop, log)
        notify("STOPPING=1")
        if outcome is Exit.OK:
            consumer.commit(archiver.work(everything=True))
    except ArchiveDamaged as error:
        log.error("archive-damaged", what=str(error))  # noqa: TRY400 - Log has no exception()
        outcome = Exit.INTERNAL
    finally:
        consumer.close()
    log.info("stopped", code=outcome.value)
    return outcome


def _loop(consumer: ArchiveConsumer, archiver: Archiver, stop: Stop, log: Log) -> Exit:
    watchdog_s, last_watchdog, last_lag = watchdog_interval_s(), 0.0, 0.0
    while not stop:
        try:
            consumer.poll(archiver)
            consumer.commit(archiver.work())
        except KafkaException as error:
            log.warning("kafka-exception", code=error.args[0].name())
            if error.args[0].fatal():
                return Exit.RESTART
        except Deserted as error:
            log.crash("kafka-deserted", error)
            return Exit.RESTART
        if consumer.fatal:
            return Exit.RESTART
        now_s = time.monotonic()
        if now_s - last_lag >= LAG_S:
            last_lag = now_s
            metrics.LAG.set(consumer.lag())
        if watchdog_s is not None and now_s - last_watchdog >= watchdog_s:
            last_watchdog = now_s
            notify("WATCHDOG=1")
    return Exit.OK

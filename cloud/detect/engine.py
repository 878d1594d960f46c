"""The shell: poll, decide, and one transaction a batch: fhir, alerts, state and offsets.

Law: nothing leaves but by a transaction that moves the offsets with it. After any doubt about one
(aborted, rebalanced, timed out) memory is thrown away and read back from what was committed, and
reading begins again at the committed offsets. Idle, nothing is produced.

=========  ===============================================  ==================================
partition  meaning                                          next
=========  ===============================================  ==================================
gone       somebody else's; nothing of it in memory         assigned -> behind
behind     its offset and state are being read back         all read -> live
live       records are taken                                abort -> behind; revoked -> gone
=========  ===============================================  ==================================

A partition is read back inside the rebalance callback, before it is assigned: nothing is fetched
too early, and no pause is needed (librdkafka takes up to a second to notice a resume).

Errors: a fatal one (fenced by a second process of the same name) raises Fenced: the process ends
and is started again. An abortable one is aborted. A retriable one is tried again until
`RETRY_S_MAX`, then Unreachable ends the process; inside a transaction it does so at once.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from cloud.brokers import BrokerWatch
from cloud.detect import clients, metrics
from cloud.detect.calls import (
    BACKOFF_S,
    CALL_S,
    RETRY_S_MAX,
    Fenced,
    Unreachable,
    error_of,
    once,
    retried,
    transient,
)
from cloud.detect.clients import Settings
from cloud.detect.detectors import Ready
from cloud.detect.partition import Made, Message, Partition, Poison, alert_message
from cloud.records import AlertEvent, SamplesRecord
from healthsync.runtime.log import Log
from vitals import topics

# Readings after which a batch is closed: 20,000 Observations are some 15 MB to produce, half a
# second of one core; a live ward's batch has a few hundred.
BATCH_READINGS_MAX: Final = 20_000
BATCH_RECORDS_MAX: Final = 10_000

POLL_S: Final = 0.2
SEEK_BACKOFF_S: Final = 0.005
LAG_EVERY_S: Final = 1.0
LATE_MS: Final = 60_000


class _Aborted(Exception):
    """The transaction was aborted; go back to what was committed."""


class Batch:
    """What one transaction will hold, by partition, and the offsets it moves."""

    def __init__(self) -> None:
        """Begin empty."""
        self.fhir: dict[int, list[Message]] = {}
        self.alerts: dict[int, list[AlertEvent]] = {}
        self.offsets: dict[int, int] = {}
        self.records = self.readings = self.duplicates = self.late = 0

    def add(self, partition: int, offset: int, made: Made | None) -> None:
        """Add what a record gave; None for one set aside."""
        self.offsets[partition] = offset + 1
        self.records += 1
        if made is None:
            return
        self.fhir.setdefault(partition, []).extend(made.fhir)
        self.alerts.setdefault(partition, []).extend(made.alerts)
        self.readings += made.readings
        self.duplicates += made.duplicate

    def full(self) -> bool:
        """Tell whether it is time to commit."""
        return self.readings >= BATCH_READINGS_MAX or self.records >= BATCH_RECORDS_MAX


class Engine:
    """Owns both clients and the memory of the partitions assigned to it."""

    def __init__(
        self,
        base: Settings,
        identity: str,
        policy: Ready,
        log: Log,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the clients; ``base`` is what every client of ours starts from."""
        self._base = base
        self._identity = identity
        self._policy = policy
        self._log = log
        self._monotonic_s = monotonic_s
        self._partitions: dict[int, Partition] = {}
        self._moves = 0
        self._lost = False
        self._lag_at = 0.0
        self._producer = clients.producer(base, identity)
        self._watch = BrokerWatch()
        self._consumer = clients.consumer(base, identity, self._watch)

    @property
    def ready(self) -> bool:
        """True when joined, and so every assigned partition live."""
        return self._moves > 0

    def start(self) -> None:
        """End a predecessor's open transaction and join the group; raises Fenced, Unreachable."""
        self._retried(lambda: self._producer.init_transactions(CALL_S))
        self._consumer.subscribe(
            [topics.SAMPLES.name],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def close(self) -> None:
        """Leave; an open transaction there never is between steps."""
        self._consumer.close()

    def step(self) -> int:
        """Do one turn; return how many records were committed. Waits POLL_S at most when idle."""
        self._observe_lag()
        first = self._poll(POLL_S)
        if first is None:
            return 0
        moves = self._moves
        began = self._monotonic_s()
        batch = Batch()
        message = first
        while message is not None:
            self._take(message, batch)
            message = None if batch.full() else self._poll(0)
        if self._moves != moves:
            # A rebalance was served while polling: what was read may be somebody else's by now,
            # and memory of the rest has run ahead of what is committed.
            self._recover()
            return 0
        try:
            self._commit(batch)
        except _Aborted:
            metrics.ABORTS.inc()
            self._recover()
            return 0
        self._count(batch, self._monotonic_s() - began)
        return batch.records

    # -- rebalances: served inside poll, between transactions ---------------------------------

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        self._moves += 1
        numbers = sorted(p.partition for p in partitions)
        self._log.info("assigned", partitions=numbers)
        consumer.incremental_assign(self._restore(numbers) if numbers else [])

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        self._moves += 1
        gone = {p.partition for p in partitions}
        for number in gone:
            self._partitions.pop(number, None)
        consumer.incremental_unassign(partitions)
        self._log.info("revoked", partitions=sorted(gone))

    def _on_lost(self, consumer: Any, partitions: list[Any]) -> None:
        """End: the group gave this process up.

        It may join again, but librdkafka's transaction calls then hang for good, whatever timeout
        they are given (seen with 2.16.1 after a broker was away for longer than the session).
        """
        self._on_revoke(consumer, partitions)
        self._lost = True

    def _recover(self) -> None:
        """Throw every partition's memory away and begin again at what was committed."""
        numbers = sorted(self._partitions)
        self._partitions.clear()
        for where in self._restore(numbers) if numbers else []:
            self._seek(where)

    def _restore(self, numbers: list[int]) -> list[Any]:
        """Read back the state of partitions; return where each is to be read from."""
        began = self._monotonic_s()
        asked = [TopicPartition(topics.SAMPLES.name, p) for p in numbers]
        # First the offsets: Kafka answers only when no transaction is about to move them.
        committed = self._retried(lambda: self._consumer.committed(asked, CALL_S))
        fresh, records = self._retried(lambda: self._read_state(numbers))
        self._partitions.update(fresh)
        took = round((self._monotonic_s() - began) * 1000)
        self._log.info("restored", partitions=numbers, records=records, took_ms=took)
        return [
            TopicPartition(
                topics.SAMPLES.name, at.partition, at.offset if at.offset >= 0 else OFFSET_BEGINNING
            )
            for at in committed
        ]

    def _seek(self, where: Any) -> None:
        """Seek, waiting for a partition whose assignment is still under way."""
        deadline = self._monotonic_s() + RETRY_S_MAX
        while True:
            try:
                self._consumer.seek(where)
            except KafkaException as raised:
                error = error_of(raised)
                if error.code() != KafkaError._STATE and not transient(error):
                    raise Fenced(error.name()) from raised
                if self._monotonic_s() > deadline:
                    raise Unreachable(error.name()) from raised
                time.sleep(SEEK_BACKOFF_S)
            else:
                return

    def _read_state(self, numbers: list[int]) -> tuple[dict[int, Partition], int]:
        fresh = {number: Partition(number) for number in numbers}
        count = 0
        reader = clients.Restored(self._base, self._identity, numbers)
        try:
            for number, key, value in reader.records():
                count += 1
                try:
                    fresh[number].restore(key, value)
                except Poison:
                    # Ids of ours only; starting without it beats not starting.
                    self._log.error("state-record-unreadable", partition=number)
        finally:
            reader.close()
        return fresh, count

    # -- records -----------------------------------------------------------------------------

    def _poll(self, timeout_s: float) -> Any:
        message = self._consumer.poll(timeout_s)
        if self._lost:
            raise Fenced("assignment-lost")
        self._watch.check()
        if message is None:
            return None
        error = message.error()
        if error is None:
            return message
        if error.fatal():
            raise Fenced(error.name())
        self._log.warning("consumer-error", code=error.name())
        return None

    def _take(self, message: Any, batch: Batch) -> None:
        number, offset = message.partition(), message.offset()
        partition = self._partitions.get(number)
        if partition is None:
            return  # revoked by this very batch: `step` begins again
        made: Made | None = None
        try:
            record = partition.read(message.value())
            made = partition.take(record, self._policy)
            batch.late += _late(record)
        except Poison as error:
            metrics.POISON.labels(error.reason).inc()
            self._log.error("poison", reason=error.reason, partition=number, offset=offset)
        batch.add(number, offset, made)

    # -- the transaction ---------------------------------------------------------------------

    def _commit(self, batch: Batch) -> None:
        """Do the transaction; raises _Aborted, Fenced, Unreachable."""
        try:
            self._producer.begin_transaction()
            for number in sorted(batch.offsets):
                self._send(topics.FHIR.name, number, batch.fhir.get(number, []))
                alerts = [alert_message(alert) for alert in batch.alerts.get(number, [])]
                self._send(topics.ALERTS.name, number, alerts)
                self._send(topics.STATE.name, number, self._partitions[number].changed())
            began = self._monotonic_s()
            offsets = [
                TopicPartition(topics.SAMPLES.name, number, offset)
                for number, offset in batch.offsets.items()
            ]
            group = self._consumer.consumer_group_metadata()
            # One try each: after a timeout (a broker that was killed) a second call of librdkafka's
            # may never return, although given one. To start anew is safe and takes a second.
            once(lambda: self._producer.send_offsets_to_transaction(offsets, group, CALL_S))
            once(lambda: self._producer.commit_transaction(CALL_S))
        except KafkaException as raised:
            self._abort(raised)
        else:
            metrics.COMMIT.observe(self._monotonic_s() - began)

    def _abort(self, raised: KafkaException) -> None:
        error = error_of(raised)
        if error.fatal():
            raise Fenced(error.name()) from raised
        self._log.warning("aborting", code=error.name())
        try:
            self._retried(lambda: self._producer.abort_transaction(CALL_S))
        except KafkaException as failed:
            raise Fenced(error_of(failed).name()) from failed
        raise _Aborted from raised

    def _send(self, topic: str, partition: int, messages: list[Message]) -> None:
        """Hand messages to the producer, waiting for room in its buffer."""
        waiting = [{"key": message.key, "value": message.value} for message in messages]
        deadline = self._monotonic_s() + RETRY_S_MAX
        while waiting:
            self._producer.produce_batch(topic, waiting, partition=partition)
            failed = [one for one in waiting if "_error" in one]
            for one in failed:
                error: Any = one.pop("_error")
                if error.code() != KafkaError._QUEUE_FULL:
                    raise KafkaException(error)
            if failed and self._monotonic_s() > deadline:
                raise Unreachable(topic)
            waiting = failed
            self._producer.poll(BACKOFF_S if failed else 0)

    def _retried(self, call: Callable[[], Any]) -> Any:
        return retried(call, self._log, self._monotonic_s)

    # -- counting ----------------------------------------------------------------------------

    def _count(self, batch: Batch, took_s: float) -> None:
        metrics.RECORDS.inc(batch.records)
        metrics.READINGS.inc(batch.readings)
        metrics.DUPLICATES.inc(batch.duplicates)
        metrics.LATE.inc(batch.late)
        metrics.BATCH.observe(took_s)
        for alerts in batch.alerts.values():
            for alert in alerts:
                metrics.ALERTS.labels(alert.kind, alert.priority, alert.state).inc()

    def _observe_lag(self) -> None:
        now = self._monotonic_s()
        if now - self._lag_at < LAG_EVERY_S or not self._partitions:
            return
        self._lag_at = now
        behind = 0
        for at in self._consumer.position(
            [TopicPartition(topics.SAMPLES.name, p) for p in self._partitions]
        ):
            _, high = self._consumer.get_watermark_offsets(at, cached=True)
            if at.offset >= 0 and high > at.offset:
                behind += high - at.offset
        metrics.LAG.set(behind)


def _late(record: SamplesRecord) -> int:
    bound = record.ingested_ms - LATE_MS
    return sum(time_ms < bound for time_ms in record.columns.times_ms())

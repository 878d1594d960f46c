"""The Kafka side: which partitions are ours, what is read, how far it is done.

Law: an offset is committed when the server, or ``undelivered``, has everything below it. Before a
partition goes to another process its request under way is waited for, so that the other does not
begin while this one still writes.

========= ======================================= ===========================================
partition meaning                                 next
========= ======================================= ===========================================
gone      somebody else's                         assigned -> fetched
fetched   records go to its lane                  lane full -> held; no offset -> unplaced
held      nothing more is fetched (back-pressure) lane half empty -> fetched
unplaced  nothing committed, or it has expired    first record found -> fetched
any                                               revoked: lane ended, committed -> gone
any                                               lost: lane ended -> gone
========= ======================================= ===========================================

Kafka keeps ``fhir`` for a week. What expires before it is delivered is lost to the server: it is
counted and logged as an error, never passed over in silence (``auto.offset.reset`` is ``error``).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from cloud.brokers import BrokerWatch
from cloud.deliver import metrics
from cloud.deliver.courier import Record
from cloud.deliver.lane import Lane
from cloud.deliver.letters import LOG_LEVEL, Letters
from healthsync.runtime.log import Log
from vitals import topics

GROUP: Final = "deliver"
TOPIC: Final = topics.FHIR.name

POLL_S: Final = 0.1
POLL_RECORDS_MAX: Final = 500
COMMIT_EVERY_S: Final = 0.25
OBSERVE_EVERY_S: Final = 1.0
ASK_S: Final = 5.0

# A killed process gives its partitions up after this.
SESSION_MS: Final = 10_000

# A request under way when a partition goes. Kafka waits for max.poll.interval.ms (300 s).
GRACE_S: Final = 10.0
ABORT_S: Final = 2.0

# What librdkafka may hold fetched, beside the lanes.
QUEUED_KBYTES_MAX: Final = 16_384


class Failed(Exception):
    """A lane's thread ended by a defect."""


def consumer_config(base: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Return the consumer's settings."""
    return {
        **base,
        "log_level": LOG_LEVEL,
        "group.id": GROUP,
        "client.id": identity,
        # A process that is started again has its partitions at once.
        "group.instance.id": identity,
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "session.timeout.ms": SESSION_MS,
        "fetch.wait.max.ms": 50,
        "queued.max.messages.kbytes": QUEUED_KBYTES_MAX,
    }


class Loop:
    """Owns the consumer, its assignment and the lanes."""

    def __init__(
        self,
        config: dict[str, Any],
        new_lane: Callable[[int], Lane],
        letters: Letters,
        check: Callable[[], None],
        log: Log,
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the client; ``check`` bounds what runs beside the lanes."""
        self._new_lane = new_lane
        self._letters = letters
        self._check = check
        self._log = log
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._watch = BrokerWatch()
        self._consumer = Consumer({**config, **self._watch.config, "on_commit": self._on_commit})
        self._lanes: dict[int, Lane] = {}
        self._held: set[int] = set()
        self._unplaced: set[int] = set()
        self._committed: dict[int, int] = {}
        self._commit_at_s = self._observe_at_s = 0.0
        self.ready = False
        """True when joined."""

    def subscribe(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            [TOPIC], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def step(self) -> None:
        """Do one turn; waits POLL_S at most when idle, ASK_S when Kafka is asked for an offset.

        Raises Deserted or KafkaException when a client is beyond use, Failed for a defect.
        """
        self._watch.check()
        self._letters.watch.check()
        self._letters.serve()
        self._check()
        for lane in self._lanes.values():
            if lane.failure is not None:
                raise _end_of(lane.failure)
            lane.connection.check()
        self._commit()
        self._place()
        self._fetch_on()
        self._observe()
        message = self._consumer.poll(POLL_S)
        for _ in range(POLL_RECORDS_MAX):
            if message is None:
                return
            self._take(message)
            message = self._consumer.poll(0)
        if message is not None:
            self._take(message)

    def close(self) -> None:
        """End the lanes, commit what is done, leave."""
        self._end(list(self._lanes), grace_s=GRACE_S, commit=True)
        self._consumer.close()

    # -- rebalances: served inside poll --------------------------------------------------------

    def _on_assign(self, consumer: Any, partitions: list[Any]) -> None:
        numbers = sorted(p.partition for p in partitions)
        self._log.info("assigned", partitions=numbers)
        consumer.incremental_assign(partitions)
        for number in numbers:
            self._lanes[number] = lane = self._new_lane(number)
            lane.start()
        if numbers:
            consumer.resume(_at(numbers))  # a pause outlives an assignment
        self.ready = True

    def _on_revoke(self, consumer: Any, partitions: list[Any]) -> None:
        numbers = sorted(p.partition for p in partitions)
        self._end(numbers, grace_s=GRACE_S, commit=True)
        consumer.incremental_unassign(partitions)
        self._log.info("revoked", partitions=numbers)

    def _on_lost(self, consumer: Any, partitions: list[Any]) -> None:
        numbers = sorted(p.partition for p in partitions)
        self._end(numbers, grace_s=0, commit=False)
        consumer.incremental_unassign(partitions)
        self._log.warning("lost", partitions=numbers)

    def _end(self, numbers: list[int], *, grace_s: float, commit: bool) -> None:
        lanes = [self._lanes.pop(number) for number in numbers if number in self._lanes]
        for lane in lanes:
            lane.cancel()
        for bound_s in (grace_s, ABORT_S):
            deadline_s = self._monotonic_s() + bound_s
            for lane in lanes:
                lane.join(max(0.0, deadline_s - self._monotonic_s()))
            for lane in lanes:
                lane.connection.abort()
        offsets = {lane.partition: lane.done for lane in lanes if lane.done is not None}
        if commit and offsets:
            try:
                self._consumer.commit(offsets=_offsets(offsets), asynchronous=False)
            except KafkaException as error:
                # It is done twice then, with the same end.
                self._log.warning("commit", code=error.args[0].name())
        for number in numbers:
            self._held.discard(number)
            self._unplaced.discard(number)
            self._committed.pop(number, None)

    # -- records -------------------------------------------------------------------------------

    def _take(self, message: Any) -> None:
        error, number = message.error(), message.partition()
        if error is not None:
            # Fenced by a second process of the same instance, librdkafka says _FATAL, not fatal().
            if error.fatal() or error.code() == KafkaError._FATAL:
                raise KafkaException(error)
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._unplaced.update(self._lanes.keys() & {number})
            elif error.code() != KafkaError._PARTITION_EOF:
                self._log.warning("kafka-error", code=error.name())
            return
        lane = self._lanes.get(number)
        if lane is None:
            return  # revoked by this very poll: its next owner reads it
        _kind, time_ms = message.timestamp()
        lane.put(Record(number, message.offset(), message.key() or b"", message.value(), time_ms))
        if lane.is_full() and number not in self._held:
            self._held.add(number)
            self._consumer.pause(_at([number]))

    def _fetch_on(self) -> None:
        low = [number for number in self._held if self._lanes[number].is_low()]
        if low:
            self._consumer.resume(_at(low))
            self._held.difference_update(low)

    def _place(self) -> None:
        """Begin at the first record there is, where nothing is committed or it has expired."""
        for number in list(self._unplaced):
            (at,) = _at([number])
            try:
                first, _end = self._consumer.get_watermark_offsets(at, timeout=ASK_S)
                (committed,) = self._consumer.committed([at], timeout=ASK_S)
            except KafkaException as error:
                self._log.warning("place", code=error.args[0].name())
                return
            wanted = self._lanes[number].taken
            if wanted is None:
                wanted = committed.offset
            if 0 <= wanted < first:
                metrics.EXPIRED.inc(first - wanted)
                self._log.error("expired", partition=number, offset=wanted, first=first)
            else:
                self._log.info("from-first", partition=number, first=first, wanted=wanted)
            self._consumer.incremental_unassign([at])
            self._consumer.incremental_assign([TopicPartition(TOPIC, number, first)])
            self._unplaced.discard(number)

    # -- offsets -------------------------------------------------------------------------------

    def _commit(self) -> None:
        now_s = self._monotonic_s()
        if now_s - self._commit_at_s < COMMIT_EVERY_S:
            return
        self._commit_at_s = now_s
        offsets = {
            number: lane.done
            for number, lane in self._lanes.items()
            if lane.done is not None and lane.done != self._committed.get(number)
        }
        if offsets:
            self._consumer.commit(offsets=_offsets(offsets), asynchronous=True)
            self._committed |= offsets

    def _on_commit(self, error: Any, partitions: list[Any]) -> None:
        """Have what was not committed committed again."""
        for at in partitions:
            if error is not None or at.error is not None:
                self._committed.pop(at.partition, None)
        if error is not None:
            self._log.warning("commit", code=error.name())

    def _observe(self) -> None:
        now_s = self._monotonic_s()
        if now_s - self._observe_at_s < OBSERVE_EVERY_S:
            return
        self._observe_at_s = now_s
        behind = sum(len(lane) for lane in self._lanes.values())
        for at in self._consumer.position(_at(self._lanes)):
            _low, high = self._consumer.get_watermark_offsets(at, cached=True)
            if at.offset >= 0 and high > at.offset:
                behind += high - at.offset
        metrics.LAG.set(behind)
        times = [lane.oldest_ms() for lane in self._lanes.values()]
        oldest_ms = min(
            (time_ms for time_ms in times if time_ms and time_ms > 0), default=self._now_ms()
        )
        metrics.OLDEST.set(max(0, self._now_ms() - oldest_ms) / 1000)


def _at(numbers: Iterable[int]) -> list[Any]:
    return [TopicPartition(TOPIC, number) for number in numbers]


def _offsets(offsets: Mapping[int, int]) -> list[Any]:
    return [TopicPartition(TOPIC, number, offset) for number, offset in offsets.items()]


def _end_of(failure: Exception) -> Exception:
    """Return what the process ends with: Kafka's own word, or a defect."""
    failed = Failed()
    failed.__cause__ = failure
    is_kafka = isinstance(failure, KafkaException)
    return failure if is_kafka else failed

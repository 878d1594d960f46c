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

``commands`` is read beside the group, partition by partition, from where each partition's own
memory says: so a command is applied in the transaction that says so, once.

A record whose judging fails in a way nobody foresaw is tried again after everything was read
back; failing JUDGED_MAX times it is set aside, so that it cannot stop a ward.

Errors: a fatal one (fenced by a second process of the same name) raises Fenced: the process ends
and is started again. An abortable one is aborted. A retriable one is tried again until
`RETRY_S_MAX`, then Unreachable ends the process; inside a transaction it does so at once.
"""

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from cloud.brokers import BrokerWatch
from cloud.detect import clients, metrics
from cloud.detect.calls import (
    CALL_S,
    RETRY_S_MAX,
    Fenced,
    Unreachable,
    error_of,
    retried,
    transient,
)
from cloud.detect.clients import Settings
from cloud.detect.made import Made, Poison, Unjudged
from cloud.detect.outbox import Outbox
from cloud.detect.owners import Owners
from cloud.detect.partition import Partition
from cloud.records import NewPolicy
from healthsync.runtime.cycles import building
from healthsync.runtime.log import Log
from vitals import topics

# Bytes of records after which a batch is closed: some 60,000 readings, whose Observations are
# about 50 MB to produce, half a second of one core; a live ward's batch has a few hundred.
BATCH_BYTES_MAX: Final = 512 * 1024
BATCH_RECORDS_MAX: Final = 10_000

POLL_S: Final = 0.05
SEEK_BACKOFF_S: Final = 0.005
LAG_EVERY_S: Final = 1.0

# Idle for so long, changed chunks are written, so that a later start has nothing to replay.
REST_S: Final = 2.0

# Commands taken in one batch.
COMMANDS_MAX: Final = 1_000

# How often judging one record may fail before it is set aside.
JUDGED_MAX: Final = 2

# Who: the policy of the configuration file.
FILE: Final = "file"


class _Aborted(Exception):
    """The transaction was aborted; go back to what was committed."""


class Batch:
    """What one transaction will hold, by partition, and the offsets it moves."""

    def __init__(self) -> None:
        """Begin empty."""
        self.samples: dict[int, list[tuple[int, bytes | None]]] = {}
        self.commands: dict[int, list[tuple[int, bytes]]] = {}
        self.made: dict[int, Made] = {}
        self.records = self.bytes = 0

    def add(self, number: int, offset: int, value: bytes | None) -> None:
        """Add a record of ``samples``."""
        self.samples.setdefault(number, []).append((offset, value))
        self.records += 1
        self.bytes += len(value or b"")

    def full(self) -> bool:
        """Tell whether it is time to commit."""
        return self.bytes >= BATCH_BYTES_MAX or self.records >= BATCH_RECORDS_MAX


class Engine:
    """Owns both clients and the memory of the partitions assigned to it."""

    def __init__(
        self,
        base: Settings,
        identity: str,
        policy: str,
        log: Log,
        now_ms: Callable[[], int],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the clients.

        ``base`` is what every client of ours starts from; ``policy`` the text that holds until
        one is pushed; ``now_ms`` the clock of silences, shelvings and escalations.
        """
        self._base = base
        self._identity = identity
        self._policy = policy
        self._log = log
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._partitions: dict[int, Partition] = {}
        self._at: dict[int, int] = {}
        """Offset of ``samples`` after what was committed, by partition."""
        self._pending: deque[Any] = deque()
        self._failed: Counter[tuple[int, int]] = Counter()
        self._moves = 0
        self._lost = False
        self._lag_at = 0.0
        self._busy_at = 0.0
        self._producer = clients.producer(base, identity)
        self._outbox = Outbox(self._producer, log, monotonic_s)
        self._watch = BrokerWatch()
        self._consumer = clients.consumer(base, identity, self._watch)
        self._commands = clients.commands(base, identity)
        self._owners = Owners(base, identity, log, monotonic_s)

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
        # The group first: leaving it says once more which partitions' commands are ours.
        self._owners.close()
        self._consumer.close()
        self._commands.close()

    def rest(self) -> None:
        """Write what has changed, before leaving: whoever takes over has nothing to replay."""
        while self.ready and any(p.unwritten for p in self._partitions.values()):
            batch = Batch()
            self._turns(batch, [n for n, p in self._partitions.items() if p.unwritten])
            try:
                self._commit(batch)
            except _Aborted:
                return

    def step(self) -> int:
        """Do one turn; return how many records were committed. Waits POLL_S at most when idle."""
        self._observe_lag()
        self._owners.step()
        moves = self._moves
        began = self._monotonic_s()
        batch = Batch()
        self._fill(batch)
        if self._moves != moves and batch.records:
            # A rebalance was served while polling: what was read may be somebody else's by now.
            self._recover()
            return 0
        self._instructions(batch)
        if batch.records:
            self._busy_at = began
        wanted = self._wanted(batch)
        if not wanted:
            return 0
        try:
            self._turns(batch, wanted)
            self._commit(batch)
        except _Aborted:
            metrics.ABORTS.inc()
            self._recover()
            return 0
        self._count(batch, self._monotonic_s() - began)
        return batch.records

    def _fill(self, batch: Batch) -> None:
        """Take what lies ready, waiting a little for the first."""
        if not self._pending:
            first = self._poll(POLL_S)
            if first is None:
                return
            self._pending.append(first)
        while not batch.full():
            if not self._pending:
                more = self._more()
                if not more:
                    return
                self._pending.extend(more)
            message = self._pending.popleft()
            number = message.partition()
            if number in self._partitions:
                batch.add(number, message.offset(), message.value())

    def _more(self) -> list[Any]:
        """Return what lies ready."""
        ready = self._consumer.consume(BATCH_RECORDS_MAX, 0)
        if self._lost:
            raise Fenced("assignment-lost")
        return [message for message in ready if self._sound(message)]

    def _instructions(self, batch: Batch) -> None:
        """Take what lies ready of ``commands``, and the file's policy where there is none yet."""
        for number, partition in self._partitions.items():
            if partition.wants(FILE, self._policy):
                policy = NewPolicy(FILE, self._policy, FILE, self._now_ms())
                raw = msgspec.json.encode(policy)
                batch.commands[number] = [(partition.side - 1, raw)]
        if not self._partitions:
            return
        for message in self._commands.consume(COMMANDS_MAX, 0):
            number = message.partition()
            if self._sound(message) and number in self._partitions:
                listed = batch.commands.setdefault(number, [])
                if message.offset() >= self._partitions[number].side:
                    listed.append((message.offset(), message.value() or b""))

    def _wanted(self, batch: Batch) -> list[int]:
        """Return the partitions that get a turn."""
        now_ms = self._now_ms()
        resting = self._monotonic_s() - self._busy_at > REST_S
        return [
            number
            for number, partition in self._partitions.items()
            if number in batch.samples
            or batch.commands.get(number)
            or partition.due(now_ms)
            or (resting and partition.unwritten)
        ]

    def _turns(self, batch: Batch, wanted: list[int]) -> None:
        """Give each partition its turn; raises _Aborted when one failed."""
        now_ms = self._now_ms()
        for number in wanted:
            condemned = [
                offset
                for (partition, offset), times in self._failed.items()
                if partition == number and times >= JUDGED_MAX
            ]
            try:
                batch.made[number] = self._partitions[number].turn(
                    batch.samples.get(number, []),
                    batch.commands.get(number, []),
                    now_ms,
                    condemned,
                )
            except Unjudged as error:
                self._failed[number, error.offset] += 1
                self._log.crash("unjudged", error.__cause__ or error)
                raise _Aborted from error
            for poisoned in batch.made[number].poison:
                self._failed.pop((number, poisoned.offset), None)

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
            self._at.pop(number, None)
        consumer.incremental_unassign(partitions)
        self._follow()
        self._log.info("revoked", partitions=sorted(gone))

    def _on_lost(self, consumer: Any, partitions: list[Any]) -> None:
        """End: the group gave this process up.

        It may join again, but librdkafka's transaction calls then hang for good, whatever timeout
        they are given (seen with 2.16.1 after a broker was away for longer than the session).
        """
        self._on_revoke(consumer, partitions)
        self._lost = True

    def _follow(self) -> None:
        """Read ``commands`` of the partitions that are ours, from where each one is."""
        self._commands.assign(
            [
                TopicPartition(topics.COMMANDS.name, number, partition.side)
                for number, partition in self._partitions.items()
            ]
        )

    def _recover(self) -> None:
        """Throw every partition's memory away and begin again at what was committed."""
        numbers = sorted(self._partitions)
        self._partitions.clear()
        self._pending.clear()
        for where in self._restore(numbers) if numbers else []:
            self._seek(where)

    def _restore(self, numbers: list[int]) -> list[Any]:
        """Read back the state of partitions; return where each is to be read from."""
        began = self._monotonic_s()
        asked = [TopicPartition(topics.SAMPLES.name, p) for p in numbers]
        # First the offsets: Kafka answers only when no transaction is about to move them.
        committed = self._retried(lambda: self._consumer.committed(asked, CALL_S))
        floors = {at.partition: _floor(at.metadata) for at in committed}
        with building():
            fresh, records = self._retried(lambda: self._read_state(floors))
            replayed = self._retried(lambda: self._replay(fresh))
        self._partitions.update(fresh)
        self._at.update({at.partition: max(at.offset, 0) for at in committed})
        self._follow()
        took = round((self._monotonic_s() - began) * 1000)
        self._log.info(
            "restored", partitions=numbers, records=records, replayed=replayed, took_ms=took
        )
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

    def _read_state(self, floors: dict[int, int]) -> tuple[dict[int, Partition], int]:
        fresh = {number: Partition(number) for number in floors}
        count = 0
        reader = clients.Restored(self._base, self._identity, floors)
        try:
            for number, key, value, offset in reader.records():
                count += 1
                try:
                    fresh[number].restore(key, value, offset)
                except Poison:
                    # Ids of ours only; starting without it beats not starting.
                    self._log.error("state-record-unreadable", partition=number)
        finally:
            reader.close()
        return fresh, count

    def _replay(self, fresh: dict[int, Partition]) -> int:
        """Give every partition its turns since its chunks; return how many records that took."""
        turns = {number: partition.begin() for number, partition in fresh.items()}
        ranges = {
            number: (min(t.begin for t in given), max(t.end for t in given))
            for number, mine in turns.items()
            if (given := [turn for turn in mine if turn.end > turn.begin])
        }
        found: dict[int, list[tuple[int, bytes | None]]] = {number: [] for number in fresh}
        reader = clients.Samples(self._base, self._identity, ranges)
        try:
            for number, offset, value in reader.records():
                found[number].append((offset, value))
        finally:
            reader.close()
        for number, partition in fresh.items():
            records = found[number]
            for turn in turns[number]:
                first = bisect_left(records, turn.begin, key=_offset_of)
                after = bisect_left(records, turn.end, key=_offset_of)
                partition.replay(turn, records[first:after])
            partition.restored()
        return sum(map(len, found.values()))

    # -- records -----------------------------------------------------------------------------

    def _poll(self, timeout_s: float) -> Any:
        message = self._consumer.poll(timeout_s)
        if self._lost:
            raise Fenced("assignment-lost")
        self._watch.check()
        return message if message is not None and self._sound(message) else None

    def _sound(self, message: Any) -> bool:
        """Tell whether a message is a record; raises Fenced for a fatal error."""
        error = message.error()
        if error is None:
            return True
        # A static member that was fenced says so by the code alone.
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise Fenced(error.name())
        self._log.warning("consumer-error", code=error.name())
        return False

    # -- the transaction ---------------------------------------------------------------------

    def _commit(self, batch: Batch) -> None:
        """Do the transaction; raises _Aborted, Fenced, Unreachable."""
        offsets = []
        try:
            self._outbox.begin()
            for number in sorted(batch.made):
                made, partition = batch.made[number], self._partitions[number]
                self._outbox.put(number, made, partition)
                # Without records too: by its offsets Kafka tells one whose partition is somebody
                # else's by now, and refuses.
                samples = batch.samples.get(number)
                at = samples[-1][0] + 1 if samples else self._at[number]
                floor = str(partition.floor)
                offsets.append(TopicPartition(topics.SAMPLES.name, number, at, metadata=floor))
            self._outbox.commit(offsets, self._consumer.consumer_group_metadata())
        except KafkaException as raised:
            self._outbox.abort(raised)
            raise _Aborted from raised
        self._at.update({one.partition: one.offset for one in offsets})

    def _retried(self, call: Callable[[], Any]) -> Any:
        return retried(call, self._log, self._monotonic_s)

    # -- counting ----------------------------------------------------------------------------

    def _count(self, batch: Batch, took_s: float) -> None:
        metrics.RECORDS.inc(batch.records)
        metrics.BATCH.observe(took_s)
        for made in batch.made.values():
            metrics.READINGS.inc(made.readings)
            metrics.DUPLICATES.inc(made.duplicates)
            metrics.LATE.inc(made.late)
            metrics.REFUSED.inc(made.refused)
            for alert in made.alerts:
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


def _floor(metadata: str | None) -> int:
    """Return from where the state topic has to be read, as the offsets say; 0 when they do not."""
    return int(metadata) if metadata and metadata.isdecimal() else 0


def _offset_of(record: tuple[int, bytes | None]) -> int:
    return record[0]

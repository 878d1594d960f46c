"""Records -> Kafka, and the word that they are durable. The only module that knows the producer.

Law: a frame is reported durable when the broker has acknowledged every record of it (acks=all,
idempotent) and told where each lies (`cloud.proof`), never before; a frame that failed is reported
failed, once. What waits is bounded by
the producer's queue; `Delivery.crowded` says when gateways must be halted. What is merely offered
never waits and never makes a frame wait: it is lost instead.

Threads: `send` runs in the trio thread; delivery reports run in the one poll thread, which hands
finished frames to trio by `TrioToken.run_sync_soon`. Records of one frame may be reported while
others are still being handed over, so `Parcel.left` is set before the first is; it has a lock
because a record refused on the spot is reported from the trio thread.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from confluent_kafka import KafkaError, KafkaException, Producer

from cloud.brokers import BrokerWatch, Deserted
from cloud.ingest import metrics
from cloud.ingest.unpack import RECORD_BYTES_MAX, Batch, Record
from cloud.proof import Proof
from cloud.settings import Kafka, kafka_config
from healthsync.runtime.log import Log
from vitals import topics

# Bytes and records that may wait in the producer: past half of the bytes gateways are halted.
QUEUE_KIB_MAX: Final = 256 * 1024
QUEUE_RECORDS_MAX: Final = 200_000
CROWDED_BYTES: Final = QUEUE_KIB_MAX * 1024 // 2
RELAXED_BYTES: Final = CROWDED_BYTES // 2

# A record that found no broker for this long is given up; its gateway still has the frame.
DELIVERY_TIMEOUT_MS: Final = 60_000

# Gathering time of a batch: small against the 10 ms commit window of a gateway.
LINGER_MS: Final = 1

# How long the poll thread sleeps in librdkafka when nothing happens; bounds the stop.
POLL_S: Final = 0.2

# How long `send` waits before it tries a full queue again.
FULL_QUEUE_S: Final = 0.02

# Groups of records that may be on their way merely offered: one for each of the sessions of a
# process, and some that just ended. Of 8 records each they take a sixth of the queue, so that
# frames find room whatever is offered.
OFFERED_MAX: Final = 4_096
assert OFFERED_MAX * topics.COMMANDS.partitions * 4 < QUEUE_RECORDS_MAX  # noqa: S101

# Errors that the same record will always meet; retrying it would halt its gateway for ever.
_PERMANENT: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD}
)


class Parcel:
    """One frame on its way: counts reports down; `done` is called once, in the trio thread."""

    __slots__ = (
        "_finish",
        "_lock",
        "_proof",
        "batch",
        "began_s",
        "bytes",
        "done",
        "failed",
        "left",
        "refused",
    )

    def __init__(
        self,
        batch: Batch,
        done: Callable[["Parcel"], None],
        finish: Callable[["Parcel"], None],
        proof: Callable[[Any], bool],
        now_s: float,
    ) -> None:
        """``finish`` is called in the thread of the last report, ``done`` is for its receiver.

        ``proof`` tells whether a report without an error means that the record is there.
        """
        self.batch = batch
        self.done = done
        self.left = len(batch.records)
        self.failed = False
        self.refused = False
        """True when a record failed for a reason that no retry cures."""
        self.began_s = now_s
        self.bytes = sum(len(record.value) for record in batch.records)
        self._finish = finish
        self._proof = proof
        self._lock = threading.Lock()

    def reported(self, error: KafkaError | None, message: Any) -> None:
        """Take the delivery report of one record; ``message`` says where it lies."""
        with self._lock:
            if error is not None:
                self.failed = True
                self.refused = self.refused or error.code() in _PERMANENT
            elif not self._proof(message):
                metrics.UNPROVEN.inc()
                self.failed = True
            self.left -= 1
            last = self.left == 0
        if last:
            self._finish(self)


def producer_config(kafka: Kafka) -> dict[str, Any]:
    """Return the producer's settings."""
    return {
        **kafka_config(kafka),
        "client.id": "ingest",
        "enable.idempotence": True,
        "acks": "all",
        "linger.ms": LINGER_MS,
        "compression.type": "zstd",
        "message.max.bytes": RECORD_BYTES_MAX,
        "message.timeout.ms": DELIVERY_TIMEOUT_MS,
        "queue.buffering.max.kbytes": QUEUE_KIB_MAX,
        "queue.buffering.max.messages": QUEUE_RECORDS_MAX,
        "log_level": 2,  # errors come to _on_error and are logged as JSON
    }


class Delivery:
    """The producer with its poll thread. Make it inside trio; close it with `close`."""

    def __init__(
        self,
        make: Callable[[dict[str, Any]], Producer],
        config: dict[str, Any],
        log: Log,
        fatal: Callable[[], None],
    ) -> None:
        """``make`` makes the producer; ``fatal`` is called in trio when it can never work again."""
        self.in_flight_bytes = 0
        self._token = trio.lowlevel.current_trio_token()
        self._finished: deque[Parcel] = deque()
        self._offered = 0
        self._fatal = fatal
        self._log = log
        self._error_code = 0
        self._stop = threading.Event()
        self._watch = BrokerWatch()
        self._proof = Proof()
        self._producer = make({**config, **self._watch.config, "error_cb": self._on_error})
        self._thread = threading.Thread(target=self._poll, name="kafka-poll", daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stop.is_set():
            try:
                self._producer.poll(POLL_S)
                self._watch.check()
            except Deserted as error:
                self._log.crash("kafka-deserted", error)
                self._soon(self._fatal)
                return
            except KafkaException as error:
                # A fatal error comes out of poll, not (only) through error_cb: this producer
                # never delivers again, so the process must be started anew.
                self._on_error(error.args[0])
                if error.args[0].fatal():
                    return

    def _on_error(self, error: KafkaError) -> None:
        code = int(error.code())
        if error.fatal():
            self._soon(self._fatal)
        if code != self._error_code:
            self._error_code = code
            self._log.warning("kafka-error", code=error.name(), fatal=bool(error.fatal()))

    def _soon(self, function: Callable[[], None]) -> None:
        try:
            self._token.run_sync_soon(function, idempotent=True)
        except trio.RunFinishedError:
            return  # the process is ending; what is unacknowledged stays with the gateways

    def _finish(self, parcel: Parcel) -> None:
        self._finished.append(parcel)
        self._soon(self._deliver)

    def _deliver(self) -> None:
        while self._finished:
            parcel = self._finished.popleft()
            self.in_flight_bytes -= parcel.bytes
            metrics.IN_FLIGHT.set(self.in_flight_bytes)
            if parcel.failed:
                metrics.FAILURES.inc()
            else:
                self._error_code = 0
                metrics.PRODUCE.observe(time.monotonic() - parcel.began_s)
            parcel.done(parcel)

    @property
    def crowded(self) -> bool:
        """True when gateways must be halted: Kafka takes less than they send."""
        return self.in_flight_bytes > CROWDED_BYTES

    @property
    def relaxed(self) -> bool:
        """True when halted gateways may go on."""
        return self.in_flight_bytes < RELAXED_BYTES

    async def send(self, batch: Batch, done: Callable[[Parcel], None]) -> None:
        """Hand a frame's records over; ``done`` is called later with its parcel.

        Waits while the producer's queue is full. Cancelled while waiting, the frame is simply
        never reported: its gateway sends it again.
        """
        parcel = Parcel(batch, done, self._finish, self._proof, time.monotonic())
        self.in_flight_bytes += parcel.bytes
        if not batch.records:
            self._finish(parcel)
        handed = 0
        try:
            for record in batch.records:
                await self._hand(record, parcel)
                handed += 1
        finally:
            if handed < len(batch.records):
                self.in_flight_bytes -= parcel.bytes

    async def _hand(self, record: Record, parcel: Parcel) -> None:
        while True:
            try:
                self._produce(record, parcel)
            except BufferError:
                await trio.sleep(FULL_QUEUE_S)
            else:
                return

    def _produce(self, record: Record, parcel: Parcel) -> None:
        """Hand one record to the producer; raises BufferError when its queue is full."""
        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                partition=record.partition,
                on_delivery=parcel.reported,
                headers=record.headers,
            )
        except KafkaException as error:
            # refused on the spot: too large, or the producer is fatally broken
            parcel.reported(error.args[0], None)

    def offer(self, records: Sequence[Record], done: Callable[[bool], None]) -> None:
        """Hand over records that may be lost, at once; ``done`` is told whether all arrived.

        What finds no room is lost; past OFFERED_MAX groups on their way, all of it.
        """
        if self._offered >= OFFERED_MAX:
            done(False)
            return
        self._offered += 1

        def over(parcel: Parcel) -> None:
            self._offered -= 1
            done(not parcel.failed)

        batch = Batch("", 0, list(records))
        parcel = Parcel(batch, over, self._offer_over, self._proof, time.monotonic())
        for record in records:
            try:
                self._produce(record, parcel)
            except BufferError:
                parcel.reported(KafkaError(KafkaError._QUEUE_FULL), None)

    def _offer_over(self, parcel: Parcel) -> None:
        self._soon(lambda: parcel.done(parcel))

    async def close(self, timeout_s: float) -> int:
        """Wait for what is on its way, stop the thread; return how many records were left."""
        self._stop.set()
        try:
            left: int = await trio.to_thread.run_sync(self._producer.flush, timeout_s)
        except KafkaException:  # a producer broken for good says so here once more
            left = len(self._producer)
        await trio.to_thread.run_sync(self._thread.join)
        return left

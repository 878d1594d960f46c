"""What leaves in one transaction: fhir, alerts, poison, state, and the offsets that it moves.

Law: nothing is committed that has no place in Kafka's log (`cloud.proof`). Whoever finds such a
thing ends: the successor ends the open transaction and begins where it was.
"""

from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from cloud.detect import metrics
from cloud.detect.calls import (
    BACKOFF_S,
    CALL_S,
    RETRY_S_MAX,
    Fenced,
    Unreachable,
    error_of,
    once,
    retried,
)
from cloud.detect.made import Made, Message, Poisoned, alert_message
from cloud.detect.partition import Partition
from cloud.proof import Proof
from healthsync.runtime.log import Log
from vitals import topics


class Outbox:
    """The transactional producer, between `begin` and `commit`."""

    def __init__(self, producer: Any, log: Log, monotonic_s: Callable[[], float]) -> None:
        """Take an initialised producer, or one that will be before `begin`."""
        self._producer = producer
        self._log = log
        self._monotonic_s = monotonic_s
        self._proof = Proof()
        self._unproven = False

    def begin(self) -> None:
        """Open a transaction; raises KafkaException."""
        self._producer.begin_transaction()

    def put(self, number: int, made: Made, partition: Partition) -> None:
        """Hand over what a turn of a partition gave, and its state; raises Unreachable."""
        self._send(topics.FHIR.name, number, made.fhir)
        alerts = [alert_message(alert) for alert in made.alerts]
        self._send(topics.ALERTS.name, number, alerts)
        for poisoned in made.poison:
            self._set_aside(number, poisoned)
        for message, chunk in partition.state():
            self._send_state(number, partition, message, chunk)

    def commit(self, offsets: Sequence[TopicPartition], group: Any) -> None:
        """Move the offsets and commit; raises KafkaException to abort, Fenced, Unreachable."""
        began = self._monotonic_s()
        # One try each: after a timeout (a broker that was killed) a second call of librdkafka's
        # may never return, although given one. To start anew is safe and takes a second.
        once(lambda: self._producer.send_offsets_to_transaction(offsets, group, CALL_S))
        self._producer.flush(CALL_S)
        if self._unproven:
            raise Fenced("unproven-delivery")
        once(lambda: self._producer.commit_transaction(CALL_S))
        metrics.COMMIT.observe(self._monotonic_s() - began)

    def abort(self, raised: KafkaException) -> None:
        """Abort the transaction; raises Fenced when that cannot be."""
        error = error_of(raised)
        if error.fatal():
            raise Fenced(error.name()) from raised
        self._log.warning("aborting", code=error.name())
        try:
            retried(lambda: self._producer.abort_transaction(CALL_S), self._log, self._monotonic_s)
        except KafkaException as failed:
            raise Fenced(error_of(failed).name()) from failed

    def _told(self, error: Any, sent: Any) -> None:
        """Take the report of one message; an error aborts the transaction by itself."""
        if error is None and not self._proof(sent):
            self._unproven = True

    def _send(self, topic: str, partition: int, messages: list[Message]) -> None:
        """Hand messages to the producer, waiting for room in its buffer."""
        waiting = [{"key": message.key, "value": message.value} for message in messages]
        deadline = self._monotonic_s() + RETRY_S_MAX
        while waiting:
            self._producer.produce_batch(
                topic, waiting, partition=partition, on_delivery=self._told
            )
            failed = [one for one in waiting if "_error" in one]
            for one in failed:
                error: Any = one.pop("_error")
                if error.code() != KafkaError._QUEUE_FULL:
                    raise KafkaException(error)
            if failed and self._monotonic_s() > deadline:
                raise Unreachable(topic)
            waiting = failed
            self._producer.poll(BACKOFF_S if failed else 0)

    def _send_state(self, number: int, partition: Partition, message: Message, chunk: int) -> None:
        """Hand one record of ``state`` over; its partition is told where a chunk came to lie."""

        def lies(error: Any, sent: Any) -> None:
            self._told(error, sent)
            if error is None and not self._unproven:
                partition.wrote(chunk, sent.offset())

        self._produce(topics.STATE.name, number, message, lies if chunk >= 0 else self._told)

    def _set_aside(self, number: int, poisoned: Poisoned) -> None:
        """Hand a record that cannot be judged to whoever will look into it."""
        metrics.POISON.labels(poisoned.reason).inc()
        self._log.error("poison", reason=poisoned.reason, partition=number, offset=poisoned.offset)
        key = f"{number}/{poisoned.offset}/{poisoned.reason}".encode()
        self._produce(topics.POISON.name, number, Message(key, poisoned.value), self._told)

    def _produce(self, topic: str, number: int, message: Message, lies: Any) -> None:
        """Produce one message, waiting for room in the producer's buffer."""
        deadline = self._monotonic_s() + RETRY_S_MAX
        while True:
            try:
                self._producer.produce(topic, message.value, message.key, number, on_delivery=lies)
            except BufferError:
                if self._monotonic_s() > deadline:
                    raise Unreachable(topic) from None
                self._producer.poll(BACKOFF_S)
            else:
                return

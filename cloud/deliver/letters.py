"""Dead letters to Kafka: topic ``undelivered``, key = subject, partition = the record's own.

Law: `put` returns when Kafka has the letter (acks=all), and waits for as long as that takes. A
letter too large for the topic goes without its body rather than not at all.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from cloud.brokers import BrokerWatch
from cloud.deliver.courier import Record
from cloud.records import Undelivered, encode
from healthsync.runtime.log import Log
from vitals import topics

MESSAGE_BYTES_MAX: Final = 2_097_152
"""The topic's ``max.message.bytes``; see cloud/provision.py."""

BODY_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 64 * 1024
"""A letter without its body: 16 KiB of outcome, 256 bytes of address, Kafka's own."""

KEY_BYTES_MAX: Final = 64
"""A subject has 32; what is longer is no key of ours."""

SERVE_S: Final = 0.1
AGAIN_S: Final = 1.0

LOG_LEVEL: Final = 4
"""librdkafka's own lines go to stderr: warnings and worse (syslog's scale)."""


class Letters:
    """Owns the producer. `put` may be called by any thread."""

    def __init__(self, base: Mapping[str, Any], identity: str, log: Log) -> None:
        """Connect when there is something to write."""
        self._log = log
        self.watch = BrokerWatch()
        self._producer = Producer(
            {
                **base,
                **self.watch.config,
                "log_level": LOG_LEVEL,
                "client.id": identity,
                "acks": "all",
                "compression.type": "lz4",
                "message.max.bytes": MESSAGE_BYTES_MAX,
                "message.timeout.ms": 30_000,
            }
        )

    def serve(self) -> None:
        """Let librdkafka tell what it has to tell."""
        self._producer.poll(0)

    def put(self, record: Record, letter: Undelivered, pause: Callable[[float], None]) -> None:
        """Return when Kafka has the letter; ``pause`` waits, and raises to give up waiting.

        Raises KafkaException for a client that is beyond use.
        """
        if len(letter.body) > BODY_BYTES_MAX:
            letter = msgspec.structs.replace(letter, body=b"")
        value = encode(letter)
        key = record.key if len(record.key) <= KEY_BYTES_MAX else b""
        while (error := self._outcome(record.partition, key, value, pause)) is not None:
            if error.fatal():
                raise KafkaException(error)
            self._log.warning("letter", partition=record.partition, code=error.name())
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE and letter.body:
                letter = msgspec.structs.replace(letter, body=b"")
                value = encode(letter)
            pause(AGAIN_S)

    def _outcome(
        self, partition: int, key: bytes, value: bytes, pause: Callable[[float], None]
    ) -> Any:
        """Return Kafka's word on one try: a KafkaError, or None when it has the letter."""
        told: list[Any] = []
        try:
            self._producer.produce(
                topics.UNDELIVERED.name,
                value,
                key,
                partition,
                on_delivery=lambda error, _message: told.append(error),
            )
        except BufferError:
            return KafkaError(KafkaError._QUEUE_FULL)
        except KafkaException as error:
            return error.args[0]
        while not told:
            self._producer.poll(SERVE_S)
            pause(0)
        return told[0]

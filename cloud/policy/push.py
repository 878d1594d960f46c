"""Into Kafka's ``commands``: a published policy in every partition, or a record in one.

Law: says done when the brokers have every record durably (acks=all). A push that failed may have
reached some partitions, which then go by it already; pushing the same again is right, and changes
nothing where it was taken. It ends within FLUSH_S, whatever Kafka does.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cloud.fhir.ids import is_subject
from cloud.policy.bounds import TEXT_BYTES_MAX
from cloud.records import Command, NewPolicy
from vitals import topics
from vitals.errors import VitalsError

KEY: Final = b"policy"

RECORD_BYTES_MAX: Final = 2_000_000
"""Under the topic's 2 MiB (cloud/provision.py). Before compression, as librdkafka counts it."""
assert 2 * TEXT_BYTES_MAX + 10_000 < RECORD_BYTES_MAX  # noqa: S101 - JSON escapes a quote by 2

# No broker for this long, and the push has failed; the person is waiting at the desk.
DELIVERY_TIMEOUT_MS: Final = 15_000
FLUSH_S: Final = 20.0
assert FLUSH_S * 1000 > DELIVERY_TIMEOUT_MS  # noqa: S101


class PushFailed(VitalsError):
    """Not every partition that should has the record."""


def push(base: Mapping[str, str | int | bool], policy: NewPolicy) -> list[int]:
    """Return the partitions that have it, which are all; raise PushFailed."""
    wanted = range(topics.SUBJECT_PARTITIONS)
    try:
        taken, why = put(base, KEY, msgspec.json.encode(policy), wanted)
    except (KafkaException, BufferError) as error:
        raise PushFailed(f"Kafka does not take the policy ({error}); push it again") from error
    if len(taken) < len(wanted):
        raise PushFailed(
            f"only partitions {taken} of {len(wanted)} have the policy ({why}); push it again"
        )
    return taken


def send(base: Mapping[str, str | int | bool], command: Command) -> int:
    """Return the partition that has a command: its patient's, or its gateway's; raise PushFailed.

    One that failed may have arrived all the same: sent again with its id it changes nothing.
    """
    of_patient = is_subject(command.subject)
    home = topics.partition_of if of_patient else topics.home_of
    wanted = [home(command.subject)]
    value = msgspec.json.encode(command)
    try:
        taken, why = put(base, command.subject.encode(), value, wanted)
    except (KafkaException, BufferError) as error:
        raise PushFailed(f"Kafka does not take the command ({error}); send it again") from error
    if taken != wanted:
        raise PushFailed(f"Kafka has not taken the command ({why}); send it again")
    return wanted[0]


def put(
    base: Mapping[str, str | int | bool], key: bytes, value: bytes, wanted: Sequence[int]
) -> tuple[list[int], str]:
    """Write a record into partitions of ``commands``; return those that have it, and why not all.

    Raises KafkaException or BufferError when the producer cannot be made or takes nothing.
    """
    refused: dict[int, str] = {}
    taken: set[int] = set()

    def reported(error: KafkaError | None, message: Message) -> None:
        at = message.partition()
        if error is None:
            taken.add(at)
        else:
            refused[at] = error.name()

    producer = Producer(_settings(base))
    for partition in wanted:
        producer.produce(
            topics.COMMANDS.name, value, key, partition=partition, on_delivery=reported
        )
    deadline = time.monotonic() + FLUSH_S
    while len(taken) + len(refused) < len(wanted) and time.monotonic() < deadline:
        producer.flush(1.0)
    return sorted(taken), ", ".join(sorted(set(refused.values()))) or "no answer"


def _settings(base: Mapping[str, str | int | bool]) -> dict[str, Any]:
    return {
        **base,
        "client.id": "operator",
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "zstd",
        "message.max.bytes": RECORD_BYTES_MAX,
        "message.timeout.ms": DELIVERY_TIMEOUT_MS,
        "log_level": 2,  # what fails is said once, by PushFailed
    }

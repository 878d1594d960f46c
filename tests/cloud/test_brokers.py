"""A client that calls nobody any more is told from one whose Kafka is away."""

import json
import time

import pytest
from confluent_kafka import Consumer

from cloud import brokers
from cloud.brokers import ALONE_US_MIN, LOOKS, BrokerWatch, Deserted
from onebox import ports


def _told(
    watch: BrokerWatch,
    *states: str,
    kind: str = "consumer",
    waiting: int = 0,
    age_us: int = ALONE_US_MIN,
    coordinator: str = "TRY_CONNECT",
) -> None:
    listed: dict[str, dict[str, object]] = {
        str(n): {"state": state, "stateage": age_us, "source": "learned"}
        for n, state in enumerate(states)
    }
    listed["coordinator"] = {"state": coordinator, "stateage": age_us, "source": "logical"}
    watch.told(json.dumps({"type": kind, "msg_cnt": waiting, "brokers": listed, "age": 1}))


@pytest.mark.parametrize("states", [("INIT",), ("INIT", "INIT"), ()])
def test_nobody_called_for_long_is_deserted(states: tuple[str, ...]) -> None:
    watch = BrokerWatch()
    for _ in range(LOOKS - 1):
        _told(watch, *states)
    watch.check()
    _told(watch, *states)
    with pytest.raises(Deserted):
        watch.check()


@pytest.mark.parametrize("state", ["UP", "TRY_CONNECT", "SSL_HANDSHAKE", "DOWN"])
def test_one_that_is_connected_or_called_is_enough(state: str) -> None:
    watch = BrokerWatch()
    for _ in range(LOOKS - 1):
        _told(watch, "INIT", "INIT")
    _told(watch, "INIT", state)
    for _ in range(LOOKS - 1):
        _told(watch, "INIT", "INIT")
    watch.check()


def test_between_two_calls_and_with_a_coordinator_alone_nobody_is_deserted() -> None:
    watch = BrokerWatch()
    for _ in range(2 * LOOKS):
        _told(watch, "INIT", age_us=ALONE_US_MIN - 1)
    for _ in range(2 * LOOKS):
        _told(watch, "INIT", coordinator="UP")
    watch.check()


def test_an_idle_producer_needs_nobody() -> None:
    watch = BrokerWatch()
    for _ in range(2 * LOOKS):
        _told(watch, "INIT", kind="producer")
    watch.check()
    for _ in range(LOOKS):
        _told(watch, "INIT", kind="producer", waiting=1)
    with pytest.raises(Deserted):
        watch.check()


def test_a_kafka_that_is_merely_away_deserts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real client, told of itself every 50 ms, and nobody at the other end."""
    monkeypatch.setattr(brokers, "ALONE_US_MIN", 1_000_000)
    (port,) = ports.free(1)
    watch = BrokerWatch()
    told: list[str] = []

    def both(statistics: str) -> None:
        told.append(statistics)
        watch.told(statistics)

    consumer = Consumer(
        {
            "bootstrap.servers": f"127.0.0.1:{port}",
            "group.id": "away",
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 20,
            "log_level": 0,
            **watch.config,
            "statistics.interval.ms": 50,
            "stats_cb": both,
        }
    )
    try:
        consumer.subscribe(["samples"])
        deadline = time.monotonic() + 20
        while len(told) < 60 and time.monotonic() < deadline:
            consumer.poll(0.05)
            watch.check()
    finally:
        consumer.close()
    assert len(told) >= 60

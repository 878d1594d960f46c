"""The loop with a consumer played by the test and a real Redis that dies and forgets."""

import io
from collections import deque
from typing import Any

import pytest
import redis
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from prometheus_client import CollectorRegistry

from cloud.brokers import BrokerWatch, Deserted
from cloud.project.batch import Batch
from cloud.project.consume import Loop
from cloud.project.metrics import Metrics
from cloud.project.writer import Seals, Writer
from healthsync.runtime.log import Log
from tests.cloud.deserted import deserted
from vitals.sealed import Sealer

NOW = 1_790_000_000_000


class Message:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "alerts"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"{}"  # counted and passed over: the loop is what is tried here


class Consumer:
    """One partition of alerts, offsets 0..end."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.next: int | None = None
        self.paused = False
        self.polled: list[int] = []
        self.pending: deque[Any] = deque()

    def subscribe(self, topics: list[str], on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self.on_assign, self.on_revoke = on_assign, on_revoke
        self.pending.append(lambda: on_assign(self, [TopicPartition("alerts", 0)]))

    def assign(self, partitions: list[Any]) -> None:
        at = partitions[0].offset
        self.next = max(at, 0)
        self.beginning = at == OFFSET_BEGINNING  # a pause outlives it, as in librdkafka

    def unassign(self) -> None:
        self.next = None

    def pause(self, partitions: list[Any]) -> None:
        self.paused = True

    def resume(self, partitions: list[Any]) -> None:
        self.paused = False

    def poll(self, timeout: float) -> Message | None:
        if self.pending:
            self.pending.popleft()()
            return None
        if self.next is None or self.paused or self.next > self.end:
            return None
        self.polled.append(self.next)
        self.next += 1
        return Message(self.next - 1)

    def position(self, partitions: list[Any]) -> list[Any]:
        return [TopicPartition("alerts", 0, self.next or 0)]

    def get_watermark_offsets(self, at: Any, cached: bool) -> tuple[int, int]:
        return 0, self.end + 1


def made(
    server: Any, consumer: Consumer, watch: BrokerWatch | None = None
) -> tuple[Loop, CollectorRegistry]:
    def open_store() -> Writer:
        seals = Seals(Sealer(b"i" * 32, bytes), Sealer(b"v" * 32, bytes), b"x" * 32)
        return Writer(server.once(), seals, lambda: NOW)

    registry = CollectorRegistry()
    loop = Loop(
        consumer,
        watch or BrokerWatch(),
        open_store,
        lambda: Batch(Sealer(b"i" * 32, bytes)),
        Metrics(registry),
        Log("project", lambda: NOW, io.StringIO()),
        lambda: NOW,
    )
    loop.subscribe()
    return loop, registry


def stored(server: Any) -> int:
    client = server.client()
    try:
        return int(client.hget("offsets:project", "alerts/0") or 0)
    finally:
        client.close()


def turn(loop: Loop, times: int) -> None:
    for _ in range(times):
        loop.step()


def test_a_client_that_calls_no_broker_any_more_ends_the_loop(server: Any) -> None:
    loop, _ = made(server, Consumer(end=9), deserted())
    with pytest.raises(Deserted):
        loop.step()


def test_a_first_start_reads_from_the_beginning_and_a_second_from_the_offset(server: Any) -> None:
    consumer = Consumer(end=9)
    loop, registry = made(server, consumer)
    turn(loop, 4)
    assert loop.ready
    assert consumer.beginning
    assert stored(server) == 10
    assert registry.get_sample_value("healthsync_project_records_total", {"topic": "alerts"}) == 10
    assert registry.get_sample_value("healthsync_project_lag_records") == 0
    again = Consumer(end=12)
    turn(made(server, again)[0], 4)
    assert again.polled == [10, 11, 12]


def test_while_redis_is_down_nothing_is_lost_and_the_loop_goes_on_after(server: Any) -> None:
    consumer = Consumer(end=4)
    loop, _ = made(server, consumer)
    turn(loop, 4)
    server.stop()
    try:
        consumer.end = 8
        turn(loop, 4)
        assert not loop.ready
    finally:
        server.start()
    turn(loop, 4)
    assert stored(server) == 9
    assert consumer.polled.count(5) >= 2  # polled in vain, then read again


def test_a_redis_that_forgot_its_last_writes_pulls_the_reader_back(server: Any) -> None:
    consumer = Consumer(end=9)
    loop, _ = made(server, consumer)
    turn(loop, 4)
    server.stop()
    server.start()
    client = server.client()
    client.hset("offsets:project", "alerts/0", 6)  # as if its last second were gone
    client.close()
    consumer.end = 10
    turn(loop, 4)
    assert stored(server) == 11
    assert consumer.polled[-5:] == [6, 7, 8, 9, 10]


def test_a_connection_that_was_lost_is_never_opened_again_in_silence(server: Any) -> None:
    client = server.once()
    client.ping()
    client.connection_pool.disconnect()
    try:
        client.ping()
    except redis.ConnectionError:
        pass
    else:
        raise AssertionError("the client reconnected by itself")
    finally:
        client.close()


def test_what_was_polled_before_a_rebalance_is_not_written(server: Any) -> None:
    consumer = Consumer(end=3)
    loop, _ = made(server, consumer)
    turn(loop, 2)
    polls = iter([Message(0), None])

    def poll(timeout: float) -> Message | None:
        message = next(polls)
        if message is None:
            consumer.on_revoke(consumer, [])
        return message

    consumer.poll = poll  # type: ignore[method-assign] # the rebalance comes with the second poll
    loop.step()
    assert not loop.ready
    assert stored(server) == 0

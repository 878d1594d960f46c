import threading
from collections.abc import Awaitable, Callable
from io import StringIO
from typing import Any

import pytest
import trio
from confluent_kafka import KafkaError, KafkaException

from cloud.brokers import LOOKS
from cloud.ingest import delivery as delivery_
from cloud.ingest.delivery import CROWDED_BYTES, Delivery, Parcel, producer_config
from cloud.ingest.unpack import Batch, Record
from cloud.settings import Kafka
from healthsync.runtime.log import Log
from tests.cloud.deserted import statistics
from tests.cloud.ingest.frames import NOW


class Error:
    def __init__(self, code: int, *, fatal: bool = False) -> None:
        self._code, self._fatal = code, fatal

    def code(self) -> int:
        return self._code

    def name(self) -> str:
        return str(self._code)

    def fatal(self) -> bool:
        return self._fatal


class Place:
    """Where a record came to lie, as a delivery report says it."""

    def __init__(self, topic: str, partition: int, offset: int | None) -> None:
        self._topic, self._partition, self._offset = topic, partition, offset

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int | None:
        return self._offset


class FakeProducer:
    """librdkafka's manners: reports only from poll; refuses when full or too large."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.room = 10**9
        self.waiting: list[tuple[Callable[[Any, Any], None], Any, Place]] = []
        self.produced: list[tuple[str, int, bytes]] = []
        self.hold = False
        self.broken: Error | None = None
        self._news = threading.Condition()

    def produce(
        self,
        topic: str,
        value: bytes,
        key: bytes,
        *,
        partition: int,
        on_delivery: Callable[[Any, Any], None],
        headers: list[tuple[str, bytes]],
    ) -> None:
        with self._news:
            if self.room <= 0:
                raise BufferError
            if value == b"too large":
                raise KafkaException(Error(KafkaError.MSG_SIZE_TOO_LARGE))
            self.room -= 1
            self.produced.append((topic, partition, key))
            error = Error(KafkaError._MSG_TIMED_OUT) if value == b"lost" else None
            at = {b"implicit": None, b"duplicate": 0}.get(value, len(self.produced))
            self.waiting.append((on_delivery, error, Place(topic, partition, at)))
            self._news.notify()

    def poll(self, timeout: float) -> int:
        if self.broken is not None:
            raise KafkaException(self.broken)
        with self._news:
            if not self.waiting or self.hold:
                self._news.wait(0.01)
            if self.hold:
                return 0
            ready, self.waiting = self.waiting, []
            self.room += len(ready)
        for report, error, place in ready:
            report(error, place)
        return len(ready)

    def __len__(self) -> int:
        return len(self.waiting)

    def flush(self, timeout: float) -> int:
        self.hold = False
        self.poll(0)
        return len(self.waiting)


class Bench:
    def __init__(self) -> None:
        self.producer: FakeProducer
        self.fatal: list[bool] = []
        self.log = StringIO()
        self.done: list[Parcel] = []
        self.news = trio.Event()
        self.delivery = Delivery(
            self._make, {}, Log("ingest", lambda: NOW, self.log), lambda: self.fatal.append(True)
        )

    def _make(self, config: dict[str, Any]) -> Any:
        self.producer = FakeProducer(config)
        return self.producer

    async def send(self, *values: bytes) -> None:
        batch = Batch(
            "e" * 32, 1, [Record("samples", i, b"k", v, []) for i, v in enumerate(values)]
        )
        await self.delivery.send(batch, self._on_done)

    def _on_done(self, parcel: Parcel) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.done.append(parcel)
        self.news.set()

    async def next_done(self) -> Parcel:
        with trio.fail_after(5):
            while not self.done:
                self.news = trio.Event()
                await self.news.wait()
        return self.done.pop(0)


def with_bench(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def body() -> None:
        bench = Bench()
        try:
            await test(bench)
        finally:
            await bench.delivery.close(1)

    trio.run(body)


def test_a_frame_is_done_when_all_its_records_are() -> None:
    async def test(bench: Bench) -> None:
        bench.producer.hold = True
        await bench.send(b"a", b"b", b"c")
        await trio.sleep(0.05)
        assert not bench.done
        assert bench.delivery.in_flight_bytes == 3
        bench.producer.hold = False
        parcel = await bench.next_done()
        assert not parcel.failed
        assert bench.delivery.in_flight_bytes == 0
        await trio.sleep(0.05)
        assert not bench.done  # once

    with_bench(test)


def test_one_lost_record_fails_the_frame() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(b"a", b"lost", b"c")
        parcel = await bench.next_done()
        assert (parcel.failed, parcel.refused) == (True, False)

    with_bench(test)


def test_a_record_over_the_limit_fails_the_frame_for_good() -> None:
    async def test(bench: Bench) -> None:
        await bench.send(b"a", b"too large")
        parcel = await bench.next_done()
        assert (parcel.failed, parcel.refused) == (True, True)

    with_bench(test)


def test_a_full_queue_is_waited_for_and_nothing_is_sent_twice() -> None:
    async def test(bench: Bench) -> None:
        bench.producer.hold, bench.producer.room = True, 2
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.send, b"a", b"b", b"c", b"d")
            await trio.sleep(0.06)
            assert len(bench.producer.produced) == 2
            bench.producer.hold = False
        assert not (await bench.next_done()).failed
        assert [partition for _, partition, _ in bench.producer.produced] == [0, 1, 2, 3]

    with_bench(test)


@pytest.mark.parametrize("value", [b"implicit", b"duplicate"])
def test_success_without_a_place_in_the_log_is_none(value: bytes) -> None:
    async def test(bench: Bench) -> None:
        await bench.send(b"good")
        assert not (await bench.next_done()).failed
        await bench.send(value)
        parcel = await bench.next_done()
        assert (parcel.failed, parcel.refused) == (True, False)
        await bench.send(b"good")
        assert not (await bench.next_done()).failed

    with_bench(test)


def test_a_frame_given_up_half_way_is_never_reported_and_weighs_nothing() -> None:
    async def test(bench: Bench) -> None:
        bench.producer.room = 1
        bench.producer.hold = True
        with trio.move_on_after(0.05):
            await bench.send(b"a", b"b")
        bench.producer.hold = False
        await trio.sleep(0.05)
        assert not bench.done
        assert bench.delivery.in_flight_bytes == 0

    with_bench(test)


def test_a_frame_without_records_is_done_at_once() -> None:
    async def test(bench: Bench) -> None:
        await bench.send()
        assert not (await bench.next_done()).failed

    with_bench(test)


def test_bytes_on_their_way_halt_and_release_the_gateways() -> None:
    async def test(bench: Bench) -> None:
        bench.producer.hold = True
        before = bench.delivery.crowded, bench.delivery.relaxed
        await bench.send(bytes(CROWDED_BYTES + 1))
        during = bench.delivery.crowded, bench.delivery.relaxed
        bench.producer.hold = False
        await bench.next_done()
        after = bench.delivery.crowded, bench.delivery.relaxed
        assert (before, during, after) == ((False, True), (True, False), (False, True))

    with_bench(test)


def test_a_fatal_error_is_told_once_in_trio() -> None:
    async def test(bench: Bench) -> None:
        bench.producer.config["error_cb"](Error(7, fatal=True))
        await trio.sleep(0.02)
        assert bench.fatal == [True]
        bench.producer.config["error_cb"](Error(7, fatal=True))
        assert bench.log.getvalue().count("kafka-error") == 1

    with_bench(test)


def test_a_fatal_error_that_poll_raises_is_told_too() -> None:
    async def test(bench: Bench) -> None:
        bench.producer.broken = Error(31, fatal=True)
        with trio.fail_after(5):
            while not bench.fatal:  # noqa: ASYNC110 - a plain callback sets it
                await trio.sleep(0.005)

    with_bench(test)


def test_a_passing_error_that_poll_raises_ends_nothing() -> None:
    async def test(bench: Bench) -> None:
        bench.producer.broken = Error(7)
        await trio.sleep(0.05)
        bench.producer.broken = None
        await bench.send(b"a")
        assert not (await bench.next_done()).failed
        assert bench.fatal == []

    with_bench(test)


@pytest.mark.parametrize(
    ("option", "value"),
    [("acks", "all"), ("enable.idempotence", True), ("compression.type", "zstd")],
)
def test_the_producer_is_durable(option: str, value: object, tmp_path: Any) -> None:
    config = producer_config(Kafka("127.0.0.1:1", tmp_path, tmp_path, tmp_path))
    assert config[option] == value
    assert 1 <= config["linger.ms"] <= 2
    assert config["security.protocol"] == "SSL"


def test_a_client_that_calls_no_broker_any_more_is_fatal() -> None:
    async def test(bench: Bench) -> None:
        for _ in range(LOOKS):
            bench.producer.config["stats_cb"](statistics("producer"))
        for _ in range(500):
            await trio.sleep(0.0 if bench.fatal else 0.01)
        assert bench.fatal
        assert "kafka-deserted" in bench.log.getvalue()

    with_bench(test)


def records(*values: bytes) -> list[Record]:
    return [Record("commands", at, b"k", value, []) for at, value in enumerate(values)]


async def outcomes(arrived: list[bool], count: int) -> list[bool]:
    with trio.fail_after(5):
        while len(arrived) < count:  # noqa: ASYNC110 - a plain callback fills it
            await trio.sleep(0.005)
    return arrived


def test_what_is_offered_is_told_once_whether_all_of_it_arrived() -> None:
    async def test(bench: Bench) -> None:
        arrived: list[bool] = []
        for values in ((b"a", b"b"), (b"a", b"lost"), (b"too large", b"b")):
            bench.delivery.offer(records(*values), arrived.append)
            await outcomes(arrived, len(arrived) + 1)
        await trio.sleep(0.05)
        assert arrived == [True, False, False]
        assert bench.delivery.in_flight_bytes == 0

    with_bench(test)


def test_an_offer_never_waits_for_a_full_queue_and_no_frame_waits_for_it() -> None:
    async def test(bench: Bench) -> None:
        bench.producer.hold, bench.producer.room = True, 1
        arrived: list[bool] = []
        bench.delivery.offer(records(b"a", b"b"), arrived.append)
        assert len(bench.producer.produced) == 1
        bench.producer.hold = False
        assert await outcomes(arrived, 1) == [False]
        await bench.send(b"frame")
        assert not (await bench.next_done()).failed

    with_bench(test)


def test_offers_on_their_way_are_bounded_and_their_places_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery_, "OFFERED_MAX", 2)

    async def test(bench: Bench) -> None:
        bench.producer.hold = True
        arrived: list[bool] = []
        for _ in range(3):
            bench.delivery.offer(records(b"a"), arrived.append)
        assert (len(bench.producer.produced), arrived) == (2, [False])
        bench.producer.hold = False
        await outcomes(arrived, 3)
        bench.delivery.offer(records(b"a"), arrived.append)
        assert await outcomes(arrived, 4) == [False, True, True, True]

    with_bench(test)

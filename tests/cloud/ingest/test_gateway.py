from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from io import StringIO
from typing import TypeVar

import msgspec
import pytest
import trio
import trio.testing

from cloud.ingest import metrics
from cloud.ingest.delivery import Parcel
from cloud.ingest.gateway import SILENCE_S_MAX, Gateway
from cloud.ingest.presence import FRESH_S, PRESENCE_S
from cloud.ingest.session import IngestSession
from cloud.ingest.unpack import Batch, Record, Unpacker
from cloud.policy.default import DEFAULT
from cloud.records import Instruction, Presence
from healthsync.runtime.log import Log
from tests.cloud.ingest.frames import NOW, Edge, Keys
from vitals import session
from vitals.limits import CREDIT_FRAMES

T = TypeVar("T")


def _known(data: bytes) -> session.CloudMessage:
    message = session.decode_cloud(data)
    assert message is not None
    return message


class Wire:
    """The websocket's two ends in memory."""

    def __init__(self) -> None:
        self._to_cloud, self._at_cloud = trio.open_memory_channel[bytes | str](1000)
        self._to_edge, self._at_edge = trio.open_memory_channel[bytes](1000)

    async def get_message(self) -> bytes | str:
        return await self._at_cloud.receive()

    async def send_message(self, message: bytes) -> None:
        await self._to_edge.send(message)

    async def say(self, *messages: session.EdgeMessage) -> None:
        for message in messages:
            await self._to_cloud.send(session.encode(message))

    async def cut(self) -> None:
        await self._to_cloud.aclose()

    async def hear(self) -> session.CloudMessage:
        return _known(await self._at_edge.receive())

    def hear_now(self) -> list[session.CloudMessage]:
        heard = []
        while True:
            try:
                heard.append(_known(self._at_edge.receive_nowait()))
            except trio.WouldBlock:
                return heard


class Sink:
    """Holds parcels until the test says what became of them."""

    def __init__(self) -> None:
        self.parcels: deque[Parcel] = deque()
        self.full = False
        self.room = trio.Event()
        self.offered: list[tuple[float, Presence, Callable[[bool], None]]] = []
        """When, what was said to all partitions alike, and whom to tell of its arrival."""
        self.away = False

    async def send(self, batch: Batch, done: Callable[[Parcel], None]) -> None:
        if self.full:
            await self.room.wait()
        self.parcels.append(Parcel(batch, done, lambda _parcel: None, lambda _message: True, 0.0))

    def offer(self, records: Sequence[Record], done: Callable[[bool], None]) -> None:
        assert [(one.topic, one.partition) for one in records] == [
            ("commands", partition) for partition in range(8)
        ]
        ((key, value),) = {(one.key, one.value) for one in records}
        said = msgspec.json.decode(value, type=Instruction)
        assert isinstance(said, Presence)
        assert key == said.edge.encode()
        self.offered.append((trio.current_time(), said, done))
        if not self.away:
            done(True)

    def said(self) -> list[bool]:
        return [said.connected for _, said, _ in self.offered]

    def deliver(self, count: int = 1) -> None:
        for _ in range(count):
            parcel = self.parcels.popleft()
            parcel.done(parcel)

    def fail(self, *, refused: bool = False) -> None:
        parcel = self.parcels.popleft()
        parcel.failed, parcel.refused = True, refused
        parcel.done(parcel)


class Bench:
    def __init__(self, keys: Keys, unpacker: Unpacker, edge: Edge) -> None:
        self.edge = edge
        self.wire, self.sink, self.out = Wire(), Sink(), StringIO()
        self.state = IngestSession("ward-3", keys.cloud, CREDIT_FRAMES)
        log = Log("ingest", lambda: NOW, self.out)
        self.gateway = Gateway(self.state, self.wire, unpacker, self.sink, lambda: NOW, log)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.gateway.serve)
            await self.wire.say(session.Hello(1, "ward-3", "", [self.edge.wrapped]))
            assert isinstance(await self.wire.hear(), session.Welcome)
            yield
            nursery.cancel_scope.cancel()

    async def settle(self) -> list[session.CloudMessage]:
        await trio.sleep(0.1)
        return self.wire.hear_now()


@pytest.fixture
def bench(keys: Keys, unpacker: Unpacker, edge: Edge) -> Bench:
    return Bench(keys, unpacker, edge)


def run(test: Callable[[], Awaitable[T]]) -> T:
    return trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_frame_is_acknowledged_after_delivery_and_not_before(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            await bench.wire.say(session.Data(bench.edge.simple(0), 0))
            assert await bench.settle() == []
            bench.sink.deliver()
            assert await bench.settle() == [session.Ack(bench.edge.epoch, [(0, 0)])]

    run(test)


def test_acks_of_one_round_are_one_message_within_milliseconds(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            await bench.wire.say(*(session.Data(bench.edge.simple(i), 0) for i in range(50)))
            await bench.settle()
            began = trio.current_time()
            bench.sink.deliver(50)
            assert await bench.wire.hear() == session.Ack(bench.edge.epoch, [(0, 49)])
            assert trio.current_time() - began < 0.005

    run(test)


def test_a_frame_kafka_did_not_take_ends_the_session_unacknowledged(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            await bench.wire.say(*(session.Data(bench.edge.simple(i), 0) for i in range(2)))
            await bench.settle()
            bench.sink.deliver()
            bench.sink.fail()
            ack, close = await bench.settle()
            assert ack == session.Ack(bench.edge.epoch, [(0, 0)])
            assert isinstance(close, session.Close)
            assert close.reason == "overload"

    run(test)


def test_a_frame_kafka_will_never_take_is_set_aside_and_acknowledged(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            await bench.wire.say(session.Data(bench.edge.simple(3), 0))
            await bench.settle()
            bench.sink.fail(refused=True)
            assert await bench.settle() == []
            (parcel,) = bench.sink.parcels
            assert parcel.batch.set_aside == "refused"
            assert [r.topic for r in parcel.batch.records] == ["quarantine", "alerts"]
            bench.sink.deliver()
            assert await bench.settle() == [session.Ack(bench.edge.epoch, [(3, 3)])]

    run(test)


def test_a_forged_frame_is_acknowledged_once_it_is_in_quarantine(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            frame = bench.edge.simple(1)
            await bench.wire.say(session.Data(frame[:-1] + bytes([frame[-1] ^ 1]), 0))
            await bench.settle()
            assert bench.sink.parcels[0].batch.set_aside == "forged"
            bench.sink.deliver()
            assert await bench.settle() == [session.Ack(bench.edge.epoch, [(1, 1)])]
        assert "frame-set-aside" in bench.out.getvalue()

    run(test)


def test_a_frame_of_another_gateway_closes_with_identity(bench: Bench, other_edge: Edge) -> None:
    async def test() -> None:
        async with bench.running():
            await bench.wire.say(session.Data(other_edge.simple(0), 0))
            (close,) = await bench.settle()
            assert isinstance(close, session.Close)
            assert close.reason == "identity"
            assert not bench.sink.parcels

    run(test)


def test_a_heartbeat_is_answered_while_kafka_is_stuck(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            bench.sink.full = True
            await bench.wire.say(*(session.Data(bench.edge.simple(i), 0) for i in range(20)))
            await bench.wire.say(session.Ping(5))
            assert await bench.settle() == [session.Pong(5, NOW, NOW)]

    run(test)


def test_credit_is_taken_away_and_given_back(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            bench.gateway.set_credit(0)
            assert await bench.settle() == [session.Credit(0)]
            bench.gateway.set_credit(CREDIT_FRAMES)
            assert await bench.settle() == [session.Credit(CREDIT_FRAMES)]

    run(test)


def test_stopping_acknowledges_what_is_on_its_way_and_says_going_away(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            await bench.wire.say(session.Data(bench.edge.simple(0), 0))
            await bench.settle()
            bench.gateway.stop()
            assert await bench.settle() == []
            bench.sink.deliver()
            ack, close = await bench.settle()
            assert ack == session.Ack(bench.edge.epoch, [(0, 0)])
            assert isinstance(close, session.Close)
            assert close.reason == "going-away"

    run(test)


def test_stopping_does_not_wait_for_ever_for_kafka(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            await bench.wire.say(session.Data(bench.edge.simple(0), 0))
            await bench.settle()
            bench.gateway.stop()
            with trio.fail_after(10):
                close = await bench.wire.hear()
            assert isinstance(close, session.Close)

    run(test)


def test_a_silent_connection_ends(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            with trio.fail_after(SILENCE_S_MAX + 1):
                close = await bench.wire.hear()
            assert isinstance(close, session.Close)

    run(test)


def test_no_patient_is_in_the_log(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            await bench.wire.say(session.Data(bench.edge.rejects(0, 2), 0))
            await bench.wire.say(session.Data(b"mrn=M000123 name=Ada", 0))
            await bench.settle()
            bench.sink.deliver(2)
            await bench.settle()
        for word in ("Ada", "M000123", "bed-1"):
            assert word not in bench.out.getvalue()

    run(test)


def test_live_frames_overtake_late_ones_that_wait_to_be_opened(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            bench.sink.full = True
            for seq in range(4):
                await bench.wire.say(session.Data(bench.edge.simple(seq), 0, late=True))
            await bench.settle()
            await bench.wire.say(session.Data(bench.edge.simple(9), 0))
            await bench.settle()
            bench.sink.full = False
            bench.sink.room.set()
            await bench.settle()
            assert [parcel.batch.seq for parcel in bench.sink.parcels] == [0, 9, 1, 2, 3]

    run(test)


def test_settings_are_sent_once_to_a_gateway_that_has_not_got_them(bench: Bench) -> None:
    settings = session.Settings(4, b"", "k", b"s")

    async def test() -> None:
        async with bench.running():
            bench.gateway.push(settings)
            assert await bench.settle() == [settings]
            bench.gateway.push(settings)
            bench.gateway.push(session.Settings(3, b"", "k", b"s"))
            assert await bench.settle() == []
            await bench.wire.say(session.Outcome(4, "refused", "Ada Ng has no bed"))
            await bench.wire.say(session.Outcome(4, "Ada Ng"))
            await bench.settle()
        assert '"outcome": "refused"' in bench.out.getvalue()
        assert "Ada" not in bench.out.getvalue()

    run(test)


def test_a_session_can_be_ended_with_a_reason(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            bench.gateway.end("superseded", "a newer session of this gateway")
            (close,) = await bench.settle()
            assert close == session.Close("superseded", "a newer session of this gateway")

    run(test)


def dropped() -> float:
    (family,) = metrics.PRESENCE_DROPPED.collect()
    return next(one.value for one in family.samples if one.name.endswith("_total"))


async def beat(bench: Bench, seconds: float) -> None:
    """Let time go by as a gateway does that is well."""
    for _ in range(round(seconds / 2)):
        await bench.wire.say(session.Ping(1))
        await trio.sleep(2)
        bench.wire.hear_now()


def test_a_session_is_vouched_for_at_its_welcome_and_while_it_is_heard(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            await beat(bench, 4 * PRESENCE_S - 2)
            times = [at for at, _, _ in bench.sink.offered]
            assert bench.sink.said() == [True] * 4
            assert times[0] < 0.1
            assert [round(at - times[0]) for at in times] == [0, 10, 20, 30]
            assert bench.sink.offered[0][1] == Presence("ward-3", True, NOW)
        assert bench.sink.said() == [True] * 4 + [False]

    run(test)


def test_a_gateway_that_is_not_heard_is_not_vouched_for_until_it_is_again(bench: Bench) -> None:
    async def test() -> None:
        async with bench.running():
            await trio.sleep(FRESH_S + 3 * PRESENCE_S)
            assert bench.sink.said() == [True]
            await beat(bench, PRESENCE_S)
            assert bench.sink.said() == [True, True]

    run(test)


def test_a_session_that_was_never_welcomed_is_not_told(bench: Bench) -> None:
    async def test() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.gateway.serve)
            await trio.sleep(PRESENCE_S)
            await bench.wire.say(session.Hello(1, "ward-4", "", []))
            assert isinstance(await bench.wire.hear(), session.Close)
        assert bench.sink.said() == []

    run(test)


@pytest.mark.parametrize(("reason", "said"), [("revoked", [True, False]), ("superseded", [True])])
def test_the_end_is_told_but_for_a_session_that_lives_on_in_a_newer_one(
    bench: Bench, reason: str, said: list[bool]
) -> None:
    async def test() -> None:
        async with bench.running():
            await bench.settle()
            bench.gateway.end(reason, "")
            await bench.settle()
            assert bench.sink.said() == said

    run(test)


def test_a_connection_that_breaks_ends_as_told(bench: Bench) -> None:
    async def test() -> None:
        with pytest.RaisesGroup(trio.EndOfChannel, flatten_subgroups=True):
            async with bench.running():
                await bench.settle()
                await bench.wire.cut()
                await trio.sleep(1)
        assert bench.sink.said() == [True, False]

    run(test)


def test_while_kafka_is_away_one_round_waits_and_the_others_are_dropped(bench: Bench) -> None:
    async def test() -> None:
        before = dropped()
        bench.sink.away = True
        async with bench.running():
            await beat(bench, 6 * PRESENCE_S - 2)
            assert bench.sink.said() == [True]
            assert dropped() - before == 5
            bench.sink.away = False
            bench.sink.offered[0][2](False)
            assert dropped() - before == 6
            await beat(bench, 2 * PRESENCE_S)
            assert bench.sink.said() == [True] * 3
            assert dropped() - before == 6
            await bench.wire.say(session.Data(bench.edge.simple(0), 0))
            await bench.settle()
            bench.sink.deliver()
            assert await bench.settle() == [session.Ack(bench.edge.epoch, [(0, 0)])]

    run(test)


def test_one_lost_presence_is_not_an_absence() -> None:
    assert DEFAULT.silence.gateway_s > 2 * PRESENCE_S
    assert FRESH_S >= 2 * 2, "two heartbeats may be late"

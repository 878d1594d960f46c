"""The live stream on Trio's clock."""

import json
from typing import Any

import trio
import trio.lowlevel
import trio.testing
from prometheus_client import CollectorRegistry

from cloud.api.hub import PACE_MS, QUEUE_MAX, Hub
from cloud.api.metrics import Metrics
from cloud.api.tokens import Principal
from cloud.records import AlertEvent, Identity, LiveUpdate
from vitals.reading import Patient

NOW = 1_790_000_000_000
ADA, BEA = "a" * 32, "b" * 32
ALL = Principal("nurse", frozenset(), frozenset({"*"}), 0)
ICU = Principal("nurse", frozenset(), frozenset({"ICU"}), 0)


def made() -> tuple[Hub, CollectorRegistry]:
    registry = CollectorRegistry()

    def mono() -> float:
        return trio.current_time() * 1000

    hub = Hub(Metrics(registry), lambda: NOW + round(mono()), mono, "boot")
    return hub, registry


def who(subject: str, ward: str, bed: str = "4") -> Identity:
    return Identity(subject, Patient(name="Ada Ng", ward=ward, bed=bed), "d" * 32, "e", NOW)


def events(raw: list[bytes]) -> list[tuple[str, str, Any]]:
    found = []
    for text in b"".join(raw).decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return found


async def serve(hub: Hub, principal: Principal, lifetime_s: float, into: list[bytes]) -> None:
    async def sink(event: bytes) -> None:
        into.append(event)

    await hub.serve(principal, lifetime_s, sink)


def play(script: Any) -> None:
    async def run() -> None:
        hub, registry = made()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            await script(hub, nursery, registry)
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_station_gets_the_state_then_heartbeats_without_id(make: Any) -> None:
    async def script(hub: Hub, nursery: trio.Nursery, _registry: Any) -> None:
        heard: list[bytes] = []
        hub.receive([LiveUpdate(ADA, [make("spo2", 97)], identity=who(ADA, "ICU"))])
        hub.set_live(live=True)
        nursery.start_soon(serve, hub, ALL, 100, heard)
        await trio.sleep(7)
        found = events(heard)
        assert found[0][0] == "state"
        assert found[0][1].startswith("boot-")
        assert [bed["key"] for bed in found[0][2]["beds"]] == [ADA]
        beats = [event for event in found if event[0] == "heartbeat"]
        assert len(beats) in {3, 4}
        assert all(not ident and body["live"] for _, ident, body in beats)

    play(script)


def test_numbers_go_out_at_once_and_then_at_most_four_times_a_second(make: Any) -> None:
    async def script(hub: Hub, nursery: trio.Nursery, _registry: Any) -> None:
        heard: list[bytes] = []
        hub.receive([LiveUpdate(ADA, [make("spo2", 97)], identity=who(ADA, "ICU"))])
        await trio.sleep(1)
        nursery.start_soon(serve, hub, ALL, 100, heard)
        await trio.sleep(1)
        heard.clear()
        for at in range(1, 101):  # a hundred a second
            hub.receive([LiveUpdate(ADA, [make("spo2", at % 50 + 50, at * 10)])])
            await trio.sleep(0.01)
            if at == 2:
                assert len([e for e in events(heard) if e[0] == "beds"]) == 1
        await trio.sleep(PACE_MS / 1000)
        sent = [body for event, _, body in events(heard) if event == "beds"]
        assert 4 <= len(sent) <= 6
        assert sent[-1]["beds"][0]["vitals"]["spo2"]["v"] == 50  # the last one always arrives

    play(script)


def test_an_alarm_is_not_paced_and_has_an_id_of_its_own(make: Any) -> None:
    async def script(hub: Hub, nursery: trio.Nursery, _registry: Any) -> None:
        heard: list[bytes] = []
        hub.receive([LiveUpdate(ADA, [make("spo2", 84)], identity=who(ADA, "ICU"))])
        await trio.sleep(1)
        nursery.start_soon(serve, hub, ALL, 100, heard)
        await trio.sleep(0.5)
        for number in range(2):
            event = AlertEvent(
                f"ep-{number}", ADA, "threshold", "spo2", "high", "active", "SpO2 84<90", 90, 84,
                NOW, NOW, NOW, "p",
            )  # fmt: skip
            hub.receive([LiveUpdate(ADA, alert=event)])
        await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        told = [(ident, body) for event, ident, body in events(heard) if event == "alert"]
        assert len({ident for ident, _ in told}) == 2
        assert len(told[-1][1]["beds"][0]["alarms"]) == 2

    play(script)


def test_a_station_sees_its_wards_only(make: Any) -> None:
    async def script(hub: Hub, nursery: trio.Nursery, _registry: Any) -> None:
        heard: list[bytes] = []
        nursery.start_soon(serve, hub, ICU, 100, heard)
        await trio.sleep(0.1)
        for at in range(3):
            hub.receive(
                [
                    LiveUpdate(ADA, [make("spo2", 97, at)], identity=who(ADA, "ICU")),
                    LiveUpdate(BEA, [make("spo2", 96, at)], identity=who(BEA, "HDU")),
                    LiveUpdate("c" * 32, [make("spo2", 95, at)]),
                ]
            )
            await trio.sleep(0.5)
        keys = {bed["key"] for _, _, body in events(heard) for bed in body.get("beds", [])}
        assert keys == {ADA}

    play(script)


def test_a_station_that_does_not_read_is_closed_and_the_others_go_on(make: Any) -> None:
    async def script(hub: Hub, nursery: trio.Nursery, registry: Any) -> None:
        heard: list[bytes] = []

        async def stuck(_event: bytes) -> None:
            await trio.sleep_forever()  # its socket is full

        nursery.start_soon(hub.serve, ALL, 1000, stuck)
        nursery.start_soon(serve, hub, ALL, 1000, heard)
        await trio.sleep(0.1)
        for at in range(QUEUE_MAX * 2):
            hub.receive([LiveUpdate(ADA, [make("spo2", 97, at)], identity=who(ADA, "ICU"))])
            await trio.sleep(0.3)
        assert registry.get_sample_value("healthsync_api_sse_dropped_total") == 1
        assert registry.get_sample_value("healthsync_api_sse_clients") == 1
        assert len(heard) > QUEUE_MAX

    play(script)


def test_when_the_feed_is_lost_the_stations_hear_it_at_once(make: Any) -> None:
    async def script(hub: Hub, nursery: trio.Nursery, _registry: Any) -> None:
        heard: list[bytes] = []
        hub.set_live(live=True)
        nursery.start_soon(serve, hub, ALL, 100, heard)
        await trio.sleep(0.1)
        hub.set_live(live=False)
        await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()
        assert events(heard)[-1][0] == "heartbeat"
        assert events(heard)[-1][2]["live"] is False

    play(script)


def test_a_stream_ends_with_its_session() -> None:
    async def script(hub: Hub, nursery: trio.Nursery, registry: Any) -> None:
        heard: list[bytes] = []
        await serve(hub, ALL, 5, heard)
        assert registry.get_sample_value("healthsync_api_sse_clients") == 0

    play(script)

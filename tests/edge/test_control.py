"""The control socket answers the technician, tells on whoever looks, and stops nobody."""

import contextlib
import io
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from edge import control
from edge.control import BadRequest, Control, parse
from edge.devices import Devices
from healthsync.runtime.log import Log
from tests.edge.gateway import NOW
from vitals.columns import Source
from vitals.reading import Patient, Reading

ADA = Patient(mrn="M000123", name="Ada Ng", bed="12")


class _Logged(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = trio.Event()

    def write(self, text: str) -> int:
        if '"values-hidden"' in text:
            self.hidden.set()
        return super().write(text)


class Served:
    """A control socket with made-up parts."""

    def __init__(self, path: Path) -> None:
        self.path, self.logged = path, _Logged()
        self.devices = Devices()
        self.reloads = 0
        self.failing = False

    def status(self) -> dict[str, Any]:
        if self.failing:
            raise RuntimeError("M000123")
        return {"edge": "ward-1", "live": {}}

    async def reload(self) -> dict[str, Any]:
        self.reloads += 1
        return {"applied": ["ward"]}

    def control(self) -> Control:
        log = Log("edge", lambda: NOW, self.logged)
        skew: Callable[[str], int | None] = lambda _name: None  # noqa: E731 - one line of a test
        return Control(self.devices, skew, self.status, self.reload, log, lambda: NOW)

    def heard(self, name: str = "m-1", patient: Patient | None = ADA) -> None:
        self.devices.heard(Source(name, patient=patient), (Reading(0, 78.0, NOW, NOW),))

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.logged.getvalue().splitlines()]


def run(path: Path, test: Callable[[Served], Awaitable[None]], clock: Any = None) -> Served:
    served = Served(path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(served.control().serve, path)
            with trio.fail_after(20):
                await test(served)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)
    return served


@asynccontextmanager
async def client(path: Path) -> Any:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        yield stream


async def request(stream: trio.SocketStream, line: bytes) -> Any:
    await stream.send_all(line + b"\n")
    return await _answer(stream)


async def _answer(stream: trio.SocketStream) -> Any:
    data = b""
    while not data.endswith(b"\n"):
        part = await stream.receive_some()
        assert part, data
        data += part
    return json.loads(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


# -- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b'{"get":"status"}',
        b'{"get":"devices","rows":3}',
        b'{"get":"devices","reveal":true,"who":"N. Berg"}',
        b'{"do":"reload"}',
        b'{"watch":0.5}',
        b'{"watch":60,"reveal":true,"who":"n.berg@ward-3"}',
        '{"watch":1,"reveal":true,"who":"Ngô"}'.encode(),
    ],
)
def test_what_is_documented_is_understood(line: bytes) -> None:
    assert parse(line)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "not JSON"),
        (b"[" * 5000, "ask like"),
        (b"\xff", "not JSON"),
        (b'{"get":"values"}', "get"),
        (b'{"gett":"status"}', "gett"),
        (b"{}", "one of"),
        (b'{"get":"status","watch":1}', "one of"),
        (b'{"watch":0.49}', "0.5"),
        (b'{"watch":60.1}', "60"),
        (b'{"watch":"1"}', "watch"),
        (b'{"get":"devices","rows":0}', "rows"),
        (b'{"get":"devices","rows":501}', "rows"),
        (b'{"do":"reload","reveal":true,"who":"N"}', "reveal goes"),
        (b'{"get":"status","reveal":true,"who":"N"}', "reveal goes"),
        (b'{"get":"devices","reveal":true}', "your name"),
        (b'{"get":"devices","reveal":true,"who":" "}', "your name"),
        (b'{"get":"devices","reveal":true,"who":"' + b"x" * 65 + b'"}', "your name"),
        (b'{"get":"devices","reveal":true,"who":"a\\nb"}', "your name"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_be_right(line: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        parse(line)


def test_a_bad_request_does_not_end_the_connection(path: Path) -> None:
    async def test(served: Served) -> None:
        async with client(path) as stream:
            assert "one of" in (await request(stream, b"{}"))["error"]
            assert (await request(stream, b'{"get":"status"}'))["status"]["edge"] == "ward-1"

    run(path, test)


def test_status_counts_devices_and_devices_come_in_rows(path: Path) -> None:
    async def test(served: Served) -> None:
        for at in range(3):
            served.heard(f"m-{at}")
        async with client(path) as stream:
            answer = await request(stream, b'{"get":"status"}')
            assert answer["status"]["devices"]["ok"] == 3
            assert "rows" not in answer
            answer = await request(stream, b'{"get":"devices","rows":2}')
            assert [row["device"] for row in answer["rows"]] == ["m-0", "m-1"]
            assert answer["counts"]["ok"] == 3
            assert "status" not in answer
            assert "value" not in answer["rows"][0]["vitals"][0]

    run(path, test)


def test_many_devices_come_whole(path: Path) -> None:
    async def test(served: Served) -> None:
        for at in range(3 * control.DEVICES_A_TURN + 1):
            served.heard(f"m-{at:04}")
        async with client(path) as stream:
            answer = await request(stream, b'{"get":"devices"}')
            assert answer["counts"]["ok"] == 3 * control.DEVICES_A_TURN + 1
            assert len(answer["rows"]) == 500
            assert answer["rows"][-1]["device"] == "m-0499"

    run(path, test)


def test_reload_is_done_logged_and_answered(path: Path) -> None:
    async def test(served: Served) -> None:
        async with client(path) as stream:
            assert await request(stream, b'{"do":"reload"}') == {"applied": ["ward"]}

    served = run(path, test)
    assert served.reloads == 1
    assert [(one["event"], one["uid"]) for one in served.events()] == [
        ("reload-asked", os.getuid())
    ]


# -- values --------------------------------------------------------------------------------------


def test_whoever_sees_values_is_in_the_log_and_no_value_is(path: Path) -> None:
    async def test(served: Served) -> None:
        served.heard()
        async with client(path) as stream:
            answer = await request(stream, b'{"get":"devices","reveal":true,"who":"N. Berg"}')
            assert answer["rows"][0]["vitals"][0]["value"] == 78.0
            assert "M000123" not in json.dumps(answer)

    served = run(path, test)
    [event] = served.events()
    assert (event["event"], event["level"]) == ("values-revealed", "warning")
    assert (event["who"], event["uid"]) == ("N. Berg", os.getuid())
    assert "78" not in served.logged.getvalue().replace(event["time"], "")


def test_a_stream_of_values_is_logged_when_it_begins_and_when_it_ends(path: Path) -> None:
    async def test(served: Served) -> None:
        served.heard()
        async with client(path) as stream:
            await request(stream, b'{"watch":0.5,"reveal":true,"who":"N. Berg"}')
            assert [one["event"] for one in served.events()] == ["values-revealed"]
            await _answer(stream)
        with trio.move_on_after(1):
            await served.logged.hidden.wait()

    served = run(path, test)
    last = served.events()[-1]
    assert (last["event"], last["who"], last["snapshots"]) == ("values-hidden", "N. Berg", 2)


def test_a_stream_that_hides_values_is_not_logged(path: Path) -> None:
    async def test(served: Served) -> None:
        served.heard()
        async with client(path) as stream:
            answer = await request(stream, b'{"watch":0.5}')
            assert set(answer) == {"at_ms", "status", "counts", "rows"}
            assert "value" not in answer["rows"][0]["vitals"][0]

    assert run(path, test).events() == []


def test_a_stream_goes_on_until_the_client_says_anything(path: Path) -> None:
    async def test(served: Served) -> None:
        async with client(path) as stream:
            began = trio.current_time()
            await request(stream, b'{"watch":0.5}')
            await _answer(stream)
            assert trio.current_time() - began >= 0.5
            await stream.send_all(b"\n")
            assert await stream.receive_some() == b""

    run(path, test)


# -- bounds --------------------------------------------------------------------------------------


def test_a_request_is_bounded(path: Path) -> None:
    async def test(served: Served) -> None:
        async with client(path) as stream:
            exact = b'{"get":"status"}'.ljust(control.REQUEST_BYTES_MAX)
            assert "status" in await request(stream, exact)
            await stream.send_all(b" " * (control.REQUEST_BYTES_MAX + 1))
            assert "at most" in (await _answer(stream))["error"]
            assert await stream.receive_some() == b""

    run(path, test)


def test_over_the_limit_a_newcomer_is_told_and_a_place_is_free_again(path: Path) -> None:
    async def test(served: Served) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(control.CLIENTS_MAX):
                stream = await trio.open_unix_socket(str(path))
                nursery.start_soon(_hold, stream)
                await request(stream, b'{"get":"status"}')
            async with client(path) as late:
                assert "clients" in (await _answer(late))["error"]
            nursery.cancel_scope.cancel()
        await trio.sleep(0.05)
        async with client(path) as stream:
            assert "status" in await request(stream, b'{"get":"status"}')

    run(path, test)


async def _hold(stream: trio.SocketStream) -> None:
    async with stream:
        await trio.sleep_forever()


def test_a_silent_client_is_cut_off(path: Path) -> None:
    async def test(served: Served) -> None:
        async with client(path) as stream:
            began = trio.current_time()
            with trio.fail_after(1000):
                assert await stream.receive_some() == b""
            assert trio.current_time() - began >= control.IDLE_S_MAX

    served = Served(path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(served.control().serve, path)
            await test(served)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0.05))


def test_a_client_that_does_not_read_is_cut_off_and_delays_nobody(path: Path) -> None:
    async def test(served: Served) -> None:
        for at in range(500):
            served.heard(f"{at:03}" + "x" * 200)
        async with client(path) as stuck:
            await stuck.send_all(b'{"get":"devices"}\n' * 100)
            await trio.sleep(0.2)
            async with client(path) as other:
                with trio.fail_after(1):
                    await request(other, b'{"get":"status"}')
            await trio.sleep(control.SEND_S_MAX + 1)
            got = 0
            with contextlib.suppress(trio.BrokenResourceError):
                while part := await stuck.receive_some():
                    got += len(part)
            assert 0 < got < 50 * 500 * 300, "half of what it asked for at most"

    served = Served(path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(served.control().serve, path)
            await test(served)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(rate=10.0))


def test_a_defect_ends_one_client_and_its_trace_has_no_content(path: Path) -> None:
    async def test(served: Served) -> None:
        served.failing = True
        async with client(path) as stream:
            await stream.send_all(b'{"get":"status"}\n')
            assert await stream.receive_some() == b""
        served.failing = False
        async with client(path) as stream:
            assert "status" in await request(stream, b'{"get":"status"}')

    served = run(path, test)
    assert [one["event"] for one in served.events()] == ["control-crashed"]
    assert "M000123" not in served.logged.getvalue()

"""The parts, put together in this process: what a reload reaches, and how it starts and stops."""

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from edge import main, reload
from edge.gateway_clock import GatewayClock
from edge.main import Gateway
from edge.spool_quota import Quota
from healthsync.runtime.log import Log
from tests.edge.gateway import NOW
from tests.edge.process import Process
from vitals.errors import ConfigError

MAP = '[[code]]\ncode = "ZHR"\nvital = "heart_rate"\n'


class Made:
    """A gateway that nobody has started yet."""

    def __init__(self, folder: Path) -> None:
        self.process, self.logged = Process(folder), io.StringIO()
        self.process.state.mkdir()
        (folder / "map.toml").write_text(MAP)
        self.process.set(f'hl7_map = "{folder / "map.toml"}"')
        loaded = reload.load(self.process.config)
        log = Log("edge", lambda: NOW, self.logged)
        self.gateway = Gateway(self.process.config, loaded, log, GatewayClock(lambda: NOW))

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.logged.getvalue().splitlines()]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setattr("healthsync.runtime.metrics.serve", lambda _port: None)
    before = signal.getsignal(signal.SIGHUP)
    made = Made(tmp_path)
    yield made
    signal.signal(signal.SIGHUP, before)


def _serve(made: Made, *numbers: signal.Signals, early: int = 0) -> None:
    def ready() -> None:
        for number in numbers:
            signal.raise_signal(number)

    async def bounded() -> None:
        with trio.fail_after(20):
            await made.gateway.serve(ready, [signal.SIGHUP] * early)

    trio.run(bounded)


def test_a_reload_reaches_every_part(made: Made) -> None:
    gateway = made.gateway
    assert len(gateway._collector.setting.vendor) == 1, "used from the start"
    made.process.replace("hl7_map = ", "# ")
    made.process.set(
        *('ward = "W9"', 'site_zone = "Europe/Berlin"', "connections_max = 7"),
        *('unknown_devices = "refuse"', 'known.devices = ["N1"]', "spool_bytes_max = 2000000"),
        *('spool_full = "refuse"', "spool_age_max_days = 0.5", "quarantine_bytes_max = 3000000"),
    )
    _serve(made, signal.SIGTERM, early=1)
    setting = gateway._collector.setting
    assert (setting.ward, str(setting.zone)) == ("W9", "Europe/Berlin")
    assert setting.admission.policy == "refuse"
    assert len(setting.vendor) == 0
    assert gateway._collector.connections_max == 7
    assert gateway._committer._quota == Quota(2_000_000, 3_000_000, 43_200_000, refuse=True)
    events = made.events()
    assert events.index("reloaded") < events.index("stopping")


def test_a_reload_while_it_stops_is_not_begun(made: Made) -> None:
    _serve(made, signal.SIGTERM, signal.SIGHUP)
    assert "reloaded" not in made.events()


def test_a_reload_before_it_serves_is_no_reason_to_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers = []

    def load(_path: Path) -> reload.Loaded:
        handlers.append(signal.getsignal(signal.SIGHUP))
        raise ConfigError("none")

    monkeypatch.setattr(reload, "load", load)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(ConfigError):
            main.run(tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert callable(handlers[0]), "neither ended by it nor deaf to it"


def test_a_defect_in_a_reload_ends_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: Path) -> reload.Loaded:
        raise RuntimeError("M000123")

    monkeypatch.setattr(reload, "load", broken)
    _serve(made, signal.SIGHUP, signal.SIGTERM, early=1)
    assert "reload-crashed" in made.events()
    assert [one for one in made.events() if one != "uplink-down"][-1] == "stopping"
    assert "M000123" not in made.logged.getvalue()


def test_reloads_go_one_after_the_other(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = most = 0

    async def counting(*_: object) -> reload.Loaded:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await trio.sleep(0.01)
        inside -= 1
        return made.gateway._loaded

    monkeypatch.setattr(trio.to_thread, "run_sync", counting)

    async def twice() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(made.gateway.reload)

    trio.run(twice)
    monkeypatch.undo()
    assert most == 1
    _serve(made, signal.SIGTERM)


def test_it_remembers_what_was_counted_at_the_start(made: Made) -> None:
    _serve(made, signal.SIGTERM)
    assert made.gateway._recent._samples

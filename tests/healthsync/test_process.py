"""Telling systemd, stopping, metrics, exit codes: what every service does the same way."""

import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Counter

from healthsync import cli
from healthsync.runtime import metrics
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from healthsync.runtime.notify import notify, watchdog_interval_s
from healthsync.runtime.stop import Stop


@pytest.fixture
def systemd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        yield sock


def test_a_state_reaches_the_notify_socket(
    systemd: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify")
    systemd.bind(address)
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
    assert systemd.recv(100) == b"READY=1"


def test_an_abstract_socket_is_reached_too(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"healthsync-test-{os.getpid()}"
    systemd.bind("\0" + name)
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
    notify("WATCHDOG=1")
    assert systemd.recv(100) == b"WATCHDOG=1"


def test_without_systemd_or_with_its_socket_gone_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "seconds"), [(None, None), ("", None), ("10000000", 5.0), ("-1", None), ("x", None)]
)
def test_the_watchdog_is_fed_twice_in_its_interval(
    usec: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if usec is not None:
        monkeypatch.setenv("WATCHDOG_USEC", usec)
    assert watchdog_interval_s() == seconds


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_stop(number: signal.Signals) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = Stop()
        assert not stop
        signal.raise_signal(number)
        assert stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_stopping_can_be_asked_from_inside() -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = Stop()
        stop.ask()
        assert stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_metrics_are_served_on_loopback() -> None:
    Counter("healthsync_test_served", "A counter of this test.").inc()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    metrics.serve(port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        assert b"healthsync_test_served_total 1.0" in reply.read()


def test_the_clock_gives_milliseconds_of_this_century() -> None:
    assert 1_700_000_000_000 < now_ms() < 4_102_444_800_000


def test_exit_codes_are_those_documented() -> None:
    assert {code.name: code.value for code in Exit} == {
        "OK": 0,
        "DEGRADED": 1,
        "FAILED": 2,
        "USAGE": 64,
        "UNAVAILABLE": 69,
        "INTERNAL": 70,
        "RESTART": 75,
        "CONFIG": 78,
    }


def test_help_names_every_part_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in cli.PARTS:
        assert part in shown
    for code in Exit:
        assert f"{code.value} {code.name.lower()}" in shown


def test_a_wrong_configuration_ends_with_its_code_and_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / "a_part_with_a_wrong_config.py"
    part.write_text(
        "from vitals.errors import ConfigError\n"
        "def run(options):\n    raise ConfigError('x.toml: no')\n"
        "def register(parser):\n    parser.set_defaults(run=run)\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cli.PARTS, "edge", (part.stem, "a test"))
    assert cli.main(["edge"]) == Exit.CONFIG
    assert "healthsync: x.toml: no" in capsys.readouterr().err


def test_a_part_whose_library_is_missing_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.PARTS, "edge", ("no_such_module_here", "a test"))
    assert cli.main(["edge"]) == Exit.USAGE
    assert "install iot-health-sync[edge]" in capsys.readouterr().err

"""The live table on a real terminal: it shows, it ends, it never leaves the terminal broken."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from healthsync.runtime.exits import Exit
from tests.edge.process import Process
from tests.edge.tty import ROOT, Session, session

LINES = (
    b"device=m-1 mrn=M000123 name=Ada bed=12 reply=yes heart_rate=137 spo2=95\n",
    b"device=m-2 reply=yes hr=71\n",
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A gateway that tests only look at."""
    with _gateway(tmp_path_factory.mktemp("watch")) as process:
        yield process


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Process]:
    """A gateway that a test may talk to."""
    with _gateway(tmp_path) as process:
        yield process


@contextmanager
def _gateway(folder: Path) -> Iterator[Process]:
    process = Process(folder)
    with process.started():
        for line in LINES:
            with socket.create_connection(("127.0.0.1", process.line_port), timeout=5) as sock:
                sock.sendall(line)
                assert sock.recv(3) == b"ok\n"
        yield process


@contextmanager
def _watching(
    process: Process, *words: str, columns: int = 80, lines: int = 24, **environment: str
) -> Iterator[Session]:
    with session(process.command("watch", *words), columns, lines, **environment) as watching:
        before = watching.mode()
        yield watching
        watching.ended()
        assert watching.mode() == before, "the terminal's mode is as it was"
        modes = watching.screen.modes
        if "?1049" in modes:
            assert modes == {"?1049": False, "?25": True, "?7": True}


def _run(process: Process, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        process.command("watch", *words),
        cwd=ROOT,
        env=os.environ | environment,
        timeout=20,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_the_table_is_live_masked_and_ends_with_q(own: Process) -> None:
    with _watching(own) as watching:
        screen = watching.says("m-2")
        text = screen.text()
        assert "DEGRADED" in text
        assert "[link-down]" in text
        assert "values hidden" in text
        assert "HR" in text
        assert "137" not in text
        assert "\x1b[33mDEGRADED" in screen.raw.decode()
        with socket.create_connection(("127.0.0.1", own.line_port), timeout=5) as sock:
            sock.sendall(b"device=m-3 hr=70\n")
            watching.says("m-3")
        assert screen.modes["?1049"]
        watching.press("q")
        assert watching.ended() == Exit.OK
    assert not [one for one in own.events() if one["event"] == "values-revealed"]
    for secret in (b"M000123", b"Ada"):
        assert secret not in watching.screen.raw


def test_values_are_shown_to_somebody_with_a_name(own: Process) -> None:
    with _watching(own, "--reveal") as watching:
        watching.says("Your name")
        assert "137" not in watching.screen.text()
        watching.press("N. Berg\n")
        watching.says("HR 137")
        assert "VALUES SHOWN, LOGGED" in watching.screen.text()
        watching.press("q")
        assert watching.ended() == Exit.OK
    event = own.logged("values-revealed")
    assert (event["who"], event["uid"]) == ("N. Berg", os.getuid())
    assert own.logged("values-hidden")["snapshots"] >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_whole(
    running: Process, number: signal.Signals
) -> None:
    with _watching(running) as watching:
        watching.says("m-1")
        watching.child.send_signal(number)
        assert watching.ended() == Exit.OK


def test_ctrl_c_is_a_key_like_q(running: Process) -> None:
    with _watching(running) as watching:
        watching.says("m-1")
        watching.press("\x03")
        assert watching.ended() == Exit.OK


def test_keys_move_hide_and_pause(own: Process) -> None:
    with _watching(own, lines=9) as watching:
        watching.says("1-2 of 2")
        watching.press("v")
        watching.says("HR ")
        watching.says("1-1 of 2")
        watching.press("\x1b[B")
        watching.says("2-2 of 2")
        watching.press("k")
        watching.says("1-1 of 2")
        watching.press("v")
        watching.until(lambda screen: "HR " not in screen.text())
        watching.press("p")
        watching.says("PAUSED")
        with socket.create_connection(("127.0.0.1", own.line_port), timeout=5) as sock:
            sock.sendall(b"device=m-3 hr=70\n")
        watching.press("x")
        assert "of 3" not in watching.screen.text()
        watching.press("p")
        watching.says("of 3")
        watching.press("q")


def test_a_window_that_changes_its_size_is_filled_anew(running: Process) -> None:
    with _watching(running, columns=80, lines=24) as watching:
        watching.says("m-1")
        watching.resize(200, 30)
        screen = watching.says("VITAL SIGNS, AGE")
        assert max(screen.lines) == 29
        assert screen.raw.count(b"\x1b[2J") == 2, "what the terminal made of the old one is gone"
        watching.press("q")


def test_suspended_it_gives_the_terminal_back_and_takes_it_again(running: Process) -> None:
    shell = 'set -m; "$@"; echo "STOPPED $(stty -a | grep -o -- "-*icanon")"; read -r; fg'
    words = ["bash", "-c", shell, "shell", *running.command("watch")]
    with session(words) as watching:
        watching.says("m-1")
        watching.press("\x1a")
        watching.says("STOPPED icanon")
        assert watching.screen.modes["?1049"] is False
        watching.press("\n")  # only now it goes on: else both may come in one piece
        watching.until(lambda screen: screen.modes["?1049"])
        watching.says("m-1")
        watching.press("q")
        assert watching.ended() == Exit.OK


def test_a_gateway_that_ends_is_said_and_found_again(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with process.started(), _watching(process) as watching:
        watching.says("no device has been heard")
        [child] = [one for one in process.events() if one["event"] == "serving"]
        assert child
        process.children[-1].kill()
        watching.says("NO DATA")
        assert "FAILED" in watching.screen.text()
        with process.started():
            watching.says("no device has been heard")
            watching.press("q")


def test_without_a_terminal_it_prints_once(running: Process) -> None:
    done = _run(running)
    assert done.returncode == Exit.DEGRADED
    assert "\x1b" not in done.stdout
    assert "m-1" in done.stdout
    assert "137" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 132


def test_as_json_it_is_the_snapshot(own: Process) -> None:
    done = _run(own, "--json", "--reveal", "--who", "N. Berg")
    assert done.returncode == Exit.DEGRADED
    rows = json.loads(done.stdout)["rows"]
    assert [row["device"] for row in rows] == ["m-1", "m-2"]
    assert rows[0]["vitals"][0]["value"] == 137
    assert own.logged("values-revealed")["who"] == "N. Berg"


def test_revealing_needs_a_name(running: Process) -> None:
    assert _run(running, "--reveal").returncode == Exit.USAGE
    done = _run(running, "--reveal", "--who", "\x1b[2J")
    assert done.returncode == Exit.FAILED
    assert "your name" in done.stderr


def test_no_colour_is_honoured(running: Process) -> None:
    with _watching(running, NO_COLOR="1") as watching:
        screen = watching.says("m-2")
        assert b"\x1b[33m" not in screen.raw
        watching.press("q")
    with _watching(running, TERM="dumb") as watching:
        watching.says("m-2")
        assert watching.ended() == Exit.DEGRADED
        assert b"\x1b[?" not in watching.screen.raw


def test_without_a_gateway_it_fails_in_words(tmp_path: Path) -> None:
    done = _run(Process(tmp_path))
    assert done.returncode == Exit.FAILED
    assert "is the gateway running" in done.stderr

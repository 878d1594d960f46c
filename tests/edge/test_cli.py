"""The commands say what is so, and their exit codes mean it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge.control_client import ask
from healthsync.cli import main
from healthsync.runtime.exits import Exit
from tests.edge.process import Process
from tests.edge.tty import ROOT


def _edge(process: Process, *words: str) -> int:
    return main(process.command(*words)[3:])


def _say(process: Process, line: bytes, answer: bytes = b"ok\n") -> None:
    with socket.create_connection(("127.0.0.1", process.line_port), timeout=5) as sock:
        sock.sendall(line)
        assert sock.recv(len(answer)) == answer


def _codes(picture: dict[str, list[dict[str, str]]]) -> list[str]:
    return [one["code"] for one in picture["wrong"]]


def test_a_running_gateway_without_a_link_is_degraded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = Process(tmp_path)
    with process.started():
        _say(process, b"device=m-1 reply=yes heart_rate=78, oxygen=95%\n")
        assert _edge(process, "status", "--json") == Exit.DEGRADED
        picture = json.loads(capsys.readouterr().out)
        assert _codes(picture) == ["link-down"]
        assert picture["state"] == "degraded"
        assert picture["live"]["readings_total"] == 2
        assert picture["spool"]["frames"] == 1
        assert picture["spool"]["totals"]["readings_spooled"] == 2
        assert picture["program"]["devices"]["ok"] == 1
        assert picture["disk"]["free_bytes"] > 0
        assert picture["program"]["recent"]["lines_total"] == 1
        assert _edge(process, "status") == Exit.DEGRADED
        assert "no session with the cloud" in capsys.readouterr().out
        _say(process, b"device=m-2 reply=yes hr=x\n", b"rejected bad-number")
        assert _edge(process, "status", "--json") == Exit.DEGRADED
        assert "device-refused" in _codes(json.loads(capsys.readouterr().out))
    assert _edge(process, "status") == Exit.FAILED
    assert "does not answer" in capsys.readouterr().out
    assert _edge(process, "spool", "status") == Exit.OK
    assert "1 frames" in capsys.readouterr().out


def test_without_its_socket_the_metrics_port_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = Process(tmp_path)
    with process.started():
        _say(process, b"device=m-1 reply=yes hr=78\n")
        (process.state / "control.sock").unlink()
        assert _edge(process, "status", "--json") == Exit.DEGRADED
        picture = json.loads(capsys.readouterr().out)
        assert _codes(picture) == ["link-down", "no-control"]
        assert picture["live"]["lines_total"] == 1
        assert picture["program"] is None


def test_a_stopped_process_is_not_called_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.control_client.TIMEOUT_S", 0.2)
    monkeypatch.setattr("edge.control_client.Stream.__init__.__defaults__", (0.2,))
    monkeypatch.setattr("edge.status.METRICS_TIMEOUT_S", 0.2)
    process = Process(tmp_path)
    with process.started() as child:
        child.send_signal(signal.SIGSTOP)
        try:
            assert _edge(process, "status") == Exit.FAILED
        finally:
            child.send_signal(signal.SIGCONT)
        assert _edge(process, "status") == Exit.DEGRADED


def test_without_a_spool_the_spool_status_fails(tmp_path: Path) -> None:
    assert _edge(Process(tmp_path), "spool", "status") == Exit.FAILED


def test_a_good_configuration_is_called_good(tmp_path: Path) -> None:
    assert _edge(Process(tmp_path), "check-config") == Exit.OK


def test_a_taken_port_ends_the_start_with_words(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with socket.create_server(("127.0.0.1", process.line_port)):
        done = subprocess.run(
            process.command("run"), cwd=ROOT, capture_output=True, timeout=20, check=False
        )
    assert done.returncode == Exit.UNAVAILABLE
    assert b"port-taken" in done.stdout
    assert not (process.state / "control.sock").exists()


def test_a_socket_that_can_not_be_opened_stops_no_collecting(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.set(f'control_socket = "{tmp_path}/no/such/folder/c.sock"')
    with process.started():
        assert process.logged("control-socket-not-opened")["error"] == "FileNotFoundError"
        _say(process, b"device=m-1 reply=yes hr=78\n")


def test_a_socket_of_a_crash_is_replaced_at_the_next_start(tmp_path: Path) -> None:
    process = Process(tmp_path)
    path = process.state / "control.sock"
    with process.started() as child:
        child.kill()
        child.wait()
    assert path.exists()
    with process.started() as child:
        assert ask(path, {"get": "status"})["status"]["edge"] == "ward-1"
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == Exit.OK
    assert not path.exists()


def test_systemd_is_told_ready_watchdog_and_stopping(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(10)
        process = Process(tmp_path)
        with process.started(NOTIFY_SOCKET=str(address), WATCHDOG_USEC="200000") as child:
            told: list[bytes] = []
            while told.count(b"WATCHDOG=1") < 4 or b"READY=1" not in told:
                told.append(manager.recv(100))
            child.send_signal(signal.SIGTERM)
            assert child.wait(10) == Exit.OK
            while told[-1] != b"STOPPING=1":
                told.append(manager.recv(100))
    assert set(told) == {b"READY=1", b"WATCHDOG=1", b"STOPPING=1"}


def test_a_log_line_is_json_with_a_level_that_can_be_filtered(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with process.started():
        process.logged("uplink-down")
    levels = {one["event"]: one["level"] for one in process.events()}
    assert (levels["serving"], levels["uplink-down"]) == ("info", "warning")


def test_the_gateway_needs_none_of_the_clouds_libraries() -> None:
    code = (
        "import sys, edge.main, edge.cli, edge.status, edge.watch;"
        "bad = {'confluent_kafka', 'redis', 'boto3', 'fhir', 'pyarrow', 'numpy', 'cloud'};"
        "sys.exit(bool(bad & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, env=os.environ)
    assert done.returncode == 0


def test_a_process_that_the_kernel_ends_says_where_it_was_and_shows_no_value() -> None:
    program = """
import os, signal
from healthsync import cli

def end(_reading):
    os.kill(os.getpid(), signal.SIGSEGV)

cli.argparse.ArgumentParser.parse_args = lambda *_: end("mrn=4711")
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=30, check=False, cwd=ROOT
    )
    assert done.returncode == -signal.SIGSEGV
    assert b"Fatal Python error: Segmentation fault" in done.stderr
    assert b"cli.py" in done.stderr
    assert b"4711" not in done.stderr

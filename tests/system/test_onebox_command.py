"""The onebox command itself: second start, hard kill of the parent, stop."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.system.box import Box, until

pytestmark = pytest.mark.system


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_second_start_beside_a_running_one_is_refused_in_words(box: Box) -> None:
    done = box.command("onebox", "up")
    assert done.returncode == 78
    assert "in use by the onebox of process" in done.stderr
    assert box.ready()


def test_nothing_runs_in_an_empty_directory_and_the_commands_say_so(tmp_path: Path) -> None:
    import subprocess
    import sys

    for word, code in (("status", 2), ("info", 78), ("down", 0)):
        done = subprocess.run(
            [sys.executable, "-m", "healthsync.cli", "onebox", word, "--run-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == code
        assert "no onebox runs" in done.stdout + done.stderr


def test_every_child_dies_with_a_parent_that_is_killed_hard_and_the_data_stay(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path / "run")
    try:
        answer = box.say("device=bed-1 mrn=SYS000001 bed=1 heart_rate=70 reply=yes\n")
        assert answer.strip() == "ok"
        box.subject("SYS000001")
        pids = list(box.pids().values())
        assert all(alive(pid) for pid in pids)
        box.process.send_signal(signal.SIGKILL)
        box.process.wait(10)
        until(lambda: not any(alive(pid) for pid in pids), 10, "every child to die")
        before = json.loads((tmp_path / "run" / "config" / "ports.json").read_text())
        again = Box(tmp_path / "run")
        try:
            assert json.loads((tmp_path / "run" / "config" / "ports.json").read_text()) == before
            assert again.subject("SYS000001"), "the record survived the power cut"
            assert again.audit().returncode == 0
        finally:
            began = time.monotonic()
            assert again.command("onebox", "down").returncode == 0
            assert time.monotonic() - began < 40
            again.process.wait(10)
    finally:
        box.stop()

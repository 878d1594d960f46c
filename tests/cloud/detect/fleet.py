"""Engine processes of a test, ended by their own ids, and waiting for what they do."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.cloud.detect.broker import Broker
from tests.cloud.detect.records_of import T0

HERE = Path(__file__).parent
NOW_MS = T0
"""Their clock stands still there, before every reading: nobody is silent, nothing escalates."""


class Fleet:
    """Engine processes by identity."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self._broker = broker
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, identity: str) -> None:
        with (self._folder / f"{identity}.log").open("ab") as log:
            log.write(b"-- start\n")
            log.flush()
            self._running[identity] = subprocess.Popen(
                [
                    sys.executable,
                    HERE / "engine_process.py",
                    self._broker.bootstrap,
                    identity,
                    str(NOW_MS),
                ],
                stdout=log,
                stderr=log,
                cwd=HERE.parents[2],
                env={"PYTHONPATH": str(HERE.parents[2])},
            )

    def is_ready(self, identity: str) -> bool:
        """Tell whether the process of this name that runs now said so."""
        log = (self._folder / f"{identity}.log").read_text()
        return '"ready"' in log.rpartition("-- start")[2]

    def held(self) -> set[int]:
        """Return the partitions that processes that run now were assigned, as their logs say."""
        found: set[int] = set()
        for identity in self._running:
            log = (self._folder / f"{identity}.log").read_text().rpartition("-- start")[2]
            for line in log.splitlines():
                if '"event": "assigned"' in line:
                    found |= set(json.loads(line)["partitions"])
                elif '"event": "revoked"' in line:
                    found -= set(json.loads(line)["partitions"])
        return found

    def end(self, identity: str, how: signal.Signals) -> int:
        process = self._running.pop(identity)
        process.send_signal(how)
        return process.wait(30)

    def close(self) -> None:
        for identity in list(self._running):
            self.end(identity, signal.SIGKILL)


def wait_until(true: Callable[[], bool], what: str, bound_s: float = 180) -> None:
    deadline = time.monotonic() + bound_s
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {bound_s} s"
        time.sleep(0.2)  # a real server's progress, polled

"""A full disk: what is acknowledged is kept, the rest is told so, and it passes by itself.

A real gateway with its state on a tmpfs of some MB, in a mount namespace of its own: nothing is
mounted that outlives it. A ballast file leaves less room than the senders fill; it is taken away
while they go on. What was kept is read with the cloud's key from a copy of the stopped process's
files, as they would be after a power cut.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.mllp import block
from edge.spool import Backlog
from tests.edge.hl7_messages import STAMP
from tests.edge.ingest import Opener
from tests.edge.process import PRIVATE, Process
from vitals.columns import Columns

SENDERS = 50
DISK_MB = 6
BALLAST_MB = 3
REFUSED_MIN = 300
"""Refusals that are waited for while the disk is full: each sender meets several."""
AFTER_MIN = 500
"""Acknowledgements that are waited for once there is room again."""

GOOD = {"AA", "CA"}
BAD = {"AE", "CE"}

_UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "-r", "--mount"]
_MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
_ANSWER = re.compile(rb"MSA\|([A-Z]{2})\|([0-9-]+)")


def _may_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    command = [*_UNSHARE, "sh", "-c", _MOUNT, "sh", "64k", str(folder), "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class SmallDisk(Process):
    """A gateway whose state lies on a disk of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.state.mkdir(mode=0o750)

    def command(self, *words: str) -> list[str]:
        mounting = [*_UNSHARE, "sh", "-c", _MOUNT, "sh", f"{DISK_MB}m", str(self.state)]
        return [*mounting, *super().command(*words)]

    def disk(self, pid: int) -> Path:
        """Return the state directory as the process sees it."""
        return Path(f"/proc/{pid}/root{self.state}")


class Sender(threading.Thread):
    """One connection after another: a message, its answer, the next message."""

    def __init__(self, port: int, number: int, mode: str) -> None:
        super().__init__()
        self._port, self._number, self._mode = port, number, mode
        self.stopped = threading.Event()
        self.answers: dict[str, str] = {}
        """Control id -> MSA-1; a message without an answer is in ``unanswered``."""
        self.unanswered: list[str] = []
        self.wrong: list[bytes] = []
        self._sent = 0

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), 10) as sock:
                    while not self.stopped.is_set():
                        self._exchange(sock)
            except OSError:
                self.stopped.wait(0.05)

    def _exchange(self, sock: socket.socket) -> None:
        self._sent += 1
        control = f"{self._number}-{self._sent}"
        # Random names do not compress: the disk is full within seconds.
        name = os.urandom(90).hex()
        segments = (
            f"MSH|^~\\&|Mon|Fac|||{STAMP}||ORU^R01|{control}|P|2.6{self._mode}",
            f"PID|||{name[:90]}^^^H^MR||{name[90:]}",
            f"OBR|1||||||{STAMP}",
            f"OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.1|78|264864|||||R|||||||d{control}",
            "",
        )
        self.unanswered.append(control)
        sock.sendall(block("\r".join(segments).encode()))
        said = b""
        while not said.endswith(b"\x1c\r"):
            part = sock.recv(4096)
            if not part:
                raise ConnectionError
            said += part
        found = _ANSWER.findall(said)
        if [bytes(one) for _, one in found] != [control.encode()]:
            self.wrong.append(said)
            return
        self.answers[control] = found[0][0].decode()
        self.unanswered.remove(control)


class Ward:
    """All senders together: half in the original mode of acknowledgement, half in the enhanced."""

    def __init__(self, port: int) -> None:
        self.senders = [
            Sender(port, number, "|||AL|NE" if number % 2 else "") for number in range(SENDERS)
        ]
        for sender in self.senders:
            sender.start()

    def stop(self) -> None:
        for sender in self.senders:
            sender.stopped.set()
        for sender in self.senders:
            sender.join(15)

    def answers(self) -> dict[str, str]:
        return {
            control: said
            for sender in self.senders
            for control, said in dict(sender.answers).items()
        }

    def said(self) -> Counter[str]:
        return Counter(self.answers().values())


def _wait(until: Callable[[], bool], ward: Ward, timeout_s: float = 40.0) -> None:
    ends = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < ends, ward.said()
        time.sleep(0.02)


def _promised(ward: Ward) -> int:
    said = ward.said()
    return sum(said[code] for code in GOOD)


def _refused(ward: Ward) -> int:
    said = ward.said()
    return sum(said[code] for code in BAD)


def _kept(folder: Path) -> Counter[str]:
    """Return how often each message is in a spool, by its device's name."""
    backlog, opener = Backlog(folder / "spool.db"), Opener(PRIVATE)
    kept: Counter[str] = Counter()
    try:
        for epoch in backlog.epochs():
            opener.learn(epoch)
        for held in backlog.after(0, 1 << 60, 1 << 60, 1 << 30):
            _, body = opener.open(held.data)
            assert isinstance(body, Columns)
            kept.update(body.sources[at].device.removeprefix("d") for at in body.source)
        assert not backlog.unsound
    finally:
        backlog.close()
    return kept


def _copy(disk: Path, to: Path) -> None:
    to.mkdir()
    for path in disk.glob("spool.db*"):
        if path.name != "spool.db-shm":  # made anew from the journal, as after a power cut
            (to / path.name).write_bytes(path.read_bytes())


def test_what_was_acknowledged_is_kept_on_a_full_disk_and_it_passes(tmp_path: Path) -> None:
    if not _may_mount(tmp_path):
        pytest.skip("needs a mount namespace of its own (root, or user namespaces)")
    process = SmallDisk(tmp_path)
    with process.started() as child:
        disk = process.disk(child.pid)
        assert disk.stat().st_dev != tmp_path.stat().st_dev
        ballast = disk / "ballast"
        ballast.write_bytes(b"\xff" * (BALLAST_MB << 20))
        ward = Ward(process.mllp_port)
        try:
            _wait(lambda: _refused(ward) >= REFUSED_MIN, ward)
            full = ward.said()
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            ballast.unlink()
            _wait(lambda: _promised(ward) >= sum(full[code] for code in GOOD) + AFTER_MIN, ward)
        finally:
            ward.stop()
        assert child.poll() is None
        child.send_signal(signal.SIGSTOP)
        _copy(disk, tmp_path / "copy")
    answers = ward.answers()
    kept = _kept(tmp_path / "copy")
    promised = {control for control, said in answers.items() if said in GOOD}
    refused = {control for control, said in answers.items() if said in BAD}
    assert not [one for sender in ward.senders for one in sender.wrong]
    assert set(answers.values()) <= GOOD | BAD
    assert {"AA", "CA", "AE", "CE"} <= set(answers.values())
    assert free < 256 * 1024  # it was the disk that refused
    assert promised - set(kept) == set()
    assert refused & set(kept) == set()  # "nothing was kept" is true
    assert set(kept.values()) == {1}
    assert {one["event"] for one in process.events()} >= {"input-not-kept"}
    assert "spool-damaged-set-aside" not in {one["event"] for one in process.events()}

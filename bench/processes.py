"""Processes of a bench: started, measured from outside, stopped by their own id."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and its threads so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError("no VmRSS")


@contextlib.contextmanager
def process(command: list[str], log: Path, **more: Any) -> Iterator["subprocess.Popen[str]"]:
    """Run a command while in the block; kill what is left of it after."""
    with log.open("w") as out:
        child = subprocess.Popen(
            command, stderr=out, text=True, cwd=ROOT, **({"stdout": out} | more)
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def wait_for_port(port: int, child: "subprocess.Popen[str]", timeout_s: float = 20.0) -> None:
    """Return when somebody listens; raise TimeoutError or RuntimeError."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        if child.poll() is not None:
            raise RuntimeError(f"{child.args!r} ended with {child.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens on {port}")


class Load:
    """The load process of `bench.load`: `run` sends once more and returns what it sent."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        """Wait until it is connected."""
        self._child = child
        if self._read() != "ready":
            raise RuntimeError("the load did not get its connections")

    def _read(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    def run(self) -> dict[str, float]:
        """Send; return ``sent`` and ``seconds``."""
        assert self._child.stdin is not None
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        said: dict[str, float] = json.loads(self._read())
        return said


@contextlib.contextmanager
def load(port: int, connections: int, rate: float, lines: int, log: Path) -> Iterator[Load]:
    """Connect the load while in the block."""
    command = [sys.executable, "-m", "bench.load", f"--port={port}"]
    command += [f"--connections={connections}", f"--rate={rate}", f"--lines={lines}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with process(command, log, **pipes) as child:
        yield Load(child)


class Sink:
    """A TCP server that counts newlines: where rsyslog forwards to."""

    def __init__(self) -> None:
        """Listen and count in a thread of its own."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.lines = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._server.accept()
                threading.Thread(target=self._count, args=(peer,), daemon=True).start()

    def _count(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(1 << 18):
                self.lines += data.count(b"\n")

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

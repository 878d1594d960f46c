"""Bedside devices by the thousand: connections that send lines at a stated rate, as a process.

Law: what it costs is nobody's number; it says what it really sent, so that a bench can hold its
figures against that. Lines change from one to the next as a monitor's do.
"""

import argparse
import json
import random
import select
import socket
import sys
import time

TICK_S = 0.002
"""Between bursts: devices do not wait for each other, but a timer has its grain."""

CONNECT_AT_ONCE = 200


def line(rng: random.Random, device: int) -> bytes:
    """Return one line of a monitor: who, five vital signs and a cuff pressure."""
    return (
        f"device=bed-{device} mrn=M{device:06d} heart_rate={rng.randint(58, 102)}, "
        f"oxygen={rng.randint(92, 100)}%, temperature={rng.randint(360, 385) / 10}C, "
        f"resp={rng.randint(10, 24)}, bp={rng.randint(98, 150)}/{rng.randint(55, 95)}\n"
    ).encode()


def connect(host: str, port: int, count: int) -> list[socket.socket]:
    """Return ``count`` connections, made a few at a time; raise OSError."""
    sockets: list[socket.socket] = []
    while len(sockets) < count:
        for _ in range(min(CONNECT_AT_ONCE, count - len(sockets))):
            sockets.append(socket.create_connection((host, port), timeout=10))  # noqa: PERF401
        time.sleep(0.01)
    for one in sockets:
        one.setblocking(False)
    return sockets


class Sender:
    """Sends lines round the connections; keeps what a full socket did not take."""

    def __init__(self, sockets: list[socket.socket], lines: list[list[bytes]]) -> None:
        """``lines[i]`` are the lines of connection i, sent in turn for ever."""
        self._sockets, self._lines = sockets, lines
        self._left: dict[int, bytes] = {}
        self._at = 0
        self.sent = 0

    def send(self, count: int) -> None:
        """Send ``count`` lines, each on the next connection."""
        size = len(self._sockets)
        for _ in range(count):
            at = self._at % size
            mine = self._lines[at]
            self._push(at, self._left.pop(at, b"") + mine[self._at // size % len(mine)])
            self._at += 1
            self.sent += 1

    def _push(self, at: int, data: bytes) -> None:
        try:
            done = self._sockets[at].send(data)
        except BlockingIOError:
            done = 0
        if done < len(data):
            self._left[at] = data[done:]

    def finish(self, timeout_s: float = 60.0) -> None:
        """Send what is left over; raise TimeoutError."""
        ends = time.monotonic() + timeout_s
        while self._left:
            if time.monotonic() > ends:
                raise TimeoutError(f"{len(self._left)} connections did not take their last bytes")
            select.select([], [self._sockets[at] for at in list(self._left)[:100]], [], 1.0)
            for at in list(self._left):
                self._push(at, self._left.pop(at))


def main() -> int:
    """Connect, say "ready", wait for a line on stdin, send, say what was sent, wait, close."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=10_000.0, help="lines a second; 0: as it can")
    parser.add_argument("--lines", type=int, default=100_000)
    options = parser.parse_args()
    rng = random.Random(7)
    lines = [[line(rng, device) for _ in range(16)] for device in range(options.connections)]
    sender = Sender(connect(options.host, options.port, options.connections), lines)
    print("ready", flush=True)
    while sys.stdin.readline().strip() == "go":
        began, first = time.monotonic(), sender.sent
        while (done := sender.sent - first) < options.lines:
            wanted = options.lines
            if options.rate:
                wanted = min(wanted, int((time.monotonic() - began) * options.rate))
            sender.send(min(max(wanted - done, 0), 2000))
            if options.rate:
                time.sleep(TICK_S)
        sender.finish()
        took = time.monotonic() - began
        print(json.dumps({"sent": sender.sent - first, "seconds": round(took, 3)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A gateway's parts put together for a test, on loopback and in a temporary folder."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge.collect import Collector
from edge.commit import Committer
from edge.config import Config
from edge.entry import Entry, accepted, rejection
from edge.refusal import Reason, Refused
from edge.seal import Sealing
from edge.spool_quota import Quota
from healthsync.runtime.log import Log
from vitals.columns import Source
from vitals.reading import Reading

NOW = 1_795_428_000_000
PRIVATE = X25519PrivateKey.generate()


def reading(value: float, received_ms: int = NOW) -> Reading:
    return Reading(0, value, received_ms, received_ms)


def entry(value: float = 78, device: str = "bed-1") -> Entry:
    return accepted(Source(device), (reading(value),), None)


def reject(raw: bytes = b"hr=x") -> Entry:
    refused = Refused(Reason.BAD_NUMBER, "heart_rate", "write a decimal number")
    return Entry(None, (), (rejection(refused, "bed-1", raw, len(raw), NOW),), len(raw))


class Gateway:
    """Collector and committer; no uplink unless a test adds one."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        bytes_max = changes.pop("spool_bytes_max", 64 * 1024 * 1024)
        refuse = changes.pop("refuse_when_full", False)
        self.config = Config(edge_id="ward-1", state_dir=str(folder), hpke_public="", **changes)
        self.path = self.config.spool_path
        self.logged = io.StringIO()
        self.log = Log("edge", lambda: NOW, self.logged)
        self.now_s = 1000.0
        self.committer = Committer(
            self.path,
            Quota(bytes_max, refuse=refuse),
            Sealing("ward-1", PRIVATE.public_key(), NOW),
            self.log,
            lambda: NOW,
        )
        self.collector = Collector(
            self.config, self.committer, self.log, lambda: NOW, lambda: self.now_s
        )

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.logged.getvalue().splitlines()]


@asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[Gateway]:
    """Run it while in the block; then stop it as `edge.main` does."""
    async with trio.open_nursery() as keeping:
        keeping.start_soon(gateway.committer.run)
        try:
            async with trio.open_nursery() as taking:
                taking.start_soon(gateway.collector.run)
                yield gateway
                taking.cancel_scope.cancel()
        finally:
            gateway.committer.stop()
    gateway.collector.close()
    while _callers:
        _callers.pop().socket.close()


_callers: list[trio.SocketStream] = []


async def caller(port: int) -> trio.SocketStream:
    """Call a port; `running` hangs up at its end."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    _callers.append(stream)
    return stream


async def hear(stream: trio.SocketStream, size: int) -> bytes:
    """Read until ``size`` bytes or the end, within a bound."""
    data = b""
    with trio.fail_after(5):
        while len(data) < size:
            part = await stream.receive_some(4096)
            if not part:
                break
            data += part
    return data

"""Callers on real sockets: answers after the commit, limits in words, no caller harms another."""

import socket
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from edge import collect, metrics, proxy
from edge.bedside import LineTalk
from edge.mllp import block
from edge.spool import Backlog
from tests.edge.gateway import NOW, PRIVATE, Gateway, _callers, caller, hear, running
from tests.edge.hl7_messages import GOOD, message
from tests.edge.ingest import Opener, until
from vitals import limits
from vitals.codes import TimeSource
from vitals.columns import Columns
from vitals.reading import Reading, Rejected


def _kept(path: Path) -> tuple[list[tuple[str, float | None]], list[Rejected]]:
    """Return (device, value) of every reading and every refused input in the spool."""
    backlog, opener = Backlog(path), Opener(PRIVATE)
    for epoch in backlog.epochs():
        opener.learn(epoch)
    readings: list[tuple[str, float | None]] = []
    rejects: list[Rejected] = []
    for held in backlog.after(0, 1 << 60, 1 << 60, 1 << 30):
        _, body = opener.open(held.data)
        if isinstance(body, Columns):
            readings += [(body.sources[at].device, r.value) for at, r in body.rows()]
        else:
            rejects += body
    backlog.close()
    return readings, rejects


def _serve(gateway: Gateway, talk: Any, kind: Any = "line", *, proxied: bool = False) -> None:
    async def main() -> None:
        port = gateway.collector.listen(kind, "127.0.0.1", 0, proxied=proxied)
        async with running(gateway):
            await talk(port)

    trio.run(main)


def test_a_line_typed_into_nc_reaches_the_spool_in_silence(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    async def talk(port: int) -> None:
        stream = await caller(port)
        await stream.send_all(b"heart_rate=78, oxygen=95%\n")
        await stream.send_eof()
        assert await hear(stream, 1) == b""

    _serve(gateway, talk)
    assert _kept(gateway.path)[0] == [("addr-127.0.0.1", 78), ("addr-127.0.0.1", 95)]


def test_answers_come_in_the_order_of_the_lines(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    answers: list[bytes] = []

    async def talk(port: int) -> None:
        stream = await caller(port)
        await stream.send_all(b"reply=yes hr=1\nhr=x\nhr=2\r\n\nhr=3\n")
        await stream.send_eof()
        answers.append(await hear(stream, 1 << 20))

    _serve(gateway, talk)
    lines = answers[0].decode().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "ok",
        "rejected bad-number heart_rate",
        "ok",
        "ok",
    ]


def test_a_sweep_tells_how_far_the_worst_clock_is_off(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    for at in range(NOW - 10_000, NOW, 1000):
        late = Reading(0, 78.0, at - 600_000, at, time_source=TimeSource.DEVICE)
        gateway.collector.skews.date("bed-1", (late,))
    gateway.collector.sweep(gateway.now_s)
    assert metrics.DEVICE_SKEW_MAX_MS._value.get() == 600_000
    gateway.collector.close()


def test_no_answer_leaves_before_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(tmp_path)
    spool = gateway.committer._spool
    order: list[str] = []
    store = spool.store

    def watched(*arguments: Any) -> Any:
        result = store(*arguments)
        order.append("committed")
        return result

    monkeypatch.setattr(spool, "store", watched)  # notes the moment of the commit

    async def talk(port: int) -> None:
        stream = await caller(port)
        await stream.send_all(b"reply=yes hr=1\n")
        assert await hear(stream, 3) == b"ok\n"
        order.append("answered")

    _serve(gateway, talk)
    assert order[:2] == ["committed", "answered"]


def test_half_a_line_and_silence_is_quarantined_and_the_caller_let_go(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    async def talk(port: int) -> None:
        slow, quiet = await caller(port), await caller(port)
        await slow.send_all(b"heart_rate=7")
        await quiet.send_all(b"heart_rate=80\n")
        await until(lambda: any(c.half_since for c in gateway.collector._connections.values()))
        # A wait for the disk is made good to everybody: let the clock run on after it.
        await until(lambda: gateway.committer._spool.frames == 1)
        await until(lambda: not gateway.collector._stalled)
        gateway.now_s += limits.HALF_LINE_S_MAX + 1
        gateway.collector.sweep(gateway.now_s)
        assert await hear(slow, 1) == b""
        assert len(gateway.collector._connections) == 1
        gateway.now_s += limits.LINE_IDLE_S_MAX
        gateway.collector.sweep(gateway.now_s)
        assert await hear(quiet, 1) == b""

    _serve(gateway, talk)
    readings, rejects = _kept(gateway.path)
    assert readings == [("addr-127.0.0.1", 80)]
    assert [(r.reason, r.raw) for r in rejects] == [("half-line", b"heart_rate=7")]


def test_a_trickle_does_not_keep_half_a_line_alive(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    async def talk(port: int) -> None:
        stream = await caller(port)
        for part in (b"heart", b"_rate", b"=7"):
            await stream.send_all(part)
            await until(
                lambda part=part: any(
                    isinstance(c.talk, LineTalk)
                    and c.talk._lines is not None
                    and c.talk._lines._half.endswith(part)
                    for c in gateway.collector._connections.values()
                )
            )
            gateway.now_s += limits.HALF_LINE_S_MAX / 2.5
        gateway.collector.sweep(gateway.now_s)
        assert await hear(stream, 1) == b""

    _serve(gateway, talk)


def test_one_caller_too_many_is_told_so(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, connections_max=2)

    async def talk(port: int) -> None:
        first, second = await caller(port), await caller(port)
        await until(lambda: len(gateway.collector._connections) == 2)
        third = await caller(port)
        assert await hear(third, 999) == b"refused: 2 connections are open, the limit\n"
        await first.aclose()
        await until(lambda: len(gateway.collector._connections) == 1)
        again = await caller(port)
        await again.send_all(b"reply=yes hr=1\n")
        assert await hear(again, 3) == b"ok\n"
        await second.aclose()

    _serve(gateway, talk)


def test_a_caller_who_never_reads_is_let_go_and_its_lines_are_kept(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    lines = 60_000

    async def talk(port: int) -> None:
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", port))
        stream = trio.SocketStream(sock)
        _callers.append(stream)
        await stream.send_all(b"reply=yes hr=1\n")
        bad = b"hr=x\n" * 100
        with trio.fail_after(15):
            try:
                for _ in range(lines // 100):
                    await stream.send_all(bad)
            except trio.BrokenResourceError:
                pass
            await until(lambda: not gateway.collector._connections, 10)

    _serve(gateway, talk)
    assert _kept(gateway.path)[0] == [("addr-127.0.0.1", 1)]


def test_a_reset_connection_ends_itself_alone(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    async def talk(port: int) -> None:
        rude, polite = await caller(port), await caller(port)
        await rude.send_all(b"reply=yes hr=1\n")
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        rude.socket.close()
        await polite.send_all(b"reply=yes hr=2\n")
        assert await hear(polite, 3) == b"ok\n"
        await until(lambda: len(gateway.collector._connections) == 1)

    _serve(gateway, talk)


def test_hl7_is_acknowledged_after_the_commit(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    async def talk(port: int) -> None:
        stream = await caller(port)
        await stream.send_all(block(message(*GOOD)) + block(message("OBR|1", msh="|B|P|2.6")))
        await stream.send_eof()
        answer = await hear(stream, 1 << 20)
        assert answer.count(b"\x1c\r") == 2
        assert answer.index(b"MSA|AA|MSG1") < answer.index(b"MSA|AE|B")

    _serve(gateway, talk, "mllp")
    readings, rejects = _kept(gateway.path)
    assert readings == [("AA/127.0.0.1", 78)]
    assert [reject.reason for reject in rejects] == ["hl7-no-reading"]
    db = sqlite3.connect(gateway.path)
    counters = dict(db.execute("SELECT name, value FROM counters"))
    db.close()
    assert (counters["received_messages"], counters.get("received_lines", 0)) == (2, 0)


def test_behind_the_proxy_a_device_has_its_own_address(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    async def talk(port: int) -> None:
        body = socket.inet_aton("10.9.8.7") + socket.inet_aton("10.0.0.1") + b"\0\1\0\2"
        stream = await caller(port)
        for byte in proxy.SIGNATURE + b"\x21\x11\x00\x0c" + body:
            await stream.send_all(bytes([byte]))
        await stream.send_all(b"reply=yes hr=1\n")
        assert await hear(stream, 3) == b"ok\n"
        plain = await caller(port)
        await plain.send_all(b"heart_rate=78\n")
        assert await hear(plain, 1) == b""

    _serve(gateway, talk, proxied=True)
    assert _kept(gateway.path) == ([("addr-10.9.8.7", 1)], [])


def test_a_clean_stop_keeps_and_answers_what_was_sent(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    heard: list[bytes] = []

    async def main() -> None:
        port = gateway.collector.listen("line", "127.0.0.1", 0)
        async with trio.open_nursery() as nursery:

            async def listen(stream: trio.SocketStream) -> None:
                heard.append(await hear(stream, 1 << 20))

            async with running(gateway):
                stream = await caller(port)
                await stream.send_all(b"reply=yes hr=1\nhr=2\nhr=")
                await until(lambda: gateway.committer._pending or gateway.committer._spool.frames)
                nursery.start_soon(listen, stream)

    trio.run(main)
    assert heard[0].startswith(b"ok\nok\n")
    readings, rejects = _kept(gateway.path)
    assert [value for _, value in readings] == [1, 2]
    assert [reject.reason for reject in rejects] == ["half-line"]


def test_nobody_is_idle_while_the_disk_keeps_the_gateway_from_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(tmp_path)
    spool, held, going = gateway.committer._spool, threading.Event(), threading.Event()
    store = spool.store

    def stuck(*arguments: Any) -> Any:
        going.set()
        held.wait(10)
        return store(*arguments)

    monkeypatch.setattr(spool, "store", stuck)  # the disk stands still

    async def talk(port: int) -> None:
        half, quiet, first = await caller(port), await caller(port), await caller(port)
        await until(lambda: len(gateway.collector._connections) == 3)
        await half.send_all(b"heart_rate=7")
        await until(lambda: gateway.collector._held > 0)
        await first.send_all(b"heart_rate=1 reply=yes\n")
        await until(going.is_set)
        await quiet.send_all(b"heart_rate=80 reply=yes\n")
        await half.send_all(b"9 reply=yes\n")
        gateway.now_s += limits.LINE_IDLE_S_MAX + 1
        gateway.collector.sweep(gateway.now_s)
        held.set()
        await until(lambda: not gateway.collector._stalled)
        gateway.collector.sweep(gateway.now_s)
        for one in (first, quiet, half):
            assert await hear(one, 3) == b"ok\n"

    _serve(gateway, talk)
    readings, rejects = _kept(gateway.path)
    assert {value for _, value in readings} == {1, 79, 80}
    assert rejects == []


def test_one_look_takes_a_bounded_number_of_lines(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    looks: list[int] = []
    drain = gateway.collector._drain

    def counting() -> tuple[int, bool]:
        before = gateway.committer._pending_bytes
        found = drain()
        looks.append(gateway.committer._pending_bytes - before)  # a byte a line
        return found

    gateway.collector._drain = counting  # type: ignore[method-assign]  # counts what one look took
    flood = 40

    async def talk(port: int) -> None:
        streams = [await caller(port) for _ in range(flood)]
        await until(lambda: len(gateway.collector._connections) == flood)
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_all, b"x\n" * 1024)
        await until(lambda: sum(looks) == flood * 1024, 20)

    _serve(gateway, talk)
    # The last read of a look may bring as many as fit into it.
    assert max(looks) <= collect.LOOK_LINES_MAX + collect.RECEIVE_BYTES // 2


def test_who_says_a_line_waits_for_none_of_those_who_flood(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    collector, looks, drain = gateway.collector, 0, gateway.collector._drain

    def counting() -> tuple[int, bool]:
        nonlocal looks
        looks += 1
        return drain()

    collector._drain = counting  # type: ignore[method-assign]  # counts the looks
    floods, waited = 12, []

    async def flood(stream: trio.SocketStream) -> None:
        while True:
            await stream.send_all(b"x\n" * 4096)

    async def talk(port: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(floods):
                nursery.start_soon(flood, await caller(port))
            quiet = await caller(port)
            callers = collector._connections.values()
            await until(lambda: sum(one.many for one in callers) == floods, 20)
            for _ in range(5):
                before = looks
                await quiet.send_all(b"heart_rate=80 reply=yes\n")
                assert await hear(quiet, 3) == b"ok\n"
                waited.append(looks - before)
            nursery.cancel_scope.cancel()

    _serve(gateway, talk)
    # The look under way when it spoke, the next one, and what ran while the answer travelled.
    assert sorted(waited)[2] <= 4, waited
    readings, _ = _kept(gateway.path)
    assert len(readings) == 5


def test_inputs_are_counted_and_those_that_mean_nothing_too(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    async def talk(port: int) -> None:
        stream = await caller(port)
        said = b"reply=yes hr=70\nhr=7000\nhr=70, spo2=400%\nhr=\nhr=wat\n\nhr=71\n"
        await stream.send_all(said)
        heard = b""
        while heard.count(b"\n") < 6:
            heard += await hear(stream, 1)
        # Six inputs; two hold a number that is none, one is refused.
        assert gateway.collector.counts() == (6, 3)

    _serve(gateway, talk)

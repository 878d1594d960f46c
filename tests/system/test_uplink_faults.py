"""The link at its worst, on a box of its own: cut anywhere, hostile gateways, Kafka away."""

import json
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cloud.pki import certificates
from cloud.pki.folder import open_desk
from tests.cloud.ingest.frames import Edge
from tests.system.box import HEALTHSYNC, ROOT, Box, until
from tests.system.test_enrolment import NAME, Second
from vitals import limits, session

pytestmark = pytest.mark.system

KILLS = int(os.environ.get("HEALTHSYNC_LINK_KILLS", "5"))
KAFKA_AWAY_S = float(os.environ.get("HEALTHSYNC_KAFKA_AWAY_S", "60"))
CUTS = int(os.environ.get("HEALTHSYNC_LINK_CUTS", "16"))
"""`make faults` asks for more of each, and for Kafka away for a minute."""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box of its own: hostile frames stay in its ledger."""
    running = Box(Path(tmp_path_factory.mktemp("uplink")) / "run")
    try:
        yield running
    finally:
        running.stop()


def _audit(box: Box, config: Path | None = None) -> None:
    path = str(config or box.info["audit_config"])
    done = subprocess.run(
        [*HEALTHSYNC, "audit", "--config", path, "--wait", "90"],
        capture_output=True,
        text=True,
        timeout=150,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Load:
    """Lines at a steady pace from a thread; counts what the gateway promised (``ok``)."""

    def __init__(self, port: int, prefix: str, per_s: float = 100.0) -> None:
        self._port, self._prefix, self._pause = port, prefix, 1 / per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.said = 0

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), 2) as sock:
                    while not self._stop.wait(self._pause):
                        bed = self.said % 8
                        line = f"device={self._prefix}-{bed} heart_rate={60 + bed} spo2=97\n"
                        sock.sendall(line.encode())
                        self.said += 1
            except OSError:
                self._stop.wait(0.2)  # the gateway was killed; it comes back


def test_kills_in_any_order_under_load(box: Box) -> None:
    dice = random.Random(11)
    victims = ("edge", "ingest-1", "ingest-2", "haproxy-edge", "haproxy-cloud", "kafka")
    with Load(box.info["line_port"], "kill") as load:
        for _ in range(KILLS):
            for name in dice.sample(victims, dice.choice([1, 1, 2])):
                pid = box.pids()[name]
                if pid:
                    os.kill(pid, signal.SIGKILL)
            time.sleep(dice.uniform(0.2, 3.0))  # often before the last one is back
        until(box.ready, 90, "everything to be back")
    assert load.said > 100
    _audit(box)


def _events(box: Box, name: str, event: str) -> list[dict[str, Any]]:
    text = (box.run_dir / "log" / f"{name}.log").read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [one for one in lines if one.get("event") == event]


def _ms(one: dict[str, Any]) -> float:
    return datetime.fromisoformat(one["time"]).timestamp() * 1000


def test_another_ingest_takes_over(box: Box) -> None:
    def last_session() -> tuple[float, str]:
        return max(
            (_ms(one), name)
            for name in ("ingest-1", "ingest-2")
            for one in _events(box, name, "session-began")
            if one["edge"] == "ward-gw-1"
        )

    with Load(box.info["line_port"], "over"):
        time.sleep(2)
        _, serving = last_session()
        pid = box.pids()[serving]
        killed_ms = time.time() * 1000
        os.kill(pid, signal.SIGKILL)
        until(lambda: last_session()[0] > killed_ms, 20, "a session elsewhere")
        began_ms, _ = last_session()
        until(box.ready, 40, "the first to be back")
    took_ms = began_ms - killed_ms
    print(f"another ingest took over after {took_ms:.0f} ms")
    assert took_ms <= 2_000
    _audit(box)


def test_kafka_away_for_a_while(box: Box) -> None:
    kafka = box.pids()["kafka"]
    with Load(box.info["line_port"], "away"):
        time.sleep(1)
        os.kill(kafka, signal.SIGSTOP)
        try:
            time.sleep(KAFKA_AWAY_S)
            answer = box.say("device=away-9 heart_rate=70 reply=yes\n")
            assert answer.strip() == "ok", "collection does not depend on Kafka"
            assert box.pids()["ingest-1"], "ingest waits, it does not die"
        finally:
            os.kill(kafka, signal.SIGCONT)
    until(box.ready, 90, "everything to be back")
    _audit(box)


# -- cut at every point -----------------------------------------------------------------------


class Cutter:
    """Passes a TCP connection on, and cuts it after so many bytes of one direction."""

    def __init__(self, port: int, to: int) -> None:
        self._to = to
        self.cuts: list[tuple[bool, int]] = []
        self.done = 0
        self._server = socket.create_server(("127.0.0.1", port))
        self._stopped = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            client, _ = self._server.accept()
            if self._stopped:
                client.close()
                return
            cut = self.cuts.pop(0) if self.cuts else None
            thread = threading.Thread(target=self._serve, args=(client, cut))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket, cut: tuple[bool, int] | None) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._to), 5)
        except OSError:
            client.close()
            return
        both = [
            threading.Thread(
                target=self._pump, args=(a, b, cut[1] if cut and cut[0] == up else None)
            )
            for a, b, up in ((client, server, True), (server, client, False))
        ]
        for one in both:
            one.start()
        for one in both:
            one.join()
        client.close()
        server.close()
        self.done += cut is not None

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, left: int | None) -> None:
        try:
            while left is None or left > 0:
                data = source.recv(min(65536, left or 65536))
                if not data:
                    break
                sink.sendall(data)
                left = None if left is None else left - len(data)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def close(self) -> None:
        self._stopped = True
        socket.create_connection(self._server.getsockname(), 5).close()
        for thread in self._threads:
            thread.join(20)
        self._server.close()


def _audit_of(box: Box, spool: Path, folder: Path) -> Path:
    text = Path(box.info["audit_config"]).read_text()
    config = folder / "audit.toml"
    config.write_text(f'{text}\n[[edge]]\nid = "{NAME}"\nspool = "{spool}"\n')
    return config


def test_the_link_is_cut_at_every_point_of_a_session(box: Box, tmp_path: Path) -> None:
    """Connection, websocket's handshake, Hello, Welcome, frames, their answers: after any byte."""
    second = Second(box, tmp_path)
    done = second.edge("enrol", "--file", str(second.enrolment_file()))
    assert done.returncode == 0, done.stderr + done.stdout
    local = second.ports["uplink-local"]
    free = second.ports["mllp-tls"]  # its HAProxy moves here; the cutter takes its place
    text = second.proxy.read_text()
    text = text.replace(f"bind 127.0.0.1:{local}", f"bind 127.0.0.1:{free}", 1)
    at = text.index("frontend mllp-tls")
    text = text[:at] + text[text.index("frontend stats") :]
    second.proxy.write_text(text)
    cutter = Cutter(local, free)
    # The handshake is some 200 bytes each way, Hello and Welcome as much; then frames.
    steps = [int(8_000 * (n / (CUTS // 2)) ** 2) for n in range(CUTS // 2)]
    cutter.cuts = [(up, at) for at in steps for up in (True, False)]
    try:
        with second.running(), Load(second.ports["line"], "cut"):
            until(lambda: cutter.done >= 2 * len(steps), 240, "every cut")
            until(lambda: second.seen("uplink-up"), 30, "a session")
            time.sleep(2)
        with second.running():
            until(lambda: second.status()["spool"]["frames"] == 0, 60, "the rest to be sent")
    finally:
        cutter.close()
    _audit(box, _audit_of(box, second.state / "spool.db", tmp_path))


# -- hostile gateways -------------------------------------------------------------------------

HOSTILE = "ward-hostile"


class Hostile:
    """Holds a good certificate and does what it likes."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        pki = box.run_dir / "pki"
        desk, key = open_desk(pki / "gateways"), ec.generate_private_key(ec.SECP256R1())
        leaf = desk.issue_directly(HOSTILE, key.public_key())
        cert, key_file = folder / "hostile.pem", folder / "hostile.key"
        cert.write_bytes(certificates.pem(leaf, desk.issuing.certificate))
        key_file.write_bytes(certificates.key_pem(key))
        self.context = ssl.create_default_context(cafile=str(pki / "services-ca.pem"))
        self.context.load_cert_chain(cert, key_file)
        raw = (box.run_dir / "keys" / "hpke.private").read_bytes()
        self.private = X25519PrivateKey.from_private_bytes(raw)
        self.edge = Edge(HOSTILE, self.private)
        ports = json.loads((box.run_dir / "config" / "ports.json").read_text())
        self.port = int(ports["uplink"])

    def talk(self, what: Callable[["Talk"], Awaitable[None]]) -> None:
        async def body() -> None:
            with trio.fail_after(60):
                stream = await trio.open_ssl_over_tcp_stream(
                    "localhost", self.port, ssl_context=self.context
                )
                try:
                    async with trio.open_nursery() as nursery:
                        websocket = await trio_websocket.wrap_client_stream(
                            nursery, stream, "localhost", "/uplink"
                        )
                        await what(Talk(websocket))
                        nursery.cancel_scope.cancel()
                finally:
                    await trio.aclose_forcefully(stream)

        trio.run(body)

    def quarantined(self, reason: str) -> int:
        return sum(
            one["reason"] == reason and one["edge"] == HOSTILE
            for name in ("ingest-1", "ingest-2")
            for one in _events(self.box, name, "frame-set-aside")
        )


class Talk:
    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self._websocket = websocket

    async def say(self, message: session.EdgeMessage) -> None:
        await self._websocket.send_message(session.encode(message))

    async def hear(self) -> session.CloudMessage:
        heard = session.decode_cloud(await self._websocket.get_message())
        assert heard is not None
        return heard

    async def greet(self, edge: Edge, name: str = HOSTILE) -> session.CloudMessage:
        await self.say(session.Hello(1, name, "x", [edge.wrapped]))
        return await self.hear()

    async def closed(self) -> str:
        """Return the reason of the Close that comes, or "cut" for a connection that ends."""
        try:
            while not isinstance(heard := await self.hear(), session.Close):
                pass
        except trio_websocket.ConnectionClosed:
            return "cut"
        return heard.reason


@pytest.fixture
def hostile(box: Box, tmp_path: Path) -> Iterator[Hostile]:
    made = Hostile(box, tmp_path)
    yield made
    # whatever it did: the ward's own gateway is served, and the log knows no patient
    answer = box.say("device=bed-77 mrn=HOS000077 heart_rate=66 reply=yes\n")
    assert answer.strip() == "ok"
    assert box.subject("HOS000077")
    for name in ("ingest-1", "ingest-2"):
        assert "HOS0000" not in (box.run_dir / "log" / f"{name}.log").read_text()


def test_a_hello_of_another_gateway_or_with_its_epoch_is_refused(hostile: Hostile) -> None:
    async def name(talk: Talk) -> None:
        heard = await talk.greet(Edge("ward-gw-1", hostile.private), "ward-gw-1")
        assert isinstance(heard, session.Close)
        assert heard.reason == "identity"

    async def epoch(talk: Talk) -> None:
        heard = await talk.greet(Edge("ward-gw-1", hostile.private))
        assert isinstance(heard, session.Close)
        assert heard.reason == "identity"

    hostile.talk(name)
    hostile.talk(epoch)


def test_frames_of_another_gateway_end_the_session(hostile: Hostile) -> None:
    other = Edge("ward-gw-1", hostile.private)

    async def what(talk: Talk) -> None:
        await talk.greet(hostile.edge)
        await talk.say(session.Data(other.simple(0), 0))
        assert await talk.closed() == "identity"

    hostile.talk(what)


def test_an_altered_frame_and_an_unknown_key_are_set_aside_and_answered(hostile: Hostile) -> None:
    stranger = Edge(HOSTILE, X25519PrivateKey.generate())

    async def what(talk: Talk) -> None:
        await talk.greet(hostile.edge)
        frame = hostile.edge.simple(1)
        await talk.say(session.Data(frame[:-1] + bytes([frame[-1] ^ 1]), 0))
        assert await talk.hear() == session.Ack(hostile.edge.epoch, [(1, 1)])
        await talk.say(session.Epoch(stranger.wrapped))
        await talk.say(session.Data(stranger.simple(2), 0))
        assert await talk.hear() == session.Ack(stranger.epoch, [(2, 2)])

    hostile.talk(what)
    assert hostile.quarantined("forged") == 1
    assert hostile.quarantined("epoch-key") == 1


def test_a_frame_that_is_played_again_counts_once(hostile: Hostile) -> None:
    frame = hostile.edge.simple(5)

    async def what(talk: Talk) -> None:
        await talk.greet(hostile.edge)
        for _ in range(3):
            await talk.say(session.Data(frame, 0))
            heard = await talk.hear()
            assert heard == session.Ack(hostile.edge.epoch, [(5, 5)])

    hostile.talk(what)

    def rows() -> list[dict[str, Any]]:
        done = subprocess.run(
            [*HEALTHSYNC, "audit", "--config", hostile.box.info["audit_config"], "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            check=False,
        )
        found = json.loads(done.stdout)["lines"]
        return [one for one in found if one["epoch"] == hostile.edge.epoch]

    until(lambda: bool(rows()) and rows()[0]["detect"] == 1, 30, "detect to have it")
    assert rows()[0]["samples_again"] == 2
    assert rows()[0]["detect"] == 1


def test_credit_ignored_ends_the_session(hostile: Hostile) -> None:
    kafka = hostile.box.pids()["kafka"]

    async def what(talk: Talk) -> None:
        await talk.greet(hostile.edge)
        os.kill(kafka, signal.SIGSTOP)  # nothing is answered meanwhile
        try:
            for seq in range(limits.CREDIT_FRAMES + 1):
                await talk.say(session.Data(hostile.edge.simple(100 + seq), 0))
            assert await talk.closed() in {"protocol", "overload"}
        finally:
            os.kill(kafka, signal.SIGCONT)

    hostile.talk(what)
    until(hostile.box.ready, 60, "everything to be back")
    refused = [
        one
        for name in ("ingest-1", "ingest-2")
        for one in _events(hostile.box, name, "session-ended")
        if one["edge"] == HOSTILE and one["reason"] == "protocol"
    ]
    assert refused, "more frames than the credit"


def test_a_giant_message_ends_the_connection(hostile: Hostile) -> None:
    async def what(talk: Talk) -> None:
        await talk.greet(hostile.edge)
        try:
            await talk.say(session.Data(bytes(limits.SESSION_MESSAGE_BYTES_MAX + 1), 0))
        except trio_websocket.ConnectionClosed:
            return
        assert await talk.closed() in {"cut", "malformed"}

    hostile.talk(what)

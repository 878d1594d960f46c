"""The running gateway and its certificate: what changes beside the collection, what does not."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec

from edge import clock_floor, config, enrol, status
from edge.certificate_store import Authority, CertificateStore, bundle
from edge.complaint import Code
from healthsync.runtime.exits import Exit
from tests.edge import est_server
from tests.edge.est_server import DAY, TOKEN, EstServer, pem
from tests.edge.haproxies import Proxies, running
from tests.edge.ingest import Ingest, serving
from tests.edge.process import PRIVATE, Process
from tests.edge.tty import ROOT

LIFE = 30 * DAY


class Cloud(threading.Thread):
    """Ingest's stand-in in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.ingest = Ingest(PRIVATE)
        self._ready, self._over = threading.Event(), trio.Event()
        self._token: Any = None

    def __enter__(self) -> "Cloud":
        self.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        trio.from_thread.run_sync(self._over.set, trio_token=self._token)
        self.join()

    def run(self) -> None:
        trio.run(self._serve)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with serving(self.ingest):
            self._ready.set()
            await self._over.wait()


class Ward:
    """A gateway that is to run behind a HAProxy, and an authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = Process(folder)
        self.store = CertificateStore(folder / "pki")
        self.store.prepare()
        self.servers = est_server.Authority("Servers")
        self.est = EstServer(est_server.Authority("Gateways"))
        text = self.process.config.read_text()
        self.process.config.write_text(
            f'{text}\n[certificate]\nfolder = "{folder / "pki"}"\n'
            f'haproxy_socket = "{folder / "admin.sock"}"\n'
        )

    def give(self, began: datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self.est.authority.issue("ward-1", key.public_key(), began, LIFE)
        self.store.install(bundle([leaf, self.est.authority.issuing], key))
        self.store.proven()

    @contextmanager
    def proxied(self, ingest_port: int, *, passing: bool) -> Iterator[Proxies]:
        """HAProxy on both sides; the authority behind the uplink and at its own port."""
        with (
            self.est.serving(None),
            running(
                self.folder,
                bundle=self.store.path,
                servers=self.servers,
                gateways=self.est.authority,
                est_port=self.est.port,
                ingest_port=ingest_port,
                uplink_port=self.process.uplink_port,
                passing=passing,
            ) as proxies,
            self.est.serving(self.servers.bundle(self.folder, "est")),
        ):
            chain = pem(self.est.authority.issuing, self.est.authority.root).decode()
            ca = pem(self.servers.root).decode()
            at = f"https://localhost:{self.est.port}"
            self.store.keep_authority(Authority(chain, at, ca))
            yield proxies

    def status(self) -> dict[str, Any]:
        return status.gather(config.load(self.process.config))

    def codes(self) -> set[str]:
        return {one["code"] for one in self.status()["wrong"]}


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def _say(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        line.sendall(b"device=monitor-1 reply=yes heart_rate=78\n")
        return line.recv(100)


def _until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to that")


def test_a_renewal_drops_no_session(ward: Ward) -> None:
    ward.give(datetime.now(UTC).replace(microsecond=0) - 0.4 * LIFE)
    with (
        Cloud() as cloud,
        ward.proxied(cloud.ingest.port, passing=True) as proxies,
        ward.process.started(),
    ):
        ward.process.logged("uplink-up")
        assert ward.status()["certificate"]["renewal"]["state"] == "valid"
        assert _say(ward.process.line_port).startswith(b"ok")
        ward.give(datetime.now(UTC).replace(microsecond=0) - 0.56 * LIFE)  # now it is due
        old = ward.store.held()
        ward.process.logged("certificate-renewed")
        ward.process.logged("certificate-proven")
        new = ward.store.held()
        assert old is not None
        assert new is not None
        assert proxies.admin.serial() == new.leaf.serial_number != old.leaf.serial_number
        assert _say(ward.process.line_port).startswith(b"ok")
        _until(lambda: len(cloud.ingest.frames) >= 2)
        assert len(cloud.ingest.sessions) == 1, "the session it began with"
        assert "uplink-down" not in [one["event"] for one in ward.process.events()]
        shown = ward.status()["certificate"]
        assert (shown["subject"], shown["serial"]) == ("ward-1", new.serial)
        assert shown["renewal"]["proven"] is True


def test_an_expired_gateway_collects_until_an_operator_approves(ward: Ward) -> None:
    ward.give(datetime.now(UTC).replace(microsecond=0) - LIFE - timedelta(hours=1))
    with (
        Cloud() as cloud,
        ward.proxied(cloud.ingest.port, passing=False),
        ward.process.started(),
    ):
        ward.process.logged("certificate-not-renewed")
        assert _say(ward.process.line_port).startswith(b"ok")
        found = ward.status()
        [complaint] = [one for one in found["wrong"] if one["code"] == Code.AWAITING_APPROVAL]
        renewal = found["certificate"]["renewal"]
        assert renewal["fingerprint"] in complaint["next"]
        assert not {Code.CERTIFICATE_EXPIRED, Code.NOT_ENROLLED} & ward.codes()
        expires = _metric(ward.process.metrics_port)
        assert -4000 < expires < -3500
        assert cloud.ingest.sessions == []
        ward.est.approved = True
        events = ward.process.events
        _until(lambda: "certificate-renewed" in [one["event"] for one in events()], 30)
        ward.process.logged("uplink-up")
        _until(lambda: len(cloud.ingest.frames) >= 1)
        assert Code.AWAITING_APPROVAL not in ward.codes()
        _until(lambda: _metric(ward.process.metrics_port) > 0)


def _metric(port: int) -> float:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        text = page.read().decode()
    [line] = [one for one in text.splitlines() if one.startswith("healthsync_edge_certificate_e")]
    return float(line.rpartition(" ")[2])


def test_a_new_gateway_collects_and_an_enrolment_opens_its_link(ward: Ward) -> None:
    # HAProxy needs a file before the gateway has run.
    ward.store.ensure_placeholder("ward-1")
    with (
        Cloud() as cloud,
        ward.proxied(cloud.ingest.port, passing=False),
        ward.process.started(),
    ):
        _until(lambda: Code.NOT_ENROLLED in ward.codes())
        assert _say(ward.process.line_port).startswith(b"ok")
        file = ward.folder / "enrolment.toml"
        file.write_text(
            f'name = "ward-1"\ntoken = "{TOKEN}"\nest = "https://localhost:{ward.est.port}"\n'
            f'ca = """{pem(ward.servers.root).decode()}"""\nexpires = 2999-01-01T00:00:00Z\n'
        )
        said: list[str] = []
        assert enrol.run(config.load(ward.process.config), file, said.append) == Exit.OK
        assert "from its next connection on" in " ".join(said)
        ward.process.logged("uplink-up")
        _until(lambda: len(cloud.ingest.frames) >= 1)
        ward.process.logged("certificate-proven")
        assert Code.NOT_ENROLLED not in ward.codes()


def test_without_a_socket_and_a_server_it_collects(ward: Ward) -> None:
    ward.process.replace("haproxy_socket", "# ")
    with ward.process.started() as child:
        ward.process.logged("certificate-placeholder-made")
        assert _say(ward.process.line_port).startswith(b"ok")
        _until(lambda: Code.NOT_ENROLLED in ward.codes())
        first = int((ward.process.state / clock_floor.FILE).read_text())
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == Exit.OK
    saved = int((ward.process.state / clock_floor.FILE).read_text())
    assert saved > first, "at its start and at its stop"
    assert abs(saved / 1000 - time.time()) < 10


IN_1970 = """
import sys, time
from healthsync.runtime import clock
clock.now_ms = lambda: 3_600_000 + time.monotonic_ns() // 1_000_000
from healthsync.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_gateway_that_woke_in_1970_goes_on_from_its_floor(ward: Ward) -> None:
    began = datetime.now(UTC).replace(microsecond=0) - 0.1 * LIFE
    ward.give(began)
    log = ward.folder / "log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-c", IN_1970, "edge", "run", "--config", str(ward.process.config)],
            stdout=out,
            stderr=out,
            cwd=ROOT,
            env=os.environ | {},
        )
    try:
        ward.process.logged("serving")
        assert _say(ward.process.line_port).startswith(b"ok")
        state = ""
        for _ in range(100):
            state = ward.status()["program"]["certificate"]["state"]
            if state == "valid":
                break
            time.sleep(0.05)
        assert state == "valid", "neither not begun nor ended"
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == Exit.OK
    finally:
        child.kill()
        child.wait()
    events = ward.process.events()
    assert events[0]["event"] == "clock-behind-floor"
    assert {one["time"][:10] for one in events} <= {
        (began + at * DAY).strftime("%Y-%m-%d") for at in (0, 1)
    }
    saved = int((ward.process.state / clock_floor.FILE).read_text())
    assert saved > began.timestamp() * 1000, "the next start goes on from here"


@pytest.mark.parametrize(
    ("content", "floor"),
    [
        ("1795428000000", 1_795_428_000_000),
        ("", 0),
        ("-5", 0),
        ("soon", 0),
        ("9" * 13, 0),
        ("9" * 14, 0),
        (str(clock_floor.LATEST_MS), 0),
        (str(clock_floor.LATEST_MS - 1), clock_floor.LATEST_MS - 1),
    ],
)
def test_a_saved_time_that_is_none_counts_for_nothing(
    tmp_path: Path, content: str, floor: int
) -> None:
    loaded = config.Config(edge_id="ward-1", state_dir=str(tmp_path), hpke_public="")
    (tmp_path / clock_floor.FILE).write_text(content)
    assert clock_floor.read(loaded) == floor


@pytest.mark.parametrize(
    ("stamp", "floor"),
    [
        ("2026-11-23T10:00:00Z\n", 1_795_428_000_000),
        ("2026-11-23T10:00:00", 0),
        ("yesterday", 0),
    ],
)
def test_the_image_has_a_time_too(tmp_path: Path, stamp: str, floor: int) -> None:
    path = tmp_path / "stamp"
    path.write_text(stamp)
    loaded = config.Config(
        edge_id="ward-1", state_dir=str(tmp_path), hpke_public="", clock_stamp=str(path)
    )
    assert clock_floor.read(loaded) == floor
    assert clock_floor.save(tmp_path, 1_795_428_000_001)
    assert clock_floor.read(loaded) == 1_795_428_000_001
    assert not clock_floor.save(tmp_path / "none", 1)

"""A real HAProxy from the role's template: who is let in, and what it says of them."""

import contextlib
import json
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from healthsync.runtime.haproxy import HaproxyError
from onebox.render import template
from tests.cloud.revocation.rig import Gateways, Leaf, Proxy


@pytest.fixture
def gateways(tmp_path: Path) -> Gateways:
    return Gateways(tmp_path)


class Backend:
    """A TLS server that answers with the head of the request that it got."""

    def __init__(self, folder: Path) -> None:
        from datetime import UTC, datetime

        from onebox.ca import Authority

        issued = Authority(folder, "services", datetime.now(UTC)).issue("backend", server=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(issued.cert, issued.key)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            plain, _ = self._server.accept()
            with plain:
                plain.settimeout(5)
                try:
                    with self._context.wrap_socket(plain, server_side=True) as sock:
                        head = b""
                        while b"\r\n\r\n" not in head and (data := sock.recv(65536)):
                            head += data
                        if head.startswith(b"STOP"):
                            return
                        sock.sendall(
                            b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(head) + head
                        )
                except OSError:
                    continue

    def stop(self) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.port), 5) as plain,
            context.wrap_socket(plain) as sock,
        ):
            sock.sendall(b"STOP\r\n\r\n")
        self._thread.join(10)
        self._server.close()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    server = Backend(tmp_path)
    try:
        yield server
    finally:
        server.stop()


def _in(proxy: Proxy, leaf: Leaf | None) -> bool:
    return "HTTP/1" in proxy.handshake(leaf)


def test_a_list_takes_effect_without_a_reload_and_open_connections_stay(
    tmp_path: Path, gateways: Gateways
) -> None:
    proxy = Proxy(tmp_path, gateways)
    one, two = gateways.leaf("ward-1"), gateways.leaf("ward-2")
    with proxy.running():
        assert _in(proxy, one)
        context = ssl.create_default_context(cafile=str(proxy.ca))
        context.load_cert_chain(two.cert, two.key)
        with (
            socket.create_connection(("127.0.0.1", proxy.port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as held,
        ):
            held.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held.recv(65536).startswith(b"HTTP/1.1 503")
            revoked = gateways.lists(one.certificate.serial_number)
            proxy.runtime().replace("crl-file", str(gateways.crl), revoked)
            assert "certificate revoked" in proxy.handshake(one)
            assert _in(proxy, two)
            held.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held.recv(65536).startswith(b"HTTP/1.1 503")
        overdue = gateways.lists(one.certificate.serial_number, hours=-1)
        proxy.runtime().replace("crl-file", str(gateways.crl), overdue)
        assert not _in(proxy, one)
        assert _in(proxy, two), "an overdue list must not lock out everybody"


def test_who_is_revoked_does_not_come_back_by_a_remembered_handshake(
    tmp_path: Path, gateways: Gateways
) -> None:
    """A resumed TLS session shows no certificate again: nothing would be held against the list."""
    proxy = Proxy(tmp_path, gateways)
    one = gateways.leaf("ward-1")
    context = ssl.create_default_context(cafile=str(proxy.ca))
    context.load_cert_chain(one.cert, one.key)

    def ask(session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", proxy.port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as sock,
        ):
            sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            answer = sock.recv(65536)
            return answer, sock.session

    with proxy.running():
        answer, remembered = ask(None)
        assert answer.startswith(b"HTTP/1")
        revoked = gateways.lists(one.certificate.serial_number)
        proxy.runtime().replace("crl-file", str(gateways.crl), revoked)
        with pytest.raises((ssl.SSLError, ConnectionError), match=r"revoked|reset"):
            ask(remembered)


def _refusals(proxy: Proxy) -> list[dict[str, object]]:
    lines = (proxy.folder / "haproxy.log").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == "refused"]


def test_who_is_refused_is_logged_by_address_and_code_alone(
    tmp_path: Path, gateways: Gateways
) -> None:
    (tmp_path / "other").mkdir()
    stranger = Gateways(tmp_path / "other").leaf("ward-3")
    one, ended = gateways.leaf("ward-1"), gateways.leaf("ward-2", days=-1)
    gateways.crl.write_bytes(gateways.lists(one.certificate.serial_number))
    proxy = Proxy(tmp_path, gateways)
    with proxy.running():
        for leaf in (one, ended, stranger, None):
            proxy.handshake(leaf)
    # X509_V_ERR_: 23 revoked, 10 expired, 20 no issuer (OpenSSL's x509_vfy.h); 0: none was shown
    found = _refusals(proxy)
    codes = [max(int(str(row[of])) for of in ("certificate", "authority")) for row in found]
    assert codes == [23, 10, 20, 0]
    assert {(row["frontend"], row["source"]) for row in found} == {("uplink~", "127.0.0.1")}
    assert "ward-" not in (proxy.folder / "haproxy.log").read_text()


def test_strangers_are_refused(tmp_path: Path, gateways: Gateways) -> None:
    (tmp_path / "other").mkdir()
    other = Gateways(tmp_path / "other")
    proxy = Proxy(tmp_path, gateways)
    with proxy.running():
        assert "certificate required" in proxy.handshake(None)
        assert "certificate expired" in proxy.handshake(gateways.leaf("ward-1", days=-1))
        assert not _in(proxy, other.leaf("ward-1"))
        assert _in(proxy, gateways.leaf("ward-1"))


def test_the_longest_list_that_the_socket_takes_is_taken(
    tmp_path: Path, gateways: Gateways
) -> None:
    proxy = Proxy(tmp_path, gateways)
    one = gateways.leaf("ward-1")
    runtime = proxy.runtime()
    room = runtime.command_bytes_max - len(f"set ssl crl-file {gateways.crl} <<\n\n\n")
    serials = [one.certificate.serial_number]
    while len(gateways.lists(*serials)) < room - 700:
        serials += [x509.random_serial_number() for _ in range(10)]
    pem = gateways.lists(*serials)
    pem += b"-" * (room - len(pem))  # what is no PEM is passed over
    with proxy.running():
        runtime.replace("crl-file", str(gateways.crl), pem)
        assert "certificate revoked" in proxy.handshake(one)
        over = f"{runtime.command_bytes_max + 1} bytes"
        with pytest.raises(HaproxyError, match=over):
            runtime.replace("crl-file", str(gateways.crl), pem + b"-")
        with pytest.raises(HaproxyError, match=over):  # a longer path counts too
            runtime.replace("crl-file", f"{gateways.crl}1", pem)
        with pytest.raises(HaproxyError, match="not taken"):
            runtime.replace("crl-file", str(tmp_path / "unknown"), gateways.lists())
        with pytest.raises(HaproxyError, match="not"):
            runtime.replace("crl-file", str(gateways.crl), b"nonsense\n")
        assert not _in(proxy, one), "what it would not take changed nothing"


def _ask(proxy: Proxy, leaf: Leaf | None, port: int, path: str, *headers: str) -> str:
    context = ssl.create_default_context(cafile=str(proxy.ca))
    if leaf is not None:
        context.load_cert_chain(leaf.cert, leaf.key)
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer.decode()


FORGED = (
    "X-Edge-Id: ward-9",
    "x-edge-serial: 1",
    "X-EDGE-NOT-AFTER: 490101000000Z",
    "X-Way: uplink",
)


def _of(answer: str, name: str) -> list[str]:
    return re.findall(rf"(?mi)^{name}: (.*?)\r?$", answer)


def test_the_identity_is_the_certificates_whatever_the_caller_says(
    tmp_path: Path, gateways: Gateways, backend: Backend
) -> None:
    proxy = Proxy(tmp_path, gateways, ingest=backend.port, est=backend.port)
    one = gateways.leaf("ward-1")
    with proxy.running():
        for path in ("/uplink", "/.well-known/est/simplereenroll"):
            answer = _ask(proxy, one, proxy.port, path, *FORGED)
            assert _of(answer, "x-edge-id") == ["ward-1"], answer
            (serial,) = _of(answer, "x-edge-serial")
            assert int(serial, 16) == one.certificate.serial_number
            (end,) = _of(answer, "x-edge-not-after")
            assert end == f"{one.certificate.not_valid_after_utc:%y%m%d%H%M%SZ}"
            assert _of(answer, "x-way") == ["uplink"]
        assert " 404 " in _ask(proxy, one, proxy.port, "/.well-known/est/simpleenroll")


def test_the_enrolment_port_needs_no_certificate_gives_no_identity_and_counts(
    tmp_path: Path, gateways: Gateways, backend: Backend
) -> None:
    proxy = Proxy(tmp_path, gateways, est=backend.port)
    with proxy.running():
        answer = _ask(proxy, None, proxy.est, "/.well-known/est/cacerts", *FORGED)
        assert _of(answer, "x-way") == ["est"]
        assert _of(answer, "x-edge-id") == _of(answer, "x-edge-serial") == []
        assert _of(answer, "x-forwarded-for") == ["127.0.0.1"]
        wrong = [_ask(proxy, None, proxy.est, "/uplink").split()[1] for _ in range(40)]
        assert wrong[0] == "404"
        assert wrong[-1] == "429", wrong
        assert " 429 " in _ask(proxy, None, proxy.est, "/.well-known/est/cacerts")


def test_idle_callers_of_the_enrolment_port_leave_the_uplink_its_connections(
    tmp_path: Path, gateways: Gateways
) -> None:
    proxy = Proxy(tmp_path, gateways)
    values = proxy.values | {"hs_haproxy_maxconn": 40, "hs_est_connections_max": 20}
    template("haproxy", "cloud.cfg", values, proxy.config)
    with proxy.running(), contextlib.ExitStack() as held:
        for _ in range(60):
            idle = held.enter_context(socket.socket())
            idle.setblocking(False)  # past HAProxy's and the kernel's bound nobody answers
            idle.connect_ex(("127.0.0.1", proxy.est))
        time.sleep(0.3)  # HAProxy takes what it takes
        began = time.monotonic()
        assert _in(proxy, gateways.leaf("ward-1"))
        assert time.monotonic() - began < 3, "it did not wait until idle ones were dropped"


def test_a_reload_loses_no_call_and_takes_the_list_on_disk(
    tmp_path: Path, gateways: Gateways
) -> None:
    proxy = Proxy(tmp_path, gateways)
    one, two = gateways.leaf("ward-1"), gateways.leaf("ward-2")
    context = ssl.create_default_context(cafile=str(proxy.ca))
    context.load_cert_chain(two.cert, two.key)
    outcomes: list[bytes | str] = []
    over = threading.Event()

    def call_on_and_on() -> None:
        while not over.is_set():
            try:
                with (
                    socket.create_connection(("127.0.0.1", proxy.port), 5) as plain,
                    context.wrap_socket(plain, server_hostname="localhost") as sock,
                ):
                    sock.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                    outcomes.append(sock.recv(65536)[:12])
            except OSError as error:
                outcomes.append(type(error).__name__)

    with proxy.running("-W") as master:
        assert _in(proxy, one)
        caller = threading.Thread(target=call_on_and_on)
        caller.start()
        try:
            gateways.crl.write_bytes(gateways.lists(one.certificate.serial_number))
            for _ in range(3):
                _reload(proxy, master)
        finally:
            over.set()
            caller.join(10)
        assert "certificate revoked" in proxy.handshake(one)
        assert _in(proxy, two)
    assert len(outcomes) > 20
    assert set(outcomes) == {b"HTTP/1.1 503"}, "no ingest is behind it; nothing else went wrong"


def _reload(proxy: Proxy, master: subprocess.Popen[bytes]) -> None:
    """Reload; a signal that comes while the master is at the one before is lost: send it again."""
    before = _worker(proxy)
    for _ in range(20):
        master.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            if _worker(proxy) not in {before, ""}:
                return
            time.sleep(0.02)
    raise AssertionError("no new worker after 20 signals")


def _worker(proxy: Proxy) -> str:
    """Return the process id of who answers on the runtime socket, "" while nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        try:
            sock.connect(str(proxy.socket))
            sock.sendall(b"show info\n")
            said = b""
            while data := sock.recv(65536):
                said += data
        except OSError:
            return ""
    found = re.search(rb"(?m)^Pid: (\d+)", said)
    return "" if found is None else found[1].decode()


@pytest.mark.parametrize("without", ["hs_gateway_crl", "hs_est_servers"])
def test_without_a_list_or_without_enrolment_the_template_holds(
    tmp_path: Path, gateways: Gateways, without: str
) -> None:
    proxy = Proxy(tmp_path, gateways)
    values = {name: value for name, value in proxy.values.items() if name != without}
    config = template("haproxy", "cloud.cfg", values, tmp_path / "less.cfg")
    done = subprocess.run(
        ["/usr/sbin/haproxy", "-c", "-f", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    word = {"hs_gateway_crl": "crl-file", "hs_est_servers": "/.well-known/est"}[without]
    assert word in proxy.config.read_text()
    assert word not in config.read_text()

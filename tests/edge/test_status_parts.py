"""What the status is made of: metrics, what grew of late, the disk, the certificate, the pulse."""

import http.server
import io
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from prometheus_client.parser import text_string_to_metric_families

from edge import certificate, live, metrics, status
from edge.config import Config
from edge.live import Recent, flatten
from edge.pulse import STUCK_S_MAX, Pulse
from healthsync.runtime.log import Log
from onebox import ports
from tests.edge.gateway import NOW


def test_metrics_are_read_alike_here_and_over_http() -> None:
    text = (
        "# TYPE healthsync_edge_lines counter\nhealthsync_edge_lines_total 7.0\n"
        "healthsync_edge_lines_created 1.7e9\n"
        "# TYPE healthsync_edge_rejected counter\n"
        'healthsync_edge_rejected_total{reason="bad-unit"} 2.0\n'
        "# TYPE healthsync_edge_other counter\n"
        'healthsync_edge_other_total{reason="bad-unit"} 9.0\n'
        "# TYPE python_info gauge\npython_info 1.0\n"
    )
    found = flatten(text_string_to_metric_families(text))
    assert found == ({"lines_total": 7.0}, {"bad-unit": 2.0})
    own, _rejects = live.read_registry()
    assert own["spool_frames"] == metrics.SPOOL_FRAMES._value.get()
    assert set(live.GROWING) <= set(own)
    assert not [name for name in own if name.startswith("process_")]


def test_only_what_grew_of_late_is_recent() -> None:
    recent = Recent()
    assert recent.grown(NOW, {"lines_total": 5.0}, {})["lines_total"] == 0
    for minute in range(40):
        at = NOW + minute * live.SAMPLE_MS
        assert recent.due(at)
        recent.note(at, {"lines_total": minute * 60.0}, {"binary": float(min(minute, 20))})
        assert not recent.due(at + live.SAMPLE_MS - 1)
    found = recent.grown(at + 30_000, {"lines_total": 39 * 60.0 + 7}, {"binary": 20.0, "new": 1.0})
    assert found["seconds"] == 14 * 60 + 30
    assert found["lines_total"] == 14 * 60 + 7
    assert found["rejects"] == {"new": 1}, "what grew before is history"
    assert recent.due(NOW), "a clock that was set back does not end sampling"


def test_a_port_that_is_not_ours_is_no_running_gateway(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        status.read_metrics(ports.free(1)[0])
    config = Config(
        edge_id="ward-1",
        state_dir=str(tmp_path),
        hpke_public="",
        metrics_port=ports.free(1)[0],
    )
    picture = status.gather(config)
    assert picture["state"] == "failed"
    assert picture["spool"] is None


def test_what_the_socket_said_is_not_asked_for_again(tmp_path: Path) -> None:
    config = Config(
        edge_id="w", state_dir=str(tmp_path), hpke_public="", metrics_port=ports.free(1)[0]
    )
    program = {"live": {"link_up": 1.0}, "rejects": {}, "version": "0.1.0"}
    found = status.picture(config, program, "")
    assert (found["live"], found["program"]) == ({"link_up": 1.0}, {"version": "0.1.0"})


def test_another_programs_metrics_are_no_gateway() -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"# TYPE other gauge\nother 1.0\n")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.handle_request).start()
        with pytest.raises(OSError, match="another program"):
            status.read_metrics(server.server_address[1])


def _certificate(begins: datetime, ends: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ward-1")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + made.public_bytes(Encoding.PEM)


def make_certificate(days: int) -> bytes:
    """Return a key and a certificate that is good for ``days`` from now."""
    now = datetime.now(UTC)
    return _certificate(now - timedelta(days=1), now + timedelta(days=days))


def test_the_leafs_end_is_read_beside_its_key_and_chain(tmp_path: Path) -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    path = tmp_path / "gateway.pem"
    leaf, issuer = (
        _certificate(now - timedelta(days=1), now + timedelta(days=days)) for days in (30, 3000)
    )
    path.write_bytes(leaf + issuer)
    found = certificate.read(path)
    now_ms = int(now.timestamp() * 1000)
    assert found.days_left(now_ms) == 30.0
    assert found.begins_ms == now_ms - certificate.DAY_MS
    config = Config(
        edge_id="ward-1",
        state_dir=str(tmp_path),
        hpke_public="",
        metrics_port=ports.free(1)[0],
        link_certificate=str(path),
    )
    shown = status.gather(config)["certificate"]
    assert (shown["ends_ms"], shown["begun"]) == (found.ends_ms, True)
    path.write_bytes(_certificate(now.replace(year=2999), now.replace(year=3000)))
    assert status.gather(config)["certificate"]["begun"] is False
    path.write_bytes(b"")
    assert status.gather(config)["certificate"] == {"error": "ValueError"}


def test_a_certificate_far_behind_is_not_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "gateway.pem"
    path.write_bytes(b"x" * certificate.FILE_BYTES_MAX + make_certificate(9))
    with pytest.raises(ValueError, match="no PEM"):
        certificate.read(path)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nMIIB", b"x" * 300_000])
def test_a_file_without_a_certificate_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "gateway.pem"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        certificate.read(path)


# -- the watchdog ----------------------------------------------------------------------------------


def test_the_watchdog_starves_only_while_nothing_can_flow() -> None:
    out = io.StringIO()
    pulse = Pulse(Log("edge", lambda: NOW, out))
    looks = [
        *((0.0, True, False), (STUCK_S_MAX, True, False), (STUCK_S_MAX + 0.1, True, False)),
        *((40.0, True, False), (0.0, True, False), (0.0, False, True), (0.0, False, False)),
        (40.0, False, True),
    ]
    fed = [
        pulse.beats(stuck, collecting=collecting, stopping=stopping)
        for stuck, collecting, stopping in looks
    ]
    assert fed == [True, True, False, False, True, True, False, False]
    assert out.getvalue().count("watchdog-withheld") == 2
    assert out.getvalue().count("watchdog-fed-again") == 1

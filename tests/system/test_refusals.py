"""Who is turned away, and in what words."""

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from onebox import scrape
from onebox.ca import Authority
from tests.system.box import Box, until

pytestmark = pytest.mark.system


def handshake(box: Box, port: int, *options: str) -> str:
    """Return what openssl says of a handshake and one request on it."""
    done = subprocess.run(
        [
            "openssl",
            "s_client",
            "-connect",
            f"127.0.0.1:{port}",
            "-servername",
            "localhost",
            "-CAfile",
            box.info["ca_file"],
            "-verify_return_error",
            "-ign_eof",
            *options,
        ],
        input="GET /uplink HTTP/1.0\r\n\r\n",
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    return done.stdout + done.stderr


def port_of(box: Box, name: str) -> int:
    return int(json.loads((box.run_dir / "config" / "ports.json").read_text())[name])


def uplink(box: Box) -> int:
    return port_of(box, "uplink")


def gateway(box: Box) -> tuple[str, ...]:
    pki = box.run_dir / "pki"
    return ("-cert", str(pki / "ward-gw-1.pem"), "-key", str(pki / "ward-gw-1.key"))


def test_a_gateway_with_its_certificate_gets_through(box: Box) -> None:
    said = handshake(box, uplink(box), *gateway(box), "-tls1_3")
    assert "TLS_AES_256_GCM_SHA384" in said
    assert "HTTP/1" in said, said


def test_no_client_certificate_no_uplink(box: Box) -> None:
    said = handshake(box, uplink(box), "-tls1_3")
    assert "HTTP/1" not in said
    assert re.search("alert.*certificate required|certificate required", said), said


def test_a_certificate_of_another_authority_is_refused(box: Box, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    stranger = Authority(tmp_path, "stranger", datetime.now(UTC)).issue("ward-gw-1", server=False)
    said = handshake(
        box, uplink(box), "-cert", str(stranger.cert), "-key", str(stranger.key), "-tls1_3"
    )
    assert "HTTP/1" not in said
    assert re.search("unknown ca|alert", said), said


def test_a_service_certificate_is_no_gateways(box: Box) -> None:
    pki = box.run_dir / "pki"
    said = handshake(
        box, uplink(box), "-cert", str(pki / "api.pem"), "-key", str(pki / "api.key"), "-tls1_3"
    )
    assert "HTTP/1" not in said


PLACES = ("uplink", "rest", "line-tls", "mllp-tls", "redis", "kafka", "s3", "ingest-1", "api")


@pytest.mark.parametrize("place", PLACES)
def test_tls_1_2_is_refused_everywhere(box: Box, place: str) -> None:
    said = handshake(box, port_of(box, place), *gateway(box), "-tls1_2")
    assert "HTTP/1" not in said
    assert "Cipher is (NONE)" in said or "alert" in said, said


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"])
def test_a_weaker_suite_is_refused(box: Box, place: str, suite: str) -> None:
    said = handshake(box, port_of(box, place), *gateway(box), "-tls1_3", "-ciphersuites", suite)
    assert "HTTP/1" not in said
    assert "Cipher is (NONE)" in said or "handshake failure" in said, said


def test_redis_answers_nobody_in_clear_and_nobody_without_a_password(box: Box) -> None:
    port = port_of(box, "redis")
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(b"PING\r\n")
        sock.settimeout(5)
        try:
            answer = sock.recv(100)
        except ConnectionError:
            answer = b""
        assert b"PONG" not in answer
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        box.context().wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"PING\r\n")
        assert tls.recv(100).startswith(b"-NOAUTH")


def test_kafka_refuses_a_client_without_a_certificate(box: Box) -> None:
    said = handshake(box, port_of(box, "kafka"), "-tls1_3")
    assert re.search("certificate required|bad certificate|alert", said), said


def test_ingest_listens_to_haproxy_only(box: Box) -> None:
    pki = box.run_dir / "pki"
    said = handshake(
        box,
        port_of(box, "ingest-1"),
        "-cert",
        str(pki / "api.pem"),
        "-key",
        str(pki / "api.key"),
        "-tls1_3",
    )
    assert "101 Switching" not in said


@pytest.mark.parametrize("token", [None, "nonsense", "eyJhbGciOiJub25lIn0.e30."])
def test_rest_without_a_good_token_is_401_with_an_outcome(box: Box, token: str | None) -> None:
    for path in (
        "Observation?patient=x",
        "Patient?identifier=SIM000001",
        "DetectedIssue?patient=x",
    ):
        status, body, headers = box.rest(path, token)
        assert status == 401
        assert body["resourceType"] == "OperationOutcome"
        assert headers["www-authenticate"].startswith("Bearer")


def test_an_altered_token_is_refused(box: Box) -> None:
    head, claims, signature = box.info["token"].split(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    assert box.rest("Patient?identifier=X", f"{head}.{claims}.{flipped}")[0] == 401


def test_metadata_is_open(box: Box) -> None:
    status, body, _ = box.rest("metadata", None)
    assert (status, body["resourceType"]) == (200, "CapabilityStatement")


# Bad input ----------------------------------------------------------------------------------


def rejected(box: Box, reason: str) -> int:
    samples = scrape.scrape(box.info["metrics"]["edge"])
    return int(
        sum(
            value
            for name, labels, value in samples
            if name == "healthsync_edge_rejected_total" and labels.get("reason") == reason
        )
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"heart_rate=quick\n", "bad-number"),
        (b"wibble=12\n", "unknown-field"),
        (b"heart_rate=7" + b"1" * 9000 + b"\n", "too-long"),
        (bytes(range(128, 256)) * 4 + b"\n", "not-utf8"),
        (b"heart_rate=71", "half-line"),
    ],
)
def test_bad_input_is_quarantined_with_its_reason(box: Box, data: bytes, reason: str) -> None:
    before = rejected(box, reason)
    box.say(data)
    until(lambda: rejected(box, reason) > before, 5, f"a rejection for {reason}")


def test_a_bad_line_takes_no_neighbour_with_it(box: Box) -> None:
    answer = box.say(
        "device=bed-80 heart_rate=70 reply=yes\nheart_rate=quick\nheart_rate=71\n"
    ).splitlines()
    assert [word.split()[0] for word in answer] == ["ok", "rejected", "ok"]
    assert "heart_rate" in answer[1]


def test_memory_stays_flat_under_fifty_megabytes_without_a_newline(box: Box) -> None:
    status = Path(f"/proc/{box.pids()['edge']}/status")

    def resident_kib() -> int:
        found = re.search(r"VmRSS:\s+(\d+)", status.read_text())
        assert found
        return int(found[1])

    before = resident_kib()
    chunk = b"x" * 65536
    with socket.create_connection(("127.0.0.1", box.info["line_port"]), 5) as sock:
        try:
            for _ in range(50 * 16):
                sock.sendall(chunk)
        except ConnectionError:
            pass
    assert resident_kib() - before < 8 * 1024
    assert box.say("device=bed-81 heart_rate=70 reply=yes\n").strip() == "ok"

"""The enrolment service behind the HAProxy of the role's template: as gateways meet them both."""

import base64
import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.pki import certificates
from edge import est
from healthsync.runtime import whole
from tests.cloud.pki.service import Service
from tests.cloud.revocation.rig import Leaf, Proxy

RENEW = "/.well-known/est/simplereenroll"
GUESSER, ANOTHER = "127.0.0.1", "127.0.0.2"


class Files(NamedTuple):
    ca: Path
    crl: Path


class Front:
    """Service and HAProxy together."""

    def __init__(self, folder: Path, service: Service) -> None:
        self.folder, self.service = folder, service
        self.files = Files(service.folder / "ca.pem", folder / "gateways.crl")
        self.files.crl.write_bytes(service.desk.lists())
        self.proxy = Proxy(folder, self.files, est=service.port)

    def connect(
        self, port: int, leaf: Leaf | None = None, source: str = ANOTHER
    ) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.proxy.ca))
        if leaf is not None:
            context.load_cert_chain(leaf.cert, leaf.key)
        return http.client.HTTPSConnection(
            "localhost", port, timeout=10, context=context, source_address=(source, 0)
        )

    def ask(
        self, client: http.client.HTTPSConnection, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request("POST" if body else "GET", path, body or None, sent)
        answer = client.getresponse()
        return answer.status, answer.read()

    def enrol(
        self, client: http.client.HTTPSConnection, name: str, token: str, der: bytes
    ) -> tuple[int, bytes]:
        basic = base64.b64encode(f"{name}:{token}".encode()).decode()
        path = "/.well-known/est/simpleenroll"
        return self.ask(client, path, est.to_body(der), Authorization=f"Basic {basic}")

    def gateway(self, name: str) -> Leaf:
        """Return a gateway's certificate, enrolled for by its token."""
        key = est.make_key()
        token, _ = self.service.desk.token(name)
        client = self.connect(self.proxy.est)
        status, body = self.enrol(client, name, token, est.make_request(name, key))
        client.close()
        assert status == 200, body
        chain = est.read_certificates(body)
        cert, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(certificates.pem(*chain))
        whole.write(key_file, certificates.key_pem(key))
        return Leaf(chain[0], cert, key_file)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    service = Service(tmp_path)
    try:
        made = Front(tmp_path, service)
        with made.proxy.running():
            yield made
    finally:
        service.stop()


def test_a_certificate_is_had_renewed_and_ended_by_revocation(front: Front) -> None:
    one, two = front.gateway("ward-1"), front.gateway("ward-2")
    renewed = est.make_request("ward-1", est.make_key())
    client = front.connect(front.proxy.port, one)
    # what a caller says of itself is deleted: the certificate alone counts
    forged = {"X_Edge_Id": "ward-2", "X_Edge_Serial": f"{two.certificate.serial_number:x}"}
    status, body = front.ask(client, RENEW, est.to_body(renewed), **forged)
    assert status == 200
    assert est.read_certificates(body)[0].subject == one.certificate.subject
    for path in ("/crl", "/.well-known/est/simpleenroll", "/.well-known/est/cacerts"):
        assert front.ask(client, path)[0] == 404

    front.service.desk.revoke("ward-1")
    again = est.to_body(est.make_request("ward-1", est.make_key()))
    status, body = front.ask(client, RENEW, again)
    assert (status, body[:20]) == (403, b"certificate-revoked:"), "the connection is still open"
    client.close()
    lists = front.service.desk.lists()
    front.proxy.runtime().replace("crl-file", str(front.files.crl), lists)
    assert "certificate revoked" in front.proxy.handshake(one)
    assert "HTTP/1" in front.proxy.handshake(two)


def test_the_enrolment_port_believes_nobody_who_shows_no_proof(front: Front) -> None:
    one = front.gateway("ward-1")
    new = est.make_key()
    der = est.make_request("ward-1", new)
    client = front.connect(front.proxy.est)
    forged = {
        "X_Way": "uplink",
        "X_Edge_Id": "ward-1",
        "X_Edge_Serial": f"{one.certificate.serial_number:x}",
    }
    assert front.ask(client, RENEW, est.to_body(der), **forged)[0] == 403
    stolen = {
        "X_Renewal_Certificate": base64.b64encode(
            one.certificate.public_bytes(Encoding.DER)
        ).decode(),
        "X_Renewal_Signature": base64.b64encode(est.prove(der, new)).decode(),
    }
    status, body = front.ask(client, RENEW, est.to_body(der), **forged, **stolen)
    assert (status, body[:12]) == (403, b"proof-wrong:")
    assert front.ask(client, "/crl")[0] == 404
    client.close()


def test_a_thousand_guesses_get_nowhere_and_stop_nobody_else(front: Front) -> None:
    token, _ = front.service.desk.token("ward-1")
    other, _ = front.service.desk.token("ward-2")
    one, two = (est.make_request(name, est.make_key()) for name in ("ward-1", "ward-2"))
    found: list[int] = []
    client = front.connect(front.proxy.est, source=GUESSER)
    for guess in range(1_000):
        name = "ward-1" if guess % 2 == 0 else f"ward-{guess}"
        try:
            found.append(front.enrol(client, name, f"guess-{guess}", one)[0])
        except (http.client.HTTPException, ConnectionError):
            client.close()
            client = front.connect(front.proxy.est, source=GUESSER)
    assert set(found) == {401, 429}
    assert len(found) > 990
    assert found.count(401) <= 31, "HAProxy lets 30 errors a minute through"
    assert front.enrol(client, "ward-1", token, one)[0] == 429, "a good one is not looked at now"
    client.close()
    refused = [row for row in front.service.events() if row["event"] == "refused"]
    assert len(refused) <= 31
    client = front.connect(front.proxy.est)
    assert front.enrol(client, "ward-2", other, two)[0] == 200
    assert front.enrol(client, "ward-1", token, one)[0] == 200, "it was not spent by guessing"
    client.close()

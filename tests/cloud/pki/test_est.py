"""The real service over TLS: RFC 7030 as a gateway speaks it."""

import base64
import http.client
import ssl
import time
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.pki import authority
from cloud.pki.folder import open_desk
from edge import est
from tests.cloud.pki.service import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("est"))
    try:
        yield running
    finally:
        running.stop()


def test_a_gateway_enrols_and_renews(service: Service) -> None:
    key = est.make_key()
    der = est.make_request("ward-1", key)
    token, _ = service.desk.token("ward-1")
    status, body, headers = service.ask("GET", "/.well-known/est/cacerts", X_Way="est")
    assert status == 200
    known = est.read_certificates(body)
    status, body, headers = service.enrol("ward-1", token, est.to_body(der))
    assert status == 200
    assert headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert headers["content-transfer-encoding"] == "base64"
    now_ms = int(time.time() * 1000)
    chain = est.accept(est.read_certificates(body), "ward-1", key.public_key(), known, now_ms)
    old = chain[0]
    new = est.make_key()
    der = est.make_request("ward-1", new)
    way = {"X_Way": "uplink", "X_Edge_Id": "ward-1", "X_Edge_Serial": f"0{old.serial_number:X}"}
    path = "/.well-known/est/simplereenroll"
    status, body, _ = service.ask("POST", path, est.to_body(der), **way)
    assert status == 200
    est.accept(est.read_certificates(body), "ward-1", new.public_key(), known, now_ms)
    way["X_Edge_Id"] = "ward-2"
    status, body, _ = service.ask("POST", path, est.to_body(der), **way)
    assert (status, body[:20]) == (403, b"certificate-unknown:")
    # on the enrolment's own port such headers say nothing: it needs the old key's proof
    status, body, _ = service.ask("POST", path, est.to_body(der), **{**way, "X_Way": "est"})
    assert (status, body[:19]) == (403, b"certificate-unknown")
    proof = {
        "X_Way": "est",
        "X_Renewal_Certificate": base64.b64encode(old.public_bytes(Encoding.DER)).decode(),
        "X_Renewal_Signature": base64.b64encode(est.prove(der, new)).decode(),
    }
    status, body, _ = service.ask("POST", path, est.to_body(der), **proof)
    assert (status, body[:12]) == (403, b"proof-wrong:")


def test_every_wrong_token_looks_the_same_from_outside(service: Service) -> None:
    der = est.to_body(est.make_request("ward-7", est.make_key()))
    token, _ = service.desk.token("ward-7")
    other, _ = service.desk.token("ward-8")
    assert service.enrol("ward-7", token, der)[0] == 200
    another = est.to_body(est.make_request("ward-7", est.make_key()))
    answers = {service.enrol("ward-7", wrong, another)[:2] for wrong in (token, other, "guess", "")}
    assert len(answers) == 1
    ((status, body),) = answers
    assert status == 401
    assert body.startswith(b"token-refused:")
    said = service.log.read_text()
    for code in ("token-used", "token-name", "token-unknown"):
        assert code in said
    assert token not in said
    assert other not in said


def test_a_guesser_gets_429_and_others_their_certificate(service: Service) -> None:
    der = est.to_body(est.make_request("ward-5", est.make_key()))
    token, _ = service.desk.token("ward-5")
    found = [service.enrol("ward-5", f"guess-{n}", der, "10.6.6.6") for n in range(15)]
    assert [status for status, _, _ in found] == [401] * 10 + [429] * 5
    assert int(found[-1][2]["retry-after"]) > 0
    assert service.enrol("ward-5", token, der)[0] == 200


def test_what_is_malformed_is_refused_in_words(service: Service) -> None:
    post = "/.well-known/est/simpleenroll"
    token, _ = service.desk.token("ward-6")
    assert service.enrol("ward-6", token, b"!!")[1].startswith(b"csr-malformed:")
    assert service.enrol("ward-6", token, b"A" * 16 * 1024)[0] == 400
    assert service.enrol("ward-6", token, b"A" * (16 * 1024 + 1))[0] == 413
    assert service.ask("POST", post, b"AAAA", X_Way="est")[0] == 401
    assert service.ask("GET", post, X_Way="est")[0] == 405
    assert service.ask("GET", "/", X_Way="est")[0] == 404


def test_one_that_ended_waits_for_an_operator_and_everybody_can_see_it(service: Service) -> None:
    key, new = est.make_key(), est.make_key()
    ended = open_desk(service.folder, leaf_days=0.001)  # it begins five minutes ago
    token, _ = ended.token("ward-4")
    old = ended.enrol("ward-4", token, est.make_request("ward-4", key), "10.0.0.4")
    der = est.make_request("ward-4", new)
    proof = {
        "X_Way": "est",
        "X_Renewal_Certificate": base64.b64encode(old).decode(),
        "X_Renewal_Signature": base64.b64encode(est.prove(der, key)).decode(),
    }
    path = "/.well-known/est/simplereenroll"
    for _ in range(2):
        status, body, headers = service.ask("POST", path, est.to_body(der), **proof)
        assert (status, body) == (202, b"")
        assert int(headers["retry-after"]) > 0
    assert service.metric("healthsync_est_pending") == 1
    said = [one for one in service.events() if one["event"] == "awaiting-approval"]
    assert said[-1]["edge"] == "ward-4"
    service.desk.approve("ward-4", est.fingerprint(new.public_key()))
    status, body, _ = service.ask("POST", path, est.to_body(der), **proof)
    assert status == 200
    assert service.ask("POST", path, est.to_body(der), **proof)[:2] == (200, body), "lost, again"
    assert service.metric("healthsync_est_pending") == 0
    leaf = est.read_certificates(body)[0]
    issued = [one for one in service.events() if one["event"] == "issued"]
    assert issued[-1]["edge"] == "ward-4"
    assert issued[-1]["serial"] == f"{leaf.serial_number:x}"


def test_the_life_of_the_issuing_authority_is_a_metric(service: Service) -> None:
    left_s = service.metric("healthsync_est_issuing_expires_seconds")
    assert 0 < authority.ISSUING_DAYS * 86_400 - left_s < 3_600


def test_haproxy_alone_gets_through(service: Service) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        service.ask("GET", "/crl", who="ingest")
    status, body, _ = service.ask("GET", "/crl")
    assert status == 200
    assert body.count(b"BEGIN X509 CRL") == 2

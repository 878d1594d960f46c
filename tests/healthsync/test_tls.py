"""TLS: 1.3 only, certificates always checked, in real handshakes in memory."""

import ssl
from pathlib import Path

import pytest

from healthsync.runtime import tls
from tests.healthsync.certs import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "127.0.0.1"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Shake hands between two memory buffers; return (server, client) or raise ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=name),
    )
    for _ in range(4):
        for end in reversed(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for end in ends:
        end.do_handshake()
    return ends


def test_a_right_certificate_is_accepted_in_tls_1_3(authority: Authority) -> None:
    ends = handshake(tls.server(*authority.issue("server")), tls.client(authority.ca))
    assert {end.version() for end in ends} == {"TLSv1.3"}
    for end in ends:
        tls.require_suite(end.cipher())


def test_the_server_refuses_tls_1_2(authority: Authority) -> None:
    old = ssl.create_default_context(cafile=str(authority.ca))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        handshake(tls.server(*authority.issue("server")), old)


def test_the_client_refuses_tls_1_2(authority: Authority) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_cert_chain(*authority.issue("server"))
    with pytest.raises(ssl.SSLError):
        handshake(old, tls.client(authority.ca))


def test_a_server_of_another_ca_or_another_name_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "another CA")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tls.server(*stranger.issue("server")), tls.client(authority.ca))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(
            tls.server(*authority.issue("server")), tls.client(authority.ca), "elsewhere.test"
        )


def test_a_client_certificate_is_required_and_checked(authority: Authority, tmp_path: Path) -> None:
    server = tls.server(*authority.issue("server"), client_ca=authority.ca)
    ends = handshake(server, tls.client(authority.ca, *authority.issue("haproxy")))
    shown = ends[0].getpeercert()
    assert shown is not None
    assert shown["subject"] == ((("commonName", "haproxy"),),)
    with pytest.raises(ssl.SSLError):
        handshake(server, tls.client(authority.ca))
    stranger = Authority(tmp_path, "another CA")
    with pytest.raises(ssl.SSLError):
        handshake(server, tls.client(authority.ca, *stranger.issue("haproxy")))


@pytest.mark.parametrize(
    "negotiated", [None, ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128), ("x", "TLSv1.2", 256)]
)
def test_any_other_suite_is_refused_by_name(negotiated: tuple[str, str, int] | None) -> None:
    with pytest.raises(ssl.SSLError, match="OPENSSL_CONF"):
        tls.require_suite(negotiated)

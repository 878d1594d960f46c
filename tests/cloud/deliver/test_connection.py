"""Waits that end, answers that are bounded, certificates that are looked at."""

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.deliver import connection as module
from cloud.deliver.address import parse
from cloud.deliver.connection import Connection, Unanswered
from healthsync.runtime import tls
from onebox import ports
from tests.cloud.deliver.rig import Desk, FhirServer, observation
from tests.healthsync.certs import Authority

A, B = observation("a.spo2.1"), observation("b.spo2.2")
META: tuple[str, str, dict[str, str]] = ("GET", "/fhir/metadata", {})


@pytest.fixture
def plain(fhir: FhirServer) -> Iterator[Connection]:
    made = Connection(fhir.base, ssl.create_default_context(), 5)
    yield made
    made.close()


def test_a_connection_is_kept(fhir: FhirServer, plain: Connection) -> None:
    for _ in range(3):
        assert plain.request(*META).status == 200
    assert len({one["port"] for one in fhir.seen()}) == 1


def test_a_kept_connection_that_the_server_ended_is_opened_anew(
    fhir: FhirServer, plain: Connection
) -> None:
    fhir.rule("GET .*", "close-after")
    plain.request(*META)
    assert plain.request(*META).status == 200
    assert len({one["port"] for one in fhir.seen()}) == 2


def test_a_fresh_connection_that_breaks_is_not_asked_again_here(
    fhir: FhirServer, plain: Connection
) -> None:
    fhir.rule("GET .*", "reset", times=5)
    with pytest.raises(Unanswered, match="network"):
        plain.request(*META)
    assert len(fhir.seen()) == 1


def test_nobody_there() -> None:
    (port,) = ports.free(1)
    nobody = Connection(parse(f"http://127.0.0.1:{port}"), ssl.create_default_context(), 5)
    with pytest.raises(Unanswered, match="connect"):
        nobody.request(*META)


def test_a_trickle_is_ended_by_who_watches(fhir: FhirServer) -> None:
    """Each byte comes in time, the whole never: a socket's own timeout would wait for 50 s."""
    slow = Connection(fhir.base, ssl.create_default_context(), 0.5)
    fhir.rule("GET .*", "trickle")
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            slow.check()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(Unanswered, match="timeout"):
            slow.request(*META)
    finally:
        stop.set()
        watcher.join()
    assert slow.request(*META).status == 200
    slow.close()


def test_check_ends_nothing_before_its_time(fhir: FhirServer) -> None:
    now = [100.0]
    one = Connection(fhir.base, ssl.create_default_context(), 5, lambda: now[0])
    one.check()
    assert one.request(*META).status == 200
    now[0] += 1000
    one.check()  # idle: nothing to end
    assert one.request(*META).status == 200
    assert len({seen["port"] for seen in fhir.seen()}) == 1
    one.close()


@pytest.mark.parametrize("extra", [0, 1])
def test_an_answer_is_read_up_to_its_bound(
    fhir: FhirServer, plain: Connection, monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 1000)
    fhir.rule("GET .*", "status", status=200, body="x" * (1000 + extra))
    if extra:
        with pytest.raises(Unanswered, match="size"):
            plain.request(*META)
    else:
        assert len(plain.request(*META).body) == 1000


def test_a_flood_is_cut_off(fhir: FhirServer, plain: Connection) -> None:
    fhir.rule("GET .*", "flood", mebibytes=1000)
    with pytest.raises(Unanswered, match="size"):
        plain.request(*META)


@pytest.mark.parametrize(("do", "reason"), [("cut", "http"), ("noise", "http")])
def test_half_an_answer_is_none(fhir: FhirServer, plain: Connection, do: str, reason: str) -> None:
    fhir.rule("GET .*", do)
    with pytest.raises(Unanswered, match=reason):
        plain.request(*META)


# -- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secure(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FhirServer]:
    made = FhirServer(tmp_path_factory.mktemp("tls"), tls=authority.issue("fhir"))
    made.start()
    try:
        yield made
    finally:
        made.end()


def test_over_tls_to_a_server_of_the_given_authority(
    secure: FhirServer, authority: Authority
) -> None:
    desk = Desk(secure.base, context=tls.client(authority.ca))
    desk.deliver(A)
    assert secure.stored() == dict([A])
    desk.close()


def test_a_server_of_another_authority_is_sent_nothing(secure: FhirServer, tmp_path: Path) -> None:
    secure.control(forget_all=True)
    for context in (tls.client(Authority(tmp_path, "other").ca), tls.client(None)):
        stranger = Connection(secure.base, context, 5)
        with pytest.raises(Unanswered, match="certificate"):
            stranger.request(*META)
    assert secure.seen() == []


def test_a_server_of_another_name_is_sent_nothing(secure: FhirServer, authority: Authority) -> None:
    secure.control(forget_all=True)
    # the same machine under a name that the certificate does not have
    other = Connection(secure.base._replace(host="127.1"), tls.client(authority.ca), 5)
    with pytest.raises(Unanswered, match="certificate"):
        other.request(*META)
    assert secure.seen() == []


def test_plain_http_where_tls_is_expected(fhir: FhirServer) -> None:
    wrong = Connection(fhir.base._replace(secure=True), ssl.create_default_context(), 5)
    with pytest.raises(Unanswered, match="tls"):
        wrong.request(*META)
    assert fhir.seen() == []

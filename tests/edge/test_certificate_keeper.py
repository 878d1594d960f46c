"""Renewal: when it begins, how it fails, what it never does to the certificate that works."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edge import est, renewal
from edge.certificate_keeper import CertificateKeeper
from edge.certificate_store import (
    PREVIOUS,
    RENEW,
    Authority,
    CertificateStore,
    Held,
    bundle,
    make_placeholder,
)
from edge.haproxy_socket import HaproxySocket
from edge.renewal import State, due_ms, retry_s
from healthsync.runtime.haproxy import HaproxyError
from healthsync.runtime.log import Log
from onebox import ports
from tests.edge import est_server
from tests.edge.est_server import DAY, EstServer, certs_only, pem
from tests.edge.haproxies import running

LIFE = 30 * DAY


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


class Kept:
    """A gateway with a certificate that began now, and everything injected."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = est_server.Authority("Servers")
        self.est = EstServer(est_server.Authority("Gateways"))
        self.store = CertificateStore(folder / "pki")
        self.store.prepare()
        self.began = datetime.now(UTC).replace(microsecond=0)
        self.now, self.mono = self.began, 1000.0
        self.logged = io.StringIO()
        self.give(self.began)

    def give(self, began: datetime, life: timedelta = LIFE) -> None:
        """Put a certificate in the folder, as an enrolment would."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = self.est.authority
        leaf = authority.issue("ward-1", key.public_key(), began, life)
        self.store.install(bundle([leaf, authority.issuing], key))
        self.store.proven()

    def know(self, est_port: int) -> None:
        chain = pem(self.est.authority.issuing, self.est.authority.root).decode()
        ca = pem(self.servers.root).decode()
        self.store.keep_authority(Authority(chain, f"https://localhost:{est_port}", ca))

    def keeper(self, uplink_port: int, haproxy: HaproxySocket | None = None) -> CertificateKeeper:
        def pause(seconds: float) -> None:
            self.mono += seconds

        return CertificateKeeper(
            "ward-1",
            self.store,
            haproxy,
            uplink_port,
            Log("edge", lambda: _ms(self.now), self.logged),
            lambda: _ms(self.now),
            lambda: self.mono,
            pause,
            lambda: 1.0,
        )

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.logged.getvalue().splitlines()]

    @property
    def held(self) -> Held:
        found = self.store.held()
        assert found is not None
        return found

    def posts(self) -> list[bytes]:
        return [body for path, _, body in self.est.seen if path.endswith("simplereenroll")]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


@pytest.fixture
def up(kept: Kept) -> Iterator[Kept]:
    """The authority answers behind the gateway's uplink port, in clear."""
    with kept.est.serving(None):
        kept.know(1)
        yield kept


@pytest.fixture
def expired(kept: Kept) -> Iterator[Kept]:
    """The authority answers at its EST port; the certificate ended an hour ago."""
    kept.give(datetime.now(UTC).replace(microsecond=0) - LIFE - timedelta(hours=1))
    kept.now = datetime.now(UTC)
    with kept.est.serving(kept.servers.bundle(kept.folder)):
        kept.know(kept.est.port)
        yield kept


# -- when ------------------------------------------------------------------------------------------


def test_renewal_begins_at_half_life_spread_by_the_serial() -> None:
    dues = [due_ms(0, 1_000_000, f"{serial:X}") for serial in range(400)]
    assert min(dues) >= 450_000
    assert max(dues) <= 550_000
    assert max(dues) - min(dues) > 80_000
    assert due_ms(0, 1_000_000, "AB") == due_ms(0, 1_000_000, "AB")


@pytest.mark.parametrize(
    ("failures", "left_s", "jitter", "pause"),
    [
        (1, 1e9, 1.0, 60),
        (2, 1e9, 1.0, 120),
        (2, 1e9, 0.5, 90),
        (7, 1e9, 1.0, 3600),
        (99, 1e9, 0.0, 1800),
        (99, 9000, 1.0, 900),
        (99, 10, 1.0, 60),
        (99, -1, 1.0, 3600),
        (1, 1e9, 0.0, 60),
    ],
)
def test_the_pause_grows_and_shrinks_towards_the_end(
    failures: int, left_s: float, jitter: float, pause: float
) -> None:
    assert retry_s(failures, left_s, jitter) == pause


def test_nothing_is_asked_before(up: Kept) -> None:
    keeper = up.keeper(up.est.port)
    due = due_ms(up.held.begins_ms, up.held.ends_ms, up.held.serial)
    up.now = datetime.fromtimestamp(due / 1000 - 1, UTC)
    keeper.step()
    assert keeper.view.state == State.VALID
    assert up.est.seen == []
    up.now += timedelta(seconds=2)
    keeper.step()
    assert len(up.posts()) == 1


def test_a_new_key_takes_the_place_of_the_old(up: Kept) -> None:
    old = up.held
    up.now = up.began + 0.56 * LIFE
    up.est.begins = up.now
    keeper = up.keeper(up.est.port)
    keeper.step()
    new = up.held
    assert keeper.view.state == State.VALID
    assert new.serial != old.serial
    assert est.spki(new.key.public_key()) != est.spki(old.key.public_key())
    assert not (up.store.folder / RENEW).exists()
    assert keeper.view.told is None, "there is no socket"
    previous = up.store.previous()
    assert previous is not None
    assert previous.serial == old.serial
    keeper.step()
    assert len(up.posts()) == 1
    assert "certificate-renewed" in up.events()


# -- how it fails ----------------------------------------------------------------------------------


def _due(kept: Kept, share: float = 0.56) -> CertificateKeeper:
    kept.now = kept.began + share * LIFE
    kept.est.begins = kept.now
    return kept.keeper(kept.est.port)


def test_a_failure_waits_longer_each_time_and_then_is_forgotten(up: Kept) -> None:
    keeper = _due(up)
    up.est.answer = lambda _path: (503, {}, b"")
    for tries, wait in enumerate((60, 120, 240), 1):
        keeper.step()
        assert len(up.posts()) == tries
        assert (keeper.view.state, keeper.view.trouble) == (State.RENEWING, "http-503")
        up.mono += wait - 1
        keeper.step()
        assert len(up.posts()) == tries
        up.mono += 1
    assert len(set(up.posts())) == 1, "always the very same request"
    up.est.answer = lambda _path: None
    keeper.step()
    assert (keeper.view.state, keeper.view.trouble) == (State.VALID, "")
    assert up.events().count("certificate-not-renewed") == 1


def _wrong_name(kept: Kept) -> Callable[[Any, bytes], Any]:
    authority = kept.est.authority
    return lambda request, _: (
        *(200, {}),
        certs_only(authority.issue("ward-2", request.public_key()), authority.issuing),
    )


def _wrong_key(kept: Kept) -> Callable[[Any, bytes], Any]:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    return lambda _request, _: (200, {}, certs_only(kept.est.authority.issue("ward-1", other)))


def _wrong_authority(_kept: Kept) -> Callable[[Any, bytes], Any]:
    other = est_server.Authority("Gateways")
    return lambda request, _: (
        *(200, {}),
        certs_only(other.issue("ward-1", request.public_key()), other.issuing, other.root),
    )


def _garbage(_kept: Kept) -> Callable[[Any, bytes], Any]:
    return lambda _request, _: (200, {}, b"<html>")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (_wrong_name, "answer-other-name"),
        (_wrong_key, "answer-other-key"),
        (_wrong_authority, "answer-other-authority"),
        (_garbage, "answer-garbage"),
    ],
)
def test_a_wrong_answer_leaves_the_old_one(
    up: Kept, wrong: Callable[[Kept], Callable[[Any, bytes], Any]], code: str
) -> None:
    before = up.held.raw
    keeper = _due(up)
    up.est.certify = wrong(up)
    keeper.step()
    assert (keeper.view.state, keeper.view.trouble) == (State.RENEWING, code)
    assert up.held.raw == before


def test_nobody_there_is_tried_again(up: Kept) -> None:
    up.now = up.began + 0.9 * LIFE
    keeper = up.keeper(ports.free(1)[0])
    keeper.step()
    assert (keeper.view.state, keeper.view.trouble) == (State.RENEWING, "unreachable")


def test_a_revoked_one_is_asked_for_each_hour(up: Kept) -> None:
    keeper = _due(up)
    up.est.answer = lambda _path: (403, {}, b"certificate-revoked: ask why")
    keeper.step()
    assert (keeper.view.state, keeper.view.trouble) == (State.REFUSED, "certificate-revoked")
    up.mono += 3599
    keeper.step()
    assert len(up.posts()) == 1
    up.mono += 1
    up.est.answer = lambda _path: None
    keeper.step()
    assert keeper.view.state == State.VALID


def test_too_many_waits_as_long_as_it_was_told(up: Kept) -> None:
    keeper = _due(up)
    up.est.answer = lambda _path: (429, {"retry-after": "999999"}, b"too-many: wait")
    keeper.step()
    up.mono += renewal.RETRY_S_MAX - 1
    keeper.step()
    assert len(up.posts()) == 1
    up.mono += 1
    keeper.step()
    assert len(up.posts()) == 2


def test_a_folder_that_takes_nothing_asks_nobody(up: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(up.store, "keep_attempt", full)
    keeper = _due(up)
    for _ in range(5):
        keeper.step()
    assert keeper.view.trouble == "folder-unusable"
    assert up.est.seen == []


def test_what_is_known_of_the_authority_can_be_damaged(up: Kept) -> None:
    up.store.keep_authority(Authority("no PEM", "https://localhost:1", "no PEM"))
    keeper = _due(up)
    for _ in range(5):
        keeper.step()
    assert keeper.view.trouble == "authority-unusable"
    assert len(up.posts()) == 1, "it waits like after any failure"


def test_an_authority_that_was_never_named_is_asked_through_the_link(up: Kept) -> None:
    (up.store.folder / "authority.json").unlink()
    _due(up).step()
    assert up.est.asked[0].endswith("cacerts")
    assert "certificate-renewed" in up.events()


def test_another_authority_on_the_link_is_not_believed(up: Kept) -> None:
    (up.store.folder / "authority.json").unlink()
    keeper = _due(up)
    up.est.authority = est_server.Authority("Gateways")
    keeper.step()
    assert keeper.view.trouble == "answer-other-authority"
    assert up.store.authority() is None


# -- stopped at any point --------------------------------------------------------------------------


class Cut(BaseException):
    """The power is gone."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", ["keep_attempt", "install", "end_attempt"])
def test_a_crash_at_any_write_is_gone_on_from(
    up: Kept, monkeypatch: pytest.MonkeyPatch, write: str, after: bool
) -> None:
    old, real = up.held.serial, getattr(CertificateStore, write)

    def cut(*arguments: Any, **named: Any) -> None:
        if after:
            real(*arguments, **named)
        raise Cut

    keeper = _due(up)
    with monkeypatch.context() as patch:
        patch.setattr(CertificateStore, write, cut)
        with pytest.raises(Cut):
            keeper.step()
    keeper = up.keeper(up.est.port)
    keeper.step()
    assert keeper.view.state == State.VALID
    assert up.held.serial != old
    assert len(up.est.issued) == 1


def test_an_enrolment_meanwhile_wins(up: Kept) -> None:
    keeper = _due(up)
    issue = up.est.certificate

    def slow(request: Any, digest: bytes) -> Any:
        up.give(up.now)
        return issue(request, digest)

    up.est.certify = slow
    keeper.step()
    enrolled = up.held.serial
    assert up.held.leaf not in up.est.issued.values()
    keeper.step()
    assert (keeper.view.state, up.held.serial) == (State.VALID, enrolled)
    assert keeper.held is not None
    assert keeper.held.serial == enrolled


def test_no_bundle_and_a_damaged_one_become_a_placeholder(kept: Kept) -> None:
    kept.store.path.write_bytes(b"\0" * 100)
    keeper = kept.keeper(1)
    keeper.step()
    assert (keeper.view.state, kept.held.placeholder) == (State.NONE, True)
    assert (kept.store.folder / "gateway.pem.damaged").exists()
    kept.store.path.unlink()
    keeper.step()
    assert kept.held.placeholder
    kept.give(kept.began)
    keeper.step()
    assert keeper.view.state == State.VALID, "an enrolment is seen while it runs"


def test_a_damaged_bundle_gives_way_to_the_one_before(kept: Kept) -> None:
    before = kept.held.raw
    kept.store.install(b"torn")
    kept.keeper(1).step()
    assert kept.held.raw == before
    assert not (kept.store.folder / PREVIOUS).exists()


def test_an_enrolment_that_was_begun_is_said(kept: Kept) -> None:
    from edge.certificate_store import ENROL, make_attempt

    kept.store.path.write_bytes(make_placeholder("ward-1"))
    kept.store.keep_attempt(ENROL, make_attempt("ward-1", token="x"))
    keeper = kept.keeper(1)
    keeper.step()
    assert keeper.view.state == State.ENROLLING


# -- after the end ---------------------------------------------------------------------------------


def test_the_old_key_asks_until_an_operator_approves(expired: Kept) -> None:
    keeper = expired.keeper(1)
    for _ in range(30):
        keeper.step()
        assert (keeper.view.state, keeper.view.trouble) == (State.AWAITING, "awaiting-approval")
        expired.mono += 10
    assert len(expired.posts()) == 30
    assert len(set(expired.posts())) == 1, "another key would be another request"
    assert len(keeper.view.fingerprint) == 64
    keeper = expired.keeper(1)
    keeper.step()
    assert len(set(expired.posts())) == 1, "not even after a restart"
    expired.est.approved = True
    expired.mono += 10
    keeper.step()
    assert (keeper.view.state, keeper.view.trouble) == (State.VALID, "")
    assert est.fingerprint(expired.held.key.public_key()) is not None
    assert expired.events().count("certificate-not-renewed") == 2, "once a start"


def test_a_short_loss_while_it_waits_is_still_waiting(expired: Kept) -> None:
    keeper = expired.keeper(1)
    keeper.step()
    expired.est.answer = lambda _path: (503, {}, b"")
    expired.mono += 10
    keeper.step()
    assert (keeper.view.state, keeper.view.trouble) == (State.AWAITING, "http-503")


@pytest.mark.parametrize("code", sorted(est.FINAL))
def test_a_refusal_after_the_end_is_final_and_asked_seldom(expired: Kept, code: str) -> None:
    keeper = expired.keeper(1)
    expired.est.answer = lambda _path: (403, {}, code.encode() + b": no")
    keeper.step()
    assert (keeper.view.state, keeper.view.trouble) == (State.REFUSED, code)
    expired.mono += 3599
    keeper.step()
    assert len(expired.posts()) == 1


def test_a_stranger_at_the_est_port_is_asked_nothing(expired: Kept) -> None:
    expired.servers = est_server.Authority("Servers")
    expired.know(expired.est.port)
    keeper = expired.keeper(1)
    keeper.step()
    assert (keeper.view.state, keeper.view.trouble) == (State.EXPIRED, "server-unknown")
    assert expired.est.seen == []


def test_without_an_est_server_only_an_enrolment_helps(expired: Kept) -> None:
    (expired.store.folder / "authority.json").unlink()
    keeper = expired.keeper(1)
    keeper.step()
    assert (keeper.view.state, keeper.view.trouble) == (State.EXPIRED, "authority-unknown")


def test_the_end_while_it_runs_opens_the_other_way_at_once(expired: Kept) -> None:
    ends = datetime.fromtimestamp(expired.held.ends_ms / 1000, UTC)
    expired.now = ends - timedelta(seconds=5)
    keeper = expired.keeper(ports.free(1)[0])
    keeper.step()
    states = [keeper.view.state]
    for seconds in (0, -5):
        expired.now = ends + timedelta(seconds=seconds)
        keeper.step()
        states.append(keeper.view.state)
    assert states == [State.RENEWING, State.AWAITING, State.RENEWING], "the clock was ahead"


# -- with the real HAProxy -------------------------------------------------------------------------


@contextmanager
def _proxied(kept: Kept, **how: Any) -> Iterator[Any]:
    with (
        kept.est.serving(None),
        running(
            kept.folder,
            bundle=kept.store.path,
            servers=kept.servers,
            gateways=kept.est.authority,
            est_port=kept.est.port,
            **how,
        ) as proxies,
    ):
        kept.know(1)
        yield proxies


def _patient(kept: Kept, proxies: Any) -> CertificateKeeper:
    """Return a keeper whose pauses are real: HAProxy's checks need time."""
    return CertificateKeeper(
        "ward-1",
        kept.store,
        proxies.admin,
        proxies.uplink_port,
        Log("edge", lambda: _ms(kept.now), kept.logged),
        lambda: _ms(kept.now),
        jitter=lambda: 1.0,
    )


def _aged(kept: Kept) -> Held:
    """Put a certificate in the folder that is due; HAProxy lives by the machine's clock."""
    kept.give(datetime.now(UTC).replace(microsecond=0) - 0.56 * LIFE)
    return kept.held


@pytest.mark.parametrize("abstract", [False, True])
def test_haproxy_shows_the_new_one_from_the_next_connection_on(kept: Kept, abstract: bool) -> None:
    socket = f"abns@healthsync-test-{ports.free(1)[0]}" if abstract else None
    old = _aged(kept)
    with _proxied(kept, socket=socket) as proxies:
        keeper = _patient(kept, proxies)
        keeper.step()
        assert keeper.view.told is True
        new = kept.held
        assert (keeper.view.state, keeper.view.proven, keeper.view.trouble) == ("valid", True, "")
        assert proxies.admin.serial() == new.leaf.serial_number != old.leaf.serial_number
        assert kept.store.previous() is None
    seen = {path: headers for path, headers, _ in kept.est.seen}
    asked = seen["/.well-known/est/simplereenroll"]
    assert (asked["x-edge-id"], asked["x-edge-serial"]) == ("ward-1", old.serial)
    assert seen["/health"]["x-edge-serial"] == new.serial


def test_what_haproxy_holds_at_the_start_is_put_right(kept: Kept) -> None:
    with _proxied(kept) as proxies:
        kept.give(kept.began)
        assert proxies.admin.serial() != kept.held.leaf.serial_number
        keeper = _patient(kept, proxies)
        keeper.step()
        assert proxies.admin.serial() == kept.held.leaf.serial_number
        assert "certificate-told" in kept.events()


def test_a_new_one_that_does_not_work_gives_way_to_the_old(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.certificate_keeper.PROVE_S", 2.0)
    old = _aged(kept)
    kept.est.begins = datetime.now(UTC) + DAY  # the cloud's HAProxy will not have it
    with _proxied(kept) as proxies:
        keeper = _patient(kept, proxies)
        keeper.step()
        assert kept.held.raw == old.raw
        assert proxies.admin.serial() == old.leaf.serial_number
        assert keeper.view.trouble == "new-certificate-refused"
        assert kept.store.previous() is None
        assert "certificate-put-back" in kept.events()
        keeper.step()
        assert (keeper.view.state, len(kept.posts())) == (State.RENEWING, 1)


def test_a_line_that_is_down_blames_neither(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.certificate_keeper.PROVE_S", 1.0)
    old = _aged(kept)
    with _proxied(kept) as proxies:
        keeper = _patient(kept, proxies)
        issue = kept.est.certificate

        def then_down(request: Any, digest: bytes) -> Any:
            kept.est.answer = lambda path: (503, {}, b"") if path == "/health" else None
            return issue(request, digest)

        kept.est.certify = then_down
        keeper.step()
        new = kept.held
        assert new.serial != old.serial
        assert proxies.admin.serial() == new.leaf.serial_number
        assert keeper.view.proven is False
        previous = kept.store.previous()
        assert previous is not None
        assert previous.serial == old.serial
        kept.est.answer = lambda _path: None
        keeper = _patient(kept, proxies)
        monkeypatch.setattr("edge.certificate_keeper.PROVE_S", 5.0)
        keeper.step()
        assert keeper.view.proven is True, "proven by the next start"


def test_a_line_that_comes_back_meanwhile_proves_the_new_one(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.certificate_keeper.PROVE_S", 2.0)
    old = _aged(kept)
    back: list[bool] = []

    def answer(path: str) -> Any:
        shown = kept.est.seen[-1][1].get("x-edge-serial")
        if path != "/health" or not kept.posts():
            return None
        if shown == old.serial:
            back.append(True)
        return None if back else (503, {}, b"")

    kept.est.answer = answer
    with _proxied(kept) as proxies:
        keeper = _patient(kept, proxies)
        keeper.step()
        assert back, "the old one was tried"
        assert keeper.view.proven is True
        assert kept.held.serial != old.serial
        assert proxies.admin.serial() == kept.held.leaf.serial_number


def test_an_enrolment_is_not_undone_by_a_proof_of_the_one_before(kept: Kept) -> None:
    bad = kept.held.serial
    kept.give(kept.began)
    kept.store.install(kept.held.raw)
    enrolled = kept.held.serial
    assert not kept.store.put_back(instead_of=bad)
    assert kept.held.serial == enrolled
    assert kept.store.put_back(instead_of=enrolled)


def test_a_certificate_that_haproxy_does_not_take_changes_nothing(kept: Kept) -> None:
    with _proxied(kept) as proxies:
        before = proxies.admin.serial()
        other = make_placeholder("ward-1")
        mixed = pem(kept.held.leaf) + other[other.find(b"-----BEGIN PRIVATE") :]
        for raw in (b"garbage\n", mixed, b"x" * 20_000):
            with pytest.raises(HaproxyError):
                proxies.admin.use(raw)
            assert proxies.admin.serial() == before
        proxies.admin.use(kept.held.raw)
        with pytest.raises(HaproxyError):
            HaproxySocket(proxies.socket, "/no/such.pem").use(kept.held.raw)
        with pytest.raises(HaproxyError):
            HaproxySocket(str(kept.folder / "none.sock"), "/x").serial()


def test_a_haproxy_that_is_not_there_is_told_later(kept: Kept) -> None:
    haproxy = HaproxySocket(str(kept.folder / "admin.sock"), str(kept.store.path))
    keeper = kept.keeper(1, haproxy)
    keeper.step()
    assert (keeper.view.told, keeper.view.trouble) == (False, "haproxy-not-told")
    with _proxied(kept):
        keeper.step()
        assert keeper.view.told is False, "not each second"
        kept.mono += 10
        keeper.step()
        assert (keeper.view.told, keeper.view.trouble) == (True, "")

"""Enrolment: what goes wrong is said, what was begun is ended, no token goes to a stranger."""

import base64
import json
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edge import clock_floor, enrol, est_call
from edge.certificate_store import AUTHORITY, ENROL, CertificateStore
from edge.config import Certificate, Config
from edge.est import EstError, NotNow
from healthsync.cli import main
from healthsync.runtime.exits import Exit
from onebox import ports
from tests.edge.est_server import DAY, TOKEN, Authority, EstServer, Reply, certs_only, pem
from tests.edge.process import Process
from vitals.errors import ConfigError


class Site:
    """A gateway's folder, an authority for gateways and one for the EST server."""

    def __init__(self, folder: Path, begins: datetime | None = None) -> None:
        self.folder = folder
        self.servers = Authority("Servers", begins)
        self.est = EstServer(Authority("Gateways", begins))
        self.config = Config(
            edge_id="ward-1",
            state_dir=str(folder),
            hpke_public="",
            certificate=Certificate(str(folder / "pki")),
        )
        self.store = CertificateStore(folder / "pki")
        self.file = folder / "enrolment.toml"
        self.said: list[str] = []

    def write(self, port: int | None = None, **changes: str) -> None:
        values = {
            "name": '"ward-1"',
            "token": f'"{TOKEN}"',
            "est": f'"https://localhost:{port or self.est.port}"',
            "ca": f'"""\n{pem(self.servers.root).decode()}"""',
            "expires": "2999-01-01T00:00:00Z",
        } | changes
        self.file.write_text("".join(f"{name} = {value}\n" for name, value in values.items()))

    def enrol(self) -> int:
        return enrol.run(self.config, self.file, self.said.append)

    def serving(self, **how: Any) -> Any:
        return self.est.serving(self.servers.bundle(self.folder), **how)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def served(site: Site) -> Iterator[Site]:
    with site.serving():
        site.write()
        yield site


# -- as meant --------------------------------------------------------------------------------------


def test_a_key_made_here_gets_a_certificate(served: Site) -> None:
    assert served.enrol() == Exit.OK
    held = served.store.held()
    assert held is not None
    assert not held.placeholder
    assert [one.subject.rfc4514_string() for one in held.rest] == ["CN=Gateways issuing"]
    assert served.est.asked == [f"/.well-known/est/{what}" for what in ("cacerts", "simpleenroll")]
    for _path, headers, body in served.est.seen:
        assert b"PRIVATE" not in body + str(headers).encode()
    assert not served.file.exists()
    for file in (served.folder / "pki").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert TOKEN.encode() not in file.read_bytes()
    assert not (served.folder / "pki" / ENROL).exists()
    authority = served.store.authority()
    assert authority is not None
    assert authority.est == f"https://localhost:{served.est.port}"
    assert TOKEN not in " ".join(served.said)
    assert "not been told" in " ".join(served.said)


def test_the_command_line_enrols(
    tmp_path: Path, served: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    process = Process(tmp_path)
    process.config.write_text(
        process.config.read_text() + f'\n[certificate]\nfolder = "{served.store.folder}"\n'
    )
    words = ["edge", "enrol", "--config", str(process.config)]
    assert main([*words, "--placeholder"]) == Exit.OK
    placeholder = served.store.held()
    assert placeholder is not None
    assert placeholder.placeholder
    assert main([*words, "--placeholder"]) == Exit.OK
    again = served.store.held()
    assert again is not None
    assert again.raw == placeholder.raw, "one that is there is left alone"
    assert main([*words, "--file", str(served.file)]) == Exit.OK
    held = served.store.held()
    assert held is not None
    assert not held.placeholder
    assert f"serial {held.serial}" in capsys.readouterr().out
    assert main(["edge", "floor", "--config", str(process.config)]) == Exit.OK
    assert capsys.readouterr().out.strip() == clock_floor.written(held.begins_ms)


def test_a_leaf_is_found_wherever_it_stands(served: Site) -> None:
    issue = served.est.certificate

    def turned(request: Any, digest: bytes) -> Reply:
        issue(request, digest)
        authority = served.est.authority
        return 200, {}, certs_only(authority.root, authority.issuing, served.est.issued[digest])

    served.est.certify = turned
    assert served.enrol() == Exit.OK


# -- stopped at any point --------------------------------------------------------------------------


class Cut(BaseException):
    """The power is gone."""


WRITES = [
    "keep_attempt",
    "keep_authority",
    "install",
    "end_attempt",
]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", WRITES)
def test_a_crash_at_any_write_is_gone_on_from(
    served: Site, monkeypatch: pytest.MonkeyPatch, write: str, after: bool
) -> None:
    real = getattr(CertificateStore, write)

    def cut(*arguments: Any, **named: Any) -> None:
        if after:
            real(*arguments, **named)
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(CertificateStore, write, cut)
        with pytest.raises(Cut):
            served.enrol()
    assert served.file.exists()
    assert served.enrol() == Exit.OK
    assert not served.file.exists()
    assert len(served.est.issued) == 1, "the token gave one certificate"
    held = served.store.held()
    assert held is not None
    assert held.leaf in served.est.issued.values()
    assert not (served.store.folder / ENROL).exists()


def test_a_lost_answer_is_asked_for_again_with_the_same_request(served: Site) -> None:
    served.est.answer = lambda path: (503, {}, b"") if path.endswith("simpleenroll") else None
    assert served.enrol() == Exit.UNAVAILABLE
    served.est.answer = lambda _path: None
    assert served.enrol() == Exit.OK
    first, second = (body for path, _, body in served.est.seen if path.endswith("simpleenroll"))
    assert first == second


def test_another_file_means_another_key(served: Site) -> None:
    served.est.answer = lambda path: (503, {}, b"") if path.endswith("simpleenroll") else None
    assert served.enrol() == Exit.UNAVAILABLE
    served.write(token='"another"')
    assert served.enrol() == Exit.UNAVAILABLE
    first, second = (body for path, _, body in served.est.seen if path.endswith("simpleenroll"))
    assert first != second


def test_a_second_enrolment_takes_the_place_of_the_first(served: Site) -> None:
    assert served.enrol() == Exit.OK
    first = served.store.held()
    served.est.token_used_by = None
    served.write()
    assert served.enrol() == Exit.OK
    second, previous = served.store.held(), served.store.previous()
    assert first is not None
    assert second is not None
    assert previous is not None
    assert second.serial != first.serial == previous.serial


def test_a_torn_attempt_is_begun_anew(served: Site) -> None:
    served.store.prepare()
    (served.store.folder / ENROL).write_text('{"key": "x", "request": "!"}')
    assert served.enrol() == Exit.OK


# -- refused, busy, wrong --------------------------------------------------------------------------


def _says(status: int, body: bytes, **headers: str) -> Callable[[str], Reply | None]:
    heads = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda path: (status, heads, body) if path.endswith("simpleenroll") else None


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (_says(401, b"token-refused: x"), Exit.FAILED, "token-refused: it is used up"),
        (_says(401, b"<html>M000123"), Exit.FAILED, "token-refused"),
        (_says(400, b"csr-name: x"), Exit.FAILED, "csr-name: edge_id"),
        (_says(400, b"csr-malformed: x"), Exit.FAILED, "csr-malformed"),
        (_says(400, b"csr-key: x"), Exit.FAILED, "csr-key"),
        (_says(400, b"csr-signature: x"), Exit.FAILED, "csr-signature"),
        (_says(413, b""), Exit.FAILED, "http-413"),
        (_says(429, b"too-many: x", retry_after="7"), Exit.UNAVAILABLE, "too-many"),
        (_says(202, b"", retry_after="7"), Exit.UNAVAILABLE, "awaiting-approval"),
        (_says(500, b"M000123"), Exit.UNAVAILABLE, "http-500"),
        (_says(503, b""), Exit.UNAVAILABLE, "http-503"),
        (_says(404, b""), Exit.UNAVAILABLE, "http-404"),
        (_says(302, b""), Exit.FAILED, "http-302"),
        (_says(200, b""), Exit.FAILED, "answer-garbage"),
        (_says(200, b"%%%"), Exit.FAILED, "answer-garbage"),
        (_says(200, base64.b64encode(b"\x30\x03\x02\x01\x01")), Exit.FAILED, "answer-garbage"),
        (_says(200, b"A" * (est_call.ANSWER_BYTES_MAX + 1)), Exit.FAILED, "answer-too-large"),
    ],
)
def test_every_refusal_has_its_exit_and_its_next_step(
    served: Site,
    capsys: pytest.CaptureFixture[str],
    answer: Callable[[str], Reply | None],
    code: Exit,
    words: str,
) -> None:
    served.est.answer = answer
    assert served.enrol() == code
    said = capsys.readouterr().err
    assert words in said
    assert "M000123" not in said, "nothing of what a server writes is shown"
    assert TOKEN not in said
    assert served.file.exists()
    assert served.store.held() is None
    assert (served.store.folder / ENROL).exists()
    served.est.answer = lambda _path: None
    assert served.enrol() == Exit.OK


def _other_name(est: EstServer, request: Any) -> Reply:
    wrong = est.authority.issue("ward-2", request.public_key())
    return 200, {}, certs_only(wrong, est.authority.issuing)


def _other_key(est: EstServer, _request: Any) -> Reply:
    key = ec.generate_private_key(ec.SECP256R1())
    return 200, {}, certs_only(est.authority.issue("ward-1", key.public_key()))


def _other_authority(est: EstServer, request: Any) -> Reply:
    other = Authority("Gateways")  # the same names, other keys
    return 200, {}, certs_only(other.issue("ward-1", request.public_key()), other.issuing)


def _other_root_too(est: EstServer, request: Any) -> Reply:
    other = Authority("Elsewhere")
    leaf = other.issue("ward-1", request.public_key())
    return 200, {}, certs_only(leaf, other.issuing, other.root)


def _ended(est: EstServer, request: Any) -> Reply:
    began = datetime.now(UTC) - 2 * DAY
    return (
        200,
        {},
        certs_only(
            est.authority.issue("ward-1", request.public_key(), began, DAY), est.authority.issuing
        ),
    )


def _too_many(est: EstServer, request: Any) -> Reply:
    many = [est.authority.issue(f"x-{at}", request.public_key()) for at in range(9)]
    return 200, {}, certs_only(*many)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_other_name, "answer-other-name"),
        (_other_key, "answer-other-key"),
        (_other_authority, "answer-other-authority"),
        (_other_root_too, "answer-other-authority"),
        (_ended, "certificate-ended"),
        (_too_many, "answer-garbage"),
    ],
)
def test_an_answer_that_is_not_ours_is_not_installed(
    served: Site,
    capsys: pytest.CaptureFixture[str],
    answer: Callable[[EstServer, Any], Reply],
    words: str,
) -> None:
    served.est.certify = lambda request, _digest: answer(served.est, request)
    assert served.enrol() == Exit.FAILED
    assert words in capsys.readouterr().err
    assert served.store.held() is None
    assert not (served.store.folder / AUTHORITY).exists()


def test_cacerts_without_a_root_is_refused(
    served: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    only = certs_only(served.est.authority.issuing)
    served.est.answer = lambda path: (200, {}, only) if path.endswith("cacerts") else None
    assert served.enrol() == Exit.FAILED
    assert "answer-no-root" in capsys.readouterr().err
    assert "simpleenroll" not in "".join(served.est.asked), "no token was sent"


# -- who is no server of ours ----------------------------------------------------------------------


def _refused(site: Site, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert site.enrol() == Exit.FAILED
    assert words in capsys.readouterr().err
    assert site.est.seen == [], "not a byte of a request came"


def test_a_server_of_another_authority_hears_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with site.est.serving(Authority("Servers").bundle(site.folder)):
        site.write()
        _refused(site, capsys, "server-unknown")


def test_the_issuer_of_the_server_is_enough_to_know_it_by(served: Site) -> None:
    served.write(ca=f'"""{pem(served.servers.issuing).decode()}"""')
    assert served.enrol() == Exit.OK


def test_a_server_of_another_name_hears_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with site.est.serving(site.servers.bundle(site.folder, host="elsewhere.test")):
        site.write()
        _refused(site, capsys, "server-unknown")


def test_a_server_whose_certificate_ended_hears_nothing(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    began = datetime.now(UTC) - 2 * DAY
    with site.est.serving(site.servers.bundle(site.folder, begins=began, life=DAY)):
        site.write()
        _refused(site, capsys, "certificate-ended")


def test_tls_12_is_not_enough(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    def older(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    with site.serving(change=older):
        site.write()
        _refused(site, capsys, "server-tls")


def test_aes_128_is_not_enough(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    [port] = ports.free(1)
    bundle = site.servers.bundle(site.folder)
    words = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(bundle)]
    words += ["-key", str(bundle), "-ciphersuites", "TLS_AES_128_GCM_SHA256", "-quiet"]
    words += ["-cert_chain", str(bundle)]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        site.write(port)
        for _ in range(100):
            code = site.enrol()
            said = capsys.readouterr().err
            if "unreachable" not in said:
                break
            time.sleep(0.05)
        assert code == Exit.FAILED
        assert "server-tls" in said
    finally:
        child.kill()
        out, _ = child.communicate()
    assert b"simpleenroll" not in out
    assert b"cacerts" not in out


def test_nobody_there_is_tried_again(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.write(ports.free(1)[0])
    assert site.enrol() == Exit.UNAVAILABLE
    assert "unreachable" in capsys.readouterr().err


def test_what_speaks_no_tls_or_no_http_is_said(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    with site.est.serving(None):
        site.write()
        assert site.enrol() == Exit.FAILED
        assert "server-tls" in capsys.readouterr().err
    for said, code in ((b"ssh\r\n\r\n", "answer-garbage"), (b"", "unreachable")):
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve(said: bytes = said, listener: socket.socket = listener) -> None:
                with listener.accept()[0] as sock:
                    sock.recv(4096)
                    sock.sendall(said)

            thread = threading.Thread(target=serve)
            thread.start()
            at = est_call.Server("127.0.0.1", listener.getsockname()[1])
            with pytest.raises(EstError) as raised:
                est_call.call(at, "GET", "/", now_ms=0)
            assert raised.value.code == code
            thread.join()


def test_a_server_that_trickles_is_cut_off() -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            with listener.accept()[0] as sock:
                try:
                    while not over.wait(0.05):
                        sock.sendall(b"H")
                except OSError:
                    pass

        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        at = est_call.Server("127.0.0.1", listener.getsockname()[1])
        with pytest.raises(NotNow) as raised:
            est_call.call(at, "GET", "/", now_ms=0, seconds=0.5)
        over.set()
        thread.join()
    assert raised.value.code == "no-answer"
    assert time.monotonic() - began < 3


# -- the file --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": '"ward-2"'}, "edge_id"),
        ({"token": '""'}, "token"),
        ({"token": f'"{"x" * 257}"'}, "token"),
        ({"token": '"a\\nb"'}, "token"),
        ({"est": '"http://localhost:1"'}, "https://host:port"),
        ({"est": '"https://localhost:1/path"'}, "https://host:port"),
        ({"est": '"https://user@localhost:1"'}, "https://host:port"),
        ({"est": '"https://localhost:99999"'}, "https://host:port"),
        ({"ca": '"nonsense"'}, "PEM"),
        ({"expires": "2020-01-01T00:00:00Z"}, "expired"),
        ({"expires": "2999-01-01T00:00:00"}, "expires"),
        ({"expires": '"tomorrow"'}, "expires"),
    ],
)
def test_a_wrong_file_is_refused_in_words(site: Site, changes: dict[str, str], says: str) -> None:
    site.write(7, **changes)
    with pytest.raises(ConfigError, match=says) as raised:
        site.enrol()
    assert TOKEN not in str(raised.value)
    assert site.file.exists()


def test_keys_of_a_newer_authority_are_left_alone(served: Site) -> None:
    served.write(comment='"ward 3, second floor"')
    assert served.enrol() == Exit.OK


def test_no_folder_no_file_and_a_large_file_are_said(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--file"):
        site.enrol()
    site.file.write_bytes(b"#" * (enrol.FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="no enrolment file"):
        site.enrol()
    site.config = Config(edge_id="ward-1", state_dir=str(tmp_path), hpke_public="")
    with pytest.raises(ConfigError, match=r"\[certificate\] folder"):
        site.enrol()


# -- a clock that woke in 1970 ---------------------------------------------------------------------


@pytest.mark.parametrize("floor_days", [None, 0, 300])
def test_a_gateway_that_woke_in_1970_enrols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, floor_days: int | None
) -> None:
    monkeypatch.setattr("healthsync.runtime.clock.now_ms", lambda: 3_600_000)
    # OpenSSL has this machine's clock: all certificates begin after it.
    began = datetime.now(UTC) + 400 * DAY
    site = Site(tmp_path, began)
    site.est.begins = began
    if floor_days is not None:
        at = began - timedelta(days=floor_days)
        assert clock_floor.save(site.folder, int(at.timestamp() * 1000))
    with site.est.serving(site.servers.bundle(site.folder, begins=began)):
        site.write()
        assert site.enrol() == Exit.OK
    held = site.store.held()
    assert held is not None
    assert clock_floor.read(site.config) >= held.begins_ms, "the next start begins there"


def test_a_floor_still_sees_what_has_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("healthsync.runtime.clock.now_ms", lambda: 3_600_000)
    assert clock_floor.save(site.folder, int(datetime.now(UTC).timestamp() * 1000))
    began = datetime.now(UTC) - 2 * DAY
    with site.est.serving(site.servers.bundle(site.folder, begins=began, life=DAY)):
        site.write()
        _refused(site, capsys, "certificate-ended")


def test_a_folder_that_another_program_holds_is_said(
    served: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.certificate_store.LOCK_S_MAX", 0.2)
    served.store.prepare()
    with served.store._locked(), pytest.raises(ConfigError, match="cannot be written"):
        served.enrol()
    assert served.enrol() == Exit.OK


def test_the_attempt_is_on_the_disk_before_the_first_byte_leaves(served: Site) -> None:
    kept = []
    path = served.store.folder / ENROL
    served.est.answer = lambda _path: kept.append(json.loads(path.read_text())["key"])
    assert served.enrol() == Exit.OK
    assert len(set(kept)) == 1

import contextlib
import socket
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from healthsync.runtime import tls
from onebox import ports, scrape
from onebox.ca import Authority
from onebox.layout import RunDir
from onebox.secrets import Secrets
from vitals.errors import ConfigError


def made(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.make()
    return run


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files"):
        RunDir(tmp_path).make()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_keys_and_passwords_are_private_and_never_twice_the_same(tmp_path: Path) -> None:
    run = made(tmp_path)
    other = RunDir(tmp_path / "other")
    other.make()
    first, second = Secrets(run.keys), Secrets(other.keys)
    files = sorted(run.keys.iterdir())
    assert len(files) > 15
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
        assert path.read_bytes() != second.path(path.name).read_bytes(), path.name
    assert Secrets(run.keys).password("ward") == first.password("ward"), "a restart keeps them"


def test_the_two_authorities_do_not_vouch_for_each_other(tmp_path: Path) -> None:
    run = made(tmp_path)
    now = datetime.now(UTC)
    services, gateways = Authority(run.pki, "services", now), Authority(run.pki, "gateways", now)
    issued = gateways.issue("ward-gw-1", server=False)
    certificate = x509.load_pem_x509_certificate(issued.cert.read_bytes())
    trusted = x509.load_pem_x509_certificate(gateways.ca_file.read_bytes())
    certificate.verify_directly_issued_by(trusted)
    stranger = x509.load_pem_x509_certificate(services.ca_file.read_bytes())
    with pytest.raises(ValueError):
        certificate.verify_directly_issued_by(stranger)
    assert stat.S_IMODE(issued.key.stat().st_mode) == 0o600


def test_certificates_pass_openssls_strict_checks(tmp_path: Path) -> None:
    run = made(tmp_path)
    authority = Authority(run.pki, "services", datetime.now(UTC))
    server = authority.issue("api", server=True)
    caller = authority.issue("haproxy", server=False)
    inside = tls.server(server.cert, server.key, authority.ca_file)
    outside = tls.client(authority.ca_file, caller.cert, caller.key)
    for context in (inside, outside):
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13's default
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(inside.wrap_socket, ours, server_side=True)
        with outside.wrap_socket(theirs, server_hostname="localhost") as talker:
            talker.send(b"x")
            with accepted.result(5) as listener:
                assert listener.recv(1) == b"x"
                assert listener.getpeercert()


def test_ports_are_kept_over_a_restart_and_differ_from_each_other(tmp_path: Path) -> None:
    first = ports.allocate(tmp_path / "ports.json")
    assert len(set(first.values())) == len(ports.NAMES)
    assert ports.allocate(tmp_path / "ports.json") == first


def test_a_free_port_is_handed_out_once_and_is_none_of_an_outgoing_call() -> None:
    outgoing = int(ports.OUTGOING.read_text().split()[0])
    found = ports.free(200) + ports.free(200)
    assert len(set(found)) == 400
    assert all(ports.LOWEST <= port < outgoing for port in found)


def test_a_machine_that_gives_all_ports_to_outgoing_calls_still_has_free_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "OUTGOING", tmp_path / "range")
    (tmp_path / "range").write_text("1024 65535\n")
    assert len(set(ports.free(20))) == 20


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    numbers = ports.allocate(tmp_path / "ports.json")
    assert ports.taken(numbers) == []
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", numbers["kafka"]))
        sock.listen()
        assert ports.taken(numbers) == ["kafka"]


def test_a_well_known_port_in_use_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # held by somebody else serves as well
            sock.bind(("127.0.0.1", 7010))
        assert ports.allocate(tmp_path / "ports.json")["line"] != 7010


def test_a_quantile_is_of_what_was_counted_between_two_scrapes() -> None:
    before = {0.01: 100.0, 0.1: 100.0, float("inf"): 100.0}
    now = {0.01: 100.0, 0.1: 200.0, float("inf"): 200.0}
    assert scrape.quantile(now, before, 0.5) == pytest.approx(0.055)
    assert scrape.quantile(before, before, 0.5) is None


def test_metrics_are_summed_over_labels() -> None:
    text = '# TYPE a counter\na_total{x="1"} 2\na_total{x="2"} 3\n'
    assert scrape.total(scrape.parse(text), "a_total") == 5


def test_metrics_are_read_on_loopback_only() -> None:
    with pytest.raises(ValueError, match="loopback"):
        scrape.scrape("http://192.0.2.1:1/metrics")

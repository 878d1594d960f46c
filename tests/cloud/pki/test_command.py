"""What the person at the desk types, and what it says when it cannot."""

import json
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.pki import store
from cloud.pki.errors import Waiting
from cloud.pki.folder import open_desk
from edge import est
from healthsync.cli import main

PASSPHRASE = "correct horse battery"


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    (tmp_path / "phrase").write_text(PASSPHRASE + "\n")
    made = tmp_path / "pki"
    assert pki(made, "init", "--passphrase-file", str(tmp_path / "phrase")) == 0
    capsys.readouterr()
    return made


def pki(folder: Path, *words: str) -> int:
    return main(["cloud", "pki", words[0], "--folder", str(folder), *words[1:]])


def enrol(folder: Path, name: str) -> x509.Certificate:
    desk = open_desk(folder)
    der = est.make_request(name, est.make_key())
    return x509.load_der_x509_certificate(desk.enrol(name, desk.token(name)[0], der, "here"))


def test_the_passphrase_may_come_from_standard_input_and_must_be_long(tmp_path: Path) -> None:
    for phrase, code in (("short", 78), (PASSPHRASE, 0)):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "healthsync.cli", "cloud", "pki", "init"),
                *("--folder", str(tmp_path / "pki"), "--passphrase-file", "-"),
            ],
            input=phrase,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert pki(tmp_path / "pki", "init", "--passphrase-file", "/dev/null") == 78


def test_a_token_is_printed_once_or_goes_into_an_enrolment_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pki(folder, "token", "ward-1") == 0
    said = capsys.readouterr()
    token = said.out.strip()
    assert token not in said.err
    file, ca = tmp_path / "enrolment.toml", folder / "ca.pem"
    given = ("--enrolment-file", str(file), "--est", "https://pki.example.org:8445")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes((folder / "issuing.key").read_bytes() + ca.read_bytes())
    assert pki(folder, "token", "ward-1", *given, "--server-ca", str(bundle)) == 0
    made = tomllib.loads(file.read_text())
    assert sorted(made) == ["ca", "est", "expires", "name", "token"]
    assert made["token"] not in capsys.readouterr().out
    assert "PRIVATE" not in made["ca"]
    assert len(x509.load_pem_x509_certificates(made["ca"].encode())) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    der = est.make_request("ward-1", est.make_key())
    assert open_desk(folder).enrol("ward-1", made["token"], der, "here")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("token", "a/b"), "no gateway's name"),
        (("token", "w", "--hours", "999"), "1 to 336 hours"),
        (("token", "w", "--enrolment-file", "{tmp}/f"), "needs --est and --server-ca"),
        (("token", "w", "--est", "http://h:1"), "give https://HOST:PORT"),
        (("token", "w", "--est", "https://h"), "give https://HOST:PORT"),
        (("token", "w", "--est", "https://h:x"), "give https://HOST:PORT"),
        (("token", "w", "--server-ca", "{tmp}/phrase"), "no certificate in PEM"),
        (("token", "w", "--server-ca", "{tmp}/none"), "No such file"),
        (("crl", "--out", "{tmp}/none/crl"), "No such file"),
        (("revoke", "ward-9"), "names no gateway and no certificate"),
        (("approve", "ward-9", "00"), "nothing of ward-9 waits"),
        (("init", "--passphrase-file", "{tmp}/phrase"), "holds an authority already"),
        (("init", "--passphrase-file", "{tmp}/none"), "No such file"),
    ],
)
def test_what_cannot_be_done_is_said_in_words(
    words: tuple[str, ...],
    reason: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert pki(folder, *(word.format(tmp=tmp_path) for word in words)) == 78
    assert reason in capsys.readouterr().err


def test_a_store_in_use_for_long_is_said_in_words(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BUSY_S", 0.05)
    other = sqlite3.connect(folder / "pki.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        assert pki(folder, "token", "ward-1") == 78
    finally:
        other.close()
    assert "locked" in capsys.readouterr().err


def test_revoking_shows_in_the_list_and_in_the_file_for_haproxy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = enrol(folder, "ward-1"), enrol(folder, "ward-2")
    assert pki(folder, "revoke", f"{one.serial_number:X}") == 0
    assert capsys.readouterr().out == f"revoked {one.serial_number:x}\n"
    assert pki(folder, "list", "--json") == 0
    rows = {row["serial"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[f"{one.serial_number:x}"]["state"] == "revoked"
    assert rows[f"{two.serial_number:x}"]["state"] == "good"
    out = tmp_path / "gateways.crl"
    assert pki(folder, "crl", "--out", str(out)) == 0
    listed = x509.load_pem_x509_crl(out.read_bytes())
    assert [entry.serial_number for entry in listed] == [one.serial_number]


def test_what_waits_is_listed_with_the_fingerprint_that_approves_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pki(folder, "list", "--pending") == 0
    assert capsys.readouterr().out == "nothing waits\n"
    key, new = est.make_key(), est.make_key()
    desk = open_desk(folder, leaf_days=0.001)
    token, _ = desk.token("ward-1")
    old = desk.enrol("ward-1", token, est.make_request("ward-1", key), "here")
    der = est.make_request("ward-1", new)
    with pytest.raises(Waiting):
        desk.renew_ended(old, est.prove(der, key), der)
    assert pki(folder, "list", "--pending", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"] == "waits"
    assert int(row["old_serial"], 16) == x509.load_der_x509_certificate(old).serial_number
    assert pki(folder, "approve", "ward-1", row["fingerprint"]) == 0
    made = x509.load_der_x509_certificate(desk.renew_ended(old, est.prove(der, key), der))
    assert made.public_key() == new.public_key()
    assert made.public_bytes(Encoding.DER) != old

"""Who gets a certificate, who does not, and what a second asking gives."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.pki import authority, desk
from cloud.pki.authority import Issuing
from cloud.pki.desk import Desk
from cloud.pki.errors import STATUS, Refused, Waiting
from cloud.pki.store import Store
from cloud.revocation import lists
from edge import est
from vitals import enrolment
from vitals.errors import ConfigError

NOW = 1_795_428_000_000
DAY = 86_400_000
HERE = "10.0.0.1"
PASSPHRASE = b"correct horse battery"


class Counter:
    """A desk on a folder, with its clock in hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = NOW
        self.issuing = authority.init(folder, datetime.fromtimestamp(NOW / 1000, UTC), PASSPHRASE)
        self.desk = Desk(self.issuing, Store(folder / "pki.db"), lambda: self.now)

    def enrol(
        self, name: str = "ward-1", key: ec.EllipticCurvePrivateKey | None = None
    ) -> x509.Certificate:
        token, _ = self.desk.token(name)
        der = est.make_request(name, key or est.make_key())
        return x509.load_der_x509_certificate(self.desk.enrol(name, token, der, HERE))


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path)


def refused(code: str, call: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.code == code
    return caught.value


def serial(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:X}"


def test_both_sides_know_the_same_codes() -> None:
    assert set(STATUS) | {"token-refused"} == set(est.NEXT) == enrolment.CODES


# -- what is issued ---------------------------------------------------------------------------


def test_the_folder_holds_an_encrypted_root_and_a_private_issuing_key(counter: Counter) -> None:
    folder = counter.folder
    for name in ("issuing.key", "root/root.key"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    sealed = (folder / "root" / "root.key").read_bytes()
    with pytest.raises(TypeError):
        load_pem_private_key(sealed, None)
    with pytest.raises(ValueError, match=r"(?i)password|decrypt"):
        load_pem_private_key(sealed, b"another passphrase")
    assert load_pem_private_key(sealed, PASSPHRASE)
    with pytest.raises(ConfigError, match="already"):
        authority.init(folder, datetime.now(UTC), PASSPHRASE)
    with pytest.raises(ConfigError, match="12 characters"):
        authority.init(folder / "new", datetime.now(UTC), b"short")
    with pytest.raises(ConfigError, match="pki init"):
        Issuing.load(folder / "root")


def test_a_certificate_is_good_for_a_client_alone_and_for_its_time(counter: Counter) -> None:
    key = est.make_key()
    found = counter.enrol(key=key)
    assert found.public_key() == key.public_key()
    now = datetime.fromtimestamp(NOW / 1000, UTC)
    assert found.not_valid_before_utc == now - timedelta(minutes=5)
    assert found.not_valid_after_utc == now + timedelta(days=30) - timedelta(minutes=5)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    found.verify_directly_issued_by(counter.issuing.certificate)
    counter.issuing.certificate.verify_directly_issued_by(counter.issuing.root)
    known = [counter.issuing.certificate, counter.issuing.root]
    chain = est.accept([found], "ward-1", key.public_key(), known, NOW)
    assert chain == [found, counter.issuing.certificate]


# -- tokens -----------------------------------------------------------------------------------


def test_a_token_is_good_once_for_one_name_and_for_a_day(counter: Counter) -> None:
    enrol = counter.desk.enrol
    first = est.make_request("ward-1", est.make_key())
    other = est.make_request("ward-1", est.make_key())
    token, expires = counter.desk.token("ward-1")
    assert expires == datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(days=1)
    refused("token-name", lambda: enrol("ward-2", token, first, HERE))
    refused(
        "csr-name", lambda: enrol("ward-1", token, est.make_request("ward-2", est.make_key()), HERE)
    )
    refused("token-unknown", lambda: enrol("ward-1", token + "x", first, HERE))
    counter.now = NOW + DAY - 1
    made = enrol("ward-1", token, first, HERE)
    refused("token-used", lambda: enrol("ward-1", token, other, HERE))
    assert enrol("ward-1", token, first, HERE) == made, "its answer was lost"
    counter.now += 600_000
    refused("token-used", lambda: enrol("ward-1", token, first, HERE))
    late, _ = counter.desk.token("ward-1")
    counter.now += DAY
    refused("token-expired", lambda: enrol("ward-1", late, other, HERE))
    assert len(counter.desk.list_issued()) == 1


def test_a_token_is_not_on_the_disk(counter: Counter) -> None:
    token, _ = counter.desk.token("ward-1")
    assert len(token) * 6 >= 160
    for path in counter.folder.rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("hours", [0.9, 336.1, -1])
def test_a_tokens_life_has_bounds(counter: Counter, hours: float) -> None:
    with pytest.raises(ConfigError, match="hours"):
        counter.desk.token("ward-1", hours)
    for edge_of in (1, 336):
        counter.desk.token("ward-1", edge_of)
    with pytest.raises(ConfigError, match="name"):
        counter.desk.token("ward/1")


def test_a_guesser_is_stopped_and_stops_nobody_else(counter: Counter) -> None:
    token, _ = counter.desk.token("ward-1")
    other, _ = counter.desk.token("ward-2")
    der = est.make_request("ward-1", est.make_key())
    codes: list[str] = []
    for guess in range(1_000):
        counter.now += 10
        with pytest.raises(Refused) as caught:
            counter.desk.enrol("ward-1", f"guess-{guess}", der, "10.6.6.6")
        codes.append(caught.value.code)
    assert codes == ["token-unknown"] * desk.FAILURES_MAX + ["too-many"] * 990
    assert (
        refused("too-many", lambda: counter.desk.enrol("ward-1", token, der, "10.6.6.6")).retry_s
        > 0
    )
    assert counter.desk.enrol("ward-1", token, der, HERE)
    second = est.make_request("ward-2", est.make_key())
    assert counter.desk.enrol("ward-2", other, second, "10.6.6.6")
    counter.now += desk.FAILURES_MS
    refused("token-unknown", lambda: counter.desk.enrol("ward-1", "guess", der, "10.6.6.6"))


RACER = f"""
import sys
from pathlib import Path
from cloud.pki.authority import Issuing
from cloud.pki.desk import Desk
from cloud.pki.errors import Refused
from cloud.pki.store import Store
from edge import est

folder, token = Path(sys.argv[1]), sys.argv[2]
desk = Desk(Issuing.load(folder), Store(folder / "pki.db"), lambda: {NOW})
der = est.make_request("ward-1", est.make_key())
print("ready", flush=True)
sys.stdin.readline()
try:
    desk.enrol("ward-1", token, der, "here")
    print("issued")
except Refused as error:
    print(error.code)
"""


def test_of_two_processes_with_one_token_one_gets_a_certificate(counter: Counter) -> None:
    token, _ = counter.desk.token("ward-1")
    command = [sys.executable, "-c", RACER, str(counter.folder), token]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    try:
        for one in both:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in both:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        found = sorted(one.communicate(timeout=30)[0].strip() for one in both)
    finally:
        for one in both:
            one.kill()
            one.wait(10)
    assert found == ["issued", "token-used"]
    assert len(counter.desk.list_issued()) == 1


# -- requests ---------------------------------------------------------------------------------


def test_what_is_no_good_request_is_refused_and_spends_nothing(counter: Counter) -> None:
    token, _ = counter.desk.token("ward-1")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ward-1")])
    builder = x509.CertificateSigningRequestBuilder()
    weak = builder.subject_name(name).sign(ec.generate_private_key(ec.SECP224R1()), hashes.SHA256())
    other = builder.subject_name(name).sign(
        rsa.generate_private_key(public_exponent=65537, key_size=2048), hashes.SHA256()
    )
    nameless = builder.subject_name(x509.Name([])).sign(est.make_key(), hashes.SHA256())
    good = est.make_request("ward-1", est.make_key())
    altered = good[:-1] + bytes([good[-1] ^ 1])
    for code, der in (
        ("csr-key", weak.public_bytes(Encoding.DER)),
        ("csr-key", other.public_bytes(Encoding.DER)),
        ("csr-name", nameless.public_bytes(Encoding.DER)),
        ("csr-signature", altered),
        ("csr-malformed", b"nonsense"),
        ("csr-malformed", b""),
    ):
        refused(code, lambda der=der: counter.desk.enrol("ward-1", token, der, HERE))  # type: ignore[misc]
    assert counter.desk.enrol("ward-1", token, good, HERE)


# -- renewal ----------------------------------------------------------------------------------


def test_a_certificate_in_force_is_renewed_and_a_lost_answer_can_be_had_again(
    counter: Counter,
) -> None:
    old = counter.enrol()
    counter.now += 15 * DAY
    der = est.make_request("ward-1", est.make_key())
    made = counter.desk.renew("ward-1", serial(old), der)
    assert counter.desk.renew("ward-1", "00" + serial(old).lower(), der) == made
    assert len(counter.desk.list_issued()) == 2
    other = est.make_request("ward-2", est.make_key())
    refused("csr-name", lambda: counter.desk.renew("ward-1", serial(old), other))
    refused("certificate-unknown", lambda: counter.desk.renew("ward-2", serial(old), other))
    refused("certificate-unknown", lambda: counter.desk.renew("ward-1", "abc", der))
    refused("certificate-unknown", lambda: counter.desk.renew("ward-1", "no hex", der))
    counter.desk.revoke(f"{old.serial_number:x}")
    refused("certificate-revoked", lambda: counter.desk.renew("ward-1", serial(old), der))


def test_one_that_ended_is_renewed_by_its_key_and_an_operator(counter: Counter) -> None:
    key, new = est.make_key(), est.make_key()
    old = counter.enrol(key=key).public_bytes(Encoding.DER)
    der = est.make_request("ward-1", new)
    proof = est.prove(der, key)
    renew = counter.desk.renew_ended
    counter.now += 31 * DAY
    refused("proof-wrong", lambda: renew(old, est.prove(der, new), der))
    refused("proof-wrong", lambda: renew(old, b"", der))
    another = est.make_request("ward-1", est.make_key())
    refused("proof-wrong", lambda: renew(old, proof, another))
    with pytest.raises(Waiting):
        renew(old, proof, der)
    (waiter,) = counter.desk.pending()
    assert waiter.fingerprint == est.fingerprint(new.public_key())
    with pytest.raises(ConfigError, match="another key"):
        counter.desk.approve("ward-1", "0" * 64)
    with pytest.raises(ConfigError, match="nothing"):
        counter.desk.approve("ward-2", waiter.fingerprint)
    counter.desk.approve("ward-1", waiter.fingerprint)
    with pytest.raises(Waiting):
        renew(old, est.prove(another, key), another)  # an approval is of a key
    with pytest.raises(Waiting):
        renew(old, proof, der)
    counter.desk.approve("ward-1", waiter.fingerprint)
    made = renew(old, proof, der)
    assert renew(old, proof, der) == made, "its answer was lost"
    assert counter.desk.pending() == []
    refused("certificate-unknown", lambda: renew(old, est.prove(another, key), another))


def test_an_approval_is_of_a_key_whichever_request_it_signs(counter: Counter) -> None:
    """A gateway that lost its request makes another with the key that the operator approved."""
    key, new = est.make_key(), est.make_key()
    old = counter.enrol(key=key).public_bytes(Encoding.DER)
    counter.now += 31 * DAY
    first, second = est.make_request("ward-1", new), est.make_request("ward-1", new)
    assert first != second
    with pytest.raises(Waiting):
        counter.desk.renew_ended(old, est.prove(first, key), first)
    counter.desk.approve("ward-1", est.fingerprint(new.public_key()))
    made = counter.desk.renew_ended(old, est.prove(second, key), second)
    assert x509.load_der_x509_certificate(made).public_key() == new.public_key()
    assert counter.desk.pending() == []


def test_a_fingerprint_may_be_typed_as_people_write_it(counter: Counter) -> None:
    key, new = est.make_key(), est.make_key()
    old = counter.enrol(key=key).public_bytes(Encoding.DER)
    counter.now += 31 * DAY
    der = est.make_request("ward-1", new)
    with pytest.raises(Waiting):
        counter.desk.renew_ended(old, est.prove(der, key), der)
    plain = est.fingerprint(new.public_key()).upper()
    counter.desk.approve("ward-1", ":".join(plain[at : at + 2] for at in range(0, 64, 2)))
    assert counter.desk.renew_ended(old, est.prove(der, key), der)


def test_a_connection_that_outlives_its_certificate_renews_nothing(counter: Counter) -> None:
    old = counter.enrol()
    der = est.make_request("ward-1", est.make_key())
    counter.now = int(old.not_valid_after_utc.timestamp() * 1000) - 1
    other = est.make_request("ward-1", est.make_key())
    assert counter.desk.renew("ward-1", serial(old), other)
    counter.now += 1
    refused("certificate-unknown", lambda: counter.desk.renew("ward-1", serial(old), der))


def test_a_gateway_that_renews_without_end_is_stopped(counter: Counter) -> None:
    old = serial(counter.enrol())
    for _ in range(desk.ISSUED_DAY_MAX - 1):
        made = counter.desk.renew("ward-1", old, est.make_request("ward-1", est.make_key()))
        counter.now += 1000
    der = est.make_request("ward-1", est.make_key())
    error = refused("too-many", lambda: counter.desk.renew("ward-1", old, der))
    assert error.retry_s > 0
    newest = x509.load_der_x509_certificate(made)
    assert counter.enrol("ward-2"), "others go on"
    counter.now += DAY
    assert counter.desk.renew("ward-1", serial(newest), der)


def test_the_grace_ends(counter: Counter) -> None:
    key = est.make_key()
    old = counter.enrol(key=key)
    der = est.make_request("ward-1", est.make_key())
    end = int(old.not_valid_after_utc.timestamp() * 1000)
    both = old.public_bytes(Encoding.DER), est.prove(der, key)
    counter.now = end + 90 * DAY
    with pytest.raises(Waiting):
        counter.desk.renew_ended(*both, der)
    counter.now += 1
    refused("grace-over", lambda: counter.desk.renew_ended(*both, der))
    counter.desk.revoke("ward-1")
    refused("certificate-revoked", lambda: counter.desk.renew_ended(*both, der))
    refused("certificate-unknown", lambda: counter.desk.renew_ended(b"x", both[1], der))


# -- revocation -------------------------------------------------------------------------------


def test_a_revoked_gateway_is_in_the_list_until_its_certificates_have_ended(
    counter: Counter,
) -> None:
    among = [counter.issuing.certificate, counter.issuing.root]
    first = lists.check(counter.desk.lists(), among)
    assert first.serials == frozenset()
    one, two = counter.enrol(), counter.enrol("ward-2")
    token, _ = counter.desk.token("ward-1")
    assert counter.desk.revoke("ward-1") == [f"{one.serial_number:x}"]
    assert counter.desk.revoke("ward-1") == []
    with pytest.raises(ConfigError, match="names no gateway"):
        counter.desk.revoke("ward-9")
    der = est.make_request("ward-1", est.make_key())
    refused("token-unknown", lambda: counter.desk.enrol("ward-1", token, der, HERE))
    found = lists.check(counter.desk.lists(), among, first.numbers)
    assert found.serials == {one.serial_number}
    assert max(found.numbers.values()) > max(first.numbers.values())
    assert counter.desk.lists() == found.pem, "nothing changed"
    counter.desk.revoke(serial(two))
    both = lists.check(counter.desk.lists(), among, found.numbers)
    assert both.serials == {one.serial_number, two.serial_number}
    counter.now += desk.LIST_AGE_MS_MAX
    assert lists.check(counter.desk.lists(), among, both.numbers).next_update > both.next_update
    counter.now = NOW + 32 * DAY
    assert lists.check(counter.desk.lists(), among, both.numbers).serials == frozenset()


def test_one_that_leaves_the_list_does_not_hide_one_that_enters_it(counter: Counter) -> None:
    among = [counter.issuing.certificate, counter.issuing.root]
    one = counter.enrol()
    counter.desk.revoke("ward-1")
    counter.now = int(one.not_valid_after_utc.timestamp() * 1000) + desk.LISTED_AFTER_MS - 1
    two = counter.enrol("ward-2")
    before = lists.check(counter.desk.lists(), among)
    assert before.serials == {one.serial_number}
    counter.now += 1
    counter.desk.revoke("ward-2")  # the number of entries stays the same
    assert lists.check(counter.desk.lists(), among, before.numbers).serials == {two.serial_number}


def test_a_store_restored_from_a_copy_gives_lists_that_are_newer_all_the_same(
    counter: Counter,
) -> None:
    """Whoever pulls refuses a lower number; with a count, a restored store would be unheard."""
    among = [counter.issuing.certificate, counter.issuing.root]
    counter.desk.lists()
    db = sqlite3.connect(counter.folder / "pki.db")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    (counter.folder / "copy.db").write_bytes((counter.folder / "pki.db").read_bytes())
    for _ in range(5):
        counter.enrol()
        counter.desk.revoke("ward-1")
        counter.now += 1000
        before = lists.check(counter.desk.lists(), among)
    later = counter.now + desk.LIST_AGE_MS_MAX
    restored = Desk(counter.issuing, Store(counter.folder / "copy.db"), lambda: later)
    assert lists.check(restored.lists(), among, before.numbers).serials == frozenset()
    counter.now -= DAY  # and a clock that went back does not make it lower
    assert lists.check(counter.desk.lists(), among, before.numbers)

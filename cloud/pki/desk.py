"""Who gets a certificate (README.md has the rules). No HTTP here; times are an injected clock's.

Law: a certificate is given out only in the transaction that records it and spends what it was
given for. Every refusal has a code; none changes anything but the count of failures.
"""

import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud.pki import request
from cloud.pki.authority import LEAF_DAYS, Issuing
from cloud.pki.certificates import Revocation
from cloud.pki.errors import Refused, Waiting
from cloud.pki.request import Request
from cloud.pki.store import Change, Issued, Store, Waiter
from vitals import enrolment
from vitals.errors import ConfigError

TOKEN_BYTES: Final = 20
TOKEN_HOURS: Final = 24.0
TOKEN_HOURS_MAX: Final = 14 * 24.0
AGAIN_MS: Final = 10 * 60_000
"""A token's request may be repeated this long: its answer was lost."""

FAILURES_MAX: Final = 10
FAILURES_MS: Final = 15 * 60_000

GRACE_DAYS: Final = 90.0
PENDING_RETRY_S: Final = 60

LIST_AGE_MS_MAX: Final = 3_600_000
ISSUED_DAY_MAX: Final = 100
"""Certificates of one gateway in a day: one that renews in a loop must not fill the disk."""

LISTED_AFTER_MS: Final = 86_400_000
"""What ended leaves the list a day later."""

_DAY_MS: Final = 86_400_000
_RENEW_AGAIN_S: Final = 3600
_SERIAL: Final = re.compile(r"[0-9a-fA-F]{1,42}")
"""20 bytes (RFC 5280 section 4.1.2.2), and the sign byte that DER may put before them."""


def serial_hex(number: int) -> str:
    """Return a serial number as it is stored: lower-case hex."""
    return f"{number:x}"


class Desk:
    """The authority's counter."""

    def __init__(
        self,
        issuing: Issuing,
        store: Store,
        now_ms: Callable[[], int],
        leaf_days: float = LEAF_DAYS,
        grace_days: float = GRACE_DAYS,
    ) -> None:
        """Everything is injected."""
        self.issuing = issuing
        self._store, self._now_ms = store, now_ms
        self._leaf_days, self._grace_days = leaf_days, grace_days

    # -- what operators do ----------------------------------------------------------------------

    def token(self, name: str, hours: float = TOKEN_HOURS) -> tuple[str, datetime]:
        """Return a new one-time token for a gateway and when it ends; raise ConfigError."""
        if not enrolment.EDGE_NAME.fullmatch(name):
            raise ConfigError(f"{name!r:.80} is no gateway's name: letters, digits, . _ -")
        if not 1 <= hours <= TOKEN_HOURS_MAX:
            raise ConfigError(f"a token lasts 1 to {TOKEN_HOURS_MAX:.0f} hours")
        token, now_ms = secrets.token_urlsafe(TOKEN_BYTES), self._now_ms()
        expires_ms = now_ms + int(hours * 3_600_000)
        with self._store.change() as change:
            change.add_token(_digest(token), name, now_ms, expires_ms)
        return token, _moment(expires_ms)

    def list_issued(self) -> list[Issued]:
        """Return every certificate."""
        with self._store.change() as change:
            return change.all_issued()

    def pending(self) -> list[Waiter]:
        """Return what waits for approval or was approved and not yet fetched."""
        with self._store.change() as change:
            return change.waiters()

    def approve(self, name: str, fingerprint: str) -> None:
        """Let a gateway whose certificate ended have a new one; raise ConfigError."""
        with self._store.change() as change:
            waiter = change.waiter(name)
            if waiter is None:
                raise ConfigError(f"nothing of {name} waits; see pki list --pending")
            if waiter.fingerprint != fingerprint.replace(":", "").lower():
                raise ConfigError(
                    f"what waits of {name} is of another key ({waiter.fingerprint}); compare it"
                    " with healthsync edge status on the gateway"
                )
            change.wait(waiter._replace(approved_ms=self._now_ms()))

    def revoke(self, who: str) -> list[str]:
        """Revoke a gateway's certificates, or one by its number; return the numbers."""
        now_ms = self._now_ms()
        with self._store.change() as change:
            found = change.of(who)
            if found:
                change.forget(who)
            elif _SERIAL.fullmatch(who):
                one = change.issued(serial_hex(int(who, 16)))
                found = [] if one is None else [one]
            if not found:
                raise ConfigError(f"{who[:64]} names no gateway and no certificate; see pki list")
            return [one.serial for one in found if change.revoke(one.serial, now_ms)]

    def lists(self) -> bytes:
        """Return the revocation lists, signed anew when somebody was revoked or an hour passed."""
        now_ms = self._now_ms()
        with self._store.change() as change:
            entries = change.revoked(now_ms - LISTED_AFTER_MS)
            last = change.last_list()
            fresh = last is not None and 0 <= now_ms - last[1] < LIST_AGE_MS_MAX
            if (
                last is not None
                and fresh
                and _numbers(last[3]) == {int(one.serial, 16) for one in entries}
            ):
                return last[3]
            # By the clock: a store restored from a copy must not begin below what was told before.
            number = max(now_ms // 1000, 0 if last is None else last[0] + 1)
            made = self.issuing.lists(
                [Revocation(int(one.serial, 16), _moment(one.revoked_ms or 0)) for one in entries],
                number,
                _moment(now_ms),
            )
            change.keep_list(number, now_ms, len(entries), made)
            return made

    # -- what gateways ask ----------------------------------------------------------------------

    def enrol(self, name: str, token: str, der: bytes, address: str) -> bytes:
        """Return a certificate (DER) for a token; raise Refused."""
        now_ms = self._now_ms()
        with self._store.change() as change:
            count, first_ms = change.failures(name, address, now_ms - FAILURES_MS)
        if count >= FAILURES_MAX:
            wait_s = max(1, (first_ms + FAILURES_MS - now_ms) // 1000)
            raise Refused("too-many", "wait, then ask with a good token", wait_s)
        asked = request.read(der)
        try:
            with self._store.change() as change:
                return self._enrol(change, name, _digest(token), asked, now_ms)
        except Refused:
            with self._store.change() as change:
                change.failed(name, address, now_ms)
            raise

    def _enrol(
        self, change: Change, name: str, digest: bytes, asked: Request, now_ms: int
    ) -> bytes:
        step = "ask the operators for a new enrolment file"
        token = change.token(digest)
        if token is None:
            raise Refused("token-unknown", step)
        if token.name != name:
            raise Refused("token-name", step)
        if asked.name != name:
            raise Refused("csr-name", "the request must bear the name that the token is for")
        if token.used_ms is not None:
            before = None if token.serial is None else change.issued(token.serial)
            again = token.csr == asked.digest and 0 <= now_ms - token.used_ms < AGAIN_MS
            if before is None or not again or before.revoked_ms is not None:
                raise Refused("token-used", step)
            return before.der
        if now_ms >= token.expires_ms:
            raise Refused("token-expired", step)
        made = self._issue(change, asked, "token", now_ms)
        change.spend(digest, now_ms, asked.digest, made.serial)
        return made.der

    def renew(self, name: str, serial: str, der: bytes) -> bytes:
        """Return the next certificate of who showed one in force (mutual TLS); raise Refused."""
        now_ms = self._now_ms()
        asked = request.read(der)
        with self._store.change() as change:
            old = change.issued(_normal(serial))
            if old is None or old.name != name:
                raise Refused("certificate-unknown", "enrol anew with a token")
            if old.revoked_ms is not None:
                raise Refused("certificate-revoked", "ask the operators why")
            if old.not_after_ms <= now_ms:  # HAProxy looked when the connection began
                raise Refused("certificate-unknown", "it ended: renew at the enrolment port")
            if asked.name != name:
                raise Refused("csr-name", "the request must bear the certificate's name")
            return self._next(change, asked, "renewal", now_ms)

    def renew_ended(self, old_der: bytes, signature: bytes, der: bytes) -> bytes:
        """Return the next certificate of who held one that ended; raise Refused or Waiting."""
        now_ms = self._now_ms()
        asked = request.read(der)
        with self._store.change() as change:
            old = _held(change, old_der)
            if old.revoked_ms is not None:
                raise Refused("certificate-revoked", "ask the operators why")
            if asked.name != old.name:
                raise Refused("csr-name", "the request must bear the certificate's name")
            _ensure_proof(old, signature, asked)
            again = self._again(change, asked, now_ms)
            if again is not None:
                return again
            if change.of(old.name)[0].serial != old.serial:
                raise Refused("certificate-unknown", "a newer one was issued; enrol anew")
            if old.not_after_ms > now_ms:
                return self._next(change, asked, "renewal", now_ms)
            if now_ms - old.not_after_ms > self._grace_days * _DAY_MS:
                raise Refused("grace-over", "it ended too long ago; enrol anew with a token")
            waiter = change.waiter(old.name)
            if waiter is None or waiter.fingerprint != asked.fingerprint:
                change.wait(
                    Waiter(old.name, asked.digest, asked.fingerprint, old.serial, now_ms, None)
                )
            elif waiter.approved_ms is not None:
                change.served(old.name)
                return self._issue(change, asked, "approval", now_ms).der
        raise Waiting(asked.name, PENDING_RETRY_S)

    def _again(self, change: Change, asked: Request, now_ms: int) -> bytes | None:
        for one in change.of(asked.name):
            if one.csr == asked.digest and one.revoked_ms is None and one.not_after_ms > now_ms:
                return one.der
        return None

    def _next(self, change: Change, asked: Request, how: str, now_ms: int) -> bytes:
        again = self._again(change, asked, now_ms)
        if again is not None:
            return again
        if change.issued_since(asked.name, now_ms - _DAY_MS) >= ISSUED_DAY_MAX:
            raise Refused("too-many", "renew at half of a certificate's life", _RENEW_AGAIN_S)
        return self._issue(change, asked, how, now_ms).der

    def _issue(self, change: Change, asked: Request, how: str, now_ms: int) -> Issued:
        made = self.issuing.issue(asked.name, asked.public, _moment(now_ms), self._leaf_days)
        one = Issued(
            serial_hex(made.serial_number),
            asked.name,
            _ms(made.not_valid_before_utc),
            _ms(made.not_valid_after_utc),
            made.public_bytes(Encoding.DER),
            asked.digest,
            how,
            None,
        )
        change.record(one, now_ms)
        return one

    def issue_directly(self, name: str, public: ec.EllipticCurvePublicKey) -> x509.Certificate:
        """Return and record a certificate that nobody asked for by EST: one machine's own."""
        spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        asked = Request(name, public, hashlib.sha256(spki).digest(), "")
        with self._store.change() as change:
            one = self._issue(change, asked, "direct", self._now_ms())
        return x509.load_der_x509_certificate(one.der)


def _held(change: Change, der: bytes) -> Issued:
    try:
        number = x509.load_der_x509_certificate(der).serial_number
    except ValueError as error:
        raise Refused("certificate-unknown", "send the old certificate in DER") from error
    one = change.issued(serial_hex(number))
    if one is None or one.der != der:
        raise Refused("certificate-unknown", "enrol anew with a token")
    return one


def _ensure_proof(old: Issued, signature: bytes, asked: Request) -> None:
    public = x509.load_der_x509_certificate(old.der).public_key()
    step = "sign the request's hash with the old key"
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise Refused("proof-wrong", step)
    try:
        public.verify(signature, enrolment.proof(asked.digest), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Refused("proof-wrong", step) from error


def _numbers(pem: bytes) -> set[int]:
    """Return whom the first list in ``pem``, the issuing authority's, names."""
    return {entry.serial_number for entry in x509.load_pem_x509_crl(pem)}


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _normal(serial: str) -> str:
    return serial_hex(int(serial, 16)) if _SERIAL.fullmatch(serial) else ""


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)

"""The folder of the gateway's certificate (ENROL.md): every file whole or not there, 0600.

Law: the only writer of the folder. A crash between any two writes leaves a state that the next
start or the next `enrol` goes on from. Two programs (`enrol` and `run`) exclude each other by a
lock for as long as a change takes. Run by root, files go to the folder's owner.
"""

import base64
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edge.certificate import serial_hex
from edge.config import BUNDLE
from edge.est import make_key, make_request, self_signed
from healthsync.runtime import whole

PREVIOUS: Final = "previous.pem"
AUTHORITY: Final = "authority.json"
ENROL: Final = "enrol.json"
RENEW: Final = "renew.json"
LOCK: Final = "lock"

BUNDLE_BYTES_MAX: Final = 15 * 1024
"""HAProxy takes 16 KiB at once (`healthsync.runtime.haproxy`), the command and its name with it."""

LOCK_S_MAX: Final = 5.0
"""Whoever holds it makes two small writes."""

LOCK_PAUSE_S: Final = 0.05

FILE_BYTES_MAX: Final = 256 * 1024
_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700
_ALWAYS: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))

T = TypeVar("T", bound=msgspec.Struct)


class Attempt(msgspec.Struct, frozen=True):
    """A key and its request, kept so that the very same request can go again."""

    key: str
    """PEM."""
    request: str
    """PKCS#10 in DER, base64."""
    renews: str = ""
    """Serial of the certificate it is to follow, hex; empty for an enrolment."""
    token: str = ""
    """SHA-256 of the token it goes with, hex: one file is used for one certificate."""

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """Return the key; raise ValueError."""
        return _private(self.key.encode())

    @property
    def der(self) -> bytes:
        """Return the request."""
        return base64.b64decode(self.request)


class Authority(msgspec.Struct, frozen=True):
    """Who issued, and where to ask. All PEM."""

    chain: str
    """Issuing authority and root."""
    est: str = ""
    """``https://host:port``; empty: not known."""
    ca: str = ""
    """How the EST server is known."""

    @property
    def certificates(self) -> list[x509.Certificate]:
        """Return the chain; raise ValueError."""
        return x509.load_pem_x509_certificates(self.chain.encode())


class Held(NamedTuple):
    """A bundle: what it holds, and its bytes as HAProxy takes them."""

    leaf: x509.Certificate
    rest: list[x509.Certificate]
    key: ec.EllipticCurvePrivateKey
    raw: bytes

    @property
    def serial(self) -> str:
        """Return the leaf's serial in hex, as HAProxy and the authority write it."""
        return serial_hex(self.leaf.serial_number)

    @property
    def placeholder(self) -> bool:
        """Tell whether no authority issued it."""
        return self_signed(self.leaf)

    @property
    def begins_ms(self) -> int:
        """Return from when it is good."""
        return int(self.leaf.not_valid_before_utc.timestamp() * 1000)

    @property
    def ends_ms(self) -> int:
        """Return until when it is good."""
        return int(self.leaf.not_valid_after_utc.timestamp() * 1000)


def _lock(handle: int) -> None:
    """Wait for the lock within a bound; raise BlockingIOError."""
    end = time.monotonic() + LOCK_S_MAX
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
            time.sleep(LOCK_PAUSE_S)
        else:
            return


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("no EC key")  # noqa: TRY004 - what was read is wrong, not its type
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def bundle(chain: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a bundle, the leaf first; raise ValueError when HAProxy could not take it."""
    raw = b"".join(one.public_bytes(Encoding.PEM) for one in chain) + _pem(key)
    if len(raw) > BUNDLE_BYTES_MAX:
        raise ValueError(f"certificate, chain and key are over {BUNDLE_BYTES_MAX} bytes")
    return raw


def parse(raw: bytes) -> Held:
    """Return what a bundle holds; raise ValueError when it is none, or key and leaf differ."""
    leaf, *rest = x509.load_pem_x509_certificates(raw)
    key = _private(raw[max(0, raw.find(b"-----BEGIN PRIVATE")) :])
    if leaf.public_key() != key.public_key():
        raise ValueError("key and certificate do not belong together")
    return Held(leaf, rest, key, raw)


def make_attempt(name: str, *, renews: str = "", token: str = "") -> Attempt:
    """Return a fresh key with its request."""
    key = make_key()
    request = base64.b64encode(make_request(name, key)).decode()
    return Attempt(_pem(key).decode(), request, renews, token)


def make_placeholder(name: str) -> bytes:
    """Return a self-signed bundle that is nobody's proof: HAProxy needs a file to start."""
    key = make_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_ALWAYS[0])
        .not_valid_after(_ALWAYS[1])
        .sign(key, hashes.SHA256())
    )
    return bundle([made], key)


class CertificateStore:
    """Made by whoever needs it; holds nothing open. Every method may raise OSError."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; `prepare` makes it."""
        self.folder = folder

    @property
    def path(self) -> Path:
        """Return where HAProxy reads."""
        return self.folder / BUNDLE

    def prepare(self) -> None:
        """Make the folder, for the owner of the one above it."""
        if self.folder.is_dir():
            return
        self.folder.mkdir(mode=_FOLDER_MODE, parents=True)
        if os.geteuid() == 0:
            above = self.folder.parent.stat()
            os.chown(self.folder, above.st_uid, above.st_gid)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, _MODE)
        try:
            owner = self._owner()
            if owner is not None:
                os.fchown(handle, *owner)
            _lock(handle)
            yield
        finally:
            os.close(handle)

    def _owner(self) -> tuple[int, int] | None:
        """Return whose a new file is to be: run by root, the folder's."""
        if os.geteuid() != 0:
            return None
        folder = self.folder.stat()
        return folder.st_uid, folder.st_gid

    def _write(self, name: str, data: bytes) -> None:
        whole.write(self.folder / name, data, mode=_MODE, owner=self._owner())

    def _sync(self) -> None:
        whole.sync_folder(self.folder)

    def _remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        self._sync()

    def _read(self, name: str) -> bytes | None:
        try:
            with (self.folder / name).open("rb") as file:
                return file.read(FILE_BYTES_MAX)
        except FileNotFoundError:
            return None

    def _read_struct(self, name: str, kind: type[T]) -> T | None:
        raw = self._read(name)
        try:
            return None if raw is None else msgspec.json.decode(raw, type=kind)
        except msgspec.MsgspecError:
            return None  # a torn file of another program; ours are whole

    # -- the bundle -----------------------------------------------------------------------------

    def changed(self) -> tuple[int, int, int] | None:
        """Return what differs when the bundle is another one; None when there is none."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def held(self) -> Held | None:
        """Return the bundle, None when there is none; raise ValueError when it is no bundle."""
        raw = self._read(BUNDLE)
        return None if raw is None else parse(raw)

    def previous(self) -> Held | None:
        """Return the bundle before the one that is not proven yet; None when all is proven."""
        raw = self._read(PREVIOUS)
        try:
            return None if raw is None else parse(raw)
        except ValueError:
            return None

    def install(self, raw: bytes, *, instead_of: str | None = None) -> bool:
        """Replace the bundle and keep the old one as `previous`.

        Return False, and change nothing, when the old one's serial is not ``instead_of``.
        """
        with self._locked():
            old = self._read(BUNDLE)
            if instead_of is not None and (old is None or parse(old).serial != instead_of):
                return False
            if old is not None:
                self._write(PREVIOUS, old)
            self._write(BUNDLE, raw)
        return True

    def proven(self) -> None:
        """Forget the bundle before."""
        self._remove(PREVIOUS)

    def put_back(self, *, instead_of: str) -> bool:
        """Use the bundle before again; return False when the one of ``instead_of`` has gone."""
        with self._locked():
            raw = self._read(BUNDLE)
            if raw is None or parse(raw).serial != instead_of:
                return False
            (self.folder / PREVIOUS).replace(self.path)
            self._sync()
        return True

    def ensure_placeholder(self, name: str) -> bool:
        """Make a placeholder where there is no bundle; return True when one was made.

        A file that is no bundle goes aside as ``gateway.pem.damaged``; a good one before it comes
        back.
        """
        self.prepare()
        with self._locked():
            try:
                if self.held() is not None:
                    return False
            except ValueError:
                self.path.replace(self.folder / f"{BUNDLE}.damaged")
                if self.previous() is not None:
                    (self.folder / PREVIOUS).replace(self.path)
                    self._sync()
                    return False
            self._write(BUNDLE, make_placeholder(name))
        return True

    # -- attempts, authority --------------------------------------------------------------------

    def attempt(self, name: str) -> Attempt | None:
        """Return the attempt in ``enrol.json`` or ``renew.json``; None when there is none."""
        found = self._read_struct(name, Attempt)
        try:
            if found is None or not found.private or not found.der:
                return None
        except ValueError:
            return None
        return found

    def keep_attempt(self, name: str, attempt: Attempt) -> None:
        """Write an attempt before its request leaves."""
        self._write(name, msgspec.json.encode(attempt))

    def end_attempt(self, name: str) -> None:
        """Forget an attempt and its key."""
        if (self.folder / name).exists():
            self._remove(name)

    def authority(self) -> Authority | None:
        """Return who issued; None when it is not known."""
        return self._read_struct(AUTHORITY, Authority)

    def keep_authority(self, authority: Authority) -> None:
        """Remember who issued."""
        self._write(AUTHORITY, msgspec.json.encode(authority))

"""Signing in at the ward station: users, passwords, sessions, and how often one may try.

Law: a wrong name costs as much time as a wrong password; comparisons take constant time; tries
are bounded for each address, each name and each pair, and forgotten after a while.

The users' file is TOML, one ``[[user]]`` each with ``name``, ``scrypt`` and ``salt`` (hex),
``wards`` and ``scopes``; `user_entry` writes one.
"""

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from cloud.api import tokens
from healthsync.runtime.config import load
from vitals.errors import ConfigError

# RFC 7914 §2 with OWASP's least cost for scrypt's r = 8: 32 MiB and some 80 ms a try.
SCRYPT_N: Final = 2**15
SCRYPT_R: Final = 8
SCRYPT_P: Final = 3
SCRYPT_BYTES: Final = 32
SCRYPT_MEMORY_MAX: Final = 64 * 1024 * 1024
SALT_BYTES: Final = 16

SESSION_S: Final = 12 * 3600
"""A long shift."""

PASSWORD_CHARS_MAX: Final = 256

# Failures in a row before a wait, and how fast they are forgiven.
PAIR_BURST, ADDRESS_BURST, NAME_BURST = 5, 30, 20
FORGIVE_S: Final = 12.0
TRACKED_MAX: Final = 10_000


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody who may sign in."""

    name: str
    scrypt: str
    salt: str
    wards: list[str]
    scopes: str


class Users(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The users' file."""

    user: list[User] = []


def hashed(password: str, salt: bytes) -> bytes:
    """Return the scrypt hash of a password."""
    return hashlib.scrypt(
        password.encode(),
        salt=salt,
        n=SCRYPT_N,
        r=SCRYPT_R,
        p=SCRYPT_P,
        maxmem=SCRYPT_MEMORY_MAX,
        dklen=SCRYPT_BYTES,
    )


def user_entry(name: str, password: str, wards: Sequence[str], scopes: str, salt: bytes) -> str:
    """Return the TOML of one user, for the users' file."""

    def text(value: str) -> str:
        return msgspec.json.encode(value).decode()

    listed = ", ".join(text(ward) for ward in wards)
    return (
        f"[[user]]\nname = {text(name)}\nscrypt = {text(hashed(password, salt).hex())}\n"
        f"salt = {text(salt.hex())}\nwards = [{listed}]\nscopes = {text(scopes)}\n"
    )


class Door:
    """Checks names and passwords. `check` blocks for tens of milliseconds: call from a thread."""

    def __init__(self, users: Users) -> None:
        """Take the users; raises ConfigError for one that cannot be used."""
        self._users = {user.name: user for user in users.user}
        if len(self._users) != len(users.user):
            raise ConfigError("users file: a name stands twice")
        for user in users.user:
            try:
                sizes = len(bytes.fromhex(user.scrypt)), len(bytes.fromhex(user.salt))
            except ValueError as error:
                raise ConfigError("users file: scrypt and salt are hex digits") from error
            if sizes[0] != SCRYPT_BYTES or sizes[1] < SALT_BYTES:
                raise ConfigError("users file: scrypt has 32 bytes, salt at least 16")

    @classmethod
    def of_file(cls, path: Path) -> "Door":
        """Return the door of a users' file; raise ConfigError."""
        return cls(load(path, Users))

    def check(self, name: str, password: str) -> User | None:
        """Return the user, or None after as long a time."""
        user = self._users.get(name)
        salt = bytes.fromhex(user.salt) if user else bytes(SALT_BYTES)
        right = bytes.fromhex(user.scrypt) if user else bytes(SCRYPT_BYTES)
        same = hmac.compare_digest(hashed(password[:PASSWORD_CHARS_MAX], salt), right)
        return user if same and user is not None and len(password) <= PASSWORD_CHARS_MAX else None


def session(user: User, private_pem: bytes, now_s: int) -> str:
    """Return the session cookie's value."""
    return tokens.mint(
        private_pem, user.name, user.scopes, user.wards, now_s, SESSION_S, tokens.SESSION
    )


class Tries:
    """Leaky buckets of failed tries: bounded in number, the oldest forgotten first."""

    def __init__(self) -> None:
        """Start with nobody waiting."""
        self._buckets: OrderedDict[tuple[str, ...], tuple[float, float]] = OrderedDict()

    @staticmethod
    def _keys(address: str, name: str) -> list[tuple[tuple[str, ...], int]]:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return [
            (("pair", address, digest), PAIR_BURST),
            (("address", address), ADDRESS_BURST),
            (("name", digest), NAME_BURST),
        ]

    def _level(self, key: tuple[str, ...], now_s: float) -> float:
        level, at = self._buckets.get(key, (0.0, now_s))
        return max(0.0, level - (now_s - at) / FORGIVE_S)

    def wait_s(self, address: str, name: str, now_s: float) -> int:
        """Return 0 if a try is allowed, else the seconds until one is."""
        over = max(self._level(key, now_s) - (most - 1) for key, most in self._keys(address, name))
        return 0 if over <= 0 else max(1, round(over * FORGIVE_S))

    def begun(self, address: str, name: str, now_s: float) -> None:
        """Count a try before it is checked, so that many at once are counted too."""
        for key, _ in self._keys(address, name):
            self._buckets[key] = (self._level(key, now_s) + 1, now_s)
            self._buckets.move_to_end(key)
        while len(self._buckets) > TRACKED_MAX:
            self._buckets.popitem(last=False)

    def succeeded(self, address: str, name: str) -> None:
        """Forget this pair's tries."""
        self._buckets.pop(self._keys(address, name)[0][0], None)

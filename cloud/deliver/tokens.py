"""Access tokens by SMART Backend Services: asked for with a signed assertion, kept while valid.

Law: neither key, assertion nor token is ever logged or part of an error. An assertion is used
once. The endpoint that discovery names is held to the same rule as the base URL: HTTPS, or this
machine.

Sources: SMART App Launch 2.x, "Backend Services" and "Client Authentication: Asymmetric" (ES384 or
RS384; ``exp`` at most five minutes ahead; ``jti`` never twice; ``aud`` the token endpoint); RFC
7523 for the assertion, RFC 6749 §5 for the answer. A token is worth its ``expires_in``.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cloud.deliver import metrics
from cloud.deliver.address import Address, parse
from cloud.deliver.answer import Answer
from cloud.deliver.config import OAuth
from cloud.deliver.connection import Unanswered
from vitals.errors import UNREADABLE, ConfigError

RSA_BITS_MIN: Final = 2048
"""RFC 7518 §3.3."""

ASSERTION_S: Final = 240
"""SMART allows five minutes; a minute is left to a server whose clock is behind."""

EARLY_S: Final = 30.0
"""Before its end a token is not begun a request with; half its life when that is shorter."""

# Asked for by SMART, not by RFC 6749: a token whose life is not told is kept for this long.
LIFE_S_DEFAULT: Final = 60.0
LIFE_S_MAX: Final = 3600.0

DISCOVERY: Final = ".well-known/smart-configuration"
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

# RFC 6749 §5.2 and §4.1.2.1: what may be logged of an answer; anything else is free text.
ERRORS: Final = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
    }
)


class Key(NamedTuple):
    """What signs assertions."""

    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    algorithm: str


def read_key(path: Path) -> Key:
    """Return the signing key of a PEM file that others cannot read; raise ConfigError."""
    try:
        mode = path.stat().st_mode & 0o777
        pem = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: key file cannot be read ({type(error).__name__})") from error
    if mode & 0o077:
        raise ConfigError(f"{path}: key file is open to others (mode {mode:03o}); chmod 600 it")
    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: not an unencrypted private key in PEM") from error
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP384R1):
        return Key(private, "ES384")
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= RSA_BITS_MIN:
        return Key(private, "RS384")
    raise ConfigError(
        f"{path}: SMART signs with ES384 or RS384; make an EC key on P-384, or RSA from"
        f" {RSA_BITS_MIN} bits"
    )


def assertion(key: Key, settings: OAuth, audience: str, now_s: int, jti: str) -> str:
    """Return a signed statement of who asks ``audience``, good once and for ASSERTION_S.

    Without ``iat``, which SMART does not ask for: a server a second behind would refuse it.
    """
    claims: dict[str, Any] = {
        "iss": settings.client_id,
        "sub": settings.client_id,
        "aud": audience,
        "exp": now_s + ASSERTION_S,
        "jti": jti,
    }
    return jwt.encode(
        claims, key.private, algorithm=key.algorithm, headers={"kid": settings.kid, "typ": "JWT"}
    )


class _Granted(msgspec.Struct):
    access_token: str
    token_type: str
    expires_in: float = LIFE_S_DEFAULT


class _Refused(msgspec.Struct):
    error: str


class _Discovered(msgspec.Struct):
    token_endpoint: str


_granted: Final = msgspec.json.Decoder(_Granted, strict=False)
_refused: Final = msgspec.json.Decoder(_Refused)
_discovered: Final = msgspec.json.Decoder(_Discovered)


class Ask(Protocol):
    """One request on a connection of its own; raises Unanswered."""

    def __call__(
        self, to: Address, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        """Return the answer."""
        ...


class Tokens:
    """The one token in use; any thread may ask, one fetches."""

    def __init__(
        self,
        settings: OAuth,
        base: Address,
        ask: Ask,
        now_ms: Callable[[], int],
        new_jti: Callable[[], str],
    ) -> None:
        """Read the key; raise ConfigError for it or for a token URL that is none."""
        self._settings = settings
        self._base = base
        self._ask = ask
        self._now_ms = now_ms
        self._new_jti = new_jti
        self._key = read_key(settings.key_file)
        if settings.token_url:
            try:
                parse(settings.token_url)
            except ValueError as error:
                raise ConfigError(f"oauth.token_url: {error}") from error
        self._lock = threading.Lock()
        self._token = ""
        self._until_ms = 0.0

    def current(self) -> str:
        """Return a token that is still good; raise Unanswered."""
        with self._lock:
            if not self._token or self._now_ms() >= self._until_ms:
                self._fetch()
            return self._token

    def renewed(self, stale: str) -> str:
        """Return another token than the refused one; raise Unanswered."""
        with self._lock:
            if self._token in {stale, ""} or self._now_ms() >= self._until_ms:
                self._fetch()
            return self._token

    def _fetch(self) -> None:
        self._token = ""
        url = self._settings.token_url or self._discover()
        to = _checked(url)
        now_ms = self._now_ms()
        form = urlencode(
            {
                "grant_type": "client_credentials",
                "scope": self._settings.scope,
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": assertion(
                    self._key, self._settings, url, now_ms // 1000, self._new_jti()
                ),
            }
        )
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        answer = self._asked(to, "POST", headers, form.encode("ascii"))
        if answer.status != 200:
            raise Unanswered(f"token-{_error_of(answer)}", answer.retry_after)
        try:
            granted = _granted.decode(answer.body)
        except UNREADABLE as error:
            raise Unanswered("token-malformed") from error
        token = granted.access_token
        # It stands in a header line: RFC 6750 §2.1 allows far less than printable ASCII.
        printable = token.isascii() and token.isprintable() and " " not in token
        if granted.token_type.lower() != "bearer" or not token or not printable:
            raise Unanswered("token-malformed")
        life_s = min(granted.expires_in, LIFE_S_MAX) if granted.expires_in > 0 else 0.0
        self._token = token
        # Counted from before the request: never later than the server counts.
        self._until_ms = now_ms + 1000 * (life_s - min(EARLY_S, life_s / 2))
        metrics.TOKENS.inc()

    def _discover(self) -> str:
        to = self._base
        answer = self._asked(
            to._replace(path=to.of(DISCOVERY)), "GET", {"Accept": "application/json"}, None
        )
        if answer.status != 200:
            raise Unanswered("token-discovery", answer.retry_after)
        try:
            return _discovered.decode(answer.body).token_endpoint
        except UNREADABLE as error:
            raise Unanswered("token-discovery") from error

    def _asked(
        self, to: Address, method: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        try:
            return self._ask(to, method, to.of(""), headers, body)
        except Unanswered as error:
            raise Unanswered(f"token-{error.reason}", error.retry_after) from error


def _checked(url: str) -> Address:
    try:
        return parse(url)
    except ValueError as error:
        raise Unanswered("token-address") from error


def _error_of(answer: Answer) -> str:
    try:
        error = _refused.decode(answer.body).error
    except UNREADABLE:
        error = ""
    return error if error in ERRORS else str(answer.status)

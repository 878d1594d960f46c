"""Tokens: who asks, what for, for which wards.

A bearer token is an EdDSA (Ed25519) JWT with ``iss`` healthsync, ``sub``, ``exp``, ``scope``
(SMART v2, ``user/*.rs``) and ``wards`` (names, or ``*``). A session of the ward station is one
too, but for the audience `SESSION`: neither passes for the other.
"""

import re
from typing import Any, Final

import jwt
import msgspec

ISSUER: Final = "healthsync"
SESSION: Final = "ward-session"
ALGORITHM: Final = "EdDSA"
EVERY_WARD: Final = "*"

# Clocks of two servers kept by NTP differ by far less.
LEEWAY_S: Final = 5

_SCOPE: Final = re.compile(r"(user|system)/(\*|[A-Z][A-Za-z]+)\.(c?r?u?d?s?)")


class TokenError(Exception):
    """A token is missing, malformed, forged, expired or not for this use."""


class Principal(msgspec.Struct, frozen=True):
    """Someone whose token was checked."""

    subject: str
    scopes: frozenset[tuple[str, str]]
    """(resource type or ``*``, letter of ``cruds``)."""
    wards: frozenset[str]
    expires_s: int

    def may(self, resource: str, letter: str) -> bool:
        """Tell whether a scope grants ``letter`` (r read, s search) on a resource type."""
        return (resource, letter) in self.scopes or ("*", letter) in self.scopes

    def sees(self, ward: str | None) -> bool:
        """Tell whether a subject of this ward may be shown; None or empty: no ward known."""
        return EVERY_WARD in self.wards or (bool(ward) and ward in self.wards)

    @property
    def sees_all(self) -> bool:
        """True for a token of every ward."""
        return EVERY_WARD in self.wards


def scopes_of(text: str) -> frozenset[tuple[str, str]]:
    """Return what a scope string grants.

    Scopes of a patient's context, granular ones (``?category=``) and v1 words are narrower or
    other than what this server can hold them to, so they grant nothing.
    """
    granted = set()
    for word in text.split():
        match = _SCOPE.fullmatch(word)
        if match:
            granted |= {(match[2], letter) for letter in match[3]}
    return frozenset(granted)


def mint(
    private_pem: bytes,
    subject: str,
    scope: str,
    wards: list[str],
    now_s: int,
    lifetime_s: int,
    audience: str | None = None,
) -> str:
    """Return a signed token of ``subject`` that lives ``lifetime_s`` seconds from ``now_s``."""
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "sub": subject,
        "scope": scope,
        "wards": wards,
        "iat": now_s,
        "exp": now_s + lifetime_s,
    }
    if audience is not None:
        claims["aud"] = audience
    return jwt.encode(claims, private_pem, algorithm=ALGORITHM)


def verify(token: str, public_pem: bytes, now_s: float, audience: str | None = None) -> Principal:
    """Return who a token speaks for; raise TokenError."""
    try:
        claims = jwt.decode(
            token,
            public_pem,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            audience=audience,
            # times are checked below against the given clock
            options={
                "require": ["exp", "iss", "sub"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except jwt.InvalidTokenError as error:
        raise TokenError("the token is not valid here") from error
    expires, begins = claims["exp"], claims.get("nbf", 0)
    if not isinstance(expires, int) or not isinstance(begins, int):
        raise TokenError("the token's times are no whole seconds")
    if now_s > expires + LEEWAY_S or now_s < begins - LEEWAY_S:
        raise TokenError("the token has expired, or is not valid yet")
    wards, scope, subject = claims.get("wards"), claims.get("scope"), claims["sub"]
    if (
        not isinstance(subject, str)
        or not isinstance(scope, str)
        or not isinstance(wards, list)
        or not all(isinstance(ward, str) for ward in wards)
    ):
        raise TokenError("the token lacks scope or wards")
    return Principal(subject, scopes_of(scope), frozenset(wards), expires)

"""Tokens and scopes."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cloud.api.tokens import SESSION, TokenError, mint, scopes_of, verify

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NOW_S = 1_790_000_000


def private(key: Ed25519PrivateKey = KEY) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


PUBLIC = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_minted_token_speaks_for_its_subject_until_it_expires() -> None:
    token = mint(private(), "app", "user/Observation.rs", ["ICU"], NOW_S, 60)
    who = verify(token, PUBLIC, NOW_S + 60)
    assert who.subject == "app"
    assert who.may("Observation", "s")
    assert not who.may("Patient", "r")
    assert who.sees("ICU")
    assert not who.sees("HDU")
    assert not who.sees("")
    assert not who.sees(None)
    with pytest.raises(TokenError):
        verify(token, PUBLIC, NOW_S + 70)


def test_forged_unsigned_and_foreign_tokens_are_refused() -> None:
    claims = {"iss": "healthsync", "sub": "x", "exp": NOW_S + 60, "scope": "", "wards": ["*"]}
    hmac_key = "k" * 32
    for token in (
        mint(private(OTHER), "x", "user/*.rs", ["*"], NOW_S, 60),
        jwt.encode(claims, "", algorithm="none"),
        jwt.encode(claims, hmac_key, algorithm="HS256"),
        jwt.encode({**claims, "iss": "elsewhere"}, private(), algorithm="EdDSA"),
        jwt.encode({**claims, "wards": "*"}, private(), algorithm="EdDSA"),
        jwt.encode({**claims, "nbf": NOW_S + 100}, private(), algorithm="EdDSA"),
        jwt.encode({k: v for k, v in claims.items() if k != "exp"}, private(), algorithm="EdDSA"),
        "",
        "a.b.c",
    ):
        with pytest.raises(TokenError):
            verify(token, PUBLIC, NOW_S)


def test_a_session_is_no_bearer_token_and_the_other_way_round() -> None:
    session = mint(private(), "nurse", "user/*.rs", ["*"], NOW_S, 60, SESSION)
    bearer = mint(private(), "nurse", "user/*.rs", ["*"], NOW_S, 60)
    assert verify(session, PUBLIC, NOW_S, SESSION).subject == "nurse"
    with pytest.raises(TokenError):
        verify(session, PUBLIC, NOW_S)
    with pytest.raises(TokenError):
        verify(bearer, PUBLIC, NOW_S, SESSION)


@pytest.mark.parametrize(
    ("text", "granted"),
    [
        ("user/*.rs", {("*", "r"), ("*", "s")}),
        ("system/Observation.cruds", {("Observation", letter) for letter in "cruds"}),
        ("user/Observation.sr", set()),
        ("user/Observation.read", set()),
        ("patient/Observation.rs", set()),
        ("user/Observation.rs?category=vital-signs", set()),
        ("openid user/Patient.r", {("Patient", "r")}),
        ("", set()),
    ],
)
def test_scopes_grant_what_smart_v2_says_and_nothing_more(
    text: str, granted: set[tuple[str, str]]
) -> None:
    assert scopes_of(text) == granted

"""SMART Backend Services against a token endpoint that checks everything it is told."""

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cloud.deliver.config import OAuth
from cloud.deliver.connection import Unanswered
from cloud.deliver.server import OneRequest
from cloud.deliver.tokens import ASSERTION_S, Tokens, assertion, read_key
from tests.cloud.deliver.rig import Desk, FhirServer, observation
from vitals.errors import ConfigError

A, B = observation("a.spo2.1"), observation("b.spo2.2")
PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
NO_PASSWORD = serialization.NoEncryption()


def written(folder: Path, key: Any, name: str = "key.pem") -> Path:
    path = folder / name
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(PEM, PKCS8, NO_PASSWORD))
    return path


@pytest.fixture(scope="module", params=["ES384", "RS384"])
def keys(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    key: Any = (
        ec.generate_private_key(ec.SECP384R1())
        if request.param == "ES384"
        else rsa.generate_private_key(65537, 2048)
    )
    written(folder, key)
    public = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(public)
    return folder


@pytest.fixture(scope="module")
def guarded(keys: Path) -> Iterator[FhirServer]:
    made = FhirServer(keys, client=keys / "public.pem")
    made.start()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def server(guarded: FhirServer) -> FhirServer:
    """The `fhir` fixture empties this one."""
    return guarded


class Clock:
    """The server's own clock judges assertions, so it begins at the real time."""

    def __init__(self) -> None:
        import time

        self.ms = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.ms


def made(
    fhir: FhirServer, keys: Path, clock: Callable[[], int], token_url: str = "", jti: str = ""
) -> Tokens:
    settings = OAuth("deliver-test", keys / "key.pem", "key-1", token_url)
    ask = OneRequest(ssl.create_default_context(), 5)
    return Tokens(settings, fhir.base, ask, clock, lambda: jti or os.urandom(16).hex())


def count(fhir: FhirServer, line: str) -> int:
    return fhir.lines().count(line)


def test_discovery_token_delivery(fhir: FhirServer, keys: Path) -> None:
    desk = Desk(fhir.base, made(fhir, keys, Clock()))
    desk.deliver(A)
    desk.deliver(B)
    assert fhir.stored() == dict([A, B])
    assert desk.waits == []
    assert count(fhir, "POST /token") == 1
    assert count(fhir, "GET /fhir/.well-known/smart-configuration") == 1
    sent = [one["authorization"] for one in fhir.seen() if one["line"] == "POST /fhir"]
    assert len(set(sent)) == 1
    assert sent[0].startswith("Bearer ")
    desk.close()


def test_a_configured_endpoint_needs_no_discovery(fhir: FhirServer, keys: Path) -> None:
    made(fhir, keys, Clock(), f"{fhir.origin}/token").current()
    assert fhir.lines() == ["POST /token"]


@pytest.mark.parametrize(
    ("life_s", "good_s"), [(300, 269), (20, 9), ("300", 269), (10**9, 3569), (None, 29)]
)
def test_a_token_is_used_until_shortly_before_its_end(
    fhir: FhirServer, keys: Path, life_s: object, good_s: int
) -> None:
    clock = Clock()
    tokens = made(fhir, keys, clock, f"{fhir.origin}/token")
    if life_s is None:
        page = '{"access_token":"t","token_type":"Bearer"}'
        fhir.rule("POST /token", "status", times=2, status=200, body=page)
    else:
        fhir.control(life_s=life_s)
    tokens.current()
    clock.ms += good_s * 1000
    tokens.current()
    assert count(fhir, "POST /token") == 1
    clock.ms += 1001
    if clock.ms - Clock().ms < 50_000:  # later, to the server, the assertion lives too long
        tokens.current()
    else:
        with pytest.raises(Unanswered):
            tokens.current()
    assert count(fhir, "POST /token") == 2


@pytest.mark.parametrize("life_s", [0, -5, "nan"])
def test_a_token_without_a_life_is_used_once(fhir: FhirServer, keys: Path, life_s: object) -> None:
    tokens = made(fhir, keys, Clock(), f"{fhir.origin}/token")
    fhir.control(life_s=life_s)
    tokens.current()
    tokens.current()
    assert count(fhir, "POST /token") == 2


def test_a_refused_token_is_replaced_once_without_waiting(fhir: FhirServer, keys: Path) -> None:
    desk = Desk(fhir.base, made(fhir, keys, Clock()))
    desk.deliver(A)
    fhir.control(forget_tokens=True)
    desk.deliver(B)
    assert fhir.stored() == dict([A, B])
    assert desk.waits == []
    assert count(fhir, "POST /token") == 2
    desk.close()


def test_a_server_that_refuses_every_token_is_asked_again_with_a_new_one(
    fhir: FhirServer, keys: Path
) -> None:
    desk = Desk(fhir.base, made(fhir, keys, Clock()))
    fhir.rule("POST /fhir", "status", times=6, status=401)
    desk.deliver(A)
    assert [line["reason"] for line in desk.logged("retry")] == ["login"] * 3
    assert fhir.stored() == dict([A])
    assert desk.letters == []
    desk.close()


def test_one_fetches_for_all(fhir: FhirServer, keys: Path) -> None:
    tokens = made(fhir, keys, Clock())
    stale = tokens.current()
    fresh = tokens.renewed(stale)
    assert fresh != stale
    assert tokens.renewed(stale) == fresh
    assert tokens.current() == fresh
    assert count(fhir, "POST /token") == 2


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"status": 400, "body": '{"error":"invalid_client"}'}, "token-invalid_client"),
        ({"status": 400, "body": '{"error":"Mr Smith, 93 %"}'}, "token-400"),
        ({"status": 400, "body": "<html>"}, "token-400"),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, "token-302"),
        ({"status": 503, "headers": {"Retry-After": "9"}}, "token-503"),
        ({"status": 200, "body": "{}"}, "token-malformed"),
        ({"status": 200, "body": '{"access_token":"t","token_type":"mac"}'}, "token-malformed"),
        ({"status": 200, "body": '{"access_token":"","token_type":"bearer"}'}, "token-malformed"),
        (
            {"status": 200, "body": '{"access_token":"a\\r\\nX: y","token_type":"bearer"}'},
            "token-malformed",
        ),
    ],
)
def test_an_endpoint_that_gives_none_is_asked_again(
    fhir: FhirServer, keys: Path, rule: dict[str, Any], reason: str
) -> None:
    desk = Desk(fhir.base, made(fhir, keys, Clock()))
    fhir.rule("POST /token", "status", times=1, **rule)
    desk.deliver(A)
    assert [line["reason"] for line in desk.logged("retry")] == [reason]
    assert desk.waits == [9.0 if rule.get("headers", {}).get("Retry-After") else 0.5]
    assert fhir.stored() == dict([A])
    assert "Smith" not in desk.out.getvalue()
    desk.close()


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("{}", "token-discovery"),
        ("<html>", "token-discovery"),
        ('{"token_endpoint":"http://elsewhere.example/token"}', "token-address"),
        ('{"token_endpoint":"file:///etc/passwd"}', "token-address"),
    ],
)
def test_an_endpoint_in_the_clear_or_none_gets_no_assertion(
    fhir: FhirServer, keys: Path, page: str, reason: str
) -> None:
    fhir.rule(".*smart-configuration", "status", times=1, status=200, body=page)
    with pytest.raises(Unanswered) as raised:
        made(fhir, keys, Clock()).current()
    assert raised.value.reason == reason
    assert count(fhir, "POST /token") == 0


def test_an_assertion_is_never_used_twice(fhir: FhirServer, keys: Path) -> None:
    """The server remembers: a jti that repeats is refused, so ours must not."""
    once = made(fhir, keys, Clock(), jti="the same")
    once.current()
    with pytest.raises(Unanswered, match="token-invalid_request"):
        once.renewed(once.current())


def test_what_an_assertion_says(keys: Path) -> None:
    settings = OAuth("deliver-test", keys / "key.pem", "key-1")
    key = read_key(settings.key_file)
    text = assertion(key, settings, "https://a.example/token", 1_795_000_000, "j")
    claims = jwt.decode(
        text, options={"verify_signature": False, "verify_exp": False, "verify_aud": False}
    )
    assert claims == {
        "iss": "deliver-test",
        "sub": "deliver-test",
        "aud": "https://a.example/token",
        "exp": 1_795_000_000 + ASSERTION_S,
        "jti": "j",
    }
    assert jwt.get_unverified_header(text) == {"alg": key.algorithm, "kid": "key-1", "typ": "JWT"}


def test_nothing_secret_is_ever_logged(fhir: FhirServer, keys: Path) -> None:
    desk = Desk(fhir.base, made(fhir, keys, Clock()))
    fhir.rule("POST /fhir", "status", times=2, status=401)
    desk.deliver(A)
    tokens = {one["authorization"].removeprefix("Bearer ") for one in fhir.seen()} - {""}
    assert len(tokens) >= 2
    logged = desk.out.getvalue()
    assert not [token for token in tokens if token in logged]
    assert "eyJ" not in logged
    desk.close()


def test_keys_that_smart_does_not_sign_with_are_refused(tmp_path: Path) -> None:
    kinds: dict[str, Any] = {
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "rsa1024": rsa.generate_private_key(65537, 1024),  # noqa: S505 - it has to be refused
    }
    for name, key in kinds.items():
        with pytest.raises(ConfigError, match="ES384 or RS384"):
            read_key(written(tmp_path, key, name))


def test_key_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key(tmp_path / "none")
    path = written(tmp_path, ec.generate_private_key(ec.SECP384R1()))
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(path)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(ConfigError, match="not an unencrypted"):
        read_key(path)


def test_a_token_url_in_the_clear_is_wrong_configuration(tmp_path: Path) -> None:
    path = written(tmp_path, ec.generate_private_key(ec.SECP384R1()))
    settings = OAuth("c", path, "k", "http://elsewhere.example/token")
    base = FhirServer(tmp_path).base
    with pytest.raises(ConfigError, match="token_url"):
        Tokens(settings, base, OneRequest(ssl.create_default_context(), 5), Clock(), lambda: "j")

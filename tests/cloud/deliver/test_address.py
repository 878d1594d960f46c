"""Where values may be sent in the clear: nowhere but to this machine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.deliver.address import Address, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://fhir.example.org/r4", Address(True, "fhir.example.org", 443, "/r4")),
        ("https://fhir.example.org:8443/a/b/", Address(True, "fhir.example.org", 8443, "/a/b")),
        ("https://fhir.example.org", Address(True, "fhir.example.org", 443, "")),
        ("http://localhost:8080/fhir", Address(False, "localhost", 8080, "/fhir")),
        ("http://127.0.0.1/fhir", Address(False, "127.0.0.1", 80, "/fhir")),
        ("http://127.1.2.3:81", Address(False, "127.1.2.3", 81, "")),
        ("http://[::1]:8080/fhir", Address(False, "::1", 8080, "/fhir")),
        ("HTTPS://Fhir.Example.org/R4", Address(True, "fhir.example.org", 443, "/R4")),
    ],
)
def test_an_address_is_read(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://fhir.example.org/r4", "https"),
        ("http://10.0.0.1/r4", "https"),
        ("http://0.0.0.0/r4", "https"),
        ("http://127.0.0.1.example.org/", "https"),
        ("http://localhost.example.org/", "https"),
        ("http://2130706433/", "https"),
        ("https://user:secret@fhir.example.org/", "oauth"),
        ("https://user@fhir.example.org/", "oauth"),
        ("https://fhir.example.org/r4?x=1", "query"),
        ("https://fhir.example.org/r4#x", "query"),
        ("ftp://fhir.example.org/", "https"),
        ("file:///etc/passwd", "https"),
        ("fhir.example.org/r4", "https"),
        ("", "https"),
        ("https://", "https"),
        ("https://fhir.example.org:port/", "https"),
        ("https://fhir.example.org:99999/", "https"),
        ("https://fhir.example.org/a b", "percent"),
        ("https://fhir.example.org/a\r\nX: y", "percent"),
        ("https://fhir.exämple.org/", "percent"),
        ("https://[::1", "https"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(url: str, word: str) -> None:
    with pytest.raises(ValueError, match=word) as raised:
        parse(url)
    assert "secret" not in str(raised.value)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    for url in (text, f"http://{text}", f"https://{text}"):
        try:
            found = parse(url)
        except ValueError:
            continue
        assert (
            found.secure
            or found.host == "localhost"
            or ":" in found.host
            or found.host[:4] == "127."
        )


def test_what_stands_in_a_requests_first_line() -> None:
    assert parse("https://a.example/r4/").of("") == "/r4"
    assert parse("https://a.example/r4").of("Observation/x") == "/r4/Observation/x"
    assert parse("https://a.example/").of("") == "/"
    assert parse("https://a.example").of("metadata") == "/metadata"

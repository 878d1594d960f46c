"""Statuses, Retry-After, backoff: every number has one meaning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.deliver.answer import (
    BACKOFF_S_MAX,
    BACKOFF_S_MIN,
    RETRY_AFTER_S_MAX,
    Answer,
    Unintelligible,
    Verdict,
    backoff_s,
    check_stored,
    is_r4,
    left_of,
    retry_after_s,
    verdict_of,
)


def test_only_these_statuses_end_a_request() -> None:
    """A status that somebody invents is asked again: it costs time, never a reading."""
    by: dict[Verdict, set[int]] = {}
    for status in range(1000):
        by.setdefault(verdict_of(status), set()).add(status)
    assert by[Verdict.STORED] == {200, 201, 204}
    assert by[Verdict.REFUSED] == {400, 404, 413, 422}
    assert by[Verdict.CONFLICT] == {409, 412}
    assert by[Verdict.LOGIN] == {401}
    assert by[Verdict.FAULT] == {*range(500, 600)} - {502, 503, 504}
    assert {202, 301, 403, 405, 410, 429, 502, 503, 504} <= by[Verdict.AGAIN]


@given(st.text(max_size=40), st.integers(0, 4_000_000_000_000))
def test_retry_after_is_never_outside_its_bounds(text: str, now_ms: int) -> None:
    assert 0 <= retry_after_s(text, now_ms) <= RETRY_AFTER_S_MAX


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (" 120 ", 120),
        ("300", 300),
        ("301", 300),
        ("9" * 5000, 300),
        ("1.5", 0),
        ("٣", 0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 50),
        ("Thu, 01 Jan 1970 00:00:05 GMT", 0),
        ("Thu, 01 Jan 1970 01:01:00 +0100", 50),
        ("Fri, 02 Jan 1970 00:00:00 GMT", 300),
    ],
)
def test_retry_after_in_both_forms(text: str, seconds: float) -> None:
    assert retry_after_s(text, 10_000) == seconds


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_at_least_half_and_at_most_its_bound(tries: int, chance: float) -> None:
    assert BACKOFF_S_MIN / 2 <= backoff_s(tries, chance) <= BACKOFF_S_MAX
    assert backoff_s(tries + 1, 0) >= backoff_s(tries, 0)


def test_chance_spreads_the_waits() -> None:
    assert backoff_s(20, 0) == BACKOFF_S_MAX / 2
    assert backoff_s(20, 0.5) == BACKOFF_S_MAX * 0.75


@given(st.binary(max_size=200), st.integers(0, 5))
def test_noise_is_no_transaction_response(body: bytes, count: int) -> None:
    with pytest.raises(Unintelligible):
        left_of(body, count)


def test_an_entry_without_a_response_is_no_answer() -> None:
    head = b'{"resourceType":"Bundle","type":"transaction-response","entry":['
    with pytest.raises(Unintelligible):
        left_of(head + b'{"resource":{}}]}', 1)
    assert left_of(head + b'{"response":{"status":"201"}}]}', 1) == []
    assert left_of(head + b'{"response":{"status":"201","outcome":{}},"x":1}]}', 1) == []


@pytest.mark.parametrize("body", [b"", b"  ", b'{"resourceType":"Observation"}'])
def test_nothing_or_a_resource_may_follow_a_put(body: bytes) -> None:
    check_stored(body)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"1", b'"ok"'])
def test_anything_else_may_not(body: bytes) -> None:
    with pytest.raises(Unintelligible):
        check_stored(body)


@pytest.mark.parametrize("version", ["4.0.0", "4.0.1"])
def test_a_capability_statement_of_r4(version: str) -> None:
    body = b'{"resourceType":"CapabilityStatement","fhirVersion":"%b"}' % version.encode()
    assert is_r4(Answer(200, "", body))
    assert not is_r4(Answer(203, "", body))
    assert not is_r4(Answer(200, "", body.replace(b"CapabilityStatement", b"Conformance")))

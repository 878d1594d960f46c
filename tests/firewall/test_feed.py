"""Who is refused at enrolment again and again is blocked; others are not."""

import json

import pytest

from firewall import feed
from firewall.feed import SOURCES_MAX, Refusals, refused


def line(**changed: str) -> str:
    said = {
        "service": "est",
        "event": "refused",
        "code": "token-unknown",
        "edge": "ward-7",
        "address": "192.0.2.7",
        "time": "2026-11-30T12:00:00.000Z",
    }
    return json.dumps({**said, **changed})


def test_a_refused_token_names_its_source() -> None:
    assert refused(line()) == "192.0.2.7"
    assert refused(line(address="2001:DB8::7")) == "2001:db8::7"


@pytest.mark.parametrize(
    "other",
    [
        line(service="ingest"),
        line(event="issued"),
        line(code="csr-malformed"),
        line(address=""),
        line(address="ward-7"),
        line(address="192.0.2.7; flush ruleset"),
        "",
        "not JSON",
        "[]",
        '{"service": 7}',
    ],
)
def test_other_lines_name_nobody(other: str) -> None:
    assert refused(other) == ""


def test_five_refusals_within_ten_minutes_are_too_many() -> None:
    counted = Refusals()
    assert [counted.again("192.0.2.7", at) for at in range(5)] == [False] * 4 + [True]
    assert [counted.again("192.0.2.7", 10 + at) for at in range(5)] == [False] * 4 + [True]


def test_sources_are_counted_apart_and_old_refusals_are_forgotten() -> None:
    counted = Refusals(2, 60)
    assert not counted.again("192.0.2.7", 0)
    assert not counted.again("192.0.2.8", 1)
    assert not counted.again("192.0.2.7", 61)
    assert counted.again("192.0.2.7", 121)


def test_memory_is_bounded_and_the_oldest_go_first() -> None:
    counted = Refusals(2, 1e9)
    for at in range(SOURCES_MAX + 1):
        assert not counted.again(f"source-{at}", at)
    assert len(counted._seen) == SOURCES_MAX
    assert not counted.again("source-0", 1e6)  # forgotten: counted anew
    assert counted.again(f"source-{SOURCES_MAX}", 1e6)


def test_the_codes_are_those_of_the_log() -> None:
    from cloud.pki.errors import STATUS

    assert STATUS.keys() >= feed._CODES

"""Date prefixes, against HL7's own examples."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud.api.dates import DateError, Range, bounds, instant_matches, matches, parse

VECTORS = json.loads(
    (Path(__file__).parent / "data" / "date_prefix_vectors.json").read_text(encoding="utf-8")
)["cases"]


def period(text: str) -> Range:
    start, slash, end = text.partition("/")
    if not slash:
        # in HL7's table a date is the whole day, and a time to the minute is that minute
        found = parse(start)
        return Range(found.low, found.high)
    return Range(parse(start).low if start else None, parse(end).high if end else None)


@pytest.mark.parametrize("case", VECTORS, ids=lambda c: f"{c['param']} {c['resource']}")
def test_hl7s_examples_hold(case: dict[str, str]) -> None:
    wanted = parse(case["param"].removeprefix("date="))
    assert matches(wanted, period(case["resource"])) is bool(case["match"])


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2013", "2013-01-01", "2014-01-01"),
        ("2013-12", "2013-12-01", "2014-01-01"),
        ("2012-02-29", "2012-02-29", "2012-03-01"),
        ("2013-01-14T10:00", "2013-01-14T10:00", "2013-01-14T10:01"),
        ("2013-01-14T10:00:05Z", "2013-01-14T10:00:05", "2013-01-14T10:00:06"),
        ("2013-01-14T10:00:05.25Z", "2013-01-14T10:00:05.250", "2013-01-14T10:00:05.260"),
        ("2013-01-14T10:00:00.123456Z", "2013-01-14T10:00:00.123", "2013-01-14T10:00:00.124"),
        ("2013-01-14T10:00:00+02:00", "2013-01-14T08:00:00", "2013-01-14T08:00:01"),
        ("2013-01-14T10:00:00 02:00", "2013-01-14T08:00:00", "2013-01-14T08:00:01"),
        ("2013-01-14T23:00:00-05:00", "2013-01-15T04:00:00", "2013-01-15T04:00:01"),
    ],
)
def test_a_date_covers_what_its_precision_says(text: str, low: str, high: str) -> None:
    found = parse(text)
    assert (found.prefix, found.low, found.high) == ("eq", ms(low), ms(high))


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2013-13", "2013-02-30", "2013-1-4", "xx2013", "ap2013-01-14",
     "2013-01-14T10", "2013-01-14T25:00", "2013-01-14T10:00+99:00", "2013-01-14Z", "0000", "٢٠١٣"],
)  # fmt: skip
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(DateError):
        parse(text)


@pytest.mark.parametrize("prefix", ["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"])
def test_the_bounds_leave_out_nothing_that_fits(prefix: str) -> None:
    wanted = parse(f"{prefix}2013-01-14T10:00:00Z")
    limits = bounds([wanted])
    for at in range(wanted.low - 3, wanted.high + 3):
        if instant_matches(wanted, at):
            assert limits.low is None or at >= limits.low
            assert limits.high is None or at < limits.high


def test_several_dates_are_bounded_together() -> None:
    found = bounds([parse("ge2013-01-14"), parse("lt2013-01-16"), parse("ge2013-01-13")])
    assert found == Range(ms("2013-01-14"), ms("2013-01-16"))

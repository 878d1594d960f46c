"""Trends: golden series, an oracle in fractions, and what must stay silent."""

from fractions import Fraction
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.detect.series import Series, advance
from cloud.detect.trend import (
    Finding,
    Trend,
    check,
    eased,
    judge,
    of_medians,
    resistant_slope,
    theil_sen,
)
from simulators.recorded import recordings
from vitals.errors import ConfigError

T0: Final = 1_795_428_000_000
FALL: Final = Trend("spo2", "falling", 3, 10, "medium")
RISE: Final = Trend("heart_rate", "rising", 20, 15, "low")

Minutes = list[int | None]


def found(values: Minutes, trend: Trend = FALL) -> Finding | None:
    return of_medians(values, trend)


def mirrored(values: Minutes) -> Minutes:
    return [None if value is None else 200 - value for value in values]


@pytest.mark.parametrize(
    ("values", "slope", "text"),
    [
        # Slopes by hand: of a straight line all pairs agree.
        ([98, 97, 96, 95, 94, 93, 92, 91, 90, 89], -1.0, "falling 10 %/10 min"),
        ([97, 97, 96, 96, 96, 95, 95, 95, 94, 94], -1 / 3, "falling 3.3 %/10 min"),
        ([98, 97, 96, None, 94, 93, None, 91, 90, 89], -1.0, "falling 10 %/10 min"),
        ([98, 97, 96, 40, 94, 93, 92, 91, 90, 89], -1.0, "falling 10 %/10 min"),
        ([99, 98, *[98, 97, 96, 95, 94, 93, 92, 91, 90, 89]], -1.0, "falling 10 %/10 min"),
    ],
)
def test_golden(values: Minutes, slope: float, text: str) -> None:
    assert found(values) == Finding(slope, text)
    rising = msgspec.structs.replace(FALL, direction="rising")
    assert found(mirrored(values), rising) == Finding(-slope, text.replace("falling", "rising"))
    assert found(mirrored(values)) is None
    assert found(values, rising) is None


QUIET: Final[dict[str, Minutes]] = {
    "flat": [97] * 10,
    "one outlier at the end": [*[97] * 9, 60],
    "two outliers at the end": [*[97] * 8, 60, 60],
    "outliers at both ends": [100, *[97] * 8, 60],
    "one step of noise": [*[97] * 5, *[96] * 5],
    "noise": [97, 96, 97, 95, 97, 96, 98, 96, 97, 95],
    "a dip that is over": [97, 97, 97, 90, 88, 89, 90, 97, 97, 97],
    "a step in the last third: a limit's business": [*[97] * 7, *[92] * 3],
    "a slow fall": [97, 97, 97, 96, 96, 96, 96, 95, 95, 95],
    "too short": [98, 97, 96, 95, 94, 93, 92, 91, 90],
    "too many gaps": [98, None, 96, 95, None, 93, 92, None, 90, 89],
    "a gap at the end": [98, 97, 96, 95, 94, 93, 92, 91, None, None],
    "a gap at the beginning": [None, None, 96, 95, 94, 93, 92, 91, 90, 89],
    "nothing": [None] * 10,
    "empty": [],
}


@pytest.mark.parametrize("name", list(QUIET))
def test_what_must_stay_silent(name: str) -> None:
    assert found(QUIET[name]) is None


def test_each_estimate_alone_is_not_enough() -> None:
    """The last third has fallen (the line says so), the middle has not (Theil-Sen says so)."""
    step = list(enumerate(QUIET["a step in the last third: a limit's business"]))
    points = [(at, value) for at, value in step if value is not None]
    line = resistant_slope(points, 10)
    assert line is not None
    assert line * 10 <= -3
    assert theil_sen(points) * 10 > -3
    # The other way round: all pairs fall, the ends are lifted by what one minute did.
    values = [97, 93, 93, 92, 92, 92, 91, 91, 91, 90]
    points = list(enumerate(values))
    line = resistant_slope(points, 10)
    assert line is not None
    slow = Trend("spo2", "falling", 3.4, 10, "medium")
    assert theil_sen(points) * 10 > -3.4 or line * 10 > -3.4
    assert found([*values], slow) is None


def test_exactly_the_change_counts_and_a_little_less_does_not() -> None:
    values: Minutes = [120 + 2 * at for at in range(15)]
    for change, is_found in ((30, True), (30.01, False)):
        trend = Trend("heart_rate", "rising", change, 15, "low")
        assert (found(values, trend) is not None) == is_found
    # 17/7 a minute for 21 minutes is 51, though not in binary.
    stairs: Minutes = [17 * at // 7 for at in range(21)]
    for change, is_found in ((51, True), (51.01, False)):
        trend = Trend("heart_rate", "rising", change, 21, "low")
        assert (found(stairs, trend) is not None) == is_found
    thirds: Minutes = [100 - at for at in range(5)]
    for change, is_found in ((5, True), (5.01, False)):
        trend = Trend("spo2", "falling", change, 5, "low")
        assert (found(thirds, trend) is not None) == is_found


@pytest.mark.parametrize(
    ("vital", "values", "text"),
    [
        ("heart_rate", [70 + 2 * at for at in range(15)], "rising 20 /min/10 min"),
        ("abp_systolic", [90 + at for at in range(15)], "rising 10 mmHg/10 min"),
        ("perfusion_index", [100 + 25 * at for at in range(15)], "rising 2.5 %/10 min"),
    ],
)
def test_the_text_has_the_vitals_unit(vital: str, values: Minutes, text: str) -> None:
    trend = check(Trend(vital, "rising", 1 if vital == "perfusion_index" else 10, 15, "low"))
    got = found(values, trend)
    assert got is not None
    assert got.text == text


@pytest.mark.parametrize("window", [5, 6, 7, 8, 15, 60])
def test_of_a_straight_line_every_window_finds_its_slope(window: int) -> None:
    trend = check(Trend("heart_rate", "rising", 4, window, "low"))
    got = found([60 + at for at in range(window)], trend)
    assert got is not None
    assert got.slope == 1.0


def exact(values: Minutes, trend: Trend) -> bool:
    """Say what the rule means, in fractions, in another way."""
    window = values[-trend.window_min :]
    there = [(Fraction(at), Fraction(v)) for at, v in enumerate(window) if v is not None]
    size = {0: trend.window_min // 3, 1: trend.window_min // 3, 2: trend.window_min // 3 + 1}[
        trend.window_min % 3
    ]
    left = [point for point in there if point[0] < size]
    right = [point for point in there if point[0] >= trend.window_min - size]
    if len(window) < trend.window_min or len(there) < Fraction(3, 4) * trend.window_min:
        return False
    if 2 * min(len(left), len(right)) < size:
        return False

    def middle(of: list[Fraction]) -> Fraction:
        of = sorted(of)
        return (of[(len(of) - 1) // 2] + of[len(of) // 2]) / 2

    sign = 1 if trend.direction == "rising" else -1
    line = (middle([y for _, y in right]) - middle([y for _, y in left])) / (
        middle([x for x, _ in right]) - middle([x for x, _ in left])
    )
    pairs = [(b[1] - a[1]) / (b[0] - a[0]) for a in there for b in there if a[0] < b[0]]
    change = Fraction(trend.change)
    return all(sign * slope * trend.window_min >= change for slope in (line, middle(pairs)))


@given(
    st.lists(st.none() | st.integers(80, 100), max_size=20),
    st.integers(5, 12),
    st.sampled_from(["falling", "rising"]),
    st.sampled_from([2, 3, 5]),
    st.integers(-2, 2),
)
def test_it_is_what_the_rule_says_in_fractions(
    values: Minutes, window: int, direction: Any, change: int, slope: int
) -> None:
    leaning: Minutes = [
        None if value is None else value + slope * at for at, value in enumerate(values)
    ]
    trend = Trend("heart_rate", direction, change, window, "low")
    assert (found(leaning, trend) is not None) == exact(leaning, trend)


@given(st.lists(st.integers(90, 99), min_size=10, max_size=10), st.integers(0, 9),
       st.integers(0, 100))  # fmt: skip
def test_one_wrong_minute_alone_makes_no_trend(values: list[int], at: int, wrong: int) -> None:
    """Around a level, whatever one minute says."""
    level: Minutes = [97 + value % 2 for value in values]
    level[at] = wrong
    assert found(level) is None


def series_of(values: Minutes) -> Series:
    series = Series()
    for minute, value in enumerate([*values, values[-1] or 97]):
        for second in range(0, 60, 5):
            if value is not None:
                series = advance(series, T0 + minute * 60_000 + second * 1000, value)
    return series


def test_of_a_series_and_when_it_is_over() -> None:
    falling: Minutes = [98 - at // 2 for at in range(20)]
    series = series_of(falling)
    got = judge(series, FALL)
    assert got is not None
    assert got.text.startswith("falling 5")
    assert not eased(series, FALL)
    assert not eased(series_of([*falling, *[89] * 2]), FALL)
    level = series_of([*falling, *[89] * 10])
    assert judge(level, FALL) is None
    assert eased(level, FALL)
    gone = series_of([*falling, *[None] * 9, 88])
    assert judge(gone, FALL) is None
    assert not eased(gone, FALL)


def test_half_the_change_is_not_eased() -> None:
    half: Minutes = [98, 98, 98, 97, 97, 97, 96, 96, 96, 96]
    points = [(at, value) for at, value in enumerate(half) if value is not None]
    line = resistant_slope(points, 10)
    assert line is not None
    trend = msgspec.structs.replace(FALL, change=abs(line) * 10 * 2)
    assert not eased(series_of(half), trend)
    assert eased(series_of(half), msgspec.structs.replace(FALL, change=abs(line) * 10 * 2 + 0.1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vital": "sp02"}, "no such vital"),
        ({"vital": "temperature", "change": 1}, "now and then"),
        ({"window_min": 4}, "5 to 60 minutes"),
        ({"window_min": 61}, "5 to 60 minutes"),
        ({"change": 1.9}, "2 to 100 %"),
        ({"change": 100.1}, "2 to 100 %"),
        ({"change": -3}, "2 to 100 %"),
        ({"share": 0.49}, "0.5 to 1"),
        ({"share": 1.01}, "0.5 to 1"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(msgspec.structs.replace(FALL, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"window_min": 5}, {"window_min": 60}, {"change": 2}, {"change": 100}, {"share": 0.5},
     {"share": 1}],
)  # fmt: skip
def test_a_rule_at_its_edges_is_taken(changes: dict[str, Any]) -> None:
    trend = msgspec.structs.replace(FALL, **changes)
    assert check(trend) is trend
    assert trend.name == "spo2.falling"


@pytest.mark.parametrize(("lost", "hits"), [(0, 0), (1, 53)])
def test_recorded_patients_make_no_trend_until_they_lose_a_percent_a_minute(
    lost: int, hits: int
) -> None:
    trend = check(Trend("spo2", "falling", 3, 7, "medium"))
    found_in = 0
    for seconds in recordings():
        series = Series()
        for at, second in enumerate(seconds):
            if second.spo2 is not None:
                series = advance(series, T0 + at * 1000, second.spo2 - lost * (at // 60))
        found_in += judge(series, trend) is not None
    assert found_in == hits

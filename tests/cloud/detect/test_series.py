"""Series against a plain model that keeps every reading."""

import sys
from itertools import pairwise
from statistics import median_low
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.detect.series import (
    MINUTES_MAX,
    SAME_GAP_MS,
    SAMPLE_MS,
    Series,
    advance,
    finished,
    hold,
    medians,
)
from vitals.codes import VITALS, decimal_scale

T0: Final = 1_795_428_000_000
MINUTE: Final = 60_000

Row = tuple[int, int]


def fed(rows: list[Row], minutes: int = MINUTES_MAX, series: Series | None = None) -> Series:
    series = series or Series()
    for time_ms, value in rows:
        series = advance(series, time_ms, value, minutes)
    return series


def counted(rows: list[Row]) -> list[Row]:
    """Return the first reading of every five seconds, in the order of arrival."""
    out: list[Row] = []
    for time_ms, value in rows:
        if not out or time_ms // SAMPLE_MS > out[-1][0] // SAMPLE_MS:
            out.append((time_ms, value))
    return out


def minutes_of(rows: list[Row], minutes: int) -> list[int | None]:
    kept = counted(rows)
    if not kept:
        return []
    by_minute: dict[int, list[int]] = {}
    for time_ms, value in kept:
        by_minute.setdefault(time_ms // MINUTE, []).append(value)
    first, last = min(by_minute), max(by_minute)
    return [
        median_low(by_minute[at]) if at in by_minute else None
        for at in range(max(first, last - minutes), last)
    ]


def since_of(rows: list[Row]) -> int:
    kept = counted(rows)
    since = kept[0][0]
    for (before_ms, before), (time_ms, value) in pairwise(kept):
        if (
            value != before
            or time_ms // SAMPLE_MS - before_ms // SAMPLE_MS > SAME_GAP_MS // SAMPLE_MS
        ):
            since = time_ms
    return since


def rows_of() -> st.SearchStrategy[list[Row]]:
    """Mostly forward, sometimes back, sometimes far."""
    step = st.sampled_from(
        [1000, 1000, 4999, SAMPLE_MS - 1, SAMPLE_MS, 20_000, 34_999, 61_000, 400_000, -3000]
    )
    value = st.sampled_from([96, 96, 96, 97, -50, 32_000])
    return st.tuples(st.integers(0, 70_000), st.lists(st.tuples(step, value), max_size=150)).map(
        lambda drawn: [
            (T0 + drawn[0] + sum(s for s, _ in drawn[1][: at + 1]), v)
            for at, (_, v) in enumerate(drawn[1])
        ]
    )


@given(rows_of(), st.integers(1, MINUTES_MAX))
def test_it_is_what_the_model_says(rows: list[Row], minutes: int) -> None:
    series = fed(rows, minutes)
    assert medians(series) == minutes_of(rows, minutes)
    if rows:
        assert series.same_since_ms == since_of(rows)
        assert series.last == counted(rows)[-1][1]
        assert finished(series) == counted(rows)[-1][0] // MINUTE
    for fewer in (1, minutes):
        assert medians(series, fewer) == minutes_of(rows, minutes)[-fewer:]


@given(rows_of(), st.integers(1, MINUTES_MAX))
def test_what_hold_lets_go_is_not_missed(rows: list[Row], minutes: int) -> None:
    skipping = Series()
    for time_ms, value in rows:
        if time_ms >= hold(skipping):
            before = skipping
            skipping = advance(skipping, time_ms, value, minutes)
            assert skipping is not before, "hold was too short: nothing changed"
        else:
            assert advance(skipping, time_ms, value, minutes) is skipping
    assert skipping == fed(rows, minutes)


@given(rows_of(), st.integers(1, MINUTES_MAX), st.integers(0, 150))
def test_stored_and_restored_anywhere_it_goes_on_the_same(
    rows: list[Row], minutes: int, cut: int
) -> None:
    stored = msgspec.msgpack.encode(fed(rows[:cut], minutes))
    plain = msgspec.msgpack.decode(stored)
    assert all(type(part) in (int, bytes) for part in plain)
    restored = msgspec.msgpack.decode(stored, type=Series)
    assert restored == fed(rows[:cut], minutes)
    assert fed(rows[cut:], minutes, restored) == fed(rows, minutes)


def test_an_outlier_leaves_no_trace_and_an_even_minute_keeps_a_measured_value() -> None:
    minute = [(T0 + at * SAMPLE_MS, 97) for at in range(MINUTE // SAMPLE_MS)]
    minute[1] = (minute[1][0], 0)
    series = fed([*minute, (T0 + MINUTE, 97)])
    assert medians(series) == [97]
    two = [(T0, 90), (T0 + SAMPLE_MS, 99), (T0 + MINUTE, 97)]
    assert medians(fed(two)) == [90]


def test_the_first_reading_of_a_mark_counts() -> None:
    mark = T0 + SAMPLE_MS
    series = fed([(mark - 1, 90), (mark, 91), (mark + 1, 92), (mark + SAMPLE_MS - 1, 93)])
    assert (series.last, hold(series)) == (91, mark + SAMPLE_MS)


def test_hold_of_an_empty_series_lets_nothing_go() -> None:
    assert hold(Series()) == 0
    assert advance(Series(), 0, 5).last == 5


@pytest.mark.parametrize(
    ("gap_ms", "same"), [(SAME_GAP_MS, True), (SAME_GAP_MS + SAMPLE_MS, False)]
)
def test_equal_since_begins_anew_after_a_gap(gap_ms: int, same: bool) -> None:
    series = fed([(T0 + 1, 97), (T0 + SAMPLE_MS, 97), (T0 + SAMPLE_MS + gap_ms, 97)])
    assert series.same_since_ms == (T0 + 1 if same else T0 + SAMPLE_MS + gap_ms)


def test_a_time_far_ahead_costs_no_more_than_a_full_ring() -> None:
    series = fed([(T0, 97), (T0 + 10**15, 97)])
    assert medians(series) == [None] * 60  # the minute of T0 has left the ring
    assert len(series.ring) == 2 * MINUTES_MAX


def test_the_edge_of_the_ring() -> None:
    rows = [(T0 + at * MINUTE, at) for at in range(62)]
    assert medians(fed(rows[:61])) == list(range(60))
    assert medians(fed(rows)) == list(range(1, 61))
    assert medians(fed(rows, 15)) == list(range(46, 61))


def test_a_filled_ring_takes_little_memory() -> None:
    series = fed([(T0 + at * 1000, 100 + at % 50) for at in range(3720)])
    assert len(medians(series)) == 60
    assert sys.getsizeof(series.ring) < 160
    whole = [series, *msgspec.structs.astuple(series)]
    assert sum(map(sys.getsizeof, whole)) < 400


def test_every_vital_fits() -> None:
    for vital in VITALS:
        for bound in (vital.low, vital.high):
            value = round(bound * decimal_scale(vital))
            assert medians(fed([(T0, value), (T0 + MINUTE, value)])) == [value]

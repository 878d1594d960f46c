"""Doubts about measurements: what is marked, what is not, and what need not be looked at."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.detect import artefact
from cloud.detect.artefact import (
    BOUNDS,
    FLAT_LINE,
    JUMP,
    MOTION,
    NONE,
    Bound,
    Marks,
    Rates,
    Trace,
    hold,
    resumed,
    step,
)
from cloud.detect.series import SAMPLE_MS
from simulators.recorded import recordings
from vitals.codes import BY_NAME, VITALS, Status

T0: Final = 1_795_428_000_000
SECOND: Final = 1000
MINUTE: Final = 60_000
OK, QUES = int(Status.OK), int(Status.QUESTIONABLE)

Row = tuple[int, int | None, int]
"""Seconds, value, status."""


def bound(name: str) -> Bound:
    return BOUNDS[BY_NAME[name].index]


def marks_of(rows: Sequence[Row], name: str, rates: Rates | None = None) -> list[Marks]:
    trace, out = Trace(), []
    for at, value, status in rows:
        trace, marks = step(trace, bound(name), T0 + at * SECOND, value, status, rates)
        out.append(marks)
    return out


def steady(value: int, seconds: int, start: int = 0) -> list[Row]:
    return [(start + at, value, OK) for at in range(seconds)]


@pytest.mark.parametrize(
    ("name", "value", "minutes"),
    [
        ("heart_rate", 60, 15),
        ("pulse_rate", 60, 15),
        ("spo2", 96, 30),
        ("abp_systolic", 0, 5),
        ("abp_diastolic", 80, 5),
        ("abp_mean", 80, 5),
        ("cvp_mean", -1, 30),
        ("etco2", 35, 15),
        ("perfusion_index", 250, 15),
    ],
)
def test_a_flat_line_is_marked_from_its_minute_on_and_ends_with_another_value(
    name: str, value: int, minutes: int
) -> None:
    seconds = minutes * 60
    rows = [
        *steady(value, seconds + 30),
        (seconds + 30, value + 1, OK),
        *steady(value, 9, seconds + 31),
    ]
    marks = marks_of(rows, name)
    assert marks[:seconds] == [NONE] * seconds
    assert marks[seconds : seconds + 30] == [frozenset({FLAT_LINE})] * 30
    assert marks[seconds + 30 :] == [NONE] * 10


@pytest.mark.parametrize(
    ("name", "value"),
    [("spo2", 97), ("spo2", 100), ("resp_rate", 20), ("fio2", 40), ("temperature", 370),
     ("consciousness", 0), ("nibp_systolic", 120)],
)  # fmt: skip
def test_what_may_stay_as_it_is_is_never_flat(name: str, value: int) -> None:
    assert set(marks_of(steady(value, 2 * 3600), name)) == {NONE}


def test_a_gap_begins_a_flat_line_anew() -> None:
    within = [*steady(60, 600), *steady(60, 400, 629)]
    assert FLAT_LINE in marks_of(within, "heart_rate")[-1]
    beyond = [*steady(60, 600), *steady(60, 400, 635)]
    assert set(marks_of(beyond, "heart_rate")) == {NONE}


def test_no_recorded_patient_is_flat_and_none_jumps() -> None:
    """What the bounds were set by: if they are narrowed, these patients get marks."""
    marked = dict.fromkeys(("heart_rate", "pulse_rate", "spo2", "resp_rate"), 0)
    for seconds in recordings():
        for name, attribute in (("heart_rate", "heart_rate"), ("pulse_rate", "pulse"),
                                ("spo2", "spo2"), ("resp_rate", "resp")):  # fmt: skip
            rows: list[Row] = [
                (at, value, OK)
                for at, second in enumerate(seconds)
                if (value := getattr(second, attribute)) is not None
            ]
            marked[name] += sum(bool(marks) for marks in marks_of(rows, name))
    assert set(marked.values()) == {0}


@pytest.mark.parametrize(
    ("name", "start", "most"),
    [("heart_rate", 80, 30), ("pulse_rate", 80, 30), ("spo2", 97, 4), ("resp_rate", 15, 30),
     ("abp_systolic", 120, 60), ("abp_diastolic", 80, 40), ("abp_mean", 90, 50),
     ("cvp_mean", 5, 20), ("etco2", 35, 30)],
)  # fmt: skip
def test_a_jump_begins_beyond_what_a_second_may_change(name: str, start: int, most: int) -> None:
    for sign in (1, -1) if name != "spo2" else (-1,):
        for seconds in (1, 3, 10):
            quiet = marks_of([(0, start, OK), (seconds, start + sign * most * seconds, OK)], name)
            assert quiet == [NONE, NONE]
            over = start + sign * (most * seconds + 1)
            marks = marks_of([(0, start, OK), (seconds, over, OK)], name)
            assert marks == [NONE, frozenset({JUMP})]
    assert marks_of([(0, start, OK), (11, start + 390, OK)], name) == [NONE, NONE]


def test_less_than_a_second_apart_counts_as_a_second() -> None:
    trace, _ = step(Trace(), bound("heart_rate"), T0, 80)
    assert step(trace, bound("heart_rate"), T0 + 1, 110)[1] == NONE
    assert step(trace, bound("heart_rate"), T0 + 1, 111)[1] == {JUMP}


def test_the_mark_of_a_jump_holds_for_half_a_minute() -> None:
    rows: list[Row] = [(0, 80, OK), *[(at, 160 + at % 2, OK) for at in range(1, 40)]]
    marks = marks_of(rows, "heart_rate")
    assert marks[1:31] == [frozenset({JUMP})] * 30
    assert marks[31:] == [NONE] * 9


def test_vitals_without_bounds_are_never_marked() -> None:
    for vital in VITALS:
        if BOUNDS[vital.index] == Bound():
            rows: list[Row] = [(0, 0, OK), (1, 300, OK), (2, 0, QUES), (3, 0, QUES), (4, 0, QUES)]
            assert set(marks_of(rows, vital.name)) == {NONE}


@pytest.mark.parametrize("name", ["spo2", "pulse_rate"])
def test_three_doubts_within_half_a_minute_are_motion(name: str) -> None:
    value = 96
    rows: list[Row] = [
        (0, value, OK), (5, value, QUES), (20, None, QUES), (35, value, QUES),
        (36, value, OK), (64, value, OK), (65, value, OK),
    ]  # fmt: skip
    motion = frozenset({MOTION})
    assert marks_of(rows, name) == [NONE, NONE, NONE, motion, motion, motion, NONE]
    rows[3] = (36, value, QUES)
    rows[4] = (37, value, OK)
    assert set(marks_of(rows, name)) == {NONE}
    same: list[Row] = [(0, value, OK), *[(5, value, QUES)] * 3]
    assert set(marks_of(same, name)) == {NONE}


def test_jumps_count_as_doubts_of_an_oximeter_only() -> None:
    def jumping(high: int) -> list[Row]:
        return [(at, high if at % 2 else 50, OK) for at in range(4)]

    assert marks_of(jumping(100), "pulse_rate")[3] == {JUMP, MOTION}
    assert marks_of(jumping(100), "pulse_rate")[2] == {JUMP}
    assert marks_of(jumping(100), "heart_rate")[3] == {JUMP}
    mixed: list[Row] = [(0, 97, OK), (1, 90, OK), (2, 90, QUES), (3, 99, OK)]
    assert marks_of(mixed, "spo2")[3] == {JUMP, MOTION}


def rates(heart: int, pulse: int, heart_s: int = 10, pulse_s: int = 10) -> Rates:
    return Rates(heart, T0 + heart_s * SECOND, pulse, T0 + pulse_s * SECOND)


@pytest.mark.parametrize(
    ("value", "beside", "is_motion"),
    [
        (94, rates(80, 101), True),
        (94, rates(101, 80), True),
        (94, rates(80, 100), False),
        (95, rates(80, 101), False),
        (94, None, False),
        (94, rates(80, 101, heart_s=0), True),
        (94, rates(80, 101, heart_s=-1), False),
        (94, rates(80, 101, pulse_s=-1), False),
    ],
)
def test_a_drop_while_the_two_rates_differ_is_motion(
    value: int, beside: Rates | None, is_motion: bool
) -> None:
    rows: list[Row] = [(at, 97, OK) for at in range(10)]
    marks = marks_of([*rows, (10, value, OK)], "spo2", beside)
    assert marks[:10] == [NONE] * 10
    assert marks[10] == ({MOTION} if is_motion else NONE)


def test_the_level_is_of_this_minute_and_the_one_before() -> None:
    beside = Rates(80, T0 + 10**9, 120, T0 + 10**9)

    def at_end(rows: list[Row]) -> Marks:
        return marks_of(rows, "spo2", beside)[-1]

    start = (T0 // MINUTE + 1) * 60 - T0 // 1000
    assert at_end([(start, 97, OK), (start + 119, 94, OK)]) == {MOTION}
    assert at_end([(start, 97, OK), (start + 120, 94, OK)]) == NONE
    assert at_end([(start, 97, OK), (start + 60, 95, OK), (start + 120, 94, OK)]) == NONE
    assert at_end([(start, 97, OK), (start + 1, 99, OK), (start + 6, 95, OK)]) == NONE, (
        "only the first of five seconds is looked at"
    )


@pytest.mark.parametrize(
    "status", [Status.MISSING, Status.TEST, Status.CALIBRATION, Status.IMPLAUSIBLE]
)
def test_what_is_no_value_of_a_patient_changes_nothing(status: Status) -> None:
    trace, _ = step(Trace(), bound("heart_rate"), T0, 80)
    for value in (None, 300):
        assert step(trace, bound("heart_rate"), T0 + 1000, value, status) == (trace, NONE)


def test_inhibited_alarms_do_not_hide_a_doubt() -> None:
    trace, _ = step(Trace(), bound("heart_rate"), T0, 80, Status.ALARM_INHIBITED)
    got = step(trace, bound("heart_rate"), T0 + 1000, 200, Status.ALARM_INHIBITED)
    assert got[1] == {JUMP}


@pytest.mark.parametrize("back_ms", [0, 1, 60_000])
@pytest.mark.parametrize("status", [OK, QUES])
def test_a_reading_that_is_not_newer_changes_nothing(back_ms: int, status: int) -> None:
    trace, _ = step(Trace(), bound("spo2"), T0, 97)
    assert step(trace, bound("spo2"), T0 - back_ms, 50, status) == (trace, NONE)


def test_what_has_neither_flat_line_nor_level_is_looked_at_by_value_alone() -> None:
    trace, _ = step(Trace(), bound("resp_rate"), T0, 16)
    assert hold(trace, bound("resp_rate")) == (1, 31, artefact.FOREVER_MS)
    trace, _ = step(Trace(), bound("fio2"), T0, 40)
    lo, hi, until_ms = hold(trace, bound("fio2"))
    assert lo < 0
    assert hi > 100
    assert until_ms == artefact.FOREVER_MS


def test_nothing_is_let_go_before_the_first_value_nor_while_a_mark_holds() -> None:
    of = bound("heart_rate")
    assert hold(Trace(), of) == artefact.NEVER
    trace, _ = step(Trace(), of, T0, 80)
    trace, marks = step(trace, of, T0 + 1000, 200)
    assert marks == {JUMP}
    assert hold(trace, of) == artefact.NEVER
    trace, marks = step(trace, of, T0 + 31_000, 200)
    assert marks == NONE
    assert hold(trace, of) == (185, 215, T0 + 3 * SAMPLE_MS)


def test_a_calm_patient_is_hardly_looked_at() -> None:
    rows = [(at, 75 + (at * 7) % 10, OK) for at in range(600)]
    trace, looked = Trace(), 0
    of = bound("heart_rate")
    for at, value, _ in rows:
        now = hold(trace, of)
        time_ms = T0 + at * SECOND
        if trace.last_ms < time_ms < now.until_ms and now.lo <= value <= now.hi:
            trace = resumed(trace, time_ms, value)
        else:
            looked += 1
            trace, marks = step(trace, of, time_ms, value)
            assert marks == NONE
    assert looked <= 121


VALUES: Final = {
    "spo2": [97, 97, 96, 95, 94, 93, 100, 88],
    "pulse_rate": [70, 70, 75, 84, 86, 100, 101, 180],
    "heart_rate": [70, 70, 75, 84, 86, 100, 101, 180],
    "abp_mean": [80, 80, 80, 104, 106, 131],
    "resp_rate": [16, 16, 30, 33, 47],
}


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, Bound, list[tuple[Any, ...]]]:
    name = draw(st.sampled_from(sorted(VALUES)))
    of = bound(name)
    if draw(st.booleans()) and of.flat_ms:
        of = of._replace(flat_ms=draw(st.sampled_from([7_000, 12_345, 20_000])))
    if draw(st.booleans()):
        of = of._replace(flat_below=96)
    gaps = st.sampled_from(
        [1000, 1000, 1000, 1000, 200, 1700, 4000, 9000, 31_000, 130_000, -2000, 0]
    )
    statuses = st.sampled_from(
        [*[OK] * 12, QUES, QUES, *map(int, (Status.ALARM_INHIBITED, Status.TEST, Status.MISSING))]
    )
    calm = draw(st.booleans())
    values = st.sampled_from(VALUES[name][:3] if calm else VALUES[name])
    rate = st.sampled_from([70, 90, 100])
    rows = draw(
        st.lists(st.tuples(gaps, values, statuses, st.none() | st.tuples(rate, rate)), max_size=80)
    )
    at, out = T0 + draw(st.integers(0, 59_999)), []
    for gap, value, status, beside in rows:
        at += gap
        of_both = None if beside is None else Rates(beside[0], at, beside[1], at - 5000)
        out.append((at, None if status == Status.MISSING else value, status, of_both))
    return name, of, out


@settings(max_examples=500, deadline=None)
@given(streams())
def test_leaving_out_what_hold_lets_go_gives_the_same_marks(
    stream: tuple[str, Bound, list[tuple[Any, ...]]],
) -> None:
    _, of, rows = stream
    whole, lazy = Trace(), Trace()
    left: tuple[int, int] | None = None
    for time_ms, value, status, beside in rows:
        whole, marks = step(whole, of, time_ms, value, status, beside)
        lo, hi, until_ms = hold(lazy, of)
        last_ms = left[0] if left else lazy.last_ms
        if status == OK and lo <= value <= hi and last_ms < time_ms < until_ms:
            assert marks == NONE
            left = (time_ms, value)
            continue
        if left:
            lazy, left = resumed(lazy, *left), None
        lazy, same = step(lazy, of, time_ms, value, status, beside)
        assert same == marks
        assert lazy == whole
        assert len(lazy.doubts) <= artefact.MOTION_COUNT - 1


@given(streams(), st.integers(0, 80))
def test_stored_and_restored_anywhere_it_goes_on_the_same(
    stream: tuple[str, Bound, list[tuple[Any, ...]]], cut: int
) -> None:
    _, of, rows = stream
    trace, other = Trace(), Trace()
    for at, row in enumerate(rows):
        if at == cut:
            other = msgspec.msgpack.decode(msgspec.msgpack.encode(other), type=Trace)
        trace, marks = step(trace, of, *row)
        other, same = step(other, of, *row)
        assert (trace, marks) == (other, same)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([500, 1000, SAMPLE_MS]), st.sampled_from([60, 60, 60, 90, 91])),
        max_size=60,
    )
)
def test_jumps_and_flat_lines_are_those_of_a_plain_reading_of_the_rules(
    drawn: list[tuple[int, int]],
) -> None:
    of = Bound(20_000, jump=30)
    rows, at = [], T0
    for gap, value in drawn:
        at += gap
        rows.append((at, value))
    jumps = [
        b[0] for a, b in pairwise(rows) if abs(b[1] - a[1]) > 30 * max(1.0, (b[0] - a[0]) / 1000)
    ]
    trace = Trace()
    looked: list[tuple[int, int]] = []
    for time_ms, value in rows:
        trace, marks = step(trace, of, time_ms, value)
        if not looked or time_ms // SAMPLE_MS > looked[-1][0] // SAMPLE_MS:
            looked.append((time_ms, value))
        since = None
        for earlier in reversed(looked):
            if earlier[1] != value:
                break
            since = earlier[0]
        flat = since is not None and time_ms - since >= 20_000
        jump = any(0 <= time_ms - at < 30_000 for at in jumps)
        assert marks == {name for name, is_so in ((FLAT_LINE, flat), (JUMP, jump)) if is_so}

"""Detectors, in event time: what raises, what clears, what must stay silent."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.detect.detectors import advance, ready
from cloud.detect.lanes import State
from cloud.detect.policy import DEFAULT, Policy, Rule
from cloud.records import AlertEvent
from tests.cloud.detect.records_of import T0, reading, subject_in
from vitals.codes import BY_NAME, Site, Status, TimeSource
from vitals.columns import Source, decode, encode, pack
from vitals.reading import Reading

SUBJECT = subject_in(3)
READY = ready(DEFAULT)
NO_SIGNAL = ready(msgspec.structs.replace(DEFAULT, signal_loss=msgspec.structs.replace(
    DEFAULT.signal_loss, enabled=False)))  # fmt: skip


def run(rows: list[Reading], state: State | None = None, late_ms: int = 0) -> list[AlertEvent]:
    """Return the events of readings that each arrive when they are taken, plus ``late_ms``."""
    told: list[AlertEvent] = []
    state = state or {}
    for row in rows:
        state, new = advance(state, SUBJECT, [row], row.time_ms + late_ms, READY)
        told += new
    return told


def trace(values: list[float | None], vital: str = "spo2", step_s: float = 1) -> list[Reading]:
    """Return a reading a step; None is a step without one."""
    return [
        reading(vital, value, T0 + round(at * step_s * 1000))
        for at, value in enumerate(values)
        if value is not None
    ]


def short(events: list[AlertEvent]) -> list[tuple[Any, ...]]:
    return [
        (e.state, e.text, (e.at_ms - T0) / 1000, e.ended_ms and (e.ended_ms - T0) / 1000)
        for e in events
    ]


def test_spo2_below_90_for_ten_seconds_rings_once_and_ends() -> None:
    events = run(trace([95, *[88] * 5, 84, *[88] * 5, *[95] * 8]))
    assert short(events) == [
        ("active", "SpO2 84<90", 11.0, None),
        ("ended", "SpO2 84<90", 17.0, 12.0),
    ]
    first, last = events
    assert first.episode == last.episode
    assert (first.priority, first.limit, first.worst) == ("high", 90, 84)
    assert (first.began_ms, first.raised_ms) == (T0 + 1000, T0 + 11_000)
    assert [ident.rpartition(".")[0] for ident in first.evidence] == [f"{SUBJECT}.spo2"] * 3


def test_a_worse_value_is_told_within_the_same_episode() -> None:
    events = run(trace([*[88] * 11, 86, 87, 86, 85]))
    assert [(e.state, e.worst) for e in events] == [("active", 88), ("active", 86), ("active", 85)]
    assert len({e.episode for e in events}) == 1


@pytest.mark.parametrize(
    "values",
    [
        [89] * 10,  # nine seconds
        [*[89] * 9, 90, *[89] * 9],  # 90 is not below 90
        [*[89] * 5, *[None] * 31, *[89] * 5],  # a gap begins the delay anew
        [90] * 60,
    ],
)
def test_what_is_not_ten_seconds_below_does_not_ring(values: list[float | None]) -> None:
    assert run(trace(values)) == []


def test_a_gap_within_bounds_does_not_restart_the_delay() -> None:
    assert len(run(trace([89, *[None] * 29, 89]))) == 1


@pytest.mark.parametrize("back", [[90] * 30, [91, 91, 91, 91, 91, 90] * 5, [91] * 5])
def test_an_alert_does_not_end_before_the_band_is_left_for_its_delay(back: list[float]) -> None:
    assert [e.state for e in run(trace([*[89] * 11, *back]))] == ["active"]


def test_silence_ends_nothing() -> None:
    events = run(trace([*[89] * 11, *[None] * 600, 89]))
    assert [e.state for e in events] == ["active"]


@pytest.mark.parametrize(
    "status", [Status.QUESTIONABLE, Status.TEST, Status.CALIBRATION, Status.IMPLAUSIBLE]
)
def test_only_a_value_without_doubt_counts(status: Status) -> None:
    low = [msgspec.structs.replace(row, status=status) for row in trace([80] * 60)]
    assert run(low) == []
    high = [
        msgspec.structs.replace(row, status=status) for row in trace([*[None] * 11, *[99] * 60])
    ]
    assert [e.state for e in run([*trace([80] * 11), *high])] == ["active"]


def test_missing_neither_raises_nor_clears_a_limit() -> None:
    lost = [reading("spo2", None, T0 + at * 1000, Status.MISSING) for at in range(11, 40)]
    kinds = [(e.kind, e.state) for e in run([*trace([80] * 11), *lost])]
    assert kinds == [("threshold", "active"), ("signal_loss", "active")]


@pytest.mark.parametrize(
    ("vital", "value", "priority"),
    [
        ("heart_rate", 131, "medium"),
        ("heart_rate", 39, "high"),
        ("resp_rate", 7, "high"),
    ],
)
def test_the_other_defaults_ring_after_ten_seconds(vital: str, value: int, priority: str) -> None:
    (event,) = run(trace([value] * 11, vital))
    assert (event.vital, event.priority, event.at_ms) == (vital, priority, T0 + 10_000)


def test_one_temperature_rings_and_one_clears() -> None:
    rows = [
        reading("temperature", 39.1, T0, site=Site.ORAL),
        reading("temperature", 38.9, T0 + 900_000, site=Site.ORAL),
        reading("temperature", 38.8, T0 + 1_800_000, site=Site.ORAL),
    ]
    events = run(rows)
    assert [(e.state, e.at_ms - T0) for e in events] == [("active", 0), ("ended", 1_800_000)]
    assert events[0].evidence == [f"{SUBJECT}.temperature.mwt3h340.s1"]
    assert len(run(rows[:1], late_ms=600_000)) == 1
    assert not run(rows[:1], late_ms=600_000)[0].retrospective


def test_two_sensors_do_not_clear_each_other() -> None:
    rows = [
        reading("spo2", value, T0 + second * 1000, channel=channel)
        for second in range(12)
        for channel, value in ((0, 97), (1, 85))
    ]
    (event,) = run(rows)
    assert event.evidence[0].endswith(".c1")


def test_a_backlog_rings_nothing_but_is_told() -> None:
    events = run(trace([*[85] * 12, *[95] * 10]), late_ms=61_000)
    assert [(e.state, e.retrospective) for e in events] == [("active", True), ("ended", True)]


def test_a_backlog_neither_rings_nor_silences_what_is_live() -> None:
    state: State = {}
    state, live = advance(state, SUBJECT, trace([85] * 11), T0 + 10_000, READY)
    past = [
        msgspec.structs.replace(row, time_ms=row.time_ms - 3_600_000) for row in trace([99] * 20)
    ]
    state, late = advance(state, SUBJECT, past, T0 + 10_000, READY)
    state, after = advance(state, SUBJECT, [reading("spo2", 84, T0 + 11_000)], T0 + 11_000, READY)
    assert [e.retrospective for e in live] == [False]
    assert late == []
    assert [(e.state, e.worst, e.retrospective) for e in after] == [("active", 84, False)]


def test_a_reading_older_than_what_was_judged_is_late() -> None:
    rows = [*trace([95] * 30), reading("temperature", 40, T0), reading("spo2", 99, T0 + 31_000)]
    state: State = {}
    state, _ = advance(state, SUBJECT, rows, T0 + 31_000, READY)
    old = [reading("spo2", 80, T0 + at * 1000) for at in range(12)]
    _, events = advance(state, SUBJECT, old, T0 + 31_000, READY)
    assert [(e.state, e.retrospective) for e in events] == [("active", True)]


def test_a_second_backlog_from_further_back_begins_anew() -> None:
    state: State = {}
    now = T0 + 10_000_000
    state, first = advance(state, SUBJECT, trace([85] * 11), now, READY)
    back = [msgspec.structs.replace(row, time_ms=row.time_ms - 600_000) for row in trace([85] * 11)]
    _, second = advance(state, SUBJECT, back, now, READY)
    assert [e.state for e in first] == ["active"]
    assert [e.state for e in second] == ["ended", "active"]
    assert second[0].episode == first[0].episode != second[1].episode
    assert all(e.retrospective for e in (*first, *second))


def test_a_clock_from_the_future_makes_nothing_late() -> None:
    state: State = {}
    state, _ = advance(state, SUBJECT, [reading("spo2", 95, T0 + 10**9)], T0, READY)
    rows = [msgspec.structs.replace(row, time_ms=row.time_ms + 130_000) for row in trace([85] * 11)]
    _, events = advance(state, SUBJECT, rows, T0 + 141_000, READY)
    assert [(e.state, e.retrospective) for e in events] == [("active", False)]


def test_signal_loss_needs_a_signal_first() -> None:
    lost = [reading("spo2", None, T0 + at * 1000, Status.MISSING) for at in range(1, 60)]
    assert run(lost) == []
    (event,) = run([reading("spo2", 96, T0), *lost])
    assert (event.kind, event.priority, event.text) == ("signal_loss", "low", "SpO2 no signal")
    assert event.at_ms == T0 + 11_000


def test_a_rule_that_is_gone_ends_its_episode() -> None:
    state, _ = advance({}, SUBJECT, trace([85] * 11), T0 + 10_000, READY)
    other = ready(Policy("2", [Rule("heart_rate", "high", 130, "medium")]))
    row = reading("heart_rate", 80, T0 + 12_000)
    state, events = advance(state, SUBJECT, [row], T0 + 12_000, other)
    assert [(e.state, e.vital, e.policy) for e in events] == [("ended", "spo2", "2")]
    assert all(not key.startswith("spo2.low") for key in state)


def test_the_state_given_is_never_changed() -> None:
    state, _ = advance({}, SUBJECT, trace([85] * 5), T0 + 5_000, READY)
    before = msgspec.msgpack.encode(state)
    advance(state, SUBJECT, trace([85] * 20), T0 + 20_000, READY)
    assert msgspec.msgpack.encode(state) == before


steps = st.tuples(
    st.sampled_from(["spo2", "heart_rate", "temperature", "resp_rate"]),
    st.integers(-3, 12),
    st.integers(-2, 2),
    st.sampled_from([0, 0, 0, 0, *Status]),
)


@st.composite
def walks(draw: st.DrawFn) -> list[Reading]:
    near = {"spo2": 90, "heart_rate": 130, "temperature": 39, "resp_rate": 8}
    rows, at = [], T0
    for vital, seconds, off, status in draw(st.lists(steps, max_size=60)):
        at += seconds * 1000
        absent = status in {Status.MISSING, Status.IMPLAUSIBLE}
        value = None if absent else float(near[vital] + off)
        rows.append(Reading(BY_NAME[vital].index, value, at, at, int(status)))
    return rows


@given(walks(), st.data())
def test_where_the_readings_are_cut_changes_nothing(
    rows: list[Reading], data: st.DataObject
) -> None:
    now = T0 + 200_000
    whole_state, whole = advance({}, SUBJECT, rows, now, READY)
    state: State = {}
    told: list[AlertEvent] = []
    left = rows
    while left:
        size = data.draw(st.integers(1, len(left)))
        stored = msgspec.msgpack.encode(state)  # and a restart between any two changes nothing
        state, new = advance(
            msgspec.msgpack.decode(stored, type=State), SUBJECT, left[:size], now, READY
        )
        told += new
        left = left[size:]
    assert told == whole
    assert state == whole_state


@given(walks())
def test_every_episode_begins_active_and_ends_at_most_once(rows: list[Reading]) -> None:
    episodes: dict[tuple[str, bool], list[AlertEvent]] = {}
    for event in run(rows):
        episodes.setdefault((event.episode, event.retrospective), []).append(event)
    for events in episodes.values():
        states = [e.state for e in events]
        assert states[0] == "active"
        assert states.count("ended") <= 1
        assert "ended" not in states[:-1]
        assert all(e.began_ms <= e.raised_ms <= e.at_ms for e in events)
        assert all(len(e.evidence) <= 3 for e in events)


@pytest.mark.parametrize(
    ("source", "behind_ms", "retrospective"),
    [(TimeSource.CORRECTED, 0, False), (TimeSource.DEVICE, 600_000, True)],
)
def test_a_device_ten_minutes_slow_rings_live_once_its_gateway_corrects_it(
    source: TimeSource, behind_ms: int, retrospective: bool
) -> None:
    """The gateway's work is in edge/skew.py; here is what detect makes of both outcomes."""
    state: State = {}
    told: list[AlertEvent] = []
    for second, value in enumerate([96, 96, *[84] * 11]):
        at = T0 + second * 1000
        row = Reading(BY_NAME["spo2"].index, value, at - behind_ms, at, time_source=int(source))
        ((_, carried),) = decode(encode(pack([Source("d")], [(0, row)]))).rows()
        assert carried.time_source == source
        state, new = advance(state, SUBJECT, [carried], at + 100, READY)
        told += new
    assert [(e.state, e.text, e.retrospective) for e in told] == [
        ("active", "SpO2 84<90", retrospective)
    ]

"""What is charted: everything, or a median a minute and everything around an alarm."""

import json
import statistics
from collections.abc import Sequence

import msgspec
import pytest
from fhir.resources.R4B.observation import Observation
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.fhir import chart, charting
from cloud.fhir.chart import Chart
from cloud.fhir.charting import (
    NOTHING,
    RECENT_MAX,
    SOURCES_MAX,
    Charting,
    Given,
    Leaving,
    Span,
    State,
    advance,
    close,
)
from cloud.fhir.ids import ID_CHARS_MAX, parse_observation_id
from cloud.fhir.observations import MINUTE_MS
from cloud.fhir.ranges import Limits
from tests.cloud.fhir.rows import AT, DEVICE, SUBJECT, reading
from vitals.codes import BY_NAME, VITALS, Status
from vitals.columns import CHANNEL_MAX, TIME_MS_MAX
from vitals.reading import Reading

MINUTE = Charting("minute", 10_000)
M0 = AT - AT % MINUTE_MS


def spo2(value: float | None, at_s: float, status: int = 0, device: str = DEVICE) -> Given:
    return Given(device, reading("spo2", value, status, at=M0 + int(at_s * 1000)))


def minutes(leaving: Leaving) -> list[tuple[int, int, float | None]]:
    return [
        ((one.reading.time_ms - M0) // MINUTE_MS, one.reading.status, one.reading.value)
        for one in leaving.minutes
    ]


def run(
    rows: Sequence[Given], alarms: Sequence[Span] = (), rule: Charting = MINUTE
) -> tuple[State, Leaving]:
    return advance(NOTHING, rows, alarms, rule)


def test_every_reading_leaves_when_every_is_the_mode() -> None:
    rows = [spo2(97, 1), spo2(96, 0), spo2(97, 1)]
    assert run(rows, rule=Charting()) == (NOTHING, Leaving(tuple(rows)))


def test_a_minute_leaves_as_its_median_when_the_next_begins() -> None:
    state, leaving = run([spo2(value, at) for at, value in enumerate((97, 80, 96, 98, 95))])
    assert leaving == Leaving()
    state, leaving = advance(state, [spo2(99, 60)], (), MINUTE)
    assert (leaving.readings, minutes(leaving)) == ((), [(0, 0, 96)])
    _, leaving = close(state, M0 + 2 * MINUTE_MS)
    assert minutes(leaving) == [(1, 0, 99)]


def test_of_an_even_number_a_value_that_was_measured_stands() -> None:
    _, leaving = close(run([spo2(90, 1), spo2(97, 2)])[0], None)
    assert minutes(leaving) == [(0, 0, 90)]


@pytest.mark.parametrize(
    ("said", "stands"),
    [
        ([(97, Status.OK), (50, Status.TEST), (51, Status.TEST)], (Status.OK, 97)),
        ([(50, Status.TEST), (88, Status.QUESTIONABLE)], (Status.QUESTIONABLE, 88)),
        ([(97, Status.OK), (None, Status.MISSING)], (Status.OK, 97)),
        ([(None, Status.MISSING), (None, Status.IMPLAUSIBLE)], (Status.IMPLAUSIBLE, None)),
        ([(None, Status.IMPLAUSIBLE), (None, Status.MISSING)], (Status.MISSING, None)),
        ([(60, Status.TEST), (61, Status.CALIBRATION)], (Status.CALIBRATION, 61)),
        ([(91, Status.ALARM_INHIBITED), (88, Status.QUESTIONABLE)], (Status.ALARM_INHIBITED, 91)),
    ],
)
def test_statuses_never_mix(
    said: list[tuple[float | None, int]], stands: tuple[int, float | None]
) -> None:
    state, _ = run([spo2(value, at, status) for at, (value, status) in enumerate(said)])
    assert [m[1:] for m in minutes(close(state, None)[1])] == [stands]


def test_a_value_taken_now_and_then_leaves_as_it_is() -> None:
    rows = [
        Given(DEVICE, reading(vital, 1, at=M0))
        for vital in (v.name for v in VITALS)
        if not BY_NAME[vital].continuous
    ]
    assert run(rows) == (NOTHING, Leaving(tuple(rows)))


def test_a_late_reading_leaves_as_it_is_and_changes_no_minute() -> None:
    late = spo2(50, 59.999)
    state, leaving = run([spo2(97, 60), late])
    assert leaving == Leaving((late,))
    assert minutes(close(state, None)[1]) == [(1, 0, 97)]


def test_a_device_that_has_gone_leaves_its_minute_when_it_is_over() -> None:
    state, _ = run([spo2(97, 1)])
    assert close(state, M0 + MINUTE_MS - 1) == (state, Leaving())
    closed, leaving = close(state, M0 + MINUTE_MS)
    assert minutes(leaving) == [(0, 0, 97)]
    assert closed.minutes == {}


def test_around_an_alarm_everything_leaves_to_the_millisecond() -> None:
    began, ended = 100.0, 120.0
    times = (89.999, 90, 100, 110, 130, 130.001)
    rows = [spo2(80, at) for at in times]
    alarm = Span(M0 + int(began * 1000), M0 + int(ended * 1000))
    _, leaving = run(rows, [alarm])
    assert [(one.reading.time_ms - M0) / 1000 for one in leaving.readings] == [90, 100, 110, 130]
    _, leaving = run(rows, [alarm._replace(ended_ms=None)])
    assert len(leaving.readings) == 5


def test_what_stood_before_an_alarm_leaves_when_it_is_told_and_once() -> None:
    state, leaving = run([spo2(97, at) for at in range(30)])
    assert leaving == Leaving()
    alarm = Span(M0 + 29_500)
    state, leaving = advance(state, [spo2(80, 30)], [alarm], MINUTE)
    times = [(one.reading.time_ms - M0) // 1000 for one in leaving.readings]
    assert times == list(range(20, 31))
    state, leaving = advance(state, [spo2(80, 31)], [alarm], MINUTE)
    assert [(one.reading.time_ms - M0) // 1000 for one in leaving.readings] == [31]
    assert minutes(close(state, None)[1]) == [(0, 0, 97)]


def test_what_is_remembered_is_bounded() -> None:
    state, _ = run([spo2(97, at / 1000) for at in range(RECENT_MAX + 5)])
    assert len(state.recent) == RECENT_MAX
    assert state.recent[0].reading.time_ms == M0 + 5
    rows = [spo2(97, at, device=f"{at:032x}") for at in range(SOURCES_MAX)]
    state, leaving = run(rows)
    assert (len(state.minutes), leaving.minutes) == (SOURCES_MAX, ())
    state, leaving = advance(state, [spo2(97, 30)], (), MINUTE)
    assert len(state.minutes) == SOURCES_MAX
    assert [one.device for one in leaving.minutes] == [f"{0:032x}"]


def test_no_more_is_remembered_than_an_alarm_now_could_ask_for() -> None:
    state, _ = run([spo2(97, 1), spo2(97, 2), spo2(97, 12)])
    assert [one.reading.time_ms - M0 for one in state.recent] == [2_000, 12_000]


def test_a_policy_that_changes_to_every_leaves_nothing_behind() -> None:
    state, _ = run([spo2(97, 1)])
    state, leaving = advance(state, [spo2(96, 2)], (), Charting())
    assert state == NOTHING
    assert [one.reading.value for one in leaving.readings] == [97, 96]
    assert minutes(leaving) == [(0, 0, 97)]


vitals = st.sampled_from(["spo2", "heart_rate", "abp_systolic", "nibp_systolic"])
values = st.one_of(st.none(), st.integers(80, 100))
rows_drawn = st.lists(
    st.builds(
        lambda vital, value, at, status, channel, device: Given(
            device,
            reading(
                vital,
                value if status in charting.BELIEF else None,
                status,
                channel=channel,
                at=M0 + at,
            ),
        ),
        vitals,
        values,
        st.integers(0, 200_000),
        st.sampled_from(Status),
        st.integers(0, 1),
        st.sampled_from([DEVICE, "e" * 32]),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(rows_drawn, st.integers(0, 30), st.one_of(st.none(), st.integers(0, 200_000)))
def test_nothing_is_lost_and_medians_are_medians(
    rows: list[Given], cut: int, began: int | None
) -> None:
    """In time order, so that no reading is late: then every minute is whole."""
    rows = sorted(rows, key=lambda one: one.reading.time_ms)
    alarms = [] if began is None else [Span(M0 + began, M0 + began + 5_000)]
    state, first = advance(NOTHING, rows[:cut], [], MINUTE)
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State)
    state, second = advance(state, rows[cut:], alarms, MINUTE)
    _, last = close(state, None)
    left = [*first.readings, *second.readings]
    medians = [*first.minutes, *second.minutes, *last.minutes]
    named = [(m.device, m.reading.vital, m.reading.channel, m.reading.time_ms) for m in medians]
    assert len(set(named)) == len(named)
    for one in rows:
        r = one.reading
        continuous = VITALS[r.vital].continuous
        start = r.time_ms - r.time_ms % MINUTE_MS
        assert ((one.device, r.vital, r.channel, start) in named) == continuous
        if not continuous:
            assert one in left
    for name, median in zip(named, medians, strict=True):
        same = [
            one.reading
            for one in rows
            if (one.device, one.reading.vital, one.reading.channel) == name[:3]
            and one.reading.time_ms // MINUTE_MS == name[3] // MINUTE_MS
        ]
        of_status = [r.value for r in same if r.status == median.reading.status]
        kept = [value for value in of_status if value is not None]
        if kept:
            assert median.reading.value == statistics.median_low(kept)
        else:
            assert median.reading.value is None
            assert all(r.value is None for r in same)


# How it leaves.


def test_a_minutes_median_says_so_and_has_an_id_of_its_own() -> None:
    limits = {BY_NAME["spo2"].index: Limits(90)}
    (made,) = Chart(limits).minute(SUBJECT, DEVICE, [reading("spo2", 89, at=M0)])
    body = json.loads(made.body)
    Observation.model_validate(body)
    assert body["effectiveDateTime"] == "2026-11-23T10:00:00.000Z"
    assert body["method"] == {"text": "median of the minute that begins at this time"}
    assert body["interpretation"][0]["coding"][0]["code"] == "L"
    (plain,) = Chart(limits).rows(SUBJECT, DEVICE, [reading("spo2", 89, at=M0)])
    assert body["id"] == f"{plain.id}.m"
    assert parse_observation_id(body["id"]) is None


def test_the_pressures_of_a_minute_are_one_panel() -> None:
    rows = [reading("abp_systolic", 120, at=M0), reading("abp_diastolic", 80, at=M0)]
    (made,) = chart.of({}).minute(SUBJECT, DEVICE, rows)
    body = json.loads(made.body)
    Observation.model_validate(body)
    assert "method" in body
    assert [part["valueQuantity"]["value"] for part in body["component"]] == [120, 80]


def test_no_minute_of_what_is_taken_now_and_then() -> None:
    with pytest.raises(ValueError, match="now and then"):
        chart.of({}).minute(SUBJECT, DEVICE, [reading("temperature", 37, at=M0)])


def test_the_longest_id_fits() -> None:
    last = TIME_MS_MAX - TIME_MS_MAX % MINUTE_MS
    for vital in VITALS:
        if vital.continuous:
            row = Reading(vital.index, 50, last, last, 0, 0, CHANNEL_MAX)
            (made,) = chart.of({}).minute(SUBJECT, DEVICE, [row])
            assert len(made.id) <= ID_CHARS_MAX
            Observation.model_validate_json(made.body)

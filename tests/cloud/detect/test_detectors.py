"""Detectors, in event time: what raises, what clears, what must stay silent.

Every case is driven twice, through `Subject.observe` and through a partition given one record a
reading: the short way of the hot path (holds) must tell the same.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.detect import orders
from cloud.detect.alerts import give
from cloud.detect.lifecycle import Acknowledge
from cloud.detect.subject import Kept, Subject
from cloud.policy.model import Artefact, Policy, Rule, Scores, SignalLoss, Trend
from cloud.records import AlertEvent
from tests.cloud.detect.policies import (
    FEVER,
    HEART,
    SPO2,
    SPO2_MILD,
    limits_only,
    pushed,
    rules_of,
)
from tests.cloud.detect.records_of import T0, reading, record, subject_in
from tests.cloud.detect.turns import Log
from vitals.codes import BY_NAME, VITALS, Site, Status, TimeSource, decimal_scale
from vitals.columns import Source, decode, encode, pack
from vitals.limits import FUTURE_MS_MAX
from vitals.reading import Reading

SUBJECT = subject_in(3)
LIMITS = limits_only()


def subject_under(policy: Policy, kept: Kept | None = None) -> Subject:
    made = Subject(SUBJECT, kept)
    made.rules = rules_of(policy, SUBJECT)
    return made


def scaled(row: Reading) -> int | None:
    return None if row.value is None else round(row.value * decimal_scale(VITALS[row.vital]))


def observed(subject: Subject, rows: Iterable[Reading], ingested_ms: int) -> list[AlertEvent]:
    """Return what readings tell that all arrive at once."""
    told: list[AlertEvent] = []
    for row in rows:
        told += subject.observe(row, scaled(row), ingested_ms)
    return told


def run(rows: list[Reading], policy: Policy = LIMITS, late_ms: int = 0) -> list[AlertEvent]:
    """Return the events of readings that each arrive when they are taken, plus ``late_ms``."""
    subject, log = subject_under(policy), Log(3, policy)
    told: list[AlertEvent] = []
    in_turns: list[AlertEvent] = []
    for at, row in enumerate(rows):
        arrived = row.time_ms + late_ms
        told += observed(subject, [row], arrived)
        in_turns += log.give([record(at, [(SUBJECT, row)], ingested_ms=arrived)]).alerts
    assert in_turns == told
    return told


def trace(values: list[float | None], vital: str = "spo2", step_s: float = 1) -> list[Reading]:
    """Return a reading a step; None is a step without one."""
    return [
        reading(vital, value, T0 + round(at * step_s * 1000))
        for at, value in enumerate(values)
        if value is not None
    ]


def moved(rows: list[Reading], by_ms: int) -> list[Reading]:
    return [msgspec.structs.replace(row, time_ms=row.time_ms + by_ms) for row in rows]


def short(events: list[AlertEvent]) -> list[tuple[Any, ...]]:
    return [
        (e.step, e.state, e.text, (e.at_ms - T0) / 1000, e.ended_ms and (e.ended_ms - T0) / 1000)
        for e in events
    ]


def steps_of(events: list[AlertEvent]) -> list[str]:
    return [e.step for e in events]


def test_spo2_below_90_for_ten_seconds_rings_once_and_latches() -> None:
    events = run(trace([95, *[88] * 5, 84, *[88] * 5, *[95] * 8]))
    assert short(events) == [
        ("raised", "active", "SpO2 84<90", 11.0, None),
        ("latched", "latched", "SpO2 84<90", 17.0, None),
    ]
    first, last = events
    assert first.episode == last.episode
    assert (first.priority, first.limit, first.worst) == ("high", 90, 84)
    assert (first.rule, first.policy) == ("spo2.low.high", LIMITS.version)
    assert (first.began_ms, first.raised_ms) == (T0 + 1000, T0 + 11_000)
    assert [e.number for e in events] == [1, 2]
    assert [ident.rpartition(".")[0] for ident in first.evidence] == [f"{SUBJECT}.spo2"] * 3


def test_what_does_not_latch_ends_when_it_was_first_recovered() -> None:
    events = run(trace([100, *[140] * 11, *[100] * 8], "heart_rate"))
    assert short(events) == [
        ("raised", "active", "HR 140>130", 11.0, None),
        ("ended", "ended", "HR 140>130", 17.0, 12.0),
    ]
    assert [e.number for e in events] == [1, 2]


def test_a_worse_value_is_told_within_the_same_episode() -> None:
    events = run(trace([*[88] * 11, 86, 87, 86, 85]))
    assert [(e.step, e.number, e.worst) for e in events] == [
        ("raised", 1, 88),
        ("worse", 2, 86),
        ("worse", 3, 85),
    ]
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
    assert steps_of(run(trace([*[89] * 11, *back]))) == ["raised"]


def test_silence_ends_nothing() -> None:
    assert steps_of(run(trace([*[89] * 11, *[None] * 600, 89]))) == ["raised"]


def test_a_condition_that_comes_back_while_latched_stays_in_its_episode() -> None:
    events = run(trace([*[89] * 11, *[95] * 6, *[85] * 11, *[95] * 6]))
    assert steps_of(events) == ["raised", "latched", "raised-again", "latched"]
    assert len({e.episode for e in events}) == 1
    assert [e.number for e in events] == [1, 2, 3, 4]


def test_a_second_condition_after_the_end_is_a_new_episode() -> None:
    events = run(trace([*[140] * 11, *[100] * 6, *[140] * 11], "heart_rate"))
    assert [(e.step, e.number) for e in events] == [("raised", 1), ("ended", 2), ("raised", 1)]
    assert events[0].episode == events[1].episode != events[2].episode


@pytest.mark.parametrize(
    "status", [Status.QUESTIONABLE, Status.TEST, Status.CALIBRATION, Status.IMPLAUSIBLE]
)
def test_only_a_value_without_doubt_counts(status: Status) -> None:
    absent = status == Status.IMPLAUSIBLE  # a reading of it has no value on the wire

    def of(rows: list[Reading]) -> list[Reading]:
        return [
            msgspec.structs.replace(row, status=status, value=None if absent else row.value)
            for row in rows
        ]

    assert run(of(trace([80] * 60))) == []
    high = of(trace([*[None] * 11, *[99] * 60]))
    assert steps_of(run([*trace([80] * 11), *high])) == ["raised"]


def test_missing_neither_raises_nor_clears_a_limit() -> None:
    lost = [reading("spo2", None, T0 + at * 1000, Status.MISSING) for at in range(11, 40)]
    kinds = [(e.kind, e.step) for e in run([*trace([80] * 11), *lost])]
    assert kinds == [("threshold", "raised"), ("signal_loss", "raised")]


@pytest.mark.parametrize(
    ("vital", "value", "rule", "priority"),
    [
        ("heart_rate", 131, "heart_rate.high.medium", "medium"),
        ("heart_rate", 39, "heart_rate.low.high", "high"),
        ("resp_rate", 7, "resp_rate.low.high", "high"),
    ],
)
def test_the_other_limits_ring_after_ten_seconds(
    vital: str, value: int, rule: str, priority: str
) -> None:
    (event,) = run(trace([value] * 11, vital))
    assert (event.vital, event.rule, event.priority) == (vital, rule, priority)
    assert event.at_ms == T0 + 10_000


def test_one_temperature_rings_and_one_clears() -> None:
    rows = [
        reading("temperature", 39.1, T0, site=Site.ORAL),
        reading("temperature", 38.9, T0 + 900_000, site=Site.ORAL),
        reading("temperature", 38.8, T0 + 1_800_000, site=Site.ORAL),
    ]
    events = run(rows)
    assert [(e.step, e.at_ms - T0) for e in events] == [("raised", 0), ("ended", 1_800_000)]
    assert events[0].evidence == [f"{SUBJECT}.temperature.mwt3h340.s1"]


def test_a_rule_s_own_lateness_holds() -> None:
    at_edge = run(trace([39.1], "temperature"), late_ms=900_000)
    beyond = run(trace([39.1], "temperature"), late_ms=900_001)
    assert [(e.step, e.retrospective) for e in (*at_edge, *beyond)] == [
        ("raised", False),
        ("", True),
    ]


def test_two_sensors_do_not_clear_each_other() -> None:
    rows = [
        reading("spo2", value, T0 + second * 1000, channel=channel)
        for second in range(12)
        for channel, value in ((0, 97), (1, 85))
    ]
    (event,) = run(rows)
    assert event.evidence[0].endswith(".c1")
    assert event.channel == 1


def test_a_backlog_rings_nothing_but_is_told() -> None:
    events = run(trace([*[85] * 12, *[95] * 10]), late_ms=60_001)
    assert [(e.state, e.retrospective, e.number) for e in events] == [
        ("active", True, 0),
        ("ended", True, 0),
    ]


def test_a_minute_late_still_rings() -> None:
    events = run(trace([85] * 12), late_ms=60_000)
    assert [(e.step, e.retrospective) for e in events] == [("raised", False)]


def test_a_backlog_neither_rings_nor_silences_what_is_live() -> None:
    subject = subject_under(LIMITS)
    live = observed(subject, trace([85] * 11), T0 + 10_000)
    late = observed(subject, moved(trace([99] * 20), -3_600_000), T0 + 10_000)
    after = observed(subject, [reading("spo2", 84, T0 + 11_000)], T0 + 11_000)
    assert [e.retrospective for e in live] == [False]
    assert late == []
    assert [(e.step, e.worst, e.retrospective) for e in after] == [("worse", 84, False)]


def test_a_reading_older_than_what_was_judged_is_late() -> None:
    rows = [*trace([95] * 30), reading("temperature", 40, T0), reading("spo2", 99, T0 + 31_000)]
    subject = subject_under(LIMITS)
    observed(subject, rows, T0 + 31_000)
    events = observed(subject, trace([80] * 12), T0 + 31_000)
    assert [(e.state, e.retrospective) for e in events] == [("active", True)]


def test_an_older_reading_does_not_make_later_ones_the_newest() -> None:
    """All within what may be late, and the older one within its hold."""
    policy = LIMITS
    subject, log = subject_under(policy), Log(3, policy)
    rows = [
        *trace([97] * 30),
        reading("spo2", 97, T0 + 5_000),
        *moved(trace([85] * 12), 6_000),
    ]
    now = T0 + 30_000
    told = observed(subject, rows, now)
    in_turns = [
        log.give([record(at, [(SUBJECT, row)], ingested_ms=now)]).alerts
        for at, row in enumerate(rows)
    ]
    assert [e.retrospective for e in told] == [True]
    assert [e for alerts in in_turns for e in alerts] == told


def test_a_second_backlog_from_further_back_begins_anew() -> None:
    subject, now = subject_under(LIMITS), T0 + 10_000_000
    first = observed(subject, trace([85] * 11), now)
    second = observed(subject, moved(trace([85] * 11), -600_000), now)
    assert [e.state for e in first] == ["active"]
    assert [e.state for e in second] == ["ended", "active"]
    assert second[0].episode == first[0].episode != second[1].episode
    assert all(e.retrospective for e in (*first, *second))


def test_a_clock_from_the_future_makes_nothing_late() -> None:
    subject = subject_under(LIMITS)
    observed(subject, [reading("spo2", 95, T0 + 10**9)], T0)
    events = observed(subject, moved(trace([85] * 11), FUTURE_MS_MAX + 10_000), T0 + 141_000)
    assert [(e.step, e.retrospective) for e in events] == [("raised", False)]


def test_a_time_ahead_is_drawn_back_to_the_bound() -> None:
    (event,) = run(
        [reading("temperature", 40, T0)], limits_only(FEVER), late_ms=-FUTURE_MS_MAX - 5_000
    )
    assert event.at_ms == T0 - 5_000


def test_signal_loss_needs_a_signal_first() -> None:
    lost = [reading("spo2", None, T0 + at * 1000, Status.MISSING) for at in range(1, 60)]
    assert run(lost) == []
    (event,) = run([reading("spo2", 96, T0), *lost])
    assert (event.kind, event.priority, event.text) == ("signal_loss", "low", "SpO2 no signal")
    assert (event.rule, event.at_ms) == ("spo2.signal", T0 + 11_000)


def test_a_signal_that_is_back_for_its_delay_ends_the_loss() -> None:
    lost = [reading("spo2", None, T0 + at * 1000, Status.MISSING) for at in range(1, 15)]
    back = [reading("spo2", 96, T0 + at * 1000) for at in range(15, 25)]
    events = run([reading("spo2", 96, T0), *lost, *back])
    assert [(e.step, e.at_ms - T0, e.ended_ms and e.ended_ms - T0) for e in events] == [
        ("raised", 11_000, None),
        ("ended", 20_000, 15_000),
    ]


def test_signal_loss_can_be_switched_off() -> None:
    lost = [reading("spo2", None, T0 + at * 1000, Status.MISSING) for at in range(1, 60)]
    off = limits_only(signal_loss=SignalLoss(enabled=False))
    assert run([reading("spo2", 96, T0), *lost], off) == []


def test_a_rule_that_is_gone_ends_its_episode() -> None:
    subject = subject_under(LIMITS)
    observed(subject, trace([85] * 11), T0 + 10_000)
    subject.rules = rules_of(limits_only(HEART), SUBJECT)
    events = orders.renounce(subject, T0 + 20_000)
    assert [(e.step, e.state, e.rule, e.who, e.why) for e in events] == [
        ("cleared", "ended", "spo2.low.high", "system", "policy")
    ]
    assert all(not key.startswith("spo2.low") for key in (*subject.watches, *subject.episodes))
    assert orders.renounce(subject, T0 + 20_000) == []


# -- what came with the life cycle ---------------------------------------------------------------


def test_the_urgent_limit_explains_the_milder_one_and_releases_it() -> None:
    policy = limits_only(SPO2, SPO2_MILD)
    events = run(trace([96, *[92] * 12, *[85] * 12, *[92] * 6]), policy)
    told = [(e.rule.rpartition(".")[2], e.step, bool(e.suppressed_by)) for e in events]
    assert told == [
        ("medium", "raised", False),
        ("medium", "worse", False),
        ("high", "raised", False),
        ("medium", "suppressed", True),
        ("high", "latched", False),
        ("medium", "released", False),
    ]
    (high,) = {e.episode for e in events if e.priority == "high"}
    assert {e.suppressed_by for e in events if e.suppressed_by} == {high}


def test_a_milder_alarm_that_is_raised_under_a_cause_never_rings() -> None:
    slow = msgspec.structs.replace(SPO2_MILD, delay_s=20)
    events = run(trace([85] * 22), limits_only(SPO2, slow))
    assert [(e.rule, e.step, bool(e.suppressed_by)) for e in events] == [
        ("spo2.low.high", "raised", False),
        ("spo2.low.medium", "raised", True),
    ]


def test_the_other_side_and_another_channel_are_no_cause() -> None:
    policy = limits_only(SPO2, SPO2_MILD)
    rows = [
        reading("spo2", value, T0 + second * 1000, channel=channel)
        for second in range(12)
        for channel, value in ((0, 85), (1, 92))
    ]
    events = run(rows, policy)
    assert [(e.channel, e.rule, bool(e.suppressed_by)) for e in events] == [
        (0, "spo2.low.high", False),
        (0, "spo2.low.medium", True),
        (1, "spo2.low.medium", False),
    ]


def test_a_limit_of_the_other_side_is_no_cause() -> None:
    high = Rule("heart_rate", "high", 130, "medium", delay_s=0)
    low = Rule("heart_rate", "low", 40, "high", delay_s=0)
    events = run(trace([39, 140], "heart_rate"), limits_only(low, high))
    assert [(e.rule, e.step, e.suppressed_by) for e in events] == [
        ("heart_rate.low.high", "raised", ""),
        ("heart_rate.high.medium", "raised", ""),
    ]


def test_five_raises_in_a_quarter_of_an_hour_are_one_standing_alert() -> None:
    swings: list[float | None] = [*[140] * 11, *[100] * 6]
    events = run(trace(swings * 6, "heart_rate"), limits_only(HEART))
    assert steps_of(events) == ["raised", "ended"] * 4 + ["raised", "flapping"]
    assert events[-1].standing
    assert len({e.episode for e in events}) == 5


NEWS = pushed(
    msgspec.structs.replace(limits_only(FEVER), scores=Scores(), artefact=Artefact(enabled=False))
)


def vitals_set(second: int, **values: float) -> list[Reading]:
    return [reading(name, value, T0 + second * 1000) for name, value in values.items()]


def test_news2_is_raised_after_a_minute_and_ends_after_one() -> None:
    ill = {"resp_rate": 26, "spo2": 93, "heart_rate": 95}  # 3 + 2 + 1
    well = {"resp_rate": 16, "spo2": 98, "heart_rate": 70}
    rows: list[Reading] = []
    for second in range(100):
        rows += vitals_set(second, **ill)
    for second in range(100, 200):
        rows += vitals_set(second, **well)
    events = run(rows, NEWS)
    assert [(e.rule, e.step) for e in events] == [
        ("news2.medium", "raised"),
        ("news2.medium", "ended"),
    ]
    raised, ended = events
    assert raised.began_ms == T0
    assert T0 + 60_000 <= raised.at_ms <= T0 + 65_000
    assert raised.text.startswith("NEWS2 6 to ")
    assert {ident.split(".")[1] for ident in raised.evidence} == {"resp-rate", "spo2", "heart-rate"}
    assert ended.ended_ms == T0 + 100_000
    assert T0 + 160_000 <= ended.at_ms <= T0 + 165_000


def test_news2_of_less_than_a_minute_is_not_told() -> None:
    rows: list[Reading] = []
    for second in range(150):
        ill = second < 58
        rows += vitals_set(
            second, resp_rate=26 if ill else 16, spo2=93 if ill else 98, heart_rate=70
        )
    assert run(rows, NEWS) == []


def test_a_trend_rings_before_a_limit_does_and_ends() -> None:
    falling = Trend("spo2", "falling", 6, 10, "low")
    policy = limits_only(SPO2, trends=(falling,))
    down = [99 - minute * 0.75 for minute in range(12) for _ in range(4)]
    values = [round(value) for value in down] + [91] * 60
    events = run(trace([float(value) for value in values], step_s=15), policy)
    assert steps_of(events)[0 :: len(events) - 1] == ["raised", "ended"]
    assert {(e.kind, e.rule) for e in events} == {("trend", "spo2.falling")}
    assert "falling" in events[0].text


def test_a_doubt_is_marked_and_rings_all_the_same() -> None:
    policy = pushed(msgspec.structs.replace(LIMITS, artefact=Artefact(enabled=True)))
    rows = trace([97, 97, *[80] * 12])
    (marked,) = run(rows, policy)
    (plain,) = run(rows, LIMITS)
    assert marked.quality == ["jump"]
    assert plain.quality == []
    assert (marked.step, marked.at_ms) == (plain.step, plain.at_ms)


# -- in any order, cut anywhere ------------------------------------------------------------------

moves = st.tuples(
    st.sampled_from(["spo2", "heart_rate", "temperature", "resp_rate"]),
    st.integers(-3, 12),
    st.integers(-2, 2),
    st.sampled_from([0, 0, 0, 0, *Status]),
)


@st.composite
def walks(draw: st.DrawFn) -> list[Reading]:
    near = {"spo2": 90, "heart_rate": 130, "temperature": 39, "resp_rate": 8}
    rows, at = [], T0
    for vital, seconds, off, status in draw(st.lists(moves, max_size=60)):
        at += seconds * 1000
        absent = status in {Status.MISSING, Status.IMPLAUSIBLE}
        value = None if absent else float(near[vital] + off)
        rows.append(Reading(BY_NAME[vital].index, value, at, at, int(status)))
    return rows


WHOLE = pushed(
    msgspec.structs.replace(
        limits_only(),
        scores=Scores(),
        artefact=Artefact(enabled=True),
        trends=(Trend("spo2", "falling", 6, 10, "low"),),
    )
)


@settings(deadline=None)
@given(walks(), st.data())
def test_where_the_readings_are_cut_changes_nothing(
    rows: list[Reading], data: st.DataObject
) -> None:
    now = T0 + 200_000
    whole = subject_under(WHOLE)
    expected = observed(whole, rows, now)
    told: list[AlertEvent] = []
    kept: bytes = msgspec.msgpack.encode(Subject(SUBJECT).stored())
    left = rows
    while left:
        size = data.draw(st.integers(1, len(left)))
        # and a restart between any two changes nothing
        part = subject_under(WHOLE, msgspec.msgpack.decode(kept, type=Kept))
        told += observed(part, left[:size], now)
        kept = msgspec.msgpack.encode(part.stored())
        left = left[size:]
    assert told == expected
    assert kept == msgspec.msgpack.encode(whole.stored())


def test_a_score_that_was_charted_is_stored_as_it_is_restored() -> None:
    # A whole number of points: 3 before and 3.0 after would be two states.
    subject = subject_under(WHOLE)
    observed(subject, [Reading(BY_NAME["spo2"].index, 90.0, T0, T0, 0)], T0)
    kept = msgspec.msgpack.encode(subject.stored())
    assert subject.charted
    again = subject_under(WHOLE, msgspec.msgpack.decode(kept, type=Kept))
    assert msgspec.msgpack.encode(again.stored()) == kept


@settings(deadline=None)
@given(walks())
def test_every_episode_is_told_from_its_raise_to_its_end_in_numbers(rows: list[Reading]) -> None:
    episodes: dict[tuple[str, bool], list[AlertEvent]] = {}
    for event in run(rows):
        episodes.setdefault((event.episode, event.retrospective), []).append(event)
    for (_, late), events in episodes.items():
        states = [e.state for e in events]
        assert states[0] == "active"
        assert states.count("ended") <= 1
        assert "ended" not in states[:-1]
        assert all(e.began_ms <= e.raised_ms <= e.at_ms for e in events)
        assert all(len(e.evidence) <= 3 for e in events)
        assert [e.number for e in events] == ([0] * len(events) if late else list(
            range(1, len(events) + 1)
        ))  # fmt: skip


@pytest.mark.parametrize(
    ("source", "behind_ms", "retrospective"),
    [(TimeSource.CORRECTED, 0, False), (TimeSource.DEVICE, 600_000, True)],
)
def test_a_device_ten_minutes_slow_rings_live_once_its_gateway_corrects_it(
    source: TimeSource, behind_ms: int, retrospective: bool
) -> None:
    """The gateway's work is in edge/skew.py; here is what detect makes of both outcomes."""
    subject = subject_under(LIMITS)
    told: list[AlertEvent] = []
    for second, value in enumerate([96, 96, *[84] * 11]):
        at = T0 + second * 1000
        row = Reading(BY_NAME["spo2"].index, value, at - behind_ms, at, time_source=int(source))
        ((_, carried),) = decode(encode(pack([Source("d")], [(0, row)]))).rows()
        assert carried.time_source == source
        told += observed(subject, [carried], at + 100)
    assert [(e.state, e.text, e.retrospective) for e in told] == [
        ("active", "SpO2 84<90", retrospective)
    ]


def test_an_acknowledged_alarm_ends_without_latching() -> None:
    subject = subject_under(LIMITS)
    (raised,) = observed(subject, trace([85] * 11), T0 + 10_000)
    give(
        subject.episodes,
        raised.rule,
        Acknowledge("nurse-1", "seen", T0 + 11_000, raised.episode),
        subject.rules.life,
    )
    rows = moved(trace([95] * 6), 12_000)
    (ended,) = observed(subject, rows, T0 + 18_000)
    assert (ended.step, ended.acknowledged_by, ended.number) == ("ended", "nurse-1", 3)


def test_a_rule_without_clear_delay_ends_at_once() -> None:
    rule = Rule("spo2", "low", 90, "low", delay_s=0, clear_delay_s=0)
    assert steps_of(run(trace([89, 90, 89]), limits_only(rule))) == ["raised", "ended", "raised"]

"""The replay tells what detect tells: a partition given the same readings tells the same."""

import random
from pathlib import Path

import msgspec
import pytest

import simulators
from cloud.detect.made import Poison
from cloud.detect.partition import TICK_MS
from cloud.policy.default import DEFAULT
from cloud.policy.model import Policy, Trend
from cloud.records import AlertEvent, SamplesRecord
from cloud.whatif import recorded
from cloud.whatif.replay import Judge, next_tick_ms, plain, replay
from cloud.whatif.ward import NO_VALUE, Row, Rows, Ward
from tests.cloud.detect.policies import SPO2, limits_only, pushed
from tests.cloud.detect.records_of import device, subject_in
from tests.cloud.detect.turns import Log
from tests.cloud.whatif.made import T0, row, ward
from vitals.codes import BY_NAME, VITALS, Status, decimal_scale
from vitals.columns import Source, pack
from vitals.reading import Reading
from vitals.topics import partition_of

RECORDINGS = Path(simulators.__file__).parent / "recordings" / recorded.FILE
SUBJECT = subject_in(3)
NEAR = {
    "spo2": (86, 99),
    "heart_rate": (36, 134),
    "resp_rate": (6, 32),
    "temperature": (36, 40),
    "nibp_systolic": (85, 225),
}


def everything_on() -> Policy:
    scores = DEFAULT.scores
    scores = msgspec.structs.replace(
        scores,
        news2=msgspec.structs.replace(scores.news2, single_red=True),
        qsofa=msgspec.structs.replace(scores.qsofa, enabled=True),
        shock_index=msgspec.structs.replace(scores.shock_index, enabled=True),
    )
    trends = (*DEFAULT.trends, Trend("heart_rate", "rising", 10, 5, "low"))
    return pushed(msgspec.structs.replace(DEFAULT, scores=scores, trends=trends))


def told(made: Ward, policy: Policy, end_ms: int) -> list[AlertEvent]:
    """Return what the replay tells."""
    ((_, subject, rows),) = made.ordered()
    return [one.event for one in replay(subject, plain(rows), made.origins, Judge(policy), end_ms)]


def by_partition(made: Ward, policy: Policy, end_ms: int) -> list[AlertEvent]:
    """Return what a partition tells: a record an arrival and device, the clock each second."""
    ((_, subject, rows),) = made.ordered()
    log = Log(partition_of(subject), policy)
    events: list[AlertEvent] = []
    records = list(_records(subject, rows, made))
    # A partition ticks at most once a second from its first turn on: let that be a whole one.
    clock_ms = next_tick_ms(records[0].ingested_ms) - TICK_MS
    log.tick(clock_ms)

    def clock(until_ms: int) -> None:
        nonlocal clock_ms
        while clock_ms <= until_ms:
            if log.partition.due(clock_ms):
                events.extend(log.tick(clock_ms))
            clock_ms += TICK_MS

    for record in records:
        clock(record.ingested_ms)
        events.extend(log.give([record], record.ingested_ms).alerts)
    clock(end_ms)
    return events


def _records(subject: str, rows: Rows, made: Ward) -> list[SamplesRecord]:
    groups: list[tuple[tuple[int, int], list[Reading]]] = []
    for time, arrival, value, source, vital, status, site, channel in zip(
        *(column.tolist() for column in rows), strict=True
    ):
        number = None if value == NO_VALUE else value / decimal_scale(VITALS[vital])
        reading = Reading(vital, number, time, arrival, status, site, channel)
        if not groups or groups[-1][0] != (arrival, source):
            groups.append(((arrival, source), []))
        groups[-1][1].append(reading)
    return [
        SamplesRecord(
            made.origins[source].edge,
            "ab" * 16,
            seq,
            0,
            arrival,
            pack([Source(made.origins[source].device, subject)], [(0, one) for one in readings]),
        )
        for seq, ((arrival, source), readings) in enumerate(groups)
    ]


def odd_bed(seed: int, seconds: int) -> Ward:
    """Return a bed about its limits: gaps, silence, doubts, backlogs, clocks ahead, two devices."""
    rng = random.Random(seed)
    now = {vital: rng.uniform(*bounds) for vital, bounds in NEAR.items()}
    pace, at_ms = rng.choice((0.2, 0.7, 2.0)), T0 + rng.randrange(1000)
    rows: list[tuple[str, Row]] = []
    off_s = 0
    for second in range(seconds):
        chance = rng.random()
        at_ms += 1000 if chance > 0.02 else rng.choice((1, 400, 5_000, 40_000, 95_000))
        if second == seconds // 2:
            at_ms += 2_000_000  # forgotten
        off_s = rng.randrange(8, 40) if rng.random() < 0.01 else off_s - 1
        lag_ms = rng.choice((5_000, 30_000, 90_000, -3_000, -400_000)) if rng.random() < 0.05 else 0
        for vital, (low, high) in NEAR.items():
            if not BY_NAME[vital].continuous and rng.random() > 0.03:
                continue
            now[vital] = min(high, max(low, now[vital] + rng.gauss(0, pace)))
            status = int(rng.choice(list(Status)) if rng.random() < 0.02 else Status.OK)
            if off_s > 0 and vital == "spo2":
                status = int(Status.MISSING)
            none = status in {int(Status.MISSING), int(Status.IMPLAUSIBLE)}
            value = None if none else round(now[vital], BY_NAME[vital].decimals)
            name = device(2 if vital == "resp_rate" and rng.random() < 0.5 else 1)
            channel = 1 if rng.random() < 0.01 else 0
            rows.append(
                (name, row(vital, value, at_ms - lag_ms, at_ms, status=status, channel=channel))
            )
    return ward(SUBJECT, rows)


@pytest.mark.parametrize("seed", range(6))
def test_a_bed_with_everything_odd_is_told_as_a_partition_tells_it(seed: int) -> None:
    made, policy = odd_bed(seed, 900), everything_on()
    end_ms = T0 + 12_000_000
    expected = by_partition(made, policy, end_ms)
    assert told(made, policy, end_ms) == expected
    assert {event.kind for event in expected} >= {"threshold", "silence", "signal_loss"}


@pytest.mark.parametrize("number", [8, 13, 19, 32, 49])
def test_recorded_patients_are_told_as_a_partition_tells_them(number: int, tmp_path: Path) -> None:
    head, *rest = RECORDINGS.read_text(encoding="ascii").splitlines()
    one = tmp_path / "one.csv"
    mine = [text for text in rest if text.startswith(f"{number},")]
    one.write_text("\n".join([head, *mine]), encoding="ascii")
    made = Ward()
    recorded.read(one, made)
    end_ms = recorded.RECORDED_MS + len(mine) * 1000
    expected = by_partition(made, DEFAULT, end_ms)
    assert told(made, DEFAULT, end_ms) == expected
    assert expected


def test_a_device_that_falls_silent_rings_and_is_heard_again() -> None:
    rows = [(device(1), row("spo2", 97, T0 + s * 1000)) for s in (*range(10), *range(200, 210))]
    made, policy = ward(SUBJECT, rows), limits_only()
    found = told(made, policy, T0 + 210_000)
    assert [(event.kind, event.step, (event.at_ms - T0) / 1000) for event in found] == [
        ("silence", "raised", 70.0),
        ("silence", "ended", 200.0),
    ]


def test_the_clock_goes_on_to_the_end_of_the_ward() -> None:
    made = ward(SUBJECT, [(device(1), row("spo2", 97, T0))])
    assert told(made, limits_only(), T0 + 60_000) == []
    steps = [(one.step, one.at_ms - T0) for one in told(made, limits_only(), T0 + 4_000_000)]
    assert [steps[0], steps[-1]] == [("raised", 61_000), ("cleared", 1_801_000)]
    assert [step for step, _ in steps[1:-1]] == ["escalated", "escalated"]


def test_nobody_acknowledges_so_a_latched_alarm_keeps_its_episode_and_tells_its_new_beginning() -> (
    None
):
    def value(second: int) -> int:
        return 85 if 10 <= second < 40 or 100 <= second < 130 else 97

    rows = [(device(1), row("spo2", value(s), T0 + s * 1000)) for s in range(200)]
    made = ward(SUBJECT, rows)
    ((_, subject, ordered),) = made.ordered()
    judge = Judge(limits_only(SPO2))
    found = replay(subject, plain(ordered), made.origins, judge, T0 + 200_000)
    began = {one.event.step: (one.event.began_ms - T0, one.began_ms - T0) for one in found}
    assert began["raised"] == (10_000, 10_000)
    assert began["raised-again"] == (10_000, 100_000)


def test_the_partition_that_is_compared_with_takes_these_records() -> None:
    made = odd_bed(1, 50)
    ((_, subject, rows),) = made.ordered()
    log = Log(partition_of(subject), DEFAULT)
    for record in _records(subject, rows, made):
        try:
            log.partition.read(msgspec.msgpack.encode(record))
        except Poison as error:
            pytest.fail(error.reason)


def test_a_late_reading_within_its_hold_is_no_live_one() -> None:
    loss = msgspec.structs.replace(DEFAULT.signal_loss, stale_s=300)
    policy = limits_only(SPO2, signal_loss=loss)
    rows = [(device(1), row("heart_rate", 80, T0 + s * 1000)) for s in range(400)]
    rows += [(device(1), row("spo2", 97, T0 + s * 1000)) for s in range(11)]
    rows += [(device(1), row("spo2", 97, T0 + 40_000, T0 + 105_000))]
    made, end_ms = ward(SUBJECT, rows), T0 + 400_000
    expected = by_partition(made, policy, end_ms)
    assert told(made, policy, end_ms) == expected
    assert [(one.rule, one.step, one.began_ms - T0) for one in expected] == [
        ("spo2.signal", "raised", 10_000)
    ]


def test_a_clock_that_runs_ahead_is_drawn_back_within_a_hold_too() -> None:
    ahead = {10: 119, 11: 170}  # seconds; the second lies within the hold of the first
    rows = [
        (
            device(1),
            row(
                "spo2",
                85 if 150 <= s < 175 else 97,
                T0 + (s + ahead.get(s, 0)) * 1000,
                T0 + s * 1000,
            ),
        )
        for s in range(200)
    ]
    made, end_ms = ward(SUBJECT, rows), T0 + 200_000
    expected = by_partition(made, limits_only(SPO2), end_ms)
    assert told(made, limits_only(SPO2), end_ms) == expected
    assert [(one.step, one.at_ms - T0) for one in expected][:1] == [("raised", 160_000)]


def test_who_was_forgotten_comes_back_as_a_new_one() -> None:
    rows = [(device(1), row("spo2", 97, T0 + s * 1000)) for s in range(10)]
    missing = int(Status.MISSING)
    rows += [
        (device(1), row("spo2", None, T0 + s * 1000, status=missing)) for s in range(2_000, 2_060)
    ]
    made, end_ms = ward(SUBJECT, rows), T0 + 2_060_000
    expected = by_partition(made, limits_only(SPO2), end_ms)
    assert told(made, limits_only(SPO2), end_ms) == expected
    assert {one.kind for one in expected} == {"silence"}


def test_each_of_two_devices_is_silent_from_its_own_last_reading() -> None:
    rows = [(device(1), row("spo2", 97, T0 + s * 1000)) for s in range(100)]
    rows += [(device(2), row("heart_rate", 80, T0 + s * 1000)) for s in range(100, 200)]
    made, end_ms = ward(SUBJECT, rows), T0 + 200_000
    expected = by_partition(made, limits_only(SPO2), end_ms)
    assert told(made, limits_only(SPO2), end_ms) == expected
    began = [one.began_ms - T0 for one in expected if one.kind == "silence"]
    assert began == [99_000]

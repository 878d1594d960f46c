"""Holds: leaving readings out that lie within them changes no event; and turns replayed, nothing.

The oracle is `Subject.observe` given every reading.
"""

import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from cloud.detect.made import Made
from cloud.detect.partition import Partition
from cloud.detect.subject import Subject
from cloud.policy.default import DEFAULT
from cloud.policy.model import Policy, Trend
from cloud.records import AlertEvent, SamplesRecord
from tests.cloud.detect.records_of import T0, device, reading, record, subject_in
from tests.cloud.detect.turns import Log
from vitals.codes import BY_NAME, Status
from vitals.reading import Reading

PARTITION = 3
SUBJECTS = [subject_in(PARTITION, nth) for nth in range(3)]

NEAR = {
    "spo2": (86, 99),
    "heart_rate": (36, 134),
    "pulse_rate": (36, 134),
    "resp_rate": (6, 26),
    "temperature": (34, 40),
    "nibp_systolic": (85, 225),
    "consciousness": (0, 1),
    "o2_flow": (0, 3),
}


def policy() -> Policy:
    """Return the defaults with everything on that can be."""
    scores = msgspec.structs.replace(
        DEFAULT.scores,
        news2=msgspec.structs.replace(DEFAULT.scores.news2, enabled=True, single_red=True),
        qsofa=msgspec.structs.replace(DEFAULT.scores.qsofa, enabled=True),
    )
    return msgspec.structs.replace(
        DEFAULT,
        scores=scores,
        trends=(
            Trend("spo2", "falling", 3, 5, "low"),
            Trend("heart_rate", "rising", 10, 5, "low"),
        ),
    )


class Slow(Partition):
    """Gives every reading to `Subject.observe`."""

    def _observe(self, columns: Any, subjects: list[Subject], ingested_ms: int, made: Made) -> None:
        for row, (at, one) in enumerate(columns.rows()):
            made.alerts += subjects[at].observe(one, columns.value[row], ingested_ms)


# Of a ward with nothing much the matter: scores of 0 to 6, limits met now and then.
CALM = {
    **NEAR,
    "spo2": (93, 98),
    "heart_rate": (52, 133),
    "pulse_rate": (52, 133),
    "resp_rate": (9, 22),
    "temperature": (35.8, 38.6),
    "nibp_systolic": (105, 150),
    "consciousness": (0, 0),
    "o2_flow": (0, 0),
}


def told(
    records: list[SamplesRecord], kind: type[Partition], given: Policy | None = None
) -> tuple[list[AlertEvent], list[bytes], Any]:
    """Return every event and score of a run, and what is kept that holds must not touch."""
    log = Log(PARTITION, None)
    log.partition = kind(PARTITION)
    log.partition.begin()
    log.partition.restored()
    from tests.cloud.detect.turns import policy_record

    log.command([policy_record(given or policy())], 1)
    events: list[AlertEvent] = []
    scores: list[bytes] = []
    for one in records:
        made = log.give([one], one.ingested_ms)
        events += made.alerts
        scores += [
            message.value for message in made.fhir if b"urn:healthsync:score" in message.value
        ]
    kept = {}
    for name, subject in log.partition._subjects.items():
        stored = subject.stored()
        kept[name] = msgspec.structs.replace(stored, traces={})
    return events, scores, kept


def ward(
    seed: int, seconds: int, near: Mapping[str, tuple[float, float]] | None = None
) -> list[SamplesRecord]:
    """Return a ward whose values walk about their limits, with gaps, doubts and backlogs."""
    rng = random.Random(seed)
    bounds = NEAR if near is None else near
    now = {(s, v): rng.uniform(*bounds[v]) for s in SUBJECTS for v in bounds}
    pace = rng.choice((0.2, 0.7, 2.0))
    out: list[SamplesRecord] = []
    at = T0
    for seq in range(seconds):
        at += rng.choice((1000,) * 8 + (400, 5_000)) if rng.random() > 0.003 else 95_000
        rows: list[tuple[str, Reading]] = []
        lag = rng.choice((0, 0, 0, 0, 0, 30_000, 90_000)) if rng.random() < 0.1 else 0
        for subject in SUBJECTS:
            for vital, (low, high) in bounds.items():
                if not BY_NAME[vital].continuous and rng.random() > 0.02:
                    continue
                walked = now[subject, vital] + rng.gauss(0, pace)
                if rng.random() < 0.01:
                    walked += rng.choice((-35, 35))
                now[subject, vital] = min(high, max(low, walked))
                if rng.random() < 0.02:
                    continue
                status = rng.choice(list(Status)) if rng.random() < 0.02 else Status.OK
                value: float | None = round(now[subject, vital], BY_NAME[vital].decimals)
                if status in {Status.MISSING, Status.IMPLAUSIBLE}:
                    value = None
                channel = 1 if rng.random() < 0.005 else 0
                rows.append((subject, reading(vital, value, at - lag, int(status), 0, channel)))
        out.append(record(seq, rows, ingested_ms=at + 100))
    return out


@pytest.mark.parametrize("seed", range(12))
def test_leaving_out_what_is_held_changes_no_event(seed: int) -> None:
    records = ward(seed, 400)
    events, scores, kept = told(records, Partition)
    assert (events, scores, kept) == told(records, Slow)
    assert {event.kind for event in events} >= {"threshold"}
    assert scores


@pytest.mark.parametrize("seed", range(12))
def test_nor_in_a_calm_ward_where_holds_are_wide(seed: int) -> None:
    records = ward(seed, 400, CALM)
    events, scores, kept = told(records, Partition, DEFAULT)
    assert (events, scores, kept) == told(records, Slow, DEFAULT)
    assert scores


def test_holds_do_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet ward is judged without being looked at: else the tests above prove nothing."""
    seen = 0
    whole = Subject.observe

    def counted(self: Subject, *given: Any) -> list[AlertEvent]:
        nonlocal seen
        seen += 1
        return whole(self, *given)

    monkeypatch.setattr(Subject, "observe", counted)
    rows = [
        [(SUBJECTS[0], reading(vital, value + second % 2, T0 + second * 1000))
         for vital, value in (("spo2", 97), ("heart_rate", 70), ("resp_rate", 15))]
        for second in range(600)
    ]  # fmt: skip
    told([record(seq, one) for seq, one in enumerate(rows)], Partition)
    assert seen < 30


@pytest.mark.parametrize("given", [policy(), DEFAULT])
@pytest.mark.parametrize("seed", range(20))
def test_restored_anywhere_it_goes_on_as_if_nothing_had_happened(seed: int, given: Policy) -> None:
    """Chunks rotate by turns: a restart finds chunks of many ages, and replays between them."""
    rng = random.Random(seed)
    records = ward(seed, 150)
    whole, broken = Log(PARTITION, given), Log(PARTITION, given)
    at = turns = 0
    while at < len(records):
        many = rng.randrange(1, 5)
        turn = records[at : at + many]
        if at and rng.random() < 0.2:
            turn = [records[rng.randrange(at)], *turn]  # sent again
        now_ms = turn[-1].ingested_ms + rng.choice((0, 0, 70_000))
        if rng.random() < 0.1:
            broken.restart(broken.partition.floor)
        expected = _of(whole.give(turn, now_ms))
        assert _of(broken.give(turn, now_ms)) == expected, f"turn {turns}"
        at += many
        turns += 1
    assert broken.state[-1] == whole.state[-1]


def at_rest(second: int, **values: float) -> SamplesRecord:
    """Return a record of one patient to whom nothing happens, but for ``values``."""
    said = {"spo2": 97.0, "heart_rate": 70.0, "resp_rate": 15.0, "temperature": 37.0, **values}
    rows = [
        (SUBJECTS[0], reading(vital, value, T0 + second * 1000)) for vital, value in said.items()
    ]
    return record(second, rows)


def only(second: int, vital: str, value: float) -> SamplesRecord:
    return record(second, [(SUBJECTS[0], reading(vital, value, T0 + second * 1000))])


def test_what_begins_to_be_watched_ends_the_holds_of_peace() -> None:
    """Wide holds are for a low score and nothing watched; a limit's delay ends both."""
    peace = [at_rest(second) for second in range(0, 240, 20)]
    fever = [at_rest(second, temperature=38.5) for second in (240, 260, 280)]
    # A limit is breached, too soon after the score for it to be charted again; then another
    # vital sign leaves its column of the chart, and stays within its wide hold.
    ill = [only(285, "heart_rate", 131), only(302, "resp_rate", 11)]
    whole, broken = Log(PARTITION, DEFAULT), Log(PARTITION, DEFAULT)
    charted = 0
    for one in [*peace, *fever, *ill]:
        if one is ill[1]:
            broken.restart(broken.partition.floor)
        expected = whole.give([one], one.ingested_ms)
        assert _of(broken.give([one], one.ingested_ms)) == _of(expected), one.seq
        charted += sum(b"urn:healthsync:score" in message.value for message in expected.fhir)
    assert charted == 3


def test_a_score_that_rises_by_small_steps_is_seen_at_once() -> None:
    """One vital takes more than its share of what is spare; the others' shares end with it."""
    peace = [at_rest(second) for second in range(0, 100, 20)]
    steps = [
        only(101, "heart_rate", 125),
        only(102, "heart_rate", 135),
        only(103, "spo2", 95),
        only(104, "resp_rate", 11),
    ]
    log = Log(PARTITION, DEFAULT)
    charted = []
    for one in [*peace, *steps]:
        made = log.give([one], one.ingested_ms)
        charted += [one.seq for message in made.fhir if b"urn:healthsync:score" in message.value]
    assert charted[-1] == 104


def _of(made: Made) -> tuple[Any, ...]:
    return made.fhir, made.alerts, made.duplicates, made.readings, made.poison


def test_a_restart_replays_what_its_chunks_have_not_and_nothing_when_rested() -> None:
    log = Log(PARTITION, policy())
    for one in ward(1, 150):
        log.give([one], one.ingested_ms)
    floor = log.partition.floor
    assert 0 < floor < len(log.state)
    replayed = log.restart(floor)
    assert 0 < len(replayed) <= 150
    while log.partition.unwritten:
        log.give([], 10**13)
    assert log.restart() == []


def test_the_floor_is_never_above_anything_that_a_restart_needs() -> None:
    log = Log(PARTITION, policy())
    other = Log(PARTITION, policy())
    for number, one in enumerate(ward(2, 260)):
        log.give([one], one.ingested_ms)
        other.give([one], one.ingested_ms)
        if number % 20 == 19:
            log.restart(log.partition.floor)
    assert log.state[-8:] == other.state[-8:]
    kept = [
        {name: subject.stored() for name, subject in one.partition._subjects.items()}
        for one in (log, other)
    ]
    assert kept[0] == kept[1]


def test_devices_are_named_by_pseudonym() -> None:
    assert len(device(1)) == 32

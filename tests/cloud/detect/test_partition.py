"""A partition's memory: each frame once, restored as it was, poison harmless."""

import json
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.detect import gateways, journal
from cloud.detect.journal import CHUNKS, COMMON, Marks, Turn, slice_of
from cloud.detect.made import Made, Poison, Unjudged
from cloud.detect.made import alert_message as message_of
from cloud.detect.partition import IDLE_CHUNKS, Partition
from cloud.detect.seen import Seen
from cloud.detect.subject import Subject
from cloud.fhir import chart
from cloud.fhir.ids import parse_observation_id
from cloud.policy.default import DEFAULT
from cloud.records import AlertEvent, Command, Instruction, NewPolicy, SamplesRecord, encode
from tests.cloud.detect.bedside import LIMITS, Bedside, at, observations, presence
from tests.cloud.detect.policies import HEART, SPO2, SPO2_MILD, limits_only
from tests.cloud.detect.records_of import (
    EDGE,
    EPOCH,
    T0,
    device,
    reading,
    record,
    subject_in,
    ward,
)
from tests.cloud.detect.turns import Log, policy_record
from vitals.columns import Source, pack
from vitals.reading import DeviceAlert, Reading

SUBJECT = subject_in(3)


def fed(log: Log, records: list[SamplesRecord]) -> list[Made]:
    """Return what records make, each in a turn of its own."""
    return [log.give([one]) for one in records]


def of_three(seconds: int) -> list[SamplesRecord]:
    return [one for number, one in ward(seconds, beds=16) if number == 3]


def spo2(seq: int, value: float = 85, floor: int = 0) -> SamplesRecord:
    return record(seq, [(SUBJECT, reading("spo2", value, T0 + seq * 1000))], floor=floor)


def last_of(log: Log, kind: str) -> dict[bytes, Any]:
    """Return the newest value of every key of a kind in `state`."""
    return {key: value for key, value in log.state if key.startswith(f"3/{kind}".encode())}


def seen_of(log: Log, epoch: str = EPOCH) -> Seen:
    return msgspec.msgpack.decode(last_of(log, f"dedupe/{EDGE}/{epoch}").popitem()[1], type=Seen)


def outcome(made: Made) -> tuple[Any, ...]:
    """Return all of it; which of two subjects comes first in a turn is nobody's concern."""
    return (
        sorted(made.fhir),
        sorted(made.alerts, key=lambda alert: alert.subject),
        made.poison,
        (made.readings, made.duplicates, made.late, made.refused),
    )


def test_a_frame_sent_twice_counts_once() -> None:
    log = Log(3, LIMITS)
    first, again = fed(log, [spo2(0), spo2(0)])
    assert (len(observations(first)), first.readings, first.duplicates) == (1, 1, 0)
    assert outcome(again) == ([], [], [], (0, 1, 0, 0))
    seen = seen_of(log)
    assert (seen.readings, seen.frames, seen.ranges, seen.again) == (1, 1, [(0, 0)], 1)


def test_twice_in_one_turn_counts_once_too() -> None:
    log = Log(3, LIMITS)
    made = log.give([spo2(0), spo2(0), spo2(1)])
    assert (len(observations(made)), made.readings, made.duplicates) == (2, 2, 1)
    log.restart()
    assert log.give([spo2(1)]).duplicates == 1


def test_counts_go_on_over_a_restart_and_a_repeat_alone_is_written() -> None:
    log = Log(3, LIMITS)
    fed(log, [spo2(2), spo2(3)])
    log.restart()
    written = len(log.state)
    fed(log, [spo2(3)])
    keys = [key for key, _ in log.state[written:] if b"/dedupe/" in key]
    assert keys == [f"3/dedupe/{EDGE}/{EPOCH}".encode()]
    seen = seen_of(log)
    assert (seen.frames, seen.again, seen.sums) == (2, 1, (5, 13, 5))


def test_the_state_of_an_older_version_is_taken_over_without_sums() -> None:
    old = {"floor": 2, "ranges": [(2, 3)], "readings": 9, "frames": 4}
    log = Log(3, LIMITS)
    log.state.append((f"3/dedupe/{EDGE}/{EPOCH}".encode(), msgspec.msgpack.encode(old)))
    log.state.append((f"3/subject/{SUBJECT}".encode(), b"of an older version"))
    log.restart()
    made = fed(log, [spo2(1), spo2(4)])
    assert [one.duplicates for one in made] == [1, 0]
    seen = seen_of(log)
    assert (seen.readings, seen.frames, seen.again, seen.sums) == (10, 5, 1, None)


def test_what_lies_below_the_floor_was_seen() -> None:
    log = Log(3, LIMITS)
    made = fed(log, [spo2(7, floor=5), spo2(4), spo2(5, floor=5), spo2(6, floor=8)])
    assert [one.duplicates for one in made] == [0, 1, 0, 0]
    assert seen_of(log) == Seen(8, [], 3, 3, 1, (18, 110, 18))


def test_a_repeat_s_floor_is_believed() -> None:
    log = Log(3, LIMITS)
    made = fed(log, [spo2(0), spo2(0, floor=5), spo2(4), spo2(5)])
    assert [one.duplicates for one in made] == [0, 1, 1, 0]


def test_live_frames_may_overtake_and_epochs_stand_apart() -> None:
    other = record(0, [(SUBJECT, reading("spo2", 95, T0))], epoch="cd" * 16)
    made = fed(Log(3, LIMITS), [spo2(9), spo2(2), other, spo2(2)])
    assert [one.duplicates for one in made] == [0, 0, 0, 1]


def test_gateways_stand_apart() -> None:
    other = record(0, [(SUBJECT, reading("spo2", 95, T0))], edge="edge-2")
    assert [one.duplicates for one in fed(Log(3, LIMITS), [spo2(0), other])] == [0, 0]


def test_one_turn_or_many_make_the_same() -> None:
    records = of_three(60)
    whole, many = Log(3, LIMITS), Log(3, LIMITS)
    made = whole.give(records)
    single = fed(many, records)
    assert made.alerts == [alert for one in single for alert in one.alerts]
    assert sorted(made.fhir) == sorted(message for one in single for message in one.fhir)
    assert made.alerts
    assert last_of(whole, "dedupe") == last_of(many, "dedupe")


@pytest.mark.parametrize(("records_a_chunk", "turns_a_chunk"), [(500, 32), (5, 32), (500, 1)])
def test_a_restart_anywhere_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, records_a_chunk: int, turns_a_chunk: int
) -> None:
    monkeypatch.setattr(journal, "CHUNK_RECORDS", records_a_chunk)
    monkeypatch.setattr(journal, "CHUNK_TURNS", turns_a_chunk)
    records = of_three(120)
    whole, log = Log(3, LIMITS), Log(3, LIMITS)
    expected = fed(whole, records)
    made = []
    for begin in range(0, len(records), 7):
        log.restart(log.partition.floor)
        made += fed(log, records[begin : begin + 7])
    assert list(map(outcome, made)) == list(map(outcome, expected))
    assert any(one.alerts for one in made)
    assert last_of(log, "dedupe") == last_of(whole, "dedupe")


def test_nothing_new_changes_nothing() -> None:
    log = Log(3, LIMITS)
    fed(log, [spo2(0)])
    assert log.partition.state() == []
    before = len(log.state)
    fed(log, [spo2(0)])
    # the turn, and that it came again: nothing else
    written = {key.split(b"/")[1]: value or b"" for key, value in log.state[before:]}
    assert len(log.state) == before + 2
    assert set(written) == {b"turn", b"dedupe"}
    turn = msgspec.msgpack.decode(written[b"turn"], type=Turn)
    assert turn.skipped == [1]


def test_a_bundle_a_subject_with_its_observations() -> None:
    other = subject_in(3, 1)
    rows = [
        (SUBJECT, reading("spo2", 97, T0)),
        (other, reading("spo2", 98, T0)),
        (SUBJECT, reading("heart_rate", 70, T0)),
    ]
    (made,) = fed(Log(3, LIMITS), [record(0, rows)])
    assert [m.key for m in made.fhir] == [SUBJECT.encode(), other.encode()]
    bundle = json.loads(made.fhir[0].value)
    assert bundle["type"] == "transaction"
    ids = [entry["request"]["url"].removeprefix("Observation/") for entry in bundle["entry"]]
    parsed = [parse_observation_id(ident) for ident in ids]
    assert [(p.subject, p.vital) for p in parsed if p] == [
        (SUBJECT, "spo2"),
        (SUBJECT, "heart_rate"),
    ]


def test_a_bundle_shows_the_limits_that_hold_for_its_subject() -> None:
    log = Bedside()
    log.give([log.frame(0, spo2=97)])
    log.do(1, log.order("limit", rule="spo2.low.high", limit=86.0))
    (message,) = log.give([log.frame(2, spo2=97)]).fhir
    assert json.loads(message.value)["entry"][0]["resource"]["referenceRange"][0]["low"][
        "value"
    ] == pytest.approx(86)


def test_a_large_bundle_is_cut_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart, "BUNDLE_BYTES_MAX", 3000)
    rows = [(SUBJECT, reading("spo2", 97, T0 + at * 1000)) for at in range(20)]
    (made,) = fed(Log(3, LIMITS), [record(0, rows)])
    sizes = [len(json.loads(m.value)["entry"]) for m in made.fhir]
    assert sum(sizes) == 20
    assert 1 < max(sizes) < 20
    assert all(len(m.value) <= 3000 for m in made.fhir)


# -- poison --------------------------------------------------------------------------------------


def wrong_source(subject: str, device: str = "0" * 32) -> SamplesRecord:
    columns = pack([Source(device, subject)], [(0, reading("spo2", 97, T0))])
    return SamplesRecord(EDGE, EPOCH, 0, 0, T0, columns)


def with_columns(**fields: list[int]) -> SamplesRecord:
    good = spo2(0)
    return msgspec.structs.replace(good, columns=msgspec.structs.replace(good.columns, **fields))


POISON = [
    (b"", "malformed"),
    (None, "malformed"),
    (b"Ada Ng M000123", "malformed"),
    (encode(spo2(0))[:-3], "malformed"),
    (encode(with_columns(vital=[99])), "malformed"),
    (encode(with_columns(source=[])), "malformed"),
    (encode(wrong_source(subject_in(4))), "partition"),
    (encode(wrong_source("M000123")), "subject"),
    (encode(wrong_source(SUBJECT, "bed-12")), "subject"),
    (encode(with_columns(status=[9])), "malformed"),
    (encode(with_columns(time=[-1])), "malformed"),
    (encode(with_columns(time=[10**16])), "malformed"),
    (encode(with_columns(site=[77])), "malformed"),
    (encode(with_columns(channel=[10**9])), "malformed"),
    (encode(with_columns(channel=[-1])), "malformed"),
    (encode(msgspec.structs.replace(spo2(0), seq=-1)), "range"),
    (encode(msgspec.structs.replace(spo2(0), floor=-1)), "range"),
    (encode(msgspec.structs.replace(spo2(0), ingested_ms=-1)), "range"),
    (encode(msgspec.structs.replace(spo2(0), ingested_ms=10**16)), "range"),
]


@pytest.mark.parametrize(("value", "reason"), POISON)
def test_poison_is_set_aside_and_nothing_of_it_is_remembered(
    value: bytes | None, reason: str
) -> None:
    log = Log(3, LIMITS)
    made = log.give([value])
    assert [(p.offset, p.reason, p.value) for p in made.poison] == [(0, reason, value or b"")]
    assert outcome(made)[0:2] == ([], [])
    assert last_of(log, "dedupe") == {}
    assert log.partition._subjects == {}
    log.restart()
    assert log.give([spo2(0)]).readings == 1


@pytest.mark.parametrize(("value", "_reason"), POISON)
def test_poison_among_good_records_changes_nothing_for_them(
    value: bytes | None, _reason: str
) -> None:
    clean, soiled = Log(3, LIMITS), Log(3, LIMITS)
    good = [spo2(seq) for seq in range(12)]
    expected = clean.give(good)
    made = soiled.give([*good[:5], value, *good[5:]])
    assert outcome(made)[:2] == outcome(expected)[:2]
    assert made.readings == expected.readings
    assert len(made.alerts) == 1
    assert last_of(clean, "dedupe") == last_of(soiled, "dedupe")
    soiled.restart()
    assert soiled.give([spo2(12, 84)]).alerts == clean.give([spo2(12, 84)]).alerts


def test_a_known_subject_s_place_is_not_taken_on_trust() -> None:
    log = Log(3, LIMITS)
    log.give([spo2(0)])
    bad = [wrong_source(SUBJECT, "bed-12"), wrong_source(subject_in(5))]
    assert [p.reason for p in log.give(bad).poison] == ["subject", "partition"]


def test_a_record_that_cannot_be_judged_is_named_and_set_aside_when_condemned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    observe = Subject.observe

    def failing(self: Subject, row: Reading, scaled: int | None, ingested_ms: int) -> Any:
        if row.value == 66:
            raise ZeroDivisionError("on purpose")
        return observe(self, row, scaled, ingested_ms)

    monkeypatch.setattr(Subject, "observe", failing)
    log = Log(3, LIMITS)
    values = [encode(spo2(seq, 66 if seq == 2 else 97)) for seq in range(4)]
    with pytest.raises(Unjudged) as caught:
        log.partition.turn(list(enumerate(values)), [], T0)
    assert caught.value.offset == 2
    log.samples += values
    log.restart()
    made = log.partition.turn(list(enumerate(values)), [], T0, condemned=[2])
    log.commit()
    assert [(p.offset, p.reason) for p in made.poison] == [(2, "unjudgeable")]
    assert made.readings == 3
    log.restart()  # what was set aside is not judged again
    assert log.give([spo2(3), spo2(2, 97)]).duplicates == 1


# -- the state topic -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"4/turn/1", b"\x80"),
        (b"3/other/x", b"\x80"),
        (b"3", b""),
        (b"x/turn/1", b""),
        (b"\xff", b""),
        (b"3/turn/1", b"\xc1"),
        (b"3/dedupe/e/f", b"\x80"),
        (b"3/chunk/65", msgspec.msgpack.encode([{}])),
        (b"3/chunk/-1", msgspec.msgpack.encode([{}])),
        (b"3/chunk/x", msgspec.msgpack.encode([{}])),
        (b"3/marks", msgspec.msgpack.encode([[0] * CHUNKS])),
    ],
)
def test_a_state_record_of_nobody_is_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(Poison):
        Partition(3).restore(key, value, 0)


def test_a_tombstone_forgets() -> None:
    log = Log(3, LIMITS)
    fed(log, [spo2(0)])
    log.state += [(key, None) for key in last_of(log, "dedupe")]
    log.restart()
    assert fed(log, [spo2(0)])[0].duplicates == 0


@pytest.mark.parametrize(("records", "chunks"), [(499, 0), (500, 1), (999, 1), (1000, 2)])
def test_a_chunk_is_written_every_500_records(records: int, chunks: int) -> None:
    log = Log(3, LIMITS)
    before = len(log.state)
    log.give([spo2(seq, 97) for seq in range(records)])
    keys = [key.split(b"/")[1] for key, _ in log.state[before:]]
    assert keys.count(b"chunk") == chunks


@pytest.mark.parametrize(("turns", "chunks"), [(31, 0), (32, 1), (64, 2)])
def test_a_chunk_is_written_every_32_turns(turns: int, chunks: int) -> None:
    log = Log(3, LIMITS)
    before = len(log.state)
    fed(log, [spo2(seq, 97) for seq in range(turns - 1)])  # the policy's was the first
    keys = [key.split(b"/")[1] for key, _ in log.state[before:]]
    assert keys.count(b"chunk") == chunks


def test_an_idle_partition_writes_what_changed_and_then_nothing_is_replayed() -> None:
    log = Log(3, LIMITS)
    beds = [f"{3 + 8 * nth:08x}{nth:04x}" + "0" * 20 for nth in range(20)]
    log.give([record(0, [(bed, reading("spo2", 97, T0)) for bed in beds])])
    written = []
    while log.partition.unwritten:
        before = len(log.state)
        log.give([])
        keys = [key for key, _ in log.state[before:] if b"/chunk/" in key]
        assert 0 < len(keys) <= IDLE_CHUNKS
        written += keys
    assert sorted(written) == sorted({b"3/chunk/%d" % slice_of(bed) for bed in beds})
    assert log.restart() == []
    assert set(log.partition._subjects) == set(beds)
    assert not log.partition.unwritten


def test_reading_may_begin_at_the_oldest_of_the_newest_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "CHUNK_TURNS", 1)
    log = Log(3, LIMITS)
    records = [spo2(seq) for seq in range(11)]
    fed(log, [*records, *[spo2(seq, 97) for seq in range(11, 90)]])
    floor = log.partition.floor
    assert 0 < floor < len(log.state)
    assert {key for key, _ in log.state[floor:] if b"/chunk/" in key} == {
        b"3/chunk/%d" % index for index in range(CHUNKS + 1)
    }
    fed(log, [spo2(seq, 97) for seq in range(90, 95)])
    log.restart(floor)
    assert log.partition.policy == LIMITS
    assert log.give([spo2(3), spo2(94)]).duplicates == 2
    assert log.give([spo2(95, 97)]).duplicates == 0


def test_the_floor_is_not_known_before_every_chunk_was_written() -> None:
    log = Log(3, None)
    log.give([], commands=[presence()])
    assert log.partition.floor == 0


def test_chunk_and_turn_hold_no_more_than_their_own() -> None:
    log = Log(3, LIMITS)
    log.give([spo2(0, 97)])
    log.give([])
    (key, value) = next(iter(last_of(log, f"chunk/{slice_of(SUBJECT)}").items()))
    assert key == f"3/chunk/{slice_of(SUBJECT)}".encode()
    assert list(msgspec.msgpack.decode(value)[0]) == [SUBJECT]
    marks = msgspec.msgpack.decode(last_of(log, "marks")[b"3/marks"], type=Marks)
    assert len(marks.turns) == COMMON + 1


def test_an_alert_lies_under_subject_and_episode() -> None:
    made = fed(Log(3, LIMITS), [spo2(at) for at in range(11)])
    (alert,) = [alert for one in made for alert in one.alerts]
    message = message_of(alert)
    assert message.key == f"{SUBJECT}/{alert.episode}".encode()
    assert msgspec.json.decode(message.value, type=AlertEvent) == alert


def test_a_frame_of_device_alerts_alone_is_seen_once_and_charts_nothing() -> None:
    alone = record(3, [])
    alone.columns.sources.append(Source("0" * 32, SUBJECT))
    alone.columns.alerts.append((0, DeviceAlert(196652, "MDC_EVT_HI", T0, T0)))
    first, again = fed(Log(3, LIMITS), [alone, alone])
    assert (observations(first), first.readings, len(first.alerts)) == ([], 0, 1)
    assert outcome(again) == ([], [], [], (0, 1, 0, 0))


def test_without_a_policy_nothing_is_judged() -> None:
    with pytest.raises(Unjudged):
        Log(3, None).give([spo2(0)])


@pytest.mark.parametrize(
    ("who", "text", "wanted"),
    [
        ("file", "changed", True),
        ("file", policy_record().toml, False),
        ("pushed", policy_record().toml, False),
        ("pushed", "changed", False),
    ],
)
def test_a_file_s_policy_is_wanted_once_and_never_over_a_pushed_one(
    who: str, text: str, wanted: bool
) -> None:
    assert Partition(3).wants("file", text)
    log = Log(3, None)
    log.command([msgspec.structs.replace(policy_record(), who=who)], 1)
    assert log.partition.wants("file", text) is wanted
    log.restart()
    assert log.partition.wants("file", text) is wanted


# -- any history, restarted anywhere -------------------------------------------------------------

POLICIES = [
    policy_record(limits_only(SPO2, SPO2_MILD, HEART)),
    policy_record(limits_only(SPO2_MILD, HEART)),
    policy_record(DEFAULT),
    NewPolicy("broken", "version =", "tester", T0),
]
BEDS = [f"{3:08x}{nth:04x}" + "0" * 20 for nth in (0, 1, 64)]  # two of them share a chunk
GATEWAYS = ["edge-1", "edge-21"]

EXAMPLES = int(os.environ.get("HEALTHSYNC_HISTORIES", "25"))

happenings = st.lists(
    st.one_of(
        st.tuples(
            st.just("spo2"), st.integers(0, 2), st.integers(0, 1), st.sampled_from([80, 92, 97])
        ),
        st.tuples(st.just("hr"), st.integers(0, 2), st.integers(0, 1), st.sampled_from([80, 140])),
        st.tuples(st.just("late"), st.integers(0, 2), st.integers(0, 1), st.just(80)),
        st.tuples(st.just("again"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("alarm"), st.integers(0, 2), st.integers(0, 1), st.integers(0, 2)),
        st.tuples(st.just("answer"), st.integers(0, 9), st.integers(0, 4), st.integers(0, 1)),
        st.tuples(st.just("there"), st.integers(0, 1), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("policy"), st.integers(0, 3), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 400), st.just(0), st.just(0)),
        st.tuples(st.just("gone"), st.just(1900), st.just(0), st.just(0)),
        st.tuples(st.just("poison"), st.just(0), st.just(0), st.just(0)),
    ),
    max_size=25,
)


class History:
    """What happens, as one log sees it: 12 s of readings a turn, so that delays get over."""

    def __init__(self) -> None:
        self.log = Log(3, limits_only(SPO2, SPO2_MILD, HEART))
        self.now_s = 0
        self.seq = 0
        self.told: list[AlertEvent] = []
        self.frames: list[SamplesRecord] = []

    def happen(self, what: str, who: int, how: int, value: int) -> tuple[Any, ...]:
        records: list[SamplesRecord | bytes | None] = []
        orders: list[Instruction] = []
        begin, edge = self.now_s, GATEWAYS[how % 2]
        self.now_s += 12
        match what:
            case "spo2" | "hr" | "late":
                vital = "heart_rate" if what == "hr" else "spo2"
                past = 4000 if what == "late" else 0
                for second in range(begin, begin + 12):
                    row = reading(vital, value, at(second - past))
                    self.frames.append(
                        record(self.seq, [(BEDS[who], row)], ingested_ms=at(second), edge=edge)
                    )
                    records.append(self.frames[-1])
                    self.seq += 1
            case "again":
                records += self.frames[-3:]
            case "alarm":
                alone = record(self.seq, [], ingested_ms=at(begin), edge=edge)
                self.seq += 1
                phase = ("start", "continue", "end")[value]
                alone.columns.sources.append(Source(device(7), BEDS[who]))
                alone.columns.alerts.append(
                    (0, DeviceAlert(1, "MDC_EVT_HI", at(begin), at(begin), phase, priority="high"))
                )
                records.append(alone)
            case "answer":
                if self.told:
                    to = self.told[-1 - who % len(self.told)]
                    kind = ("acknowledge", "shelve", "unshelve", "clear", "limit")[how]
                    self.seq += 1
                    orders.append(
                        Command(
                            f"{self.seq:032x}",
                            kind,
                            to.subject,
                            "nurse",
                            at(begin),
                            "",
                            to.episode,
                            at(begin + 300),
                            "spo2.low.medium",
                            91.0 if value else None,
                        )
                    )
            case "there":
                orders.append(presence(connected=bool(how), edge=GATEWAYS[who]))
            case "policy":
                orders.append(POLICIES[who])
            case "poison":
                records.append(b"poison")
            case _:
                self.now_s += who
        made = self.log.give(records, at(self.now_s), orders)
        self.told += made.alerts
        return outcome(made)


@settings(deadline=None, max_examples=EXAMPLES)
@given(happenings, st.sets(st.integers(0, 24)), st.sampled_from([(500, 32), (7, 32), (500, 1)]))
def test_any_history_restarted_anywhere_comes_out_the_same(
    history: list[tuple[str, int, int, int]], restarts: set[int], chunks: tuple[int, int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "CHUNK_RECORDS", chunks[0])
        patch.setattr(journal, "CHUNK_TURNS", chunks[1])
        whole, broken = History(), History()
        for nth, one in enumerate(history):
            if nth in restarts:
                broken.log.restart(broken.log.partition.floor)
            assert broken.happen(*one) == whole.happen(*one)
        broken.log.restart(broken.log.partition.floor)

        def remembered(log: Log) -> Any:
            """Return it by value: a total in whole numbers comes back as a float."""
            kept = {name: one.stored() for name, one in log.partition._subjects.items()}
            common = log.partition._gateways.common
            return msgspec.msgpack.decode(msgspec.msgpack.encode([kept, common]))

        assert remembered(broken.log) == remembered(whole.log)
        assert last_of(broken.log, "dedupe") == last_of(whole.log, "dedupe")


def test_a_restart_in_the_middle_of_many_gateways_keeps_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateways, "GATEWAYS_MAX", 2)
    log = Log(3, LIMITS)
    log.command([presence(edge=f"edge-{n}") for n in range(3)], T0)
    assert list(log.partition._gateways.common.gateways) == ["edge-0", "edge-1"]
    log.restart()
    assert list(log.partition._gateways.common.gateways) == ["edge-0", "edge-1"]

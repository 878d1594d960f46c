"""Each way in which stages can differ, and what is said of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.audit.compare import Line, compare
from cloud.audit.evidence import EpochName, Evidence, Held, Quarantined, Spooled
from cloud.audit.findings import Findings
from cloud.audit.ranges import (
    RANGES_LISTED_MAX,
    RANGES_SHOWN_MAX,
    Named,
    merged,
    minus,
    spell,
)
from cloud.audit.table import as_text
from tests.cloud.audit.stages import Record, produced, taken
from vitals.interval import IntervalSet

E = EpochName("ward-3", "e" * 32)
RECORDS = [(0, seq, 10) for seq in range(3)]


def spooled(**counts: Any) -> Spooled:
    known = {
        "readings_spooled": 30,
        "readings_acked": 30,
        "frames_spooled": 3,
        "frames_acked": 3,
        "highest_seq": 2,
        "acked": IntervalSet([(0, 2)]),
        "waiting": IntervalSet(),
    }
    return Spooled(**{**known, **counts})


class Case:
    """All stages agree, until a test says otherwise."""

    def __init__(self) -> None:
        self.before = self.after = spooled()
        self.samples = produced(RECORDS)
        self.detect = taken(RECORDS)
        self.archive = taken(RECORDS)
        self.quarantine = Quarantined()
        self.lag = {"samples": 0, "alerts": 0, "identity": 0}
        self.trimmed = False

    def evidence(self) -> Evidence:
        return Evidence(
            {E: self.before},
            {E: self.archive},
            {E: self.detect},
            {E: self.samples},
            {E: self.quarantine},
            self.lag,
            {E: self.after},
            self.trimmed,
        )

    def spool(self, **counts: Any) -> None:
        self.before = self.after = spooled(**counts)

    @property
    def verdict(self) -> str:
        return compare(self.evidence()).verdict

    @property
    def line(self) -> Line:
        return compare(self.evidence()).lines[0]


@pytest.fixture
def case() -> Case:
    return Case()


def test_equal_stages_agree(case: Case) -> None:
    line = case.line
    assert (case.verdict, line.findings, line.ranges) == ("agrees", [], [])
    assert (line.spooled, line.acknowledged, line.samples, line.detect, line.archive) == (30,) * 5


def test_nothing_at_all_agrees() -> None:
    assert compare(Evidence({}, {}, {}, {}, {}, {}, {}, False)).verdict == "agrees"


def test_a_frame_lost_after_its_acknowledgement_is_named(case: Case) -> None:
    left = [RECORDS[0], RECORDS[2]]
    case.samples, case.detect, case.archive = produced(left), taken(left), taken(left)
    assert case.verdict == "differs"
    assert case.line.findings == [
        "acknowledged, and nowhere in Kafka, by sequence number: 1",
        "10 readings acknowledged, not in Kafka",
    ]
    assert case.line.ranges == [Named("samples", "lost", None, 1, 1)]


def test_a_loss_and_a_double_that_cancel_in_totals_are_both_named(case: Case) -> None:
    other = [RECORDS[0], RECORDS[1], (0, 7, 10)]
    case.samples, case.detect, case.archive = produced(other), taken(other), taken(other)
    assert case.line.ranges == [
        Named("samples", "lost", None, 2, 2),
        Named("samples", "unknown", None, 7, 7),
    ]
    assert case.verdict == "differs"


def test_a_part_of_a_frame_that_is_missing_is_named(case: Case) -> None:
    whole = {0: 10, 1: 25, 2: 10}
    parts = [*RECORDS, (4, 1, 15)]
    case.spool(readings_spooled=45, readings_acked=45)
    case.samples, case.detect, case.archive = produced(parts, whole), taken(parts), taken(parts)
    assert case.verdict == "agrees"
    case.samples, case.detect, case.archive = produced(RECORDS, whole), taken(RECORDS), Held()
    case.archive = taken(RECORDS)
    assert case.line.ranges == [Named("samples", "partial", None, 1, 1)]
    case.before = spooled(readings_acked=20, acked=IntervalSet([(0, 0), (2, 2)]))
    assert Named("samples", "late", None, 1, 1) in case.line.ranges  # ingest is at it
    assert case.verdict == "waiting"


def test_more_readings_than_were_sealed_are_named(case: Case) -> None:
    case.samples = produced(RECORDS, {0: 10, 1: 9, 2: 10})
    assert case.line.ranges == [Named("samples", "altered", None, 1, 1)]


def test_a_stage_that_is_behind_is_waited_for_and_the_frames_are_named(case: Case) -> None:
    case.archive = taken(RECORDS[:1])
    assert case.verdict == "waiting"
    assert case.line.findings == ["not in archive yet, by sequence number: partition 0: 1-2"]
    case.archive, case.detect = taken(RECORDS), Held()
    assert case.line.findings == ["not in detect yet, by sequence number: partition 0: 0-2"]


def test_a_stage_that_passed_a_frame_over_differs(case: Case) -> None:
    case.detect = taken(RECORDS[1:2])
    assert case.line.ranges == [
        Named("detect", "lost", 0, 0, 0),
        Named("detect", "late", 0, 2, 2),
    ]
    assert case.verdict == "differs"


def test_an_empty_record_is_not_waited_for(case: Case) -> None:
    case.spool(frames_spooled=4, frames_acked=4, acked=IntervalSet([(0, 3)]), highest_seq=3)
    case.samples = produced([*RECORDS, (0, 3, 0)])
    assert case.verdict == "agrees"


@pytest.mark.parametrize("floor", [0, 3])
def test_a_stage_that_counted_a_frame_twice_differs(case: Case, floor: int) -> None:
    case.archive = taken([*RECORDS, RECORDS[1]], floor)
    assert case.verdict == "differs"
    assert case.line.findings == ["counted twice by archive, by sequence number: partition 0: 1"]


def test_a_stage_that_holds_what_kafka_has_not_differs(case: Case) -> None:
    case.archive = taken([*RECORDS, (0, 5, 10)])
    assert case.line.ranges == [Named("archive", "unknown", 0, 5, 5)]


def test_a_difference_below_the_floor_that_has_no_name_is_said(case: Case) -> None:
    records = [(0, seq, 10) for seq in range(9)]
    case.samples = produced(records)
    case.detect = taken([records[0], records[4], *records[6:]], floor=9)
    texts = [text for text in case.line.findings if text.startswith("detect partition 0")]
    (text,) = texts
    assert "counts -4 frames and -40 readings against Kafka, below its floor 9" in text
    assert case.verdict == "differs"


def test_a_stage_without_sums_is_compared_by_total(case: Case) -> None:
    case.detect = taken(RECORDS, floor=3)
    case.detect.parts[0].summed = False
    assert case.verdict == "agrees"
    case.detect.parts[0].tally.readings -= 1
    assert case.verdict == "differs"
    assert "+0 frames and -1 readings" in case.line.findings[0]


def test_a_stage_that_saw_another_partition_only_differs(case: Case) -> None:
    case.archive = taken([(1, seq, readings) for _, seq, readings in RECORDS])
    assert case.line.ranges == [
        Named("archive", "unknown", 1, 0, 2),
        Named("archive", "late", 0, 0, 2),
    ]


def test_frames_in_the_spool_are_waited_for(case: Case) -> None:
    case.spool(readings_spooled=40, frames_waiting=1)
    assert case.verdict == "waiting"


def test_a_gateway_that_is_still_receiving_is_waited_for(case: Case) -> None:
    case.after = spooled(readings_spooled=31)
    assert case.verdict == "waiting"


def test_more_in_kafka_than_was_ever_spooled_differs(case: Case) -> None:
    more = [*RECORDS, (0, 3, 10)]
    case.samples, case.detect, case.archive = produced(more), taken(more), taken(more)
    assert case.line.findings[0] == "Kafka holds 10 readings more than the gateway ever spooled"
    assert case.line.ranges == [Named("samples", "unknown", None, 3, 3)]


def test_a_frame_in_kafka_is_acknowledged_or_stored(case: Case) -> None:
    case.spool(frames_acked=2, acked=IntervalSet([(0, 1)]), readings_acked=20)
    assert case.line.ranges == [Named("samples", "unknown", None, 2, 2)]
    case.spool(
        frames_acked=2,
        acked=IntervalSet([(0, 1)]),
        readings_acked=20,
        frames_waiting=1,
        waiting=IntervalSet([(2, 2)]),
    )
    assert case.verdict == "waiting"


def test_of_a_spool_that_dropped_frames_kafka_may_have_any(case: Case) -> None:
    gone = {"frames_acked": 2, "acked": IntervalSet([(0, 1)]), "readings_acked": 20}
    case.spool(**gone, frames_dropped=1, readings_dropped=10)
    assert (case.verdict, case.line.ranges) == ("agrees", [])
    more = [*RECORDS[:2], (0, 3, 10)]  # but not above the highest number ever stored
    case.samples, case.detect, case.archive = produced(more), taken(more), taken(more)
    assert case.line.ranges == [Named("samples", "unknown", None, 3, 3)]


def test_what_was_acknowledged_before_an_upgrade_is_compared_by_total(case: Case) -> None:
    case.spool(acked=IntervalSet([(2, 2)]))
    assert case.verdict == "agrees"
    assert case.line.findings == [
        "not every acknowledged frame is known by its number; totals are compared"
    ]


def test_what_a_damaged_spool_lost_is_wrong(case: Case) -> None:
    case.spool(readings_spooled=50, readings_lost=20, readings_unsound=1)
    assert any("lost 21 readings" in text for text in case.line.findings)
    assert case.verdict == "differs"


def test_what_the_spool_dropped_is_named_and_not_expected(case: Case) -> None:
    split = {"readings_dropped:bytes": 15, "readings_dropped:age": 5, "rejects_dropped:age": 1}
    case.spool(
        readings_spooled=50, readings_dropped=20, rejects_dropped=1, frames_dropped=3, split=split
    )
    assert case.verdict == "agrees"
    assert "dropped 20 readings" in case.line.findings[0]
    assert (case.line.dropped, case.line.dropped_by) == (21, {"bytes": 15, "age": 6})


def test_what_came_and_what_was_sent_is_told(case: Case) -> None:
    case.spool(
        received_lines=7,
        received_messages=2,
        rejected=3,
        split={"rejected:bad-number": 3},
        frames_sent=3,
        frames_resent=1,
        readings_sent=30,
        readings_resent=10,
    )
    line = case.line
    assert (line.received_lines, line.received_messages) == (7, 2)
    assert (line.rejected, line.rejected_by) == (3, {"bad-number": 3})
    assert (line.sent, line.sent_frames, line.sent_again) == (40, 4, 1)


def test_a_frame_sent_again_is_counted_at_every_stage_and_counts_once(case: Case) -> None:
    case.samples.add(0, 1, 10, digest=10)
    case.detect.parts[0].again = case.archive.parts[0].again = 1
    assert case.verdict == "agrees"
    assert case.line.findings == ["1 records were sent again; each counts once"]
    line = case.line
    assert (line.produced, line.samples_again, line.detect_again, line.archive_again) == (
        4,
        1,
        1,
        1,
    )


def test_a_frame_sent_again_with_another_content_differs(case: Case) -> None:
    case.samples.add(0, 1, 10, digest=99)
    assert case.line.ranges == [Named("samples", "altered", 0, 1, 1)]


def test_a_frame_set_aside_differs(case: Case) -> None:
    case.quarantine.add("frame", 7, 0)
    assert case.verdict == "differs"
    assert "set aside whole in quarantine, by sequence number: 7" in case.line.findings[0]


def test_rejects_must_be_in_quarantine_once(case: Case) -> None:
    case.spool(
        rejects_spooled=4,
        rejects_acked=4,
        frames_spooled=4,
        frames_acked=4,
        highest_seq=3,
        acked=IntervalSet([(0, 3)]),
    )
    assert case.line.ranges == [Named("samples", "lost", None, 3, 3)]
    case.quarantine.add("rejects", 3, 4)
    assert (case.verdict, case.line.quarantine) == ("agrees", 4)
    case.quarantine.add("rejects", 3, 4)  # sent again
    assert (case.verdict, case.line.quarantine_again) == ("agrees", 1)
    case.quarantine.add("rejects", 6, 1)
    assert case.line.ranges == [Named("quarantine", "unknown", None, 6, 6)]


def test_project_behind_is_waited_for(case: Case) -> None:
    case.lag["alerts"] = 3
    verdict = compare(case.evidence())
    assert verdict.verdict == "waiting"
    assert verdict.findings == ["project is 3 records of alerts behind"]


def test_when_kafka_deleted_old_samples_the_later_stages_are_compared(case: Case) -> None:
    case.trimmed = True
    case.samples = produced(RECORDS[2:])
    assert case.verdict == "agrees"
    case.archive = taken(RECORDS, floor=3)
    assert case.verdict == "agrees"
    case.detect.parts[0].tally.readings += 1
    assert case.verdict == "differs"
    left = [RECORDS[0], RECORDS[2]]
    case.archive, case.detect = taken(left), taken(left)
    assert case.line.ranges == [Named("samples", "lost", None, 1, 1)]


def test_an_epoch_no_spool_knows_is_compared_downstream(case: Case) -> None:
    evidence = case.evidence()._replace(spool_before={}, spool_after={})
    verdict = compare(evidence)
    line = verdict.lines[0]
    assert (verdict.verdict, line.spooled, line.received_lines) == ("agrees", None, None)


def test_the_worst_epoch_decides(case: Case) -> None:
    case.lag["samples"] = 1
    case.samples, case.detect, case.archive = produced(RECORDS[:1]), taken([]), taken([])
    assert case.verdict == "differs"


records_ = st.dictionaries(
    st.tuples(st.integers(0, 3), st.integers(0, 40)), st.integers(1, 50), min_size=2
)


@given(records_, st.sampled_from(["detect", "archive"]), st.booleans(), st.data())
def test_any_frame_that_a_stage_lost_doubled_or_altered_is_named(
    by_name: dict[tuple[int, int], int], stage: str, whole_floor: bool, data: st.DataObject
) -> None:
    records: list[Record] = [(*name, readings) for name, readings in by_name.items()]
    case = agreed(records)
    at = data.draw(st.integers(0, len(records) - 1))
    what = data.draw(st.sampled_from(["lost", "doubled", "altered"]))
    partition, seq, readings = records[at]
    changed = {
        "lost": records[:at] + records[at + 1 :],
        "doubled": [*records, records[at]],
        "altered": [*records[:at], (partition, seq, readings + 1), *records[at + 1 :]],
    }[what]
    highest = max(s for _, s, _ in records) + 1
    setattr(case, stage, taken(changed, highest if whole_floor else 0))
    ranges = case.line.ranges
    # What lies behind a stage's last record, above its floor, is late and not lost yet.
    assert ranges
    assert {(one.stage, one.partition, one.first, one.last) for one in ranges} == {
        (stage, partition, seq, seq)
    }
    last = not any(p == partition for p, _, _ in records[at + 1 :])
    seen_all = whole_floor and any(p == partition for p, _, _ in changed)
    late = what == "lost" and last and not seen_all
    assert ranges[0].what == ("late" if late else what)
    assert case.verdict == ("waiting" if late else "differs")


@given(records_, st.data())
def test_any_frame_lost_on_the_way_to_kafka_is_named_beside_any_double(
    by_name: dict[tuple[int, int], int], data: st.DataObject
) -> None:
    records: list[Record] = [(*name, readings) for name, readings in by_name.items()]
    case = agreed(records)
    lost = data.draw(st.sampled_from(sorted({seq for _, seq, _ in records})))
    left = [record for record in records if record[1] != lost]
    forged = [(partition, seq + 100, readings) for partition, seq, readings in records]
    swapped = [*left, *(one for one in forged if one[1] == lost + 100)]
    case.samples, case.detect, case.archive = produced(swapped), taken(swapped), taken(swapped)
    assert case.line.samples == case.line.acknowledged  # the totals agree
    assert Named("samples", "lost", None, lost, lost) in case.line.ranges
    assert Named("samples", "unknown", None, lost + 100, lost + 100) in case.line.ranges


@given(records_, st.data())
def test_a_loss_and_a_double_of_a_stage_are_both_named(
    by_name: dict[tuple[int, int], int], data: st.DataObject
) -> None:
    records: list[Record] = [(0, seq, 5) for _, seq in by_name]
    records = sorted(set(records))
    if len(records) < 3:
        return
    case = agreed(records)
    lost, doubled = data.draw(st.permutations(records[:-1]))[:2]
    found = [record for record in records if record != lost] + [doubled]
    for floor in (0, 41):
        case.detect = taken(found, floor)
        assert case.line.detect == case.line.samples
        assert case.line.ranges == [
            Named("detect", "lost", 0, lost[1], lost[1]),
            Named("detect", "doubled", 0, doubled[1], doubled[1]),
        ]


def agreed(records: list[Record]) -> Case:
    """Return stages that agree on these records."""
    case = Case()
    seqs = IntervalSet(merged(seq for _, seq, _ in records))
    readings = sum(count for _, _, count in records)
    case.spool(
        readings_spooled=readings,
        readings_acked=readings,
        frames_spooled=seqs.count(),
        frames_acked=seqs.count(),
        highest_seq=seqs.highest,
        acked=seqs,
    )
    case.samples, case.detect, case.archive = produced(records), taken(records), taken(records)
    assert case.verdict == "agrees"
    return case


sets = st.lists(st.integers(0, 60), max_size=30)


@given(sets, sets, st.integers(0, 20))
def test_minus_is_what_the_other_does_not_hold(a: list[int], b: list[int], floor: int) -> None:
    mine, other = IntervalSet(), IntervalSet(floor=floor)
    for number in a:
        mine.add(number)
    for number in b:
        other.add(number)
    left = {n for low, high in minus(mine, other) for n in range(low, high + 1)}
    assert left == {n for n in a if n not in other}


def test_ranges_are_spelled_and_cut() -> None:
    assert spell([(3, 7), (9, 9)]) == "3-7, 9"
    most = [(n, n) for n in range(0, 2 * RANGES_SHOWN_MAX, 2)]
    assert "more" not in spell(most)
    assert spell([*most, (40, 40), (42, 42)]).endswith("14 and 2 more")


def test_ranges_listed_are_cut_and_the_rest_is_counted() -> None:
    for more in (0, 1):
        found = Findings()
        ranges = [(n, n) for n in range(0, 2 * (RANGES_LISTED_MAX + more), 2)]
        found.name("samples", "lost", "gone", {None: ranges})
        assert (len(found.ranges), found.ranges_more) == (RANGES_LISTED_MAX, more)


def test_the_table_says_it_in_one_line_an_epoch_and_a_last_line(case: Case) -> None:
    case.archive = taken(RECORDS[:1])
    text = as_text(compare(case.evidence())).splitlines()
    assert text[0].split()[:4] == ["edge", "epoch", "received", "rejected"]
    cells = "ward-3 eeeeeeee 0 0 30 0 0 30 0 30 0 30 0 10 0 0 0 waiting"
    assert " ".join(text[1].split()) == cells
    assert text[-1] == "waiting: 1 epochs, 10 readings archived"


def test_records_that_detect_set_aside_are_counted_and_somebody_must_look() -> None:
    case = Case()
    agreed = compare(case.evidence())
    assert (agreed.verdict, agreed.poison) == ("agrees", {})
    said = compare(case.evidence()._replace(poison={"malformed": 2, "subject": 1}))
    assert (said.verdict, said.poison) == ("differs", {"malformed": 2, "subject": 1})
    assert said.findings == ["detect set 3 records aside in poison (2 malformed, 1 subject)"]
    assert said.lines == agreed.lines
    assert said.findings[0] in as_text(said).splitlines()

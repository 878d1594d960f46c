import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.audit.compare import Line, compare, minus, spell
from cloud.audit.evidence import EpochName, Evidence, Held, Quarantined, Spooled
from cloud.audit.table import as_text
from vitals.interval import IntervalSet

E = EpochName("ward-3", "e" * 32)


def held(*seqs: int, readings: int = 10) -> Held:
    found = Held()
    for seq in seqs:
        found.add(0, seq, readings)
    return found


def spooled(**counts: int) -> Spooled:
    made = Spooled(readings_spooled=30, readings_acked=30, frames_spooled=3, frames_acked=3)
    for name, value in counts.items():
        setattr(made, name, value)
    return made


class Case:
    """All stages agree, until a test says otherwise."""

    def __init__(self) -> None:
        self.before = self.after = spooled()
        self.samples = held(0, 1, 2)
        self.detect = held(0, 1, 2)
        self.archive = held(0, 1, 2)
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
    assert (case.verdict, line.findings) == ("agrees", [])
    assert (line.spooled, line.acknowledged, line.samples, line.detect, line.archive) == (30,) * 5


def test_nothing_at_all_agrees() -> None:
    assert compare(Evidence({}, {}, {}, {}, {}, {}, {}, False)).verdict == "agrees"


def test_a_frame_lost_after_its_acknowledgement_differs(case: Case) -> None:
    case.samples = case.detect = case.archive = held(0, 2)
    assert case.verdict == "differs"
    assert case.line.findings == ["10 readings acknowledged, not in Kafka"]


def test_a_stage_that_is_behind_is_waited_for_and_the_frames_are_named(case: Case) -> None:
    case.archive = held(0)
    assert case.verdict == "waiting"
    assert case.line.findings == ["not in archive yet, by sequence number: partition 0: 1-2"]
    case.archive, case.detect = held(0, 1, 2), held(1)
    assert case.line.findings == ["not in detect yet, by sequence number: partition 0: 0, 2"]


def test_a_stage_that_counted_a_frame_twice_differs(case: Case) -> None:
    case.archive.readings += 10
    assert case.verdict == "differs"
    assert case.line.findings == ["archive holds 10 readings too many"]


def test_a_stage_that_saw_all_and_holds_less_differs(case: Case) -> None:
    case.detect.readings -= 1
    assert case.verdict == "differs"


def test_a_stage_that_saw_another_partition_only_is_behind(case: Case) -> None:
    other = Held()
    for seq in range(3):
        other.add(1, seq, 10)
    case.archive = other
    assert case.verdict == "waiting"


def test_frames_in_the_spool_are_waited_for(case: Case) -> None:
    case.before = case.after = spooled(readings_spooled=40, frames_waiting=1)
    assert case.verdict == "waiting"


def test_a_gateway_that_is_still_receiving_is_waited_for(case: Case) -> None:
    case.after = spooled(readings_spooled=31)
    assert case.verdict == "waiting"


def test_more_in_kafka_than_was_ever_spooled_differs(case: Case) -> None:
    case.samples = case.detect = case.archive = held(0, 1, 2, 3)
    assert case.verdict == "differs"


def test_what_a_damaged_spool_lost_is_wrong(case: Case) -> None:
    case.before = case.after = spooled(readings_spooled=50, readings_lost=20, readings_unsound=1)
    assert any("lost 21 readings" in text for text in case.line.findings)
    assert case.verdict != "agrees"


def test_what_the_spool_dropped_is_named_and_not_expected(case: Case) -> None:
    case.before = case.after = spooled(readings_spooled=50, readings_dropped=20, frames_dropped=2)
    assert case.verdict == "agrees"
    assert "dropped 20 readings" in case.line.findings[0]


def test_a_frame_sent_again_is_named_and_counts_once(case: Case) -> None:
    case.samples.add(0, 1, 10)
    assert case.verdict == "agrees"
    assert case.line.findings == ["1 records were sent again; each counts once"]


def test_a_frame_set_aside_differs(case: Case) -> None:
    case.quarantine.add("frame", 7, 0)
    assert case.verdict == "differs"
    assert "set aside whole in quarantine: 7" in case.line.findings[0]


def test_rejects_must_be_in_quarantine_once(case: Case) -> None:
    case.before = case.after = spooled(rejects_spooled=4, rejects_acked=4)
    assert case.verdict == "differs"
    case.quarantine.add("rejects", 5, 4)
    assert (case.verdict, case.line.quarantine) == ("agrees", 4)
    case.quarantine.add("rejects", 5, 4)  # sent again
    assert case.verdict == "agrees"
    case.quarantine.add("rejects", 6, 1)
    assert case.verdict == "differs"


def test_project_behind_is_waited_for(case: Case) -> None:
    case.lag["alerts"] = 3
    verdict = compare(case.evidence())
    assert verdict.verdict == "waiting"
    assert verdict.findings == ["project is 3 records of alerts behind"]


def test_when_kafka_deleted_old_samples_the_later_stages_are_compared(case: Case) -> None:
    case.trimmed = True
    case.samples = held(2)
    assert case.verdict == "agrees"
    case.archive = held(0, 2)
    case.detect = held(0, 2)
    assert case.verdict == "differs"  # 30 acknowledged


def test_an_epoch_no_spool_knows_is_compared_downstream(case: Case) -> None:
    evidence = case.evidence()._replace(spool_before={}, spool_after={})
    verdict = compare(evidence)
    assert (verdict.verdict, verdict.lines[0].spooled) == ("agrees", None)


def test_the_worst_epoch_decides(case: Case) -> None:
    case.lag["samples"] = 1
    case.samples = case.detect = case.archive = held(0)
    assert case.verdict == "differs"


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
    assert spell([(n, n) for n in range(0, 20, 2)]).endswith("14 and 2 more")


def test_the_table_says_it_in_one_line_an_epoch_and_a_last_line(case: Case) -> None:
    case.archive = held(0)
    text = as_text(compare(case.evidence())).splitlines()
    assert text[0].split()[:3] == ["edge", "epoch", "spooled"]
    assert " ".join(text[1].split()) == "ward-3 eeeeeeee 30 30 0 30 30 10 0 0 waiting"
    assert text[-1] == "waiting: 1 epochs, 10 readings archived"

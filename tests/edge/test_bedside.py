"""Readings go to whom the connection last named, or to nobody."""

from zoneinfo import ZoneInfo

from edge.admission import Caller
from edge.bedside import LineTalk
from edge.entry import Entry
from edge.refusal import Reason
from edge.setting import Setting
from vitals.columns import Source
from vitals.reading import Patient

NOW = 1_795_428_000_000
ADDRESS = Source("addr-10.0.0.9")


class Bed:
    def __init__(self, ward: str = "") -> None:
        self.talk = LineTalk(Caller("10.0.0.9"), Setting(ward, ZoneInfo("UTC")))

    def says(self, *lines: str) -> list[Entry]:
        return list(self.talk.receive("".join(f"{line}\n" for line in lines).encode(), NOW))

    def source(self, line: str) -> Source | None:
        (entry,) = self.says(line)
        return entry.source


def test_until_it_says_otherwise_a_device_is_its_address_without_port() -> None:
    assert Bed().source("heart_rate=78, oxygen=95%") == ADDRESS


def test_device_and_patient_hold_until_changed() -> None:
    bed = Bed()
    ada = Source("bed-12", patient=Patient(mrn="M1", name="Ada"))
    assert bed.source("device=bed-12 mrn=M1 name=Ada hr=78") == ada
    assert bed.source("hr=79") == ada
    assert bed.source("device=bed-12 mrn=M1 hr=80") == ada
    assert bed.source("bed=12 hr=80") == Source("bed-12", patient=Patient("M1", "Ada", bed="12"))
    assert bed.source("mrn=M2 hr=81") == Source("bed-12", patient=Patient(mrn="M2"))


def test_another_device_forgets_the_patient() -> None:
    bed = Bed()
    bed.says("device=bed-12 mrn=M1 hr=78")
    assert bed.source("device=bed-13 hr=78") == Source("bed-13")


def test_an_empty_mrn_dissociates() -> None:
    bed = Bed()
    bed.says("device=bed-12 mrn=M1 name=Ada hr=78")
    assert bed.source("mrn= hr=78") == Source("bed-12")


def test_a_patient_without_a_ward_is_in_the_gateways() -> None:
    assert Bed("W9").source("mrn=M1 hr=1") == Source(
        "addr-10.0.0.9", patient=Patient(mrn="M1", ward="W9")
    )
    assert Bed("W9").source("hr=1") == ADDRESS


def test_a_refused_line_that_names_someone_ends_what_was_named() -> None:
    for line in (
        "mrn=M2 hr=x",
        "DEVICE=b hr=x",
        '{"\\u006drn":"M2","hr":[]}',
        "mrn=M2 " + "x" * 9999,
    ):
        bed = Bed()
        bed.says("device=bed-12 mrn=M1 hr=78")
        (refused,) = bed.says(line)
        assert refused.rejected[0].device == "bed-12"
        assert bed.source("hr=79") == ADDRESS


def test_a_refused_line_that_names_nobody_changes_nothing() -> None:
    bed = Bed()
    bed.says("device=bed-12 mrn=M1 hr=78")
    bed.says("hr=x")
    assert bed.source("hr=79") == Source("bed-12", patient=Patient(mrn="M1"))


def test_a_refused_line_keeps_its_bytes_and_its_neighbours() -> None:
    first, bad, last = Bed().says("hr=78", "hr=seventy", "hr=79")
    assert [r.value for r in (*first.readings, *last.readings)] == [78, 79]
    assert (bad.rejected[0].raw, bad.rejected[0].reason) == (b"hr=seventy", "bad-number")
    assert bad.readings == ()


def test_a_unit_that_does_not_fit_refuses_the_whole_line() -> None:
    (entry,) = Bed().says("hr=78 spo2=95kPa")
    assert entry.rejected[0].reason == "bad-unit"
    assert entry.readings == ()


def test_answers_begin_when_asked_for_and_end_when_told() -> None:
    bed = Bed()
    assert [e.answer is None for e in bed.says("hr=1", "reply=yes hr=2", "hr=3", "hr=x")] == [
        True,
        False,
        False,
        False,
    ]
    assert bed.says("reply=no hr=4", "hr=5")[0].answer is None


def test_a_refused_line_may_ask_for_its_answer() -> None:
    (entry,) = Bed().says("reply=yes hr=seventy")
    assert entry.answer is not None
    assert entry.answer(None).startswith(b"rejected bad-number heart_rate: ")


def test_an_answer_tells_what_became_of_the_line() -> None:
    (entry,) = Bed().says("reply=yes hr=1")
    assert entry.answer is not None
    assert entry.answer(None) == b"ok\n"
    assert entry.answer(Reason.SPOOL_FULL) == b"rejected spool-full: nothing was kept\n"


def test_half_a_line_at_the_end_is_quarantined_not_believed() -> None:
    bed = Bed()
    assert bed.talk.leave(NOW) is None
    list(bed.talk.receive(b"heart_rate=7", NOW))
    assert bed.talk.half()
    entry = bed.talk.leave(NOW)
    assert entry is not None
    assert (entry.rejected[0].reason, entry.rejected[0].raw) == ("half-line", b"heart_rate=7")


def test_a_blank_line_is_no_entry() -> None:
    assert Bed().says("", "  ") == []

"""Readings go to whom the connection last named, or to nobody."""

import random
import tracemalloc
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from edge.admission import Caller
from edge.bedside import LineTalk, reply
from edge.entry import Entry
from edge.refusal import Reason
from edge.setting import Setting
from vitals import limits
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


def test_a_refused_line_is_not_answered_unasked() -> None:
    assert [entry.answer for entry in Bed().says("hr=x", "mrn=1 hr=x", "reply=no hr=x")] == [
        None
    ] * 3


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


def test_lines_that_come_together_are_told_in_their_order_with_what_each_names() -> None:
    found = Bed().says("device=a hr=1", "hr=x", "", "mrn=M1 hr=2", "x" * 9000, "hr=3")
    assert [(e.source, bool(e.rejected)) for e in found] == [
        (Source("a"), False),
        (None, True),
        (Source("a", patient=Patient(mrn="M1")), False),
        (None, True),
        (ADDRESS, False),
    ]
    assert [r.reason for e in found for r in e.rejected] == ["bad-number", "too-long"]


def test_an_entry_holds_its_readings_and_their_size() -> None:
    (entry,) = Bed().says("hr=78 spo2=95")
    assert entry.size > 0
    assert (len(entry.readings), entry.rejected, entry.message, entry.turned_away) == (
        2,
        (),
        False,
        False,
    )
    assert {(r.time_ms, r.received_ms) for r in entry.readings} == {(NOW, NOW)}


def test_a_wards_new_name_holds_for_who_named_none() -> None:
    bed = Bed("W1")
    setting = bed.talk._setting
    bed.says("device=a mrn=M1 hr=78")
    setting.ward = "W2"
    assert bed.source("hr=79") == Source("a", patient=Patient(mrn="M1", ward="W2"))
    assert bed.source("device=a mrn=M1 hr=79") == Source("a", patient=Patient("M1", ward="W2"))
    bed.says("device=a mrn=M1 ward=W2 hr=80")
    setting.ward = "W3"
    assert bed.source("hr=81") == Source("a", patient=Patient(mrn="M1", ward="W2"))
    assert bed.source("bed=5 hr=81") == Source("a", patient=Patient("M1", bed="5", ward="W2"))


def test_a_ward_that_was_filled_in_is_nothing_that_was_said() -> None:
    bed = Bed("W1")
    bed.says("device=a bed=5 hr=78")
    assert bed.source("bed= hr=79") == Source("a")
    bed.says("bed=5 hr=80")
    assert bed.source("ward=W7 bed= hr=81") == Source("a", patient=Patient(ward="W7"))
    assert bed.source("hr=82") == Source("a", patient=Patient(ward="W7"))


def test_held_bytes_are_those_of_the_unfinished_line() -> None:
    bed = Bed()
    assert (bed.talk.held_bytes(), bed.talk.half()) == (0, False)
    bed.talk.receive(b"hr=1\nhr=", NOW)
    assert (bed.talk.held_bytes(), bed.talk.half()) == (3, True)
    bed.talk.receive(b"2\nh", NOW)
    assert (bed.talk.held_bytes(), bed.talk.half()) == (1, True)
    bed.talk.receive(b"r=2\n", NOW)
    assert (bed.talk.held_bytes(), bed.talk.half()) == (0, False)


def test_ten_thousand_connections_fit() -> None:
    """Under 1 KB each, with a device and a patient named."""
    setting = Setting("W1")
    LineTalk(Caller("10.0.0.9"), setting).receive(b"device=x mrn=y hr=78 spo2=95\n", NOW)
    tracemalloc.start()
    try:
        talks = [LineTalk(Caller("10.0.0.9"), setting) for _ in range(500)]
        fresh, _ = tracemalloc.get_traced_memory()
        for at, talk in enumerate(talks):
            talk.receive(f"device=bed-{at} mrn=M{at:06} hr=78 spo2=95\n".encode(), NOW)
        named, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert fresh / len(talks) < 400
    assert named / len(talks) < 1024


def test_a_reply_can_be_had_without_asking() -> None:
    good, bad, rude = Bed().says("hr=1", "hr=x", "hello")
    assert reply(good) == b"ok\n"
    assert reply(bad) == b"rejected bad-number heart_rate: write a decimal number such as 36.9\n"
    assert reply(rude).startswith(b"rejected no-fields -: ")


@given(
    st.lists(st.sampled_from([b"device=a ", b"mrn=M1 ", b"hr=78", b"hr=x", b"\r", b"\n", b"\xff",
                              b'name="A ', b'"', b'{"hr":1}', b", "]), max_size=30).map(b"".join),
    st.lists(st.integers(0, 300), max_size=6),
)  # fmt: skip
def test_where_input_is_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    def told(parts: list[bytes]) -> list[tuple[object, ...]]:
        talk = LineTalk(Caller("10.0.0.9"), Setting())
        found = [entry for part in parts for entry in talk.receive(part, NOW)]
        last = talk.leave(NOW)
        return [(e.source, e.readings, e.rejected) for e in [*found, *([last] if last else [])]]

    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert told([data[a:b] for a, b in pairwise(at)]) == told([data])
    assert told([data[i : i + 1] for i in range(len(data))]) == told([data])


def test_a_megabyte_of_noise_is_refused_in_bounded_memory_and_the_next_line_is_taken() -> None:
    noise = random.Random(5).randbytes(1024 * 1024)
    talk = LineTalk(Caller("10.0.0.9"), Setting())
    for at in range(0, len(noise), 16_384):
        for entry in talk.receive(noise[at : at + 16_384], NOW):
            assert entry.rejected
        assert talk.held_bytes() <= limits.LINE_BYTES_MAX + 1
    *_, last = talk.receive(b"\nhr=78\n", NOW)
    assert [r.value for r in last.readings] == [78]

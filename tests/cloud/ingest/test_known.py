from cloud.ingest.known import KnownAssociations, merge
from cloud.ingest.split import Association
from vitals.reading import Patient

ADA = Patient(mrn="M1", name="Ada Ng", bed="12")


def said(patient: Patient, time_ms: int, device: str = "d1", subject: str = "s1") -> Association:
    return Association(subject, device, patient, time_ms)


def test_an_association_is_told_once() -> None:
    known = KnownAssociations()
    assert known.news(said(ADA, 1)) == ADA
    assert known.news(said(ADA, 2)) is None


def test_a_change_of_bed_is_told() -> None:
    known = KnownAssociations()
    known.news(said(ADA, 1))
    moved = Patient(mrn="M1", name="Ada Ng", bed="7")
    assert known.news(said(moved, 2)) == moved


def test_a_line_with_the_number_only_does_not_erase_the_name() -> None:
    known = KnownAssociations()
    known.news(said(ADA, 1))
    assert known.news(said(Patient(mrn="M1"), 2)) is None
    assert known.news(said(ADA, 3)) is None


def test_an_old_frame_does_not_undo_a_newer_one() -> None:
    known = KnownAssociations()
    known.news(said(ADA, 100))
    assert known.news(said(Patient(mrn="M1", bed="1"), 50)) is None
    assert known.news(said(ADA, 101)) is None


def test_two_devices_that_disagree_are_told_once_each() -> None:
    known = KnownAssociations()
    other = Patient(mrn="M1", bed="9")
    told = []
    for at in range(10):
        told += [known.news(said(ADA, at)), known.news(said(other, at, "d2"))]
    assert len([t for t in told if t]) == 2


def test_a_second_device_is_told_even_when_the_patient_is_the_same() -> None:
    known = KnownAssociations()
    known.news(said(ADA, 1))
    assert known.news(said(ADA, 2, "d2")) == ADA


def test_after_forgetting_all_is_told_again() -> None:
    known = KnownAssociations()
    known.news(said(ADA, 1))
    known.forget()
    assert known.news(said(ADA, 2)) == ADA


def test_the_memory_is_bounded_and_drops_the_least_used() -> None:
    known = KnownAssociations(size=2)
    known.news(said(ADA, 1, "d1", "s1"))
    known.news(said(ADA, 1, "d2", "s2"))
    known.news(said(ADA, 2, "d1", "s1"))
    known.news(said(ADA, 1, "d3", "s3"))  # drops s2
    assert known.news(said(ADA, 3, "d1", "s1")) is None
    assert known.news(said(ADA, 3, "d2", "s2")) == ADA


def test_merging_prefers_what_is_newer_and_keeps_what_it_leaves_out() -> None:
    merged = merge(ADA, Patient(mrn="M1", bed="7", ward="2E"))
    assert merged == Patient(mrn="M1", name="Ada Ng", bed="7", ward="2E")

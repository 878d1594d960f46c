from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cloud.ingest.split import Pseudonyms, associations, split
from vitals import columns as columns_
from vitals.columns import Source, pack
from vitals.pseudonym import device_id, device_subject, patient_subject
from vitals.reading import DeviceAlert, Patient, Reading
from vitals.topics import SUBJECT_PARTITIONS, partition_of

KEY = b"k" * 32
NOW = 1_780_000_000_000


@dataclass
class Ward:
    sources: list[Source]
    rows: list[tuple[int, Reading]]


readings = st.builds(
    Reading,
    vital=st.integers(0, 16),
    value=st.none() | st.integers(0, 400).map(float),
    time_ms=st.integers(NOW - 10**9, NOW),
    received_ms=st.integers(NOW - 10**6, NOW),
    status=st.integers(0, 6),
    site=st.integers(0, 8),
    channel=st.integers(0, 3),
    time_source=st.integers(0, 2),
    reason=st.integers(0, 8),
)


@st.composite
def wards(draw: st.DrawFn) -> Ward:
    beds = draw(st.integers(1, 12))
    sources = [
        Source(f"bed-{i % 9}", patient=Patient(mrn=f"M{i}") if draw(st.booleans()) else None)
        for i in range(beds)
    ]
    rows = draw(st.lists(st.tuples(st.integers(0, beds - 1), readings), max_size=40))
    return Ward(sources, rows)


@given(wards())
def test_every_row_arrives_once_in_order_under_its_pseudonym(ward: Ward) -> None:
    parts = split("e", pack(ward.sources, ward.rows), Pseudonyms(KEY))
    expected: dict[int, list[tuple[str, str, Reading]]] = {}
    for at, reading in ward.rows:
        source = ward.sources[at]
        subject = (
            patient_subject(KEY, source.patient.mrn)
            if source.patient
            else device_subject(KEY, "e", source.device)
        )
        row = (subject, device_id(KEY, "e", source.device), reading)
        expected.setdefault(partition_of(subject), []).append(row)
    got = {
        partition: [
            (part.sources[at].subject, part.sources[at].device, reading)
            for at, reading in part.rows()
        ]
        for partition, part in parts.items()
    }
    if ward.sources and not ward.rows:
        (trace,) = got.items()
        assert trace[1] == []  # a frame without rows leaves one empty record
        assert trace[0] in range(SUBJECT_PARTITIONS)
    else:
        assert got == expected


@given(wards())
def test_no_name_stands_in_what_goes_on(ward: Ward) -> None:
    for part in split("e", pack(ward.sources, ward.rows), Pseudonyms(KEY)).values():
        assert all(source.patient is None for source in part.sources)
        assert b"bed-" not in columns_.encode(part)
        assert len(set(part.sources)) == len(part.sources)


def test_the_same_patient_on_two_devices_is_one_subject() -> None:
    sources = [Source("a", patient=Patient(mrn=" M1 ")), Source("b", patient=Patient(mrn="M1"))]
    rows = [(0, Reading(0, 70.0, NOW, NOW)), (1, Reading(0, 71.0, NOW, NOW))]
    (part,) = split("e", pack(sources, rows), Pseudonyms(KEY)).values()
    assert len({source.subject for source in part.sources}) == 1
    assert len({source.device for source in part.sources}) == 2


def test_a_patient_without_a_number_is_the_devices_subject() -> None:
    sources = [Source("a", patient=Patient(mrn="  ", bed="4"))]
    (part,) = split("e", pack(sources, [(0, Reading(0, 70.0, NOW, NOW))]), Pseudonyms(KEY)).values()
    assert part.sources[0].subject == device_subject(KEY, "e", "a")


def test_an_association_is_as_new_as_the_last_row_of_its_source() -> None:
    sources = [Source("a", patient=Patient(mrn="M1")), Source("b", patient=Patient(mrn="M2"))]
    rows = [(0, Reading(0, 1.0, NOW, NOW + 5)), (0, Reading(0, 1.0, NOW, NOW + 3))]
    found = associations("e", pack(sources, rows), Pseudonyms(KEY), NOW + 9)
    assert [a.time_ms for a in found] == [NOW + 5, NOW + 9]  # the second has no rows at all


@given(wards(), st.lists(st.integers(0, 11), max_size=6))
def test_every_device_alert_follows_its_source_alone_or_beside_rows(
    ward: Ward, sources: list[int]
) -> None:
    alerts = [
        (at % len(ward.sources), DeviceAlert(196652, "MDC_EVT_HI", NOW + nth, NOW))
        for nth, at in enumerate(sources)
    ]
    pseudonyms = Pseudonyms(KEY)
    expected = []
    for at, alert in alerts:
        source = ward.sources[at]
        mrn = source.patient.mrn if source.patient else ""
        subject, device = pseudonyms.of("e", source.device, mrn)
        expected.append((partition_of(subject), subject, device, alert))
    parts = split("e", pack(ward.sources, ward.rows, alerts), pseudonyms)
    got = [
        (partition, part.sources[at].subject, part.sources[at].device, alert)
        for partition, part in parts.items()
        for at, alert in part.alerts
    ]
    assert sorted(got, key=lambda one: one[3].time_ms) == expected
    for part in parts.values():
        columns_.check(part)

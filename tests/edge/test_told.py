"""What is told of an entry: every part, in its order, in words and numbers that are stored."""

import pytest

from edge.entry import Entry
from edge.told import tell
from tests.edge.decoding import NOW, READING
from vitals.codes import Absence, Status, TimeSource
from vitals.columns import Source
from vitals.reading import DeviceAlert, Patient, Reading, Rejected


def test_every_part_of_an_entry_is_told_in_order() -> None:
    patient = Patient(mrn="M1", bed="3")
    alert = DeviceAlert(
        196652, "MDC_EVT_HI", NOW - 500, NOW, "start", "active", "enabled", "high", "physiological",
        "al-1", 147842, 0, 140.4, 50.0, 120.0, Status.TEST, TimeSource.CORRECTED,
    )  # fmt: skip
    bare = DeviceAlert(0, "MDC_EVT_LEAD_OFF", NOW, NOW)
    rejected = tuple(Rejected(f"r{i}", "f", "d", "a", b"", NOW, 0) for i in range(3))
    source, readings = Source("a", patient=patient), (Reading(0, 78.0, NOW, NOW),)
    entry = Entry(source, readings, rejected, 0, alerts=(alert, bare))
    reading, first, second, *refused = tell(entry, ack=False)
    who = {"device": "a", "patient": "M1", "bed": "3"}
    assert reading == READING | who
    assert first == {
        "kind": "device_alert",
        **who,
        "event": 196652,
        "name": "MDC_EVT_HI",
        "phase": "start",
        "state": "active",
        "inactivation": "enabled",
        "priority": "high",
        "type": "physiological",
        "id": "al-1",
        "source": 147842,
        "vital": "heart_rate",
        "value": 140,
        "low": 50,
        "high": 120,
        "unit": "/min",
        "time": "2026-11-23T10:00:04.500Z",
        "received": "2026-11-23T10:00:05.000Z",
        "time_source": "corrected",
        "status": "test",
    }
    nothing = ("phase", "state", "inactivation", "priority", "type", "id", "source", "vital",
               "value", "low", "high", "unit")  # fmt: skip
    assert {second[name] for name in nothing} == {None}
    assert (second["event"], second["time_source"]) == (0, "received")
    assert [one["reason"] for one in refused] == ["r0", "r1", "r2"]


@pytest.mark.parametrize("absence", [a for a in Absence if a is not Absence.NONE])
@pytest.mark.parametrize("status", list(Status))
def test_every_status_and_reason_has_its_word(absence: Absence, status: Status) -> None:
    reading = Reading(4, None, NOW, NOW, int(status), 0, 2, 0, int(absence))
    (told,) = tell(Entry(Source("a"), (reading,), (), 0), ack=False)
    assert (told["status"], told["reason"], told["channel"], told["value"]) == (
        status.name.lower(),
        absence.name.lower().replace("_", "-"),
        2,
        None,
    )


def test_a_patient_without_a_number_and_a_bed_is_null() -> None:
    entry = Entry(Source("a", patient=Patient(ward="W1")), (Reading(0, 78.0, NOW, NOW),), (), 0)
    (told,) = tell(entry, ack=False)
    assert (told["device"], told["patient"], told["bed"]) == ("a", None, None)

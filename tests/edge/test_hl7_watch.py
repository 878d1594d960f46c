"""A device that owes a sign of life is missed once, and once it is back, that is said."""

from edge.hl7_watch import GRACE_MS, LOST, LOST_ID, WATCHED_MAX, Watchdogs
from tests.edge.hl7_messages import NOW
from vitals import columns, limits
from vitals.codes import TimeSource
from vitals.columns import Source
from vitals.reading import DeviceAlert, Patient

BED = Source("d-17", patient=Patient("M1"))
DUE = 5000 + GRACE_MS


def _watching(timeout_ms: int = 5000) -> Watchdogs:
    watchdogs = Watchdogs()
    assert watchdogs.heard(BED, timeout_ms, NOW, leaving=False) is None
    return watchdogs


def test_silence_for_longer_than_stated_is_one_technical_alert() -> None:
    watchdogs = _watching()
    assert watchdogs.overdue(NOW + DUE) == []
    assert watchdogs.overdue(NOW + DUE + 1) == [
        (
            BED,
            DeviceAlert(
                0,
                LOST,
                NOW + DUE + 1,
                NOW + DUE + 1,
                phase="start",
                state="active",
                priority="medium",
                kind="technical",
                id=LOST_ID,
                time_source=TimeSource.RECEIVED,
            ),
        )
    ]
    assert watchdogs.overdue(NOW + 10 * DUE) == []


def test_coming_back_ends_it_and_the_next_silence_is_another() -> None:
    watchdogs = _watching()
    watchdogs.overdue(NOW + 10_000)
    end = watchdogs.heard(BED, 5000, NOW + 20_000, leaving=False)
    assert end is not None
    assert (end.phase, end.state, end.name, end.id) == ("end", "inactive", LOST, LOST_ID)
    assert (end.time_ms, end.received_ms) == (NOW + 20_000, NOW + 20_000)
    assert watchdogs.heard(BED, 5000, NOW + 21_000, leaving=False) is None
    assert len(watchdogs.overdue(NOW + 40_000)) == 1


def test_signs_of_life_in_time_are_no_alert() -> None:
    watchdogs = _watching()
    for at in range(0, 60_000, 5000):
        assert watchdogs.heard(BED, 5000, NOW + at, leaving=False) is None
        assert watchdogs.overdue(NOW + at + 4999) == []


def test_a_newer_timeout_and_patient_hold() -> None:
    watchdogs = _watching(5000)
    moved = Source("d-17", patient=Patient("M2"))
    watchdogs.heard(moved, 30_000, NOW, leaving=False)
    assert len(watchdogs) == 1
    assert watchdogs.overdue(NOW + 30_000) == []
    assert [source for source, _ in watchdogs.overdue(NOW + 31_001)] == [moved]


def test_an_intended_end_is_none_and_ends_a_loss() -> None:
    watchdogs = _watching()
    assert watchdogs.heard(BED, 5000, NOW + 1000, leaving=True) is None
    assert watchdogs.overdue(NOW + 60_000) == []
    assert len(watchdogs) == 0
    watchdogs = _watching()
    watchdogs.overdue(NOW + 60_000)
    end = watchdogs.heard(BED, 5000, NOW + 61_000, leaving=True)
    assert end is not None
    assert end.phase == "end"
    assert watchdogs.overdue(NOW + 600_000) == []


def test_a_clock_set_back_begins_to_wait_again() -> None:
    watchdogs = _watching()
    assert watchdogs.overdue(NOW - 3_600_000) == []
    assert watchdogs.overdue(NOW - 3_600_000 + DUE) == []
    assert len(watchdogs.overdue(NOW - 3_600_000 + DUE + 1)) == 1


def test_the_number_of_devices_watched_is_bounded() -> None:
    assert limits.CONNECTIONS_MAX == WATCHED_MAX
    watchdogs = Watchdogs(2)
    for name in ("a", "b", "a", "c"):
        watchdogs.heard(Source(name), 5000, NOW, leaving=False)
    assert len(watchdogs) == 2
    assert [source.device for source, _ in watchdogs.overdue(NOW + 60_000)] == ["a", "c"]


def test_both_alerts_fit_a_frame() -> None:
    watchdogs = _watching()
    ((source, start),) = watchdogs.overdue(NOW + 60_000)
    end = watchdogs.heard(BED, 5000, NOW + 61_000, leaving=False)
    assert end is not None
    packed = columns.pack([source], [], [(0, start), (0, end)])
    assert columns.decode(columns.encode(packed)).alerts == [(0, start), (0, end)]

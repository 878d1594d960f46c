"""What the ward station shows, without a server."""

from typing import Any

import msgspec
import pytest

from cloud.api.board import ABSENT_MS, Board, Tile, initials, short_name
from cloud.api.store import Seen
from cloud.project.layout import Latest
from cloud.records import GATEWAY, LIMIT, AlertEvent, Identity, LiveUpdate
from vitals.reading import Patient

NOW = 1_790_000_000_000
ADA, BEA, CAM, DEVICE = "a" * 32, "b" * 32, "c" * 32, "d" * 32


def who(subject: str, bed: str, ward: str = "ICU", at: int = 0, name: str = "Ada Ng") -> Identity:
    return Identity(
        subject, Patient(mrn="M1", name=name, ward=ward, bed=bed), DEVICE, "e", NOW + at
    )


def tile(board: Board, mono: float, now: int = NOW, subject: str = ADA) -> Tile:
    return board.tile(board.beds[subject], now, mono, history=True)


def test_age_counts_from_receipt_on_the_gateway_and_on_by_the_monotonic_clock(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("heart_rate", 70, -400)]), NOW, 1000.0)
    assert tile(board, 1000.0).vitals["heart_rate"].age_ms == 400
    # the wall clock jumps by an hour: the age does not
    assert tile(board, 3000.0, NOW - 3_600_000).vitals["heart_rate"].age_ms == 2400
    assert tile(board, 3000.0, NOW + 3_600_000).vitals["heart_rate"].age_ms == 2400


def test_a_replayed_or_older_reading_does_not_refresh_an_age(make: Any) -> None:
    board = Board()
    first = make("heart_rate", 70)
    board.apply(LiveUpdate(ADA, [first]), NOW, 0.0)
    for late in (first, make("heart_rate", 99, -60_000)):
        changed, _ = board.apply(LiveUpdate(ADA, [late]), NOW + 9000, 9000.0)
        assert not changed
    shown = tile(board, 9000.0).vitals["heart_rate"]
    assert (shown.value, shown.age_ms) == (70, 9000)


def test_a_reading_measured_long_before_its_receipt_is_old_at_once(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 97, -45_000, received=44_900)]), NOW, 0.0)
    assert tile(board, 0.0).vitals["spo2"].age_ms >= 44_900


def test_cadence_is_learnt_and_a_gap_is_no_cadence(make: Any) -> None:
    board = Board()
    for at in (0, 4000, 8000, 90_000):
        board.apply(LiveUpdate(ADA, [make("spo2", 97, at)]), NOW + at, float(at))
    assert tile(board, 90_000.0).vitals["spo2"].every == 4000


def test_beds_stand_in_a_fixed_order_that_people_count_in(make: Any) -> None:
    board = Board()
    for at, bed in enumerate(("10", "2", "1a", "1", "")):
        subject = f"{at:032x}"
        identity = who(subject, bed) if bed else None
        board.apply(LiveUpdate(subject, [make("spo2", 97)], identity=identity), NOW, 0.0)
    assert [bed.name for bed in board.visible(0.0)] == ["1", "1a", "2", "10", ""]


def test_a_new_patient_takes_the_tile_of_one_whose_data_stopped(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 97)], identity=who(ADA, "4")), NOW, 0.0)
    board.apply(
        LiveUpdate(BEA, [make("spo2", 96, 5000)], identity=who(BEA, "4", at=5000)), NOW + 5000, 5000
    )
    assert len(board.visible(6000.0)) == 2  # both send: both are shown, nothing is hidden live
    assert [bed.subject for bed in board.visible(40_000.0)] == [BEA]


def test_a_bed_stays_lost_for_a_day_and_a_device_without_a_patient_for_minutes(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 97)], identity=who(ADA, "4")), NOW, 0.0)
    board.apply(LiveUpdate(CAM, [make("spo2", 97)]), NOW, 0.0)
    assert {bed.subject for bed in board.visible(60_000.0)} == {ADA, CAM}
    assert {bed.subject for bed in board.visible(ABSENT_MS / 2)} == {ADA}
    assert board.visible(ABSENT_MS + 1.0) == []


def alert(state: str, at: int = 0, **more: Any) -> AlertEvent:
    return AlertEvent(
        "ep", ADA, "threshold", "spo2", more.pop("priority", "high"), state, "SpO2 84<90", 90, 84,
        NOW - 5000, NOW, NOW + at, "p", **more,
    )  # fmt: skip


def test_an_alarm_stands_until_it_ends_and_then_as_a_silent_line(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 84)]), NOW, 0.0)
    board.apply(LiveUpdate(ADA, alert=alert("active")), NOW, 0.0)
    [alarm] = tile(board, 0.0, NOW + 1000).alarms
    assert (alarm.state, alarm.for_ms, alarm.priority) == ("active", 6000, "high")
    ended = alert("ended", 2000, ended_ms=NOW + 2000)
    board.apply(LiveUpdate(ADA, alert=ended), NOW + 2000, 2000.0)
    board.apply(LiveUpdate(ADA, alert=alert("active")), NOW + 2000, 2000.0)  # replayed
    [alarm] = tile(board, 3000.0, NOW + 3000).alarms
    assert (alarm.state, alarm.for_ms) == ("ended", 7000)
    assert tile(board, 0.0, NOW + 3_600_000).alarms == []


def test_of_an_episodes_steps_the_highest_number_stands_whatever_their_times(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 84)]), NOW, 0.0)
    steps = [
        alert("ended", 9000, ended_ms=NOW + 9000),  # of a version that did not number
        alert("active", 0, number=1),
        alert("active", 60_000, number=2, acknowledged_ms=NOW + 60_000, acknowledged_by="lee.k"),
        alert("active", 5_000, number=3, level=1),  # told in event time, which lies before
        alert("latched", 5_000, number=4),
    ]
    for step in (steps[1], steps[0], *steps[2:], *steps):
        board.apply(LiveUpdate(ADA, alert=step), NOW, 0.0)
    [alarm] = tile(board, 0.0).alarms
    assert (alarm.state, alarm.ended, alarm.acknowledged) == ("latched", None, None)
    for order in (steps, steps[::-1]):
        loaded = Board()
        loaded.load([Seen(ADA, who(ADA, "4"), [Latest(DEVICE, make("spo2", 84))], order)], NOW, 0.0)
        assert tile(loaded, 0.0).alarms == [alarm]


def test_a_latched_alarm_stays_until_somebody_has_answered_it(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 97)]), NOW, 0.0)
    board.apply(LiveUpdate(ADA, alert=alert("latched", 1000, number=2)), NOW, 0.0)
    later = NOW + 3 * 3_600_000
    [alarm] = tile(board, 0.0, later).alarms
    assert (alarm.state, alarm.for_ms) == ("latched", 3 * 3_600_000 + 5000)
    ended = alert("ended", 2000, number=4, ended_ms=later)
    board.apply(LiveUpdate(ADA, alert=ended), later, 0.0)
    assert [a.state for a in tile(board, 0.0, later).alarms] == ["ended"]


def test_the_page_is_told_why_an_alarm_does_not_ring(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 84)]), NOW, 0.0)
    told = alert(
        "active",
        number=7,
        acknowledged_ms=NOW - 1,
        acknowledged_by="lee.k",
        shelved_until_ms=NOW + 1000,
        suppressed_by="other",
        level=2,
        standing=True,
    )
    board.apply(LiveUpdate(ADA, alert=told), NOW, 0.0)
    [alarm] = tile(board, 0.0, NOW + 999).alarms
    assert (alarm.acknowledged, alarm.by, alarm.shelved) == (NOW - 1, "lee.k", NOW + 1000)
    assert (alarm.suppressed, alarm.level, alarm.standing) == (True, 2, True)
    [alarm] = tile(board, 0.0, NOW + 1000).alarms
    assert alarm.shelved is None, "over, though nobody said so"
    board.apply(LiveUpdate(ADA, alert=alert("active", number=8)), NOW, 0.0)
    [alarm] = tile(board, 0.0, NOW).alarms
    assert (alarm.acknowledged, alarm.by, alarm.shelved, alarm.suppressed) == (
        None,
        "",
        None,
        False,
    )


@pytest.mark.parametrize("kind", [GATEWAY, LIMIT])
def test_what_is_no_alarm_of_a_bed_is_no_line_of_it(make: Any, kind: str) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 84)]), NOW, 0.0)
    other = msgspec.structs.replace(alert("ended", number=1, ended_ms=NOW), kind=kind)
    board.apply(LiveUpdate(ADA, alert=other), NOW, 0.0)
    assert tile(board, 0.0).alarms == []


def test_a_retrospective_finding_rings_nothing(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 84)]), NOW, 0.0)
    board.apply(LiveUpdate(ADA, alert=alert("active", retrospective=True)), NOW, 0.0)
    assert tile(board, 0.0).alarms == []


def test_the_sparkline_keeps_short_falls_of_oxygen_and_leaves_out_doubtful_values(
    make: Any,
) -> None:
    board = Board()
    base = -NOW % 5000
    for at, value in ((0, 97), (1000, 82), (2000, 96), (5000, 95)):
        board.apply(LiveUpdate(ADA, [make("spo2", value, base + at)]), NOW, 0.0)
    board.apply(LiveUpdate(ADA, [make("spo2", 10, base + 10_000, status=2)]), NOW, 0.0)
    assert [value for _, value in tile(board, 0.0).spark["spo2"]] == [82, 95]


def test_a_snapshot_fills_the_board_and_never_takes_it_back(make: Any) -> None:
    board = Board()
    board.apply(LiveUpdate(ADA, [make("spo2", 90, 5000)]), NOW + 5000, 0.0)
    seen = Seen(ADA, who(ADA, "4"), [Latest(DEVICE, make("spo2", 97))], [alert("active")])
    board.load([seen], NOW + 5000, 0.0)
    shown = tile(board, 0.0)
    assert shown.vitals["spo2"].value == 90
    assert shown.bed == "4"
    assert len(shown.alarms) == 1


def test_only_a_short_name_leaves_for_the_page() -> None:
    assert short_name("Ada Maria Ng") == "Ng A."
    assert short_name("Cher") == "Cher"
    assert short_name("") == ""
    assert initials("Ada Maria Ng") == "AMN"


def test_a_bed_moves_onto_the_page_with_its_first_reading_and_after_an_absence(make: Any) -> None:
    board = Board()
    _, moved = board.apply(LiveUpdate(ADA, identity=who(ADA, "7")), NOW, 0.0)
    assert moved
    _, moved = board.apply(LiveUpdate(ADA, [make("spo2", 97)]), NOW, 0.0)
    assert moved, "its first reading makes it visible"
    _, moved = board.apply(LiveUpdate(ADA, [make("spo2", 96, 1000)]), NOW + 1000, 1000.0)
    assert not moved
    later = 24 * 3_600_000
    _, moved = board.apply(LiveUpdate(ADA, [make("spo2", 95, later)]), NOW + later, float(later))
    assert moved, "it was absent for a day"

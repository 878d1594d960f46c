"""What gives way when the spool is full: the oldest, of its own kind, counted, never in silence."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge import spool_quota, spool_read
from edge.spool import Quota, Ranges, SpoolFull
from tests.edge.spooling import NOW, ack, ask, counters, opened, put, sealed, sealing, seqs

DAY = 24 * 3600 * 1000


def _seqs(path: Path) -> list[int]:
    return [seq for _, seq in seqs(path)]


def test_over_the_quota_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 3500)
    for seq in range(3):
        assert put(spool, of, sealed(of, seq)).dropped == 0
    assert put(spool, of, sealed(of, 3), sealed(of, 4)).dropped == 2
    assert _seqs(path) == [2, 3, 4]
    found = counters(path)
    assert (found["frames_dropped"], found["readings_dropped"]) == (2, 10)
    assert (found["frames_dropped:bytes"], found["readings_dropped:bytes"]) == (2, 10)
    assert found["frames_spooled"] == found["frames_dropped"] + 3
    spool.close()
    assert spool_read.verify(path) == []


def test_exactly_the_quota_fits_and_one_byte_more_does_not(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 2000)
    put(spool, of, sealed(of, 0))
    assert put(spool, of, sealed(of, 1)).dropped == 0
    ack(spool, of, (1, 1))
    assert put(spool, of, sealed(of, 2, size=1001)).dropped == 1
    spool.close()


def test_no_more_is_dropped_than_is_needed(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 5000)
    for seq in range(5):
        put(spool, of, sealed(of, seq))
    assert put(spool, of, sealed(of, 5, size=2000)).dropped == 2
    assert put(spool, of, sealed(of, 6)).dropped == 1
    spool.close()
    assert _seqs(path) == [3, 4, 5, 6]


def test_over_the_quota_new_input_is_refused_if_the_policy_says_so(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 1500, refuse=True)
    put(spool, of, sealed(of, 0))
    with pytest.raises(SpoolFull):
        put(spool, of, sealed(of, 1))
    acks = [Ranges(of.epoch.epoch, [(0, 0)])]
    stored = spool.store(of.epoch, [sealed(of, 2)], Counter(frames_spooled=1), acks)
    assert stored.frames_now == 1  # an acknowledgement that came along made the room
    with pytest.raises(SpoolFull):
        put(spool, of, sealed(of, 3))
    assert spool.store(of.epoch, [], Counter(), [Ranges(of.epoch.epoch, [(2, 2)])]).frames_now == 0
    put(spool, of, sealed(of, 4))
    spool.close()
    assert _seqs(path) == [4]


def test_refused_input_pushes_out_its_own_oldest_and_no_reading(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 3000, quarantine_bytes_max=2500)
    put(spool, of, *(sealed(of, seq) for seq in range(3)))
    put(spool, of, sealed(of, 3, lane=2), sealed(of, 4, lane=2))
    stored = put(spool, of, sealed(of, 5, lane=2))
    assert (stored.dropped, stored.dropped_quarantine) == (1, 1)
    assert _seqs(path) == [0, 1, 2, 4, 5]
    found = counters(path)
    assert (found["rejects_dropped"], found["rejects_dropped:bytes"]) == (5, 5)
    assert "readings_dropped" not in found
    spool.close()
    assert spool_read.verify(path) == []


def test_readings_push_out_no_refused_input(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 2500, quarantine_bytes_max=2500)
    put(spool, of, sealed(of, 0, lane=2), sealed(of, 1, lane=2))
    for seq in range(2, 8):
        put(spool, of, sealed(of, seq, lane=seq % 2))
    assert _seqs(path) == [0, 1, 6, 7]
    spool.close()


def test_a_full_quarantine_refuses_nothing_even_where_full_refuses(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 1500, refuse=True, quarantine_bytes_max=1500)
    put(spool, of, sealed(of, 0), sealed(of, 1, lane=2))
    assert put(spool, of, sealed(of, 2, lane=2)).dropped_quarantine == 1
    assert _seqs(path) == [0, 2]
    spool.close()


def test_a_lowered_quota_is_reached_over_several_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_quota, "DROP_FRAMES_MAX", 10)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq) for seq in range(50)))
    spool.quota = Quota(20_000)
    left = [put(spool, of, sealed(of, 50 + turn)).frames_now for turn in range(6)]
    assert left == [41, 32, 23, 20, 20, 20]
    spool.close()
    assert spool_read.verify(path) == []


def test_a_transaction_that_fails_leaves_what_it_would_have_dropped(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 3000)
    put(spool, of, *(sealed(of, seq) for seq in range(3)))
    with pytest.raises(Exception, match="UNIQUE"):
        put(spool, of, sealed(of, 3), sealed(of, 2))
    assert _seqs(path) == [0, 1, 2]
    put(spool, of, sealed(of, 4))
    assert _seqs(path) == [1, 2, 4]
    spool.close()
    assert spool_read.verify(path) == []


def test_the_oldest_go_first_also_after_frames_came_in_below(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 3000, after_id=100)
    put(spool, of, *(sealed(of, seq) for seq in range(5, 9)))
    spool._db.execute("UPDATE frames SET id = 7 WHERE seq = 8")
    spool.came_below()
    put(spool, of, sealed(of, 9))
    assert [seq for (seq,) in ask(path, "SELECT seq FROM frames ORDER BY seq")] == [6, 7, 9]
    spool.close()


class Aging:
    """A spool with an age limit of ten days and a clock of its own."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.path, self.of = folder / "spool.db", sealing()
        self.up_s = 0.0
        usual: dict[str, Any] = {"age_ms_max": 10 * DAY, "monotonic": lambda: self.up_s}
        self.changes = usual | changes
        self.spool = opened(self.path, **self.changes)

    def again(self) -> None:
        self.spool.close()
        self.spool = opened(self.path, **self.changes)


def test_what_an_earlier_start_left_is_dropped_when_it_is_too_old(tmp_path: Path) -> None:
    aging = Aging(tmp_path)
    of = aging.of
    put(aging.spool, of, sealed(of, 0, at_ms=NOW - 11 * DAY), sealed(of, 1, lane=2, at_ms=NOW))
    aging.again()
    assert put(aging.spool, of, sealed(of, 2, at_ms=NOW + 10 * DAY)).dropped_age == 1
    found = counters(aging.path)
    assert (found["frames_dropped:age"], found["readings_dropped:age"]) == (1, 5)
    assert found["readings_dropped"] == 5
    # Exactly the age is not over it; a second later it is looked at again, and is.
    aging.spool.store(of.epoch, [], Counter(), (), NOW + 10 * DAY + 999)
    assert _seqs(aging.path) == [1, 2]
    assert aging.spool.store(of.epoch, [], Counter(), (), NOW + 10 * DAY + 1000).dropped_age == 1
    assert counters(aging.path)["rejects_dropped:age"] == 5
    aging.spool.close()
    assert spool_read.verify(aging.path) == []


def test_a_clock_that_is_set_makes_nothing_of_this_start_old(tmp_path: Path) -> None:
    aging = Aging(tmp_path)
    of = aging.of
    put(aging.spool, of, sealed(of, 0, at_ms=NOW - 400 * DAY))
    assert put(aging.spool, of, sealed(of, 1, at_ms=NOW)).dropped == 0
    aging.up_s = 10 * DAY / 1000 - 1
    assert put(aging.spool, of, sealed(of, 2, at_ms=NOW + 1000)).dropped == 0
    aging.up_s += 1
    assert put(aging.spool, of, sealed(of, 3, at_ms=NOW + 2000)).dropped_age == 1
    aging.spool.close()


def test_a_clock_that_was_set_back_does_not_end_the_looking(tmp_path: Path) -> None:
    aging = Aging(tmp_path)
    of = aging.of
    put(aging.spool, of, sealed(of, 0, at_ms=NOW - 11 * DAY))
    aging.again()
    put(aging.spool, of, sealed(of, 1, at_ms=NOW - 5 * DAY))
    put(aging.spool, of, sealed(of, 2, at_ms=NOW - 6 * DAY))
    assert put(aging.spool, of, sealed(of, 3, at_ms=NOW)).dropped_age == 1
    aging.spool.close()


def test_a_clock_that_was_ahead_for_a_while_does_not_end_the_looking(tmp_path: Path) -> None:
    aging = Aging(tmp_path)
    aging.up_s = 11 * DAY / 1000
    of = aging.of
    put(aging.spool, of, sealed(of, 0, at_ms=NOW + 1000 * DAY))
    ack(aging.spool, of, (0, 0))
    aging.spool.store(
        of.epoch, [sealed(of, 1, at_ms=NOW - 11 * DAY)], Counter(), (), NOW - 11 * DAY
    )
    assert put(aging.spool, of, sealed(of, 2, at_ms=NOW)).dropped_age == 1
    aging.spool.close()


def test_opening_the_file_again_makes_nothing_of_this_start_an_earlier_ones(tmp_path: Path) -> None:
    aging = Aging(tmp_path)
    of = aging.of
    put(aging.spool, of, sealed(of, 0, at_ms=NOW - 400 * DAY))
    aging.spool.close()  # as after an error of the disk: the next call opens it
    assert put(aging.spool, of, sealed(of, 1, at_ms=NOW)).dropped == 0
    aging.spool.close()


def test_age_drops_nothing_where_full_refuses_or_no_age_is_set(tmp_path: Path) -> None:
    policies: tuple[dict[str, Any], ...] = ({"refuse": True}, {"age_ms_max": None})
    for number, changes in enumerate(policies):
        folder = tmp_path / str(number)
        folder.mkdir()
        aging = Aging(folder, **changes)
        of = aging.of
        put(aging.spool, of, sealed(of, 0, at_ms=NOW - 99 * DAY))
        aging.again()
        assert put(aging.spool, of, sealed(of, 1)).dropped == 0
        aging.spool.close()


def test_age_stops_at_the_first_frame_that_is_young_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_quota, "DROP_FRAMES_MAX", 2)
    aging = Aging(tmp_path)
    of = aging.of
    ages = (99, 98, 97, 1, 50)
    put(aging.spool, of, *(sealed(of, n, at_ms=NOW - a * DAY) for n, a in enumerate(ages)))
    aging.again()
    dropped = [
        aging.spool.store(of.epoch, [], Counter(), (), NOW + turn).dropped_age for turn in range(3)
    ]
    assert dropped == [2, 1, 0]  # bounded work in each, and at once again until it is done
    assert _seqs(aging.path) == [3, 4]
    aging.spool.close()

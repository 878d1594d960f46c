"""Live goes first, what is late keeps its place and its pace, an acknowledgement counts once."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.backlog import Held, Stored
from edge.outbox import LATE_FRAMES_READ, Order, Outbox, Wanted
from edge.pace import WINDOW_BYTES_FIRST, WINDOW_BYTES_MIN


def _held(id_: int, seq: int, epoch: str = "e", size: int = 10) -> Held:
    return Held(id_, epoch, seq, bytes(size))


def _open(
    last_id: int = 0,
    lowest: dict[str, int] | None = None,
    credit: int = 8,
    order: Order = "oldest-first",
    withheld: Sequence[str] = (),
) -> Outbox:
    outbox = Outbox(order)
    outbox.open(0.0)
    outbox.connect(Stored(last_id, last_id, lowest or {}), credit, withheld)
    return outbox


def test_outside_a_session_nothing_is_kept() -> None:
    outbox = Outbox()
    outbox.offer([_held(1, 0)], 0.0)
    assert outbox.next_live() is None


def test_a_frame_committed_while_the_disk_was_asked_is_sent_once() -> None:
    outbox = Outbox()
    outbox.open(0.0)
    outbox.offer([_held(4, 3), _held(5, 4)], 1.0)
    outbox.connect(Stored(4, 4, {"e": 0}), 8)
    outbox.offer([_held(4, 3)], 2.0)
    live = outbox.next_live()
    assert live is not None
    assert (live.frame.id, live.since_s) == (5, 1.0)
    assert outbox.next_live() is None


def test_live_waits_for_credit_alone_and_late_leaves_it_a_quarter() -> None:
    outbox = _open(last_id=100, lowest={"e": 0}, credit=8)
    assert outbox.wanted() == Wanted(0, 100, WINDOW_BYTES_FIRST, 6)
    stored = [_held(i + 1, i) for i in range(6)]
    outbox.read(Wanted(0, 100, 1, 6), stored)
    for frame in stored:
        outbox.sent(frame, 0.0, late=True)
    assert outbox.wanted() is None
    outbox.offer([_held(101, 200), _held(102, 201), _held(103, 202)], 0.0)
    for seq in (200, 201):
        live = outbox.next_live()
        assert live is not None
        assert live.frame.seq == seq
        outbox.sent(live.frame, 0.0, late=False)
    assert outbox.next_live() is None
    outbox.acked("e", [(0, 0)], 0.01)
    assert outbox.next_live() is not None


def test_late_waits_while_live_frames_do() -> None:
    outbox = _open(last_id=5, lowest={"e": 0}, credit=1000)
    outbox.offer([_held(6, 5)], 0.0)
    assert outbox.wanted() is None
    outbox.next_live()
    wanted = outbox.wanted()
    assert wanted is not None
    assert wanted.count_max == LATE_FRAMES_READ


def test_no_more_late_bytes_are_on_their_way_than_the_window_holds() -> None:
    outbox = _open(last_id=100, lowest={"e": 0}, credit=1000)
    size = WINDOW_BYTES_FIRST // 4
    for seq in range(4):
        wanted = outbox.wanted()
        assert wanted is not None
        assert wanted.bytes_max == WINDOW_BYTES_FIRST - seq * size
        outbox.read(wanted, [_held(seq + 1, seq, size=size)])
        outbox.sent(_held(seq + 1, seq, size=size), 0.0, late=True)
    assert outbox.wanted() is None
    outbox.acked("e", [(0, 0)], 0.01)
    assert outbox.wanted() is not None


def test_slow_live_frames_shrink_the_window_and_quick_late_ones_widen_it() -> None:
    outbox = _open(last_id=100, lowest={"e": 0}, credit=1000)
    outbox.sent(_held(1, 0, size=1000), 0.0, late=True)
    outbox.acked("e", [(0, 0)], 0.01)
    assert outbox.pace.window == WINDOW_BYTES_FIRST + 1000
    outbox.sent(_held(200, 500), 0.0, late=False)
    outbox.acked("e", [(500, 500)], 1.0)
    assert outbox.pace.window == max(WINDOW_BYTES_MIN, (WINDOW_BYTES_FIRST + 1000) // 2)
    assert outbox.took() == [1.0]
    assert outbox.took() == []


def test_the_floor_is_the_lowest_sequence_number_without_an_acknowledgement() -> None:
    outbox = _open(last_id=3, lowest={"e": 7}, credit=8)
    live = _held(4, 20)
    assert outbox.sent(live, 0.0, late=False) == 7
    assert outbox.sent(_held(1, 7), 0.0, late=True) == 7
    assert outbox.sent(_held(2, 9), 0.0, late=True) == 7
    outbox.acked("e", [(7, 7)], 0.0)
    assert outbox.sent(_held(3, 12), 0.0, late=True) == 9
    outbox.read(Wanted(0, 3, 1, 8), [_held(3, 12)])
    outbox.caught_up()
    outbox.acked("e", [(0, 19)], 0.0)
    assert outbox.sent(_held(5, 21), 0.0, late=False) == 20
    outbox.acked("e", [(20, 21)], 0.0)
    assert outbox.sent(_held(6, 22), 0.0, late=False) == 22


def test_newest_first_the_floor_stays_at_the_oldest_until_it_has_gone() -> None:
    outbox = _open(last_id=9, lowest={"e": 1}, credit=8, order="newest-first")
    wanted = outbox.wanted()
    assert wanted is not None
    assert wanted.newest_first
    outbox.read(wanted, [_held(9, 9), _held(8, 8)])
    assert outbox.wanted() == wanted._replace(last=7)
    for seq in (9, 8):
        assert outbox.sent(_held(seq, seq), 0.0, late=True) == 1
    outbox.acked("e", [(8, 9)], 0.0)
    assert outbox.sent(_held(10, 10), 0.0, late=False) == 1
    outbox.read(wanted._replace(last=7), [_held(seq, seq) for seq in range(7, 0, -1)])
    for seq in range(7, 0, -1):
        outbox.sent(_held(seq, seq), 0.0, late=True)
    outbox.caught_up()
    assert outbox.wanted() is None
    outbox.acked("e", [(1, 10)], 0.0)
    assert outbox.sent(_held(11, 11), 0.0, late=False) == 11


def test_only_what_this_session_sent_can_be_acknowledged() -> None:
    outbox = _open()
    for seq in (1, 2, 4):
        outbox.sent(_held(seq, seq), 0.0, late=False)
    assert outbox.acked("other", [(0, 9)], 0.0) == []
    assert outbox.acked("e", [(0, 2**32)], 0.0) == [(1, 2), (4, 4)]
    assert outbox.acked("e", [(1, 4)], 0.0) == []
    assert outbox.in_flight == 0


def test_live_frames_that_outgrow_memory_become_late() -> None:
    outbox = Outbox(live_bytes_max=25)
    outbox.open(0.0)
    outbox.connect(Stored(0, 0, {}), 8)
    outbox.offer([_held(1, 0), _held(2, 1)], 0.0)
    first = outbox.next_live()
    assert first is not None
    outbox.sent(first.frame, 0.0, late=False)
    outbox.offer([_held(3, 2), _held(4, 3)], 0.0)
    assert outbox.next_live() is None
    assert outbox.late_left == 3
    wanted = outbox.wanted()
    assert wanted is not None
    assert (wanted.after, wanted.last) == (1, 4)
    assert outbox.sent(_held(5, 4), 0.0, late=False) == 0
    outbox.acked("e", [(0, 0)], 0.0)
    assert outbox.sent(_held(6, 5), 0.0, late=False) == 1


def test_what_outgrows_memory_before_the_session_is_open_goes_after_what_is_stored() -> None:
    outbox = Outbox(live_bytes_max=25)
    outbox.open(0.0)
    outbox.offer([_held(n + 1, n) for n in (2, 3, 4)], 0.0)  # 0 and 1 lie on the disk
    outbox.connect(Stored(4, 4, {"e": 0}), 8)
    assert outbox.late_left == 5
    wanted = outbox.wanted()
    assert wanted is not None
    assert (wanted.after, wanted.last) == (0, 4)
    frames = outbox.read(wanted, [_held(n + 1, n) for n in range(4)])
    assert [outbox.sent(frame, 0.0, late=True) for frame in frames] == [0, 0, 0, 0]
    wanted = outbox.wanted()
    assert wanted is not None
    assert (wanted.after, wanted.last) == (4, 5)
    outbox.acked("e", [(0, 3)], 0.0)
    assert outbox.sent(_held(5, 4), 0.0, late=True) == 4


def test_a_part_that_comes_in_while_another_is_read_is_read_too() -> None:
    outbox = Outbox("newest-first", live_bytes_max=5)
    outbox.open(0.0)
    outbox.connect(Stored(4, 4, {"e": 0}), 8)
    wanted = outbox.wanted()
    assert wanted is not None
    outbox.offer([_held(5, 4)], 0.0)
    outbox.read(wanted, [_held(4, 3)])
    newest = outbox.wanted()
    assert newest is not None
    assert (newest.after, newest.last) == (4, 5)
    outbox.read(newest, [_held(5, 4)])
    rest = outbox.wanted()
    assert rest is not None
    assert (rest.after, rest.last) == (0, 3)


def test_frames_of_a_key_that_the_cloud_has_not_are_never_sent() -> None:
    outbox = _open(last_id=4, lowest={"old": 0, "e": 5}, withheld=["old"])
    wanted = outbox.wanted()
    assert wanted is not None
    kept = outbox.read(wanted, [_held(1, 0, "old"), _held(2, 5), _held(3, 1, "old")])
    assert [frame.epoch for frame in kept] == ["e"]
    assert outbox.late_left == 2
    outbox.offer([_held(9, 7, "old"), _held(10, 8)], 0.0)
    live = outbox.next_live()
    assert live is not None
    assert live.frame.epoch == "e"
    assert outbox.next_live() is None


def test_what_is_left_is_counted_and_its_end_foretold() -> None:
    outbox = _open(last_id=100, lowest={"e": 0}, credit=1000)
    assert outbox.eta_s(0.0) is None
    for second in range(1, 5):
        for seq in range(10):
            frame = _held(second * 10 + seq, second * 10 + seq)
            outbox.sent(frame, float(second), late=True)
        outbox.acked("e", [(0, 1000)], float(second))
        outbox.eta_s(float(second))
    assert outbox.late_left == 60
    assert outbox.eta_s(5.0) == pytest.approx(6, rel=0.3)
    outbox.passed_over(60)
    assert outbox.eta_s(6.0) == 0.0


@given(
    st.lists(st.integers(1, 30), max_size=12, unique=True),
    st.sampled_from(["oldest-first", "newest-first"]),
    st.integers(1, 4),
    st.data(),
)
def test_every_stored_frame_is_read_once_in_the_order_asked_for(
    ids: list[int], order: Order, count: int, data: st.DataObject
) -> None:
    outbox = _open(last_id=max(ids, default=0), lowest={"e": 0}, credit=1000, order=order)
    seen: list[int] = []
    for _ in range(100):
        wanted = outbox.wanted()
        if wanted is None:
            break
        there = sorted(i for i in ids if wanted.after < i <= wanted.last)
        if wanted.newest_first:
            there.reverse()
        part = there[: data.draw(st.integers(1, count))]
        seen += [frame.id for frame in outbox.read(wanted, [_held(i, i) for i in part])]
    assert outbox.wanted() is None
    assert seen == sorted(ids, reverse=order == "newest-first")

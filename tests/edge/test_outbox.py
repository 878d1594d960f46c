"""Live goes first, the backlog keeps its place, an acknowledgement counts once."""

from edge.outbox import BACKLOG_BYTES_IN_FLIGHT, BACKLOG_FRAMES_READ, Outbox, Wanted
from edge.spool import Held


def _held(id_: int, seq: int, epoch: str = "e", size: int = 10) -> Held:
    return Held(id_, epoch, seq, bytes(size))


def _open(last_id: int = 0, lowest: dict[str, int] | None = None, credit: int = 8) -> Outbox:
    outbox = Outbox()
    outbox.open()
    outbox.connect(last_id, lowest or {}, credit)
    return outbox


def test_outside_a_session_nothing_is_kept() -> None:
    outbox = Outbox()
    outbox.offer([_held(1, 0)])
    assert outbox.next_live() is None


def test_a_frame_committed_while_the_disk_was_asked_is_sent_once() -> None:
    outbox = Outbox()
    outbox.open()
    outbox.offer([_held(4, 3), _held(5, 4)])
    outbox.connect(4, {"e": 0}, 8)
    outbox.offer([_held(4, 3)])
    live = outbox.next_live()
    assert live is not None
    assert live.id == 5
    assert outbox.next_live() is None


def test_live_waits_for_credit_alone_and_backlog_leaves_it_a_quarter() -> None:
    outbox = _open(last_id=100, lowest={"e": 0}, credit=8)
    assert outbox.wanted() == Wanted(0, 100, BACKLOG_BYTES_IN_FLIGHT, 6)
    stored = [_held(i + 1, i) for i in range(6)]
    outbox.read(Wanted(0, 100, 1, 6), stored)
    for frame in stored:
        outbox.sent(frame, backlog=True)
    assert outbox.wanted() is None
    outbox.offer([_held(101, 200), _held(102, 201), _held(103, 202)])
    for seq in (200, 201):
        live = outbox.next_live()
        assert live is not None
        assert live.seq == seq
        outbox.sent(live, backlog=False)
    assert outbox.next_live() is None
    outbox.acked("e", [(0, 0)])
    assert outbox.next_live() is not None


def test_the_backlog_waits_while_live_frames_do() -> None:
    outbox = _open(last_id=5, lowest={"e": 0}, credit=1000)
    outbox.offer([_held(6, 5)])
    assert outbox.wanted() is None
    outbox.next_live()
    wanted = outbox.wanted()
    assert wanted is not None
    assert wanted.count_max == BACKLOG_FRAMES_READ


def test_the_floor_is_the_lowest_sequence_number_without_an_acknowledgement() -> None:
    outbox = _open(last_id=3, lowest={"e": 7}, credit=8)
    live = _held(4, 20)
    assert outbox.sent(live, backlog=False) == 7
    assert outbox.sent(_held(1, 7), backlog=True) == 7
    assert outbox.sent(_held(2, 9), backlog=True) == 7
    outbox.acked("e", [(7, 7)])
    assert outbox.sent(_held(3, 12), backlog=True) == 9
    outbox.read(Wanted(0, 3, 1, 8), [_held(3, 12)])
    outbox.caught_up()
    outbox.acked("e", [(0, 19)])
    assert outbox.sent(_held(5, 21), backlog=False) == 20
    outbox.acked("e", [(20, 21)])
    assert outbox.sent(_held(6, 22), backlog=False) == 22


def test_only_what_this_session_sent_can_be_acknowledged() -> None:
    outbox = _open()
    for seq in (1, 2, 4):
        outbox.sent(_held(seq, seq), backlog=False)
    assert outbox.acked("other", [(0, 9)]) == []
    assert outbox.acked("e", [(0, 2**32)]) == [(1, 2), (4, 4)]
    assert outbox.acked("e", [(1, 4)]) == []
    assert outbox.in_flight == 0


def test_live_frames_that_outgrow_memory_become_backlog() -> None:
    outbox = Outbox(live_bytes_max=25)
    outbox.open()
    outbox.connect(0, {}, 8)
    outbox.offer([_held(1, 0), _held(2, 1)])
    first = outbox.next_live()
    assert first is not None
    outbox.sent(first, backlog=False)
    outbox.offer([_held(3, 2), _held(4, 3)])
    assert outbox.next_live() is None
    wanted = outbox.wanted()
    assert wanted is not None
    assert (wanted.after, wanted.last) == (1, 4)
    assert outbox.sent(_held(5, 4), backlog=False) == 0
    outbox.acked("e", [(0, 0)])
    assert outbox.sent(_held(6, 5), backlog=False) == 1

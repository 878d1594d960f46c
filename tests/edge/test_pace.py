"""Late frames give way to live ones, and take what is left."""

import pytest

from edge.pace import (
    BASE_S,
    CUT_S_MIN,
    DOUBLING_TO,
    LATE_S_MAX,
    LIVE_S_MAX,
    QUEUE_S_MAX,
    QUIET_S,
    STEP_BYTES,
    WINDOW_BYTES_FIRST,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    Pace,
)


def _late(pace: Pace, now_s: float, count: int = 1, size: int = 10_000) -> None:
    for _ in range(count):
        pace.late(0.01, size, now_s)


def test_the_window_doubles_for_each_window_acknowledged_and_then_grows_by_steps() -> None:
    pace = Pace(0.0)
    while pace.window < DOUBLING_TO:
        before = pace.window
        _late(pace, 0.1, count=8, size=pace.window // 8)
        assert pace.window == 2 * before
    assert pace.window == DOUBLING_TO
    _late(pace, 0.1, count=8, size=pace.window // 8)
    assert pace.window <= DOUBLING_TO + STEP_BYTES


def test_a_slow_live_frame_halves_it_and_from_there_it_grows_by_steps() -> None:
    pace = Pace(0.0)
    _late(pace, 0.1, 100)
    before = pace.window
    pace.live(LIVE_S_MAX + 0.001, 1.0)
    assert pace.window == before // 2
    half = pace.window
    _late(pace, 1.1, count=half // 1000, size=1000)
    assert half < pace.window <= half + STEP_BYTES


def test_a_live_frame_within_its_time_cuts_nothing() -> None:
    pace = Pace(0.0)
    pace.live(LIVE_S_MAX, 1.0)
    assert pace.window == WINDOW_BYTES_FIRST


def test_what_the_line_takes_by_itself_is_not_held_against_late_frames() -> None:
    pace = Pace(0.0)
    pace.live(0.03, 1.0)
    pace.live(0.03 + QUEUE_S_MAX - 0.001, 1.1)
    assert pace.window == WINDOW_BYTES_FIRST
    pace.live(0.03 + QUEUE_S_MAX + 0.001, 1.2)
    assert pace.window == WINDOW_BYTES_FIRST // 2


def test_a_line_that_became_longer_is_learnt() -> None:
    pace = Pace(0.0)
    pace.live(0.005, 1.0)
    now_s = 1.0
    while now_s < 1.0 + 2 * BASE_S + 2:
        now_s += 1.0
        pace.live(0.05, now_s)
    assert pace.window == WINDOW_BYTES_MIN
    _late(pace, now_s, 100)
    before = pace.window
    pace.live(0.05, now_s + 1.0)
    assert pace.window == before


def test_frames_that_were_on_their_way_together_cut_it_once() -> None:
    pace = Pace(0.0)
    _late(pace, 0.1, 100)
    before = pace.window
    for at in range(10):
        pace.live(0.5, 1.0 + at / 100)
    assert pace.window == before // 2
    pace.live(0.5, 1.5)
    assert pace.window == before // 4
    assert CUT_S_MIN < 0.5


def test_it_never_closes_and_never_grows_without_end() -> None:
    pace = Pace(0.0)
    for at in range(100):
        pace.live(1.0, 2.0 * at)
    assert pace.window == WINDOW_BYTES_MIN
    pace = Pace(0.0)
    _late(pace, 0.1, 10_000, size=1_000_000)
    assert pace.window == WINDOW_BYTES_MAX


def test_without_live_frames_late_ones_speak_for_them() -> None:
    pace = Pace(0.0)
    pace.live(0.01, 0.0)
    pace.late(LATE_S_MAX + 0.1, 1000, QUIET_S - 0.1)
    assert pace.window > WINDOW_BYTES_FIRST, "live frames are sent, and feel nothing"
    before = pace.window
    pace.late(LATE_S_MAX + 0.1, 1000, QUIET_S + 0.1)
    assert pace.window == before // 2


def test_the_pace_is_shown_smoothed() -> None:
    pace = Pace(0.0)
    assert pace.rate(10.0) == 0.0
    for second in range(11, 60):
        _late(pace, float(second), 100)
        rate = pace.rate(float(second))
    assert rate == pytest.approx(100, rel=0.01)
    assert pace.rate(60.5) < 100
    assert pace.rate(300.0) == 0.0

"""The cloud's clock is measured by the heartbeat that met the least delay."""

from hypothesis import given
from hypothesis import strategies as st

from edge.clock_filter import SAMPLES, ClockFilter, delay_ms, offset_ms
from vitals.session import Pong


def _exchange(
    at_ms: int, off_ms: int, out_ms: int, back_ms: int, ingest_ms: int = 2
) -> tuple[Pong, int]:
    """Return a Pong and when it arrives, of a cloud whose clock is ``off_ms`` ahead."""
    arrived = at_ms + out_ms + off_ms
    return Pong(at_ms, arrived, arrived + ingest_ms), at_ms + out_ms + ingest_ms + back_ms


def test_a_round_trip_of_equal_ways_tells_the_offset() -> None:
    pong, now = _exchange(1000, 500, 10, 10)
    assert (offset_ms(pong, now), delay_ms(pong, now)) == (500, 20)


def test_a_queue_on_one_way_is_not_taken_for_an_offset() -> None:
    clock = ClockFilter()
    assert clock.measured(*_exchange(0, 500, 10, 10)) == (500, 20)
    for beat in range(1, SAMPLES):
        assert clock.measured(*_exchange(2000 * beat, 500, 900, 10)) == (500, 20)
    # The good one is too old by now: half of the queue is all that it can be off.
    offset, _ = clock.measured(*_exchange(2000 * SAMPLES, 500, 900, 10))
    assert offset == 500 + 445


def test_of_equal_delays_the_newest_is_believed() -> None:
    clock = ClockFilter()
    clock.measured(*_exchange(0, 500, 10, 10))
    assert clock.measured(*_exchange(2000, 700, 10, 10)) == (700, 20)
    clock.reset()
    assert clock.measured(*_exchange(4000, -3, 40, 40)) == (-3, 80)


@given(
    st.integers(-(10**9), 10**9),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=20),
)
def test_the_offset_is_never_off_by_more_than_half_of_the_delay(
    off_ms: int, ways: list[tuple[int, int]]
) -> None:
    clock = ClockFilter()
    for beat, (out_ms, back_ms) in enumerate(ways):
        offset, delay = clock.measured(*_exchange(10_000 * beat, off_ms, out_ms, back_ms))
        assert abs(offset - off_ms) <= delay / 2

"""A clock that is wrong but steady is corrected; history, jumps and repeats are not believed."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.skew import (
    DRIFT_MS,
    GATEWAY_OFF_MS_MAX,
    POINTS_MAX,
    SKEW_MS_MIN,
    STEADY_MS,
    STEP_MS,
    TIME_FLOOR_MS,
    Skews,
    agreement_ms,
)
from vitals import limits
from vitals.codes import TimeSource
from vitals.reading import Reading

NOW = 1_795_428_000_000
MINUTE = 60_000
RECEIVED, DEVICE, CORRECTED = TimeSource


class Bed:
    """A device's messages; `said` keeps what each became: (time - receipt, source)."""

    def __init__(self, skews: Skews | None = None, name: str = "bed-1") -> None:
        self.skews = Skews() if skews is None else skews
        self.name = name

    def says(self, device_ms: int, received_ms: int, value: float = 78.0) -> Reading:
        reading = Reading(0, value, device_ms, received_ms, time_source=DEVICE)
        (dated,) = self.skews.date(self.name, (reading,))
        return dated

    def runs(
        self, slow_ms: int, seconds: int, start_ms: int = NOW, step_ms: int = 1000
    ) -> list[Reading]:
        """Say a reading a step by a clock that is ``slow_ms`` behind."""
        return [
            self.says(at - slow_ms, at)
            for at in range(start_ms, start_ms + seconds * 1000, step_ms)
        ]


def sources(readings: Iterable[Reading]) -> set[int]:
    return {reading.time_source for reading in readings}


@pytest.mark.parametrize(
    ("slow_ms", "before"),
    [(10 * MINUTE, DEVICE), (-10 * MINUTE, RECEIVED), (-MINUTE, RECEIVED), (6_000, DEVICE)],
)
def test_a_clock_that_is_steadily_wrong_is_corrected_after_a_few_lines(
    slow_ms: int, before: TimeSource
) -> None:
    bed = Bed()
    said = bed.runs(slow_ms, 120)
    assert sources(said[:4]) == {before}
    assert sources(said[4:]) == {CORRECTED}
    assert all(abs(r.time_ms - r.received_ms) <= 1000 for r in said[4:])
    assert bed.skews.skew_ms("bed-1") == slow_ms


@pytest.mark.parametrize("slow_ms", [2_000, -2_000, SKEW_MS_MIN, -SKEW_MS_MIN, 0])
def test_a_clock_that_is_nearly_right_is_left_alone(slow_ms: int) -> None:
    said = Bed().runs(slow_ms, 60)
    assert sources(said) == {DEVICE}
    assert {r.received_ms - r.time_ms for r in said} == {slow_ms}


def test_whole_seconds_and_a_restless_network_do_not_hide_a_clock_in_step() -> None:
    rng, bed, said = random.Random(3), Bed(), []
    received = NOW
    for at in range(NOW, NOW + 300_000, 1000):
        received = max(received, at + rng.randrange(20, 900))
        said.append(bed.says((at - 10 * MINUTE) // 1000 * 1000, received))
    assert sources(said[8:]) == {CORRECTED}
    assert all(abs(r.time_ms - r.received_ms) <= STEP_MS for r in said[8:])


def test_an_hour_of_history_in_one_second_stays_as_it_was_said() -> None:
    bed = Bed()
    said = [bed.says(NOW - 3_600_000 + at * 3600, NOW + at) for at in range(1000)]
    assert sources(said) == {DEVICE}
    assert [r.time_ms for r in said] == [NOW - 3_600_000 + at * 3600 for at in range(1000)]
    assert bed.skews.skew_ms("bed-1") is None


@pytest.mark.parametrize("pace", [1.25, 1.5, 2, 3, 10, 60])
def test_history_that_comes_faster_than_it_was_measured_does_not_ring(pace: float) -> None:
    """A limit rings after ten seconds: not so much in a row is ever taken for live."""
    bed = Bed()
    said = [
        bed.says(NOW - 3_600_000 + at * 1000, NOW + round(at * 1000 / pace)) for at in range(600)
    ]
    live = [r.time_ms for r in said if r.time_source == CORRECTED]
    assert not live or max(live) - min(live) < 10_000


@pytest.mark.parametrize(("alone_s", "later_ms"), [(10, 600), (10, 200), (0, 200)])
def test_history_between_live_lines_is_told_apart_on_a_wrong_clock(
    alone_s: int, later_ms: int
) -> None:
    bed = Bed()
    bed.runs(10 * MINUTE, alone_s)
    for at in range(NOW + alone_s * 1000, NOW + 70_000, 1000):
        live = bed.says(at - 10 * MINUTE, at)
        old = bed.says(at - 40 * MINUTE, at + later_ms)
        if at < NOW + 5000:
            continue
        assert (live.time_ms, live.time_source) == (at, CORRECTED)
        assert (old.time_ms, old.time_source) == (at - 30 * MINUTE, CORRECTED)


def test_a_stall_of_the_network_neither_silences_nor_dates_ahead() -> None:
    bed = Bed()
    bed.runs(10 * MINUTE, 30)
    stalled = [bed.says(NOW + at * 1000 - 10 * MINUTE, NOW + 45_000) for at in range(30, 46)]
    after = bed.runs(10 * MINUTE, 30, NOW + 46_000)
    assert [r.time_ms for r in stalled] == [NOW + at * 1000 for at in range(30, 46)]
    assert sources([*stalled, *after]) == {CORRECTED}


@pytest.mark.parametrize("slow_ms", [10 * MINUTE, -10 * MINUTE])
def test_ten_seconds_sent_at_once_are_judged_by_the_newest(slow_ms: int) -> None:
    bed, said = Bed(), []
    for batch in range(10_000, 100_000, 10_000):
        said += [
            bed.says(NOW + at - slow_ms, NOW + batch) for at in range(batch - 9000, batch + 1, 1000)
        ]
    settled = said[40:]
    assert sources(settled) == {CORRECTED}
    assert all(-9000 <= r.time_ms - r.received_ms <= 0 for r in settled)


def test_a_clock_that_is_set_right_is_believed_at_once() -> None:
    bed = Bed()
    bed.runs(10 * MINUTE, 30)
    said = bed.runs(0, 30, NOW + 30_000)
    assert sources(said) == {DEVICE}
    assert bed.skews.skew_ms("bed-1") == 0


@pytest.mark.parametrize("slow_ms", [-30 * MINUTE, -MINUTE, MINUTE, 5 * MINUTE, 30 * MINUTE])
def test_a_clock_that_is_set_wrong_is_corrected_when_it_is_steady_again(slow_ms: int) -> None:
    bed = Bed()
    bed.runs(10 * MINUTE, 40)
    said = bed.runs(slow_ms, 40, NOW + 40_000)
    assert all(r.time_ms <= r.received_ms for r in said)
    assert sources(said[6:]) == {CORRECTED}
    assert {r.time_ms - r.received_ms for r in said[6:]} == {0}


def test_a_fast_clock_never_hides_what_comes_after_it_is_corrected() -> None:
    """Detect takes a time before what it judged for late: no step back may be of seconds."""
    said = Bed().runs(-MINUTE, 30)
    times = [r.time_ms for r in said]
    assert times == sorted(times)


def test_a_value_that_is_sent_again_keeps_its_first_time() -> None:
    bed = Bed()
    first = bed.runs(10 * MINUTE, 20)[-1]
    for at in range(20, 400):
        again = bed.says(NOW + 19_000 - 10 * MINUTE, NOW + at * 1000)
        assert (again.time_ms, again.time_source) == (first.time_ms, CORRECTED)


def test_a_value_that_is_sent_again_stays_old_after_its_clock_was_set_right() -> None:
    bed = Bed()
    bed.runs(10 * MINUTE, 20)
    for at in range(20, 1300, 5):
        again = bed.says(NOW + 20_000, NOW + at * 1000)
        assert (again.time_ms, again.time_source) == (NOW + 20_000, DEVICE)


def test_history_after_a_clock_was_set_right_is_not_moved_by_what_it_was_off() -> None:
    bed = Bed()
    bed.runs(10 * MINUTE, 20)
    bed.runs(0, 2, NOW + 20_000)
    old = bed.says(NOW - 30 * MINUTE, NOW + 22_000)
    assert (old.time_ms, old.time_source) == (NOW - 30 * MINUTE, DEVICE)


def test_a_time_that_changes_every_ten_seconds_tells_of_the_clock_when_it_changes() -> None:
    bed = Bed()
    said = [
        bed.says((NOW + at * 1000) // 10_000 * 10_000 - 10 * MINUTE, NOW + at * 1000)
        for at in range(60)
    ]
    assert sources(said[30:]) == {CORRECTED}
    assert all(-9000 <= r.time_ms - r.received_ms <= 0 for r in said[30:])


def test_a_clock_decades_ahead_moves_nothing_to_before_the_floor() -> None:
    skews, ahead = Skews(), 10**12
    for at in range(NOW, NOW + 10_000, 1000):
        now = Reading(0, 78.0, at + ahead, at, time_source=DEVICE)
        cuff = Reading(5, 120.0, NOW - 15 * MINUTE, at, time_source=DEVICE)
        dated = skews.date("bed-1", (cuff, now))
    assert [(r.time_ms, r.time_source) for r in dated] == [
        (NOW - 15 * MINUTE, DEVICE),
        (NOW + 9000, CORRECTED),
    ]


def test_a_clock_that_stands_still_is_never_in_step() -> None:
    bed = Bed()
    said = [bed.says(NOW - 10 * MINUTE, NOW + at * 1000) for at in range(100)]
    assert {(r.time_ms, r.time_source) for r in said} == {(NOW - 10 * MINUTE, DEVICE)}
    crawling = [bed.says(NOW - 10 * MINUTE + at, NOW + at * 1000) for at in range(100, 200)]
    assert sources(crawling) == {DEVICE}


def test_a_time_that_was_never_set_or_stands_far_ahead_is_that_of_receipt_each_time() -> None:
    for said_ms in (0, TIME_FLOOR_MS - 1, NOW + 10**9):
        bed = Bed()
        said = [bed.says(said_ms, NOW + at * 1000, at) for at in range(20)]
        assert sources(said) == {RECEIVED}
        assert all(r.time_ms == r.received_ms for r in said)
    bed = Bed()
    said = [bed.says(at * 1000, NOW + at * 1000) for at in range(20)]
    assert sources(said) == {RECEIVED}


def test_a_device_that_speaks_once_a_minute_is_corrected_with_its_third_message() -> None:
    said = Bed().runs(10 * MINUTE, 600, step_ms=MINUTE)
    assert [r.time_source for r in said] == [DEVICE] * 2 + [CORRECTED] * 8


def test_an_old_value_in_a_message_does_not_tell_of_the_clock() -> None:
    skews = Skews()
    for at in range(NOW, NOW + 30_000, 1000):
        now = Reading(0, 78.0, at - 10 * MINUTE, at, time_source=DEVICE)
        cuff = Reading(5, at % 97, NOW - 15 * MINUTE, at, time_source=DEVICE)
        unsaid = Reading(2, 97.0, at, at)
        dated = skews.date("bed-1", (cuff, now, unsaid))
    assert [(r.time_ms - NOW, r.time_source) for r in dated] == [
        (-5 * MINUTE, CORRECTED),
        (29_000, CORRECTED),
        (29_000, RECEIVED),
    ]


def test_two_devices_of_one_name_and_two_clocks_are_not_believed() -> None:
    bed = Bed()
    said = [bed.says(NOW + at * 1000 - slow, NOW + at * 1000 + extra)
            for at in range(60) for slow, extra in ((0, 0), (10 * MINUTE, 600))]  # fmt: skip
    assert sources(said) == {DEVICE}


def test_a_gateway_whose_own_clock_is_off_corrects_nobody() -> None:
    bed = Bed()
    bed.skews.gateway_off(GATEWAY_OFF_MS_MAX + 1)
    assert sources(bed.runs(-MINUTE, 30)) == {DEVICE}
    assert sources(bed.runs(10 * MINUTE, 30, NOW + 30_000)) == {DEVICE}
    assert sources(bed.runs(-3 * MINUTE, 30, NOW + 60_000)) == {RECEIVED}
    bed.skews.gateway_off(-GATEWAY_OFF_MS_MAX)
    assert sources(bed.runs(-3 * MINUTE, 30, NOW + 90_000)) == {CORRECTED}


def test_a_gateway_that_is_set_back_learns_anew() -> None:
    bed = Bed()
    bed.runs(10 * MINUTE, 30)
    said = [bed.says(NOW + at * 1000, NOW + at * 1000 - 5 * MINUTE) for at in range(30, 60)]
    assert sources(said[5:]) == {CORRECTED}
    assert all(r.time_ms == r.received_ms for r in said[5:])


def test_slow_drift_is_followed_in_small_steps() -> None:
    bed = Bed()
    said = [bed.says(NOW + at * 1000 - 10 * MINUTE - at, NOW + at * 1000) for at in range(7200)][
        10:
    ]
    assert sources(said) == {CORRECTED}
    assert all(abs(r.time_ms - r.received_ms) <= DRIFT_MS + 100 for r in said)


def test_devices_and_their_points_are_bounded_and_the_least_heard_go_first() -> None:
    skews = Skews(most=3)
    for name in "abcad":
        Bed(skews, name).says(NOW, NOW)
    assert len(skews) == 3
    assert set(skews._clocks) == {"c", "a", "d"}
    Bed(skews, "a").runs(0, 600)
    assert len(skews._clocks["a"]) <= POINTS_MAX


def test_the_worst_skew_is_of_the_devices_heard_lately() -> None:
    skews = Skews()
    Bed(skews, "a").runs(20 * MINUTE, 10)
    Bed(skews, "b").runs(-10 * MINUTE, 10, NOW + MINUTE)
    Bed(skews, "c").runs(1000, 10, NOW + MINUTE)
    Bed(skews, "unset").says(0, NOW + MINUTE + 10_000)
    assert skews.worst_ms(NOW) == 20 * MINUTE
    assert skews.worst_ms(NOW + MINUTE) == 10 * MINUTE
    assert skews.worst_ms(NOW + 10 * MINUTE) == 0


messages = st.lists(
    st.tuples(
        st.integers(0, 20_000),
        st.one_of(
            st.sampled_from([0, 600_000, -600_000, -60_000, 86_400_000]),
            st.integers(-(10**12), 2 * 10**12),
        ),
        st.integers(-3000, 3000),
    ),
    max_size=60,
)


@given(messages)
def test_whatever_comes_no_time_lies_ahead_of_receipt_by_more_than_its_bound(
    listed: list[tuple[int, int, int]],
) -> None:
    bed, received = Bed(), NOW
    for gap, slow, jitter in listed:
        received += gap
        said = bed.says(received - slow - jitter, received)
        assert TIME_FLOOR_MS <= said.time_ms <= received + SKEW_MS_MIN
        if said.time_source == CORRECTED:
            assert said.time_ms <= received + STEP_MS
        if said.time_source == DEVICE:
            assert said.time_ms == received - slow - jitter


@given(
    st.integers(-1000, 1000),
    st.lists(st.tuples(st.integers(500, 2000), st.integers(0, 900)), min_size=12, max_size=80),
)
def test_within_a_steady_period_times_keep_their_order(
    slow_s: int, gaps: list[tuple[int, int]]
) -> None:
    bed, at, period = Bed(), NOW, list[int]()
    skew = None
    for gap, delay in gaps:
        at += gap
        said = bed.says(at - slow_s * 1000, at + delay)
        if said.time_source != CORRECTED or bed.skews.skew_ms("bed-1") != skew:
            skew, period = bed.skews.skew_ms("bed-1"), []
        if said.time_source == CORRECTED:
            period.append(said.time_ms)
            assert period == sorted(period)
            assert abs(said.time_ms - at) <= 2 * STEP_MS


def test_offsets_must_agree_more_closely_than_what_is_corrected() -> None:
    assert agreement_ms(STEADY_MS) < SKEW_MS_MIN
    assert agreement_ms(10**9) < SKEW_MS_MIN < limits.FUTURE_MS_MAX

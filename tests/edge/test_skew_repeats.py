"""The same value with the same device time again is the same reading: it keeps its first time."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.skew import KEPT_DEVICE_MAX, KEPT_MAX, SKEW_MS_MIN, TIME_FLOOR_MS, Skews
from vitals.codes import Absence, Status, TimeSource
from vitals.reading import Reading

NOW = 1_795_428_000_000
MINUTE = 60_000
RECEIVED, DEVICE, CORRECTED = TimeSource
FAR, UNSET = NOW + 10**9, 300_000


def _reading(said_ms: int, at: int, value: float | None = 78.0, **more: int) -> Reading:
    fields = {"vital": 0, "site": 0, "channel": 0, "status": 0, "reason": 0} | more
    return Reading(value=value, time_ms=said_ms, received_ms=at, time_source=int(DEVICE), **fields)


def _date(skews: Skews, reading: Reading, device: str = "bed-1") -> tuple[int, int]:
    (dated,) = skews.date(device, (reading,))
    return dated.time_ms, dated.time_source


def _runs(skews: Skews, slow_ms: int, seconds: int, start_ms: int = NOW) -> None:
    """Let the device say other values by a clock that is ``slow_ms`` behind."""
    for at in range(start_ms, start_ms + seconds * 1000, 1000):
        skews.date("bed-1", (_reading(at - slow_ms, at, at % 97, vital=3),))


@pytest.mark.parametrize("said_ms", [FAR, UNSET, 0, TIME_FLOOR_MS - 1, NOW + SKEW_MS_MIN + 1])
def test_where_the_devices_time_can_not_be_the_first_receipt_stands(said_ms: int) -> None:
    skews = Skews()
    assert _date(skews, _reading(said_ms, NOW)) == (NOW, RECEIVED)
    for later in (1000, 60_000, 3_600_000):
        if said_ms < NOW or said_ms == FAR:
            assert _date(skews, _reading(said_ms, NOW + later)) == (NOW, RECEIVED)
    assert _date(skews, _reading(said_ms, NOW + 1)) == (NOW, RECEIVED)


@pytest.mark.parametrize("said_ms", [FAR, UNSET])
def test_a_stopped_clock_whose_values_change_gets_each_its_receipt(said_ms: int) -> None:
    skews = Skews()
    for at, value in enumerate((78, 79, 78, 78, 79)):
        expected = NOW + (2000 if at == 3 else at * 1000)
        assert _date(skews, _reading(said_ms, NOW + at * 1000, value)) == (expected, RECEIVED)


def test_another_time_another_signal_or_another_device_is_another_reading() -> None:
    skews = Skews()
    _date(skews, _reading(FAR, NOW))
    later = NOW + MINUTE
    for other in (
        _reading(FAR + 1, later),
        _reading(FAR, later, vital=1),
        _reading(FAR, later, site=2),
        _reading(FAR, later, channel=1),
    ):
        assert _date(skews, other) == (later, RECEIVED)
    assert _date(skews, _reading(FAR, later), "bed-2") == (later, RECEIVED)
    skews = Skews()
    _date(skews, _reading(FAR, NOW, channel=1))
    assert _date(skews, _reading(FAR, later, site=255)) == (later, RECEIVED)


def test_no_value_said_again_tells_that_there_is_still_none() -> None:
    skews, missing = Skews(), {"status": int(Status.MISSING), "reason": int(Absence.OFF)}
    for at in (NOW, NOW + MINUTE):
        (dated,) = skews.date("bed-1", (_reading(UNSET, at, None, **missing),))
        assert (dated.time_ms, dated.status, dated.reason) == (at, Status.MISSING, Absence.OFF)


def test_the_rest_of_a_reading_stays_as_it_is() -> None:
    skews = Skews()
    of = {"site": 3, "channel": 7, "status": int(Status.QUESTIONABLE)}
    for at in (NOW, NOW + MINUTE):
        (dated,) = skews.date("bed-1", (_reading(UNSET, at, **of),))
        assert dated == Reading(0, 78.0, NOW, at, Status.QUESTIONABLE, 3, 7, RECEIVED)


def test_an_old_value_keeps_its_time_when_the_skew_becomes_known() -> None:
    skews, cuff = Skews(), NOW - 15 * MINUTE
    for at in range(NOW, NOW + 60_000, 1000):
        _, dated = skews.date(
            "bed-1", (_reading(at - 10 * MINUTE, at, at % 89), _reading(cuff, at, 120, vital=5))
        )
        assert (dated.time_ms, dated.time_source) == (cuff, DEVICE)
    assert skews.skew_ms("bed-1") == 10 * MINUTE


def test_a_corrected_value_keeps_its_time_when_the_clock_is_set_right() -> None:
    skews, cuff = Skews(), NOW
    _runs(skews, 10 * MINUTE, 20)
    at = NOW + 20_000
    assert _date(skews, _reading(cuff - 10 * MINUTE, at, 120, vital=5)) == (NOW, CORRECTED)
    _runs(skews, 0, 20, at)
    again = _reading(cuff - 10 * MINUTE, at + 30_000, 120, vital=5)
    assert _date(skews, again) == (NOW, CORRECTED)


def test_a_right_clocks_value_keeps_its_time_when_the_clock_is_set_wrong() -> None:
    """A cuff's pressure is said again every second until the next one is taken."""
    skews, cuff = Skews(), NOW
    for at in range(NOW, NOW + 120_000, 1000):
        slow_ms = 0 if at < NOW + 60_000 else 10 * MINUTE
        _, dated = skews.date(
            "bed-1", (_reading(at - slow_ms, at, at % 89), _reading(cuff, at, 120, vital=5))
        )
        assert (dated.time_ms, dated.time_source) == (cuff, DEVICE)
    assert skews.skew_ms("bed-1") == 10 * MINUTE


def test_a_right_clock_that_says_what_it_measures_is_remembered_nothing() -> None:
    skews = Skews()
    _runs(skews, 0, 10)
    clock = skews._clocks["bed-1"]
    assert clock.kept is None
    assert (skews._kept, len(skews._remembering)) == (0, 0)
    readings = (_reading(NOW + 10_000, NOW + 10_000), _reading(NOW + 9000, NOW + 10_000, vital=2))
    assert skews.date("bed-1", readings) is readings


def test_what_was_remembered_of_a_signal_goes_with_its_next_fresh_value() -> None:
    skews = Skews()
    _runs(skews, 0, 10)
    at = NOW + 10_000
    assert _date(skews, _reading(NOW - MINUTE, at, vital=5)) == (NOW - MINUTE, DEVICE)
    assert skews._kept == 1
    assert _date(skews, _reading(at, at, 119, vital=5)) == (at, DEVICE)
    assert (skews._kept, skews._clocks["bed-1"].kept) == (0, None)


def test_one_device_remembers_so_many_signals_and_the_first_goes() -> None:
    skews = Skews()
    for channel in range(KEPT_DEVICE_MAX + 1):
        _date(skews, _reading(UNSET, NOW, channel=channel))
    assert skews._kept == KEPT_DEVICE_MAX
    later = NOW + MINUTE
    assert _date(skews, _reading(UNSET, later, channel=1)) == (NOW, RECEIVED)
    assert _date(skews, _reading(UNSET, later, channel=0)) == (later, RECEIVED)


def _fill(skews: Skews, devices: int) -> None:
    for at in range(devices):
        name = f"bed-{at}"
        skews.date(name, tuple(_reading(UNSET, NOW, channel=c) for c in range(KEPT_DEVICE_MAX)))


def test_all_devices_remember_so_many_signals_and_the_least_heard_goes() -> None:
    skews, fit = Skews(), KEPT_MAX // KEPT_DEVICE_MAX
    tracemalloc.start()
    try:
        _fill(skews, fit)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 16 * 1024 * 1024
    later = NOW + MINUTE
    assert _date(skews, _reading(UNSET, later), "bed-0") == (NOW, RECEIVED)
    assert skews._kept == KEPT_MAX
    _date(skews, _reading(UNSET, later), "one-more")
    assert skews._kept == KEPT_MAX - KEPT_DEVICE_MAX + 1
    assert _date(skews, _reading(UNSET, later), "bed-0") == (NOW, RECEIVED)
    assert _date(skews, _reading(UNSET, later), "bed-2") == (NOW, RECEIVED)
    assert _date(skews, _reading(UNSET, later), "bed-1") == (later, RECEIVED)


def test_a_device_that_is_forgotten_is_forgotten_whole() -> None:
    skews = Skews(most=2)
    for name in ("a", "b", "c"):
        _date(skews, _reading(UNSET, NOW), name)
    assert skews._kept == 2
    assert set(skews._remembering) == {"b", "c"}
    assert _date(skews, _reading(UNSET, NOW + 1), "a") == (NOW + 1, RECEIVED)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from([0, 600_000, -600_000, 10**12]),
            st.integers(0, 3),
            st.sampled_from([None, 1.0, 2.0]),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_the_count_of_what_is_remembered_is_true_and_repeats_keep_their_time(
    listed: list[tuple[str, int, int, float | None, bool]],
) -> None:
    skews, at = Skews(most=2), NOW
    last: dict[tuple[str, int], tuple[int, float, tuple[int, int]]] = {}
    for name, slow_ms, vital, value, again in listed:
        at += 1000
        before = last.get((name, vital))
        if again and before is not None and name in skews._clocks:
            said_ms, said, first = before
            assert _date(skews, _reading(said_ms, at, said, vital=vital), name) == first
        else:
            got = _date(skews, _reading(at - slow_ms, at, value, vital=vital), name)
            if value is None:
                last.pop((name, vital), None)
            else:
                last[name, vital] = (at - slow_ms, value, got)
        for other in {key for key in last if key[0] not in skews._clocks}:
            del last[other]
        kept = {n: c.kept for n, c in skews._clocks.items() if c.kept is not None}
        assert skews._kept == sum(map(len, kept.values()))
        assert set(skews._remembering) == set(kept)

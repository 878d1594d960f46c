"""Times of receipt are right whatever the system's clock says, as soon as anybody knows better."""

from hypothesis import given
from hypothesis import strategies as st

from edge.gateway_clock import STEP_MS, GatewayClock

TRUE = 1_795_428_000_000
WOKE_1970 = 86_400_000


class Machine:
    """A system clock that is off, and time that passes."""

    def __init__(self, off_ms: float = 0.0) -> None:
        self.passed_ms = 0.0
        self.off_ms = off_ms

    @property
    def true_ms(self) -> float:
        return TRUE + self.passed_ms

    def clock(self, floor_ms: int = 0) -> GatewayClock:
        return GatewayClock(
            lambda: int(self.true_ms + self.off_ms), floor_ms, lambda: self.passed_ms
        )

    def heartbeat(self, clock: GatewayClock) -> bool:
        return clock.measured(self.true_ms - clock.now_ms())


def test_a_right_clock_is_left_alone() -> None:
    machine = Machine(off_ms=-STEP_MS + 1)
    clock = machine.clock()
    assert not machine.heartbeat(clock)
    assert clock.correction_ms == 0
    assert clock.now_ms() == TRUE - STEP_MS + 1


def test_a_wrong_clock_is_corrected_by_what_was_measured() -> None:
    for off_ms in (-90_000.0, 3_600_000.0):
        machine = Machine(off_ms)
        clock = machine.clock()
        assert machine.heartbeat(clock)
        assert abs(clock.now_ms() - TRUE) <= 1
        machine.passed_ms += 60_000
        assert abs(clock.now_ms() - machine.true_ms) <= 1
        assert not machine.heartbeat(clock)


def test_what_a_slow_line_may_feign_moves_nothing() -> None:
    clock = Machine().clock()
    assert not clock.measured(2_000.0, 3_000.0)
    assert clock.correction_ms == 0
    assert clock.measured(2_001.0, 3_000.0)


def test_a_gateway_without_a_clock_goes_on_from_the_last_time_it_knew() -> None:
    machine = Machine(off_ms=WOKE_1970 - TRUE)
    clock = machine.clock(floor_ms=TRUE - 3_600_000)
    assert clock.now_ms() == TRUE - 3_600_000
    machine.passed_ms += 5_000
    assert clock.now_ms() == TRUE - 3_600_000 + 5_000, "and time passes"
    assert machine.heartbeat(clock)
    assert abs(clock.now_ms() - machine.true_ms) <= 1


def test_a_floor_in_the_future_is_no_reason_to_disbelieve_the_cloud() -> None:
    machine = Machine(off_ms=5 * 3_600_000.0)  # it was an hour ahead when it saved its time
    clock = machine.clock(floor_ms=int(TRUE + 6 * 3_600_000))
    assert clock.now_ms() == TRUE + 6 * 3_600_000
    assert machine.heartbeat(clock)
    assert abs(clock.now_ms() - machine.true_ms) <= 1


def test_a_system_clock_that_is_set_takes_its_correction_along() -> None:
    machine = Machine(off_ms=-90_000.0)
    clock = machine.clock()
    machine.heartbeat(clock)
    machine.passed_ms += 1_000
    machine.off_ms = 0.0  # chrony has found its server
    assert abs(clock.now_ms() - machine.true_ms) <= 1
    assert clock.correction_ms == 0
    machine.off_ms = 7_000.0  # and without a correction the system is believed
    assert clock.now_ms() == int(machine.true_ms + 7_000)


def test_a_system_clock_that_is_set_to_another_wrong_time_changes_nothing() -> None:
    machine = Machine(off_ms=-90_000.0)
    clock = machine.clock()
    machine.heartbeat(clock)
    machine.off_ms = -40_000.0
    assert abs(clock.now_ms() - machine.true_ms) <= 1
    assert clock.correction_ms == 40_000


@given(
    st.lists(
        st.tuples(st.sampled_from(["pass", "set", "beat", "ask"]), st.integers(-(10**10), 10**10)),
        max_size=40,
    )
)
def test_whatever_happens_a_heartbeat_makes_it_right(steps: list[tuple[str, int]]) -> None:
    machine = Machine()
    clock = machine.clock(floor_ms=TRUE - 1_000_000)
    for what, number in steps:
        match what:
            case "pass":
                machine.passed_ms += abs(number) % 100_000_000
            case "set":
                machine.off_ms = float(number)
            case "beat":
                machine.heartbeat(clock)
            case _:
                clock.now_ms()
    machine.heartbeat(clock)
    assert abs(clock.now_ms() - machine.true_ms) <= STEP_MS + 1
    machine.passed_ms += 1_000_000
    assert abs(clock.now_ms() - machine.true_ms) <= STEP_MS + 1

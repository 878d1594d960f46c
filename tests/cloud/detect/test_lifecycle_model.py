"""The alert life cycle under whatever comes, against what must be true of it.

Three witnesses, none of which knows how the machine decides: ghosts that remember what is owed
(a latching alert that nobody answered), a reader who knows only the steps told, and the waits.
"""

from typing import Any, Final

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from cloud.detect.lifecycle import (
    FLAP_COUNT_MAX,
    NEVER,
    RAISES_KEPT_MS,
    SKEW_MS,
    Acknowledge,
    Clear,
    Given,
    Life,
    Raised,
    Release,
    Returned,
    Shelve,
    Step,
    Suppress,
    Tick,
    Unshelve,
    Worsened,
    advance,
    due_ms,
)
from cloud.policy.manners import Manners

T0: Final = 1_790_000_000_000
SECOND: Final = 1000
LIFE_BYTES_MAX: Final = 400
"""Ids and names in these tests are short; what may not grow is the rest."""
BY_USER: Final = {"acknowledged", "shelved", "cleared"}

seconds = st.integers(0, 20).map(lambda s: s * SECOND)
people = st.sampled_from(["ada", "ben"])
manners_of = st.builds(
    Manners,
    latch=st.booleans(),
    escalate_ms=st.sampled_from([(), (5000,), (5000, 10_000), (0, 3000)]),
    acknowledge_ms=st.sampled_from([0, 12_000]),
    shelve_ms_max=st.sampled_from([0, 15_000]),
    flap_count=st.sampled_from([2, 3, 0, 99]),
    flap_ms=st.sampled_from([25_000, 0]),
)


class Reader:
    """What somebody knows who sees nothing but the steps told, in order."""

    def __init__(self) -> None:
        self.episode, self.number, self.ended = "", 0, True
        self.latched = self.answered = self.standing = False
        self.shelved = self.suppressed = False
        self.level = 0

    def hear(self, step: Step) -> None:
        life = step.life
        if step.name == "raised":
            assert self.ended, "a new episode began before the last was told to have ended"
            self.__init__()  # type: ignore[misc]
            self.episode, self.ended = life.episode, False
            self.shelved = life.shelved_until_ms != 0
            self.suppressed = life.suppressed_by != ""
        assert life.episode == self.episode
        assert life.number == self.number + 1
        self.number = life.number
        self._take(step.name, by_time=not step.who)
        if step.name in ("ended", "cleared"):
            self.ended, self.latched, self.standing = True, False, False
        told = "ended" if self.ended else "latched" if self.latched else "active"
        assert life.state == told
        assert (step.who != "") == (step.name in BY_USER or step.why == "asked")
        assert step.why

    def _take(self, name: str, *, by_time: bool) -> None:
        match name:
            case "raised-again":
                self.latched = False
            case "latched":
                self.latched, self.standing = True, False
            case "flapping":
                self.standing = True
            case "acknowledged":
                assert not self.answered
                self.answered = True
            case "re-alarmed":
                assert self.answered
                self.answered, self.level = False, 0
            case "escalated":
                assert self.rings()
                self.level += 1
            case "shelved":
                self.shelved = True
            case "unshelved":
                assert self.shelved
                self.shelved = False
                if not self.ended:
                    self.level = 0
                    self.answered = self.answered and not by_time
            case "suppressed":
                self.suppressed = True
            case "released":
                assert self.suppressed
                self.suppressed = False

    def rings(self) -> bool:
        return not (self.ended or self.answered or self.shelved or self.suppressed)


class LifeMachine(RuleBasedStateMachine):
    """Any input at any time, the clock forward and back, event time anywhere near it."""

    @initialize(manners=manners_of)
    def begin(self, manners: Manners) -> None:
        self.manners = manners
        self.life = Life()
        self.reader = Reader()
        self.now = T0
        self.count = 0
        self.condition = False
        self.alarm = False
        """Ghost: the condition was raised, and not told over or cleared."""
        self.owed = False
        """Ghost: raised, and no user answered since."""
        self.ticked = False

    def put(self, given: Given) -> tuple[Step, ...]:
        before = self.life
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(before), type=Life)
        self.life, steps = advance(stored, given, self.manners)
        for step in steps:
            self.reader.hear(step)
        self.ticked = isinstance(given, Tick)
        if steps and self.life.episode:
            last = msgspec.structs.replace(steps[-1].life, since_ms=0, raises=())
            assert last == msgspec.structs.replace(self.life, since_ms=0, raises=())
        # A late tick goes on one level, and each worse value is news; all else is said once.
        again, more = advance(self.life, given, self.manners)
        if not isinstance(given, Tick | Worsened):
            assert (again, more) == (self.life, ())
        return steps

    @rule(lag=st.integers(-5, 30))
    def raise_it(self, lag: int) -> None:
        self.count += 1
        at = self.now - lag * SECOND
        fresh = not self.life.live
        steps = self.put(Raised(f"e{self.count}", at, at))
        if fresh:
            assert steps[0].name == "raised"
            assert steps[0].life.episode == f"e{self.count}"
        if not self.condition and (fresh or not self.reader.standing):
            self.owed = self.manners.latch
        self.condition = True

    @precondition(lambda self: not self.condition)
    @rule(lag=st.integers(0, 3), then=st.integers(0, 3))
    def raise_a_quiet_one(self, lag: int, then: int) -> None:
        # Most rules mean little while nothing is there: make something be there.
        self.raise_it(lag)
        if then:
            self.put(Tick(self.now))

    @precondition(lambda self: self.condition)
    @rule(times=st.integers(1, 3))
    def flap(self, times: int) -> None:
        for _ in range(times):
            self.end_it(lag=1)
            self.raise_it(lag=0)

    @precondition(lambda self: self.life.live)
    @rule(lag=st.integers(-30, 30))
    def worsen(self, lag: int) -> None:
        steps = self.put(Worsened(self.now - lag * SECOND))
        assert [step.name for step in steps] == (["worse"] if self.condition else [])

    @precondition(lambda self: self.condition)
    @rule(lag=st.integers(-30, 30))
    def end_it(self, lag: int) -> None:
        at = self.now - lag * SECOND
        self.put(Returned(at, at))
        self.condition = False

    @precondition(lambda self: self.life.live)
    @rule(who=people)
    def acknowledge(self, who: str) -> None:
        self.put(Acknowledge(who, "asked", self.now))
        self.owed = False

    @precondition(lambda self: self.life.live)
    @rule(who=people, wait=seconds)
    def shelve(self, who: str, wait: int) -> None:
        steps = self.put(Shelve(who, "asked", self.now + wait, self.now))
        for step in steps:
            assert self.now < step.life.shelved_until_ms <= self.now + self.manners.shelve_ms_max

    @rule(who=people)
    def unshelve(self, who: str) -> None:
        self.put(Unshelve(who, "asked", self.now))

    @precondition(lambda self: self.life.live)
    @rule(who=people)
    def clear(self, who: str) -> None:
        self.put(Clear(who, "asked", self.now))
        # The caller restarts the condition: it is raised anew if it is still true.
        self.owed = self.condition = False

    @rule(cause=st.sampled_from(["", "gateway", "device", "itself"]))
    def suppress(self, cause: str) -> None:
        self.put(Suppress(self.life.episode if cause == "itself" else cause, self.now))

    @rule()
    def release(self) -> None:
        self.put(Release(self.now))
        assert not self.life.suppressed_by

    @precondition(lambda self: self.life.live)
    @rule(who=st.sampled_from(["", "ada"]), kind=st.sampled_from([Acknowledge, Clear, Unshelve]))
    def command_that_means_nothing(self, who: str, kind: Any) -> None:
        other = "" if not who else "e0"
        before = self.life
        assert self.put(kind(who, "asked", self.now, other)) == ()
        assert self.life == before

    @precondition(lambda self: not self.life.live)
    @rule(kind=st.sampled_from([Acknowledge, Clear]))
    def command_for_what_is_over(self, kind: Any) -> None:
        before = self.life
        assert self.put(kind("ada", "asked", self.now)) == ()
        assert self.put(Shelve("ada", "asked", self.now + 5000, self.now)) == ()
        assert self.put(Returned(self.now, self.now)) == ()
        assert self.life == before

    @precondition(lambda self: self.life != Life())
    @rule(forward=seconds)
    def tick(self, forward: int) -> None:
        self.now += forward
        self._tick()

    @precondition(lambda self: self.life != Life())
    @rule(back=st.sampled_from([SECOND, 20 * SECOND, 2 * SKEW_MS, 86_400_000]))
    def set_the_clock_back(self, back: int) -> None:
        self.now -= back
        self._tick()

    @precondition(lambda self: self.life != Life())
    @rule()
    def tick_when_due(self) -> None:
        due = due_ms(self.life, self.manners)
        if due < self.now + 10 * RAISES_KEPT_MS:
            before = self.life
            self.now = max(self.now, due)
            self._tick()
            assert self.life != before

    @rule(manners=manners_of)
    def load_a_policy(self, manners: Manners) -> None:
        if manners.latch == self.manners.latch:
            self.manners, self.ticked = manners, False

    def _tick(self) -> None:
        for step in self.put(Tick(self.now)):
            assert step.at_ms == self.now
            # Time takes an answer back: then it is owed again.
            if step.name in ("re-alarmed", "unshelved") and step.life.live:
                self.owed = self.manners.latch

    @invariant()
    def what_is_true_is_told_as_active(self) -> None:
        if self.condition:
            assert self.life.state == "active"
            assert self.life.active

    @invariant()
    def no_latching_alert_is_lost(self) -> None:
        if self.owed:
            assert self.life.live
            assert not self.life.acknowledged_ms

    @invariant()
    def the_reader_knows_all(self) -> None:
        life, reader = self.life, self.reader
        assert life.live == (not reader.ended)
        assert life.audible == reader.rings()
        if life.live:
            assert life.episode == reader.episode
            assert (life.latched, life.standing) == (reader.latched, reader.standing)
            assert (life.level, life.number) == (reader.level, reader.number)
            assert bool(life.suppressed_by) == reader.suppressed
        if life.episode:
            assert bool(life.shelved_until_ms) == reader.shelved
        else:
            assert life == Life(suppressed_by=life.suppressed_by, raises=life.raises)
            assert not reader.shelved

    @invariant()
    def silence_has_an_end(self) -> None:
        life = self.life
        if not self.ticked or not life.live or life.audible or life.suppressed_by:
            return
        if life.acknowledged_ms and not life.shelved_until_ms and not self.manners.acknowledge_ms:
            return
        longest = max(self.manners.acknowledge_ms, self.manners.shelve_ms_max)
        assert self.now <= due_ms(life, self.manners) <= self.now + longest + SKEW_MS

    @invariant()
    def it_stays_small(self) -> None:
        assert len(self.life.raises) <= FLAP_COUNT_MAX
        assert len(msgspec.msgpack.encode(self.life)) <= LIFE_BYTES_MAX
        # Levels reached under an earlier policy stay.
        assert 0 <= self.life.level <= 2
        assert not (self.life.latched and (self.life.active or self.life.standing))
        assert 0 <= due_ms(self.life, self.manners) <= NEVER


LifeMachine.TestCase.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None, derandomize=True
)
TestLife = LifeMachine.TestCase

KINDS: Final = (
    "raise", "raise", "return", "return", "worse", "ack", "shelve", "unshelve", "clear",
    "suppress", "release", "nothing",
)  # fmt: skip
scripts = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 15), st.integers(-20, 20)), max_size=25
)


def made(kind: str, now: int, lag: int) -> Given | None:
    event = now - lag * SECOND
    commands: dict[str, Given] = {
        "raise": Raised(f"e{now}", event, event),
        "return": Returned(event, event),
        "worse": Worsened(event),
        "ack": Acknowledge("ada", "asked", now),
        "shelve": Shelve("ada", "asked", now + abs(lag) * SECOND, now),
        "unshelve": Unshelve("ada", "asked", now),
        "clear": Clear("ada", "asked", now),
        "suppress": Suppress("cause", now),
        "release": Release(now),
    }
    return commands.get(kind)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(script=scripts, manners=manners_of)
def test_a_tick_when_due_tells_the_same_as_a_tick_every_second(
    script: list[tuple[str, int, int]], manners: Manners
) -> None:
    steady, lazy = Life(), Life()
    now = T0

    def second(given: Given | None) -> None:
        nonlocal steady, lazy
        told: tuple[list[Step], list[Step]] = ([], [])
        if given is not None:
            steady, steps = advance(steady, given, manners)
            told[0].extend(steps)
            lazy, steps = advance(lazy, given, manners)
            told[1].extend(steps)
        early = due_ms(steady, manners) > now
        before = steady
        steady, steps = advance(steady, Tick(now), manners)
        assert (steady == before) == early
        told[0].extend(steps)
        if due_ms(lazy, manners) <= now:
            lazy, steps = advance(lazy, Tick(now), manners)
            told[1].extend(steps)
        assert told[0] == told[1]
        assert steady == lazy

    for kind, gap, lag in script:
        second(made(kind, now, lag))
        for _ in range(gap):
            now += SECOND
            second(None)
        now += SECOND
    for _ in range(60):
        now += SECOND
        second(None)
    now += RAISES_KEPT_MS
    second(None)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(script=scripts, manners=manners_of)
def test_left_alone_it_comes_to_rest_and_what_is_there_rings(
    script: list[tuple[str, int, int]], manners: Manners
) -> None:
    life, now = Life(), T0
    for kind, gap, lag in script:
        now += gap * SECOND
        given = made(kind, now, lag)
        if given is not None:
            life, _ = advance(life, given, manners)
    # Calm 2, shelving 1, acknowledgement 1, escalation 1 + 2, after each silence; forgetting 1.
    for _ in range(12):
        due = due_ms(life, manners)
        if due == NEVER:
            break
        now = max(now, due)
        life, _ = advance(life, Tick(now), manners)
    assert due_ms(life, manners) == NEVER
    assert not life.shelved_until_ms
    if not life.live:
        assert life == Life(suppressed_by=life.suppressed_by)
    elif not life.suppressed_by and not (life.acknowledged_ms and not manners.acknowledge_ms):
        assert life.audible
        assert life.level == len(manners.escalate_ms)

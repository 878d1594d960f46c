"""Any interleaving of loss, reorder, reconnect and restart: each reading downstream exactly once.

Two ways to find one that goes wrong: Hypothesis, which cuts what it finds down to the few steps
that matter, and long walks of weighted steps, which get to where many things are under way.
"""

import os
import random
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.session.world import CREDIT, World

EXAMPLES = int(os.environ.get("HEALTHSYNC_SESSION_EXAMPLES", "200"))
"""Histories tried by each of the two; `make faults` tries many more."""

STEPS = 400
"""Of a long walk."""

ANY = st.integers(0, 30)
FEW = st.integers(0, 6)
SESSION = st.sampled_from([0, 0, 0, 1, 2])
"""Mostly the one that the gateway is in."""

MISFORTUNES = ("cut", "restart-ingest", "lose-key", "restart-edge", "fail", "supersede")


def strike(world: World, kind: str, which: int, written: int) -> None:
    """Let one thing go wrong; ``written``: what of it got through all the same."""
    match kind:
        case "cut":
            world.cut(arrived=written)
        case "restart-ingest":
            world.restart_ingest(which % 2, written)
        case "lose-key":
            world.lose_key(which % 2)
        case "restart-edge":
            if world.starts < 8:
                world.start_edge()
        case "fail":
            world.fail(which, written=bool(written % 2))
        case "supersede":
            world.supersede(which)


def finish(world: World) -> None:
    """Let it come to rest: everything is there, once."""
    world.settle()
    world.consumer.poll(world.log)
    assert sorted(world.consumer.taken) == list(range(world.readings))


def open_up(world: World, to: int) -> None:
    """Connect and get through the greeting."""
    world.connect(to)
    world.arrive(1)
    if world.served is not None:
        world.served.hear()
        world.served.say()
        world.hear()


class SessionMachine(RuleBasedStateMachine):
    """What may happen, in any order."""

    world: World

    @initialize(
        order=st.sampled_from(["oldest-first", "newest-first"]), stored=FEW, connected=st.booleans()
    )
    def start(
        self, order: Literal["oldest-first", "newest-first"], stored: int, *, connected: bool
    ) -> None:
        self.world = World(order)
        for _ in range(stored):
            self.world.commit(1)
        if connected:
            open_up(self.world, 0)

    @rule(frames=st.integers(1, 4), readings=st.integers(1, 2))
    def commit(self, frames: int, readings: int) -> None:
        for _ in range(frames):
            self.world.commit(readings)

    @rule(to=st.integers(0, 1))
    def open_up(self, to: int) -> None:
        open_up(self.world, to)

    @rule(count=FEW, heard=FEW)
    def exchange(self, count: int, heard: int) -> None:
        """Messages cross: also the way to be cut in mid-greeting."""
        self.world.connect(0)
        self.world.arrive(count)
        for _ in range(heard):
            self.world.hear()

    @rule(live=FEW, late=FEW)
    def send(self, live: int, late: int) -> None:
        for _ in range(live):
            self.world.send_live()
        for _ in range(late):
            self.world.ask_disk()
            self.world.take_read()
            self.world.send_late()

    @rule()
    def ask_disk(self) -> None:
        """The answer may come after more was committed or acknowledged."""
        self.world.ask_disk()

    @rule(at=ANY, to=ANY, twice=st.booleans())
    def disturb(self, at: int, to: int, *, twice: bool) -> None:
        self.world.disturb(at, to, twice=twice)

    @rule(which=SESSION, count=FEW)
    def hand_to_kafka(self, which: int, count: int) -> None:
        for _ in range(count):
            self.world.hand_to_kafka(which)

    @rule(which=SESSION, at=ANY, count=FEW)
    def durable(self, which: int, at: int, count: int) -> None:
        for _ in range(count):
            self.world.durable(which, at)

    @rule(told=st.booleans())
    def take_all(self, *, told: bool) -> None:
        """Everything sent becomes durable, and the gateway hears of it or not yet."""
        self.world.take_all()
        if told:
            self.world.tell_all()

    @rule(which=SESSION)
    def say(self, which: int) -> None:
        self.world.say(which)

    @rule(which=SESSION, credit=st.integers(0, CREDIT))
    def set_credit(self, which: int, credit: int) -> None:
        self.world.set_credit(which, credit)
        self.world.ping()

    @rule(kind=st.sampled_from(MISFORTUNES), which=SESSION, written=FEW)
    def misfortune(self, kind: str, which: int, written: int) -> None:
        strike(self.world, kind, which, written)

    @rule(first=FEW, count=st.integers(2, 8), cut=st.booleans())
    def fold(self, first: int, count: int, *, cut: bool) -> None:
        if cut:
            self.world.cut(arrived=0)
        self.world.fold(first, count)

    @rule(seconds=st.floats(0.0, 3.0))
    def wait(self, seconds: float) -> None:
        self.world.now_s += seconds

    @invariant()
    def consume(self) -> None:
        if hasattr(self, "world"):
            self.world.consumer.poll(self.world.log)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            finish(self.world)


SessionMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestSession = SessionMachine.TestCase


def _walk(seed: int) -> World:
    # Repeatable, and nothing here is secret.
    dice = random.Random(seed)
    world = World(dice.choice(["oldest-first", "newest-first"]))
    trouble = dice.choice([0.01, 0.03, 0.1])
    session = (0, 0, 0, 1, 2)
    for _ in range(STEPS):
        world.now_s += dice.random() * 0.05
        if dice.random() < trouble:
            strike(world, dice.choice(MISFORTUNES), dice.choice(session), dice.randrange(6))
            continue
        few = dice.randrange(1, 6)
        step = dice.randrange(13)
        if step <= 1:
            for _ in range(few):
                world.commit(1)
        elif step == 2:
            open_up(world, dice.randrange(2))
        elif step == 3:
            for _ in range(few):
                world.send_live()
        elif step == 4:
            world.ask_disk()
        elif step == 5:
            for _ in range(few):
                world.take_read()
                world.send_late()
        elif step == 6:
            world.arrive(few)
        elif step == 7:
            for _ in range(few):
                world.hand_to_kafka(dice.choice(session))
        elif step == 8:
            for _ in range(few):
                world.durable(dice.choice(session), dice.randrange(8))
        elif step == 9:
            world.say(dice.choice(session))
        elif step == 10:
            for _ in range(few):
                world.hear()
        elif step == 11:
            world.disturb(dice.randrange(30), dice.randrange(30), twice=dice.random() < 0.3)
            world.set_credit(0, dice.choice([0, 1, CREDIT, CREDIT, CREDIT]))
        else:
            world.fold(dice.randrange(3), dice.randrange(2, 8))
        world.consumer.poll(world.log)
    return world


@pytest.mark.parametrize("block", range(4))
def test_long_walks(block: int) -> None:
    for seed in range(block * EXAMPLES // 4, (block + 1) * EXAMPLES // 4):
        try:
            world = _walk(seed)
            finish(world)
        except AssertionError as error:
            raise AssertionError(f"walk {seed}: {error}") from error
        # a walk in which nothing happens proves nothing
        assert world.readings > 50
        assert len(world.log) > 20

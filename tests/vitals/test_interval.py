"""Interval sets behave like sets of integers, and stay sorted, disjoint and apart."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from vitals.interval import IntervalSet

numbers = st.integers(-5, 60)
ranges = st.tuples(numbers, st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))
SPACE = range(-10, 90)


class AgainstASet(RuleBasedStateMachine):
    """The same steps on an IntervalSet and on a plain set with a floor."""

    def __init__(self) -> None:
        super().__init__()
        self.real = IntervalSet()
        self.model: set[int] = set()
        self.floor = 0

    @rule(number=numbers)
    def add(self, number: int) -> None:
        fresh = number >= self.floor and number not in self.model
        assert self.real.add(number) is fresh
        self.model.add(number)

    @rule(bounds=ranges)
    def add_range(self, bounds: tuple[int, int]) -> None:
        self.real.add_range(*bounds)
        self.model |= set(range(bounds[0], bounds[1] + 1))

    @rule(bounds=ranges)
    def covers(self, bounds: tuple[int, int]) -> None:
        inside = range(bounds[0], bounds[1] + 1)
        expected = all(number < self.floor or number in self.model for number in inside)
        assert self.real.covers(*bounds) is expected

    @rule(floor=numbers)
    def raise_floor(self, floor: int) -> None:
        self.real.raise_floor(floor)
        self.floor = max(self.floor, floor)

    @invariant()
    def members_agree(self) -> None:
        for number in SPACE:
            assert (number in self.real) == (number < self.floor or number in self.model)

    @invariant()
    def the_highest_agrees(self) -> None:
        assert self.real.highest == max(self.model | {self.floor - 1})

    @invariant()
    def ranges_are_sorted_and_never_touch(self) -> None:
        kept = list(self.real)
        assert all(self.floor <= low <= high for low, high in kept)
        assert all(first[1] + 1 < second[0] for first, second in pairwise(kept))
        assert len(self.real) == len(kept)

    @invariant()
    def counts_and_gaps_agree(self) -> None:
        above = sorted(number for number in self.model if number >= self.floor)
        assert self.real.count() == len(above)
        top = above[-1] if above else self.floor
        missing = {n for n in range(self.floor, top) if n not in self.model}
        gaps = self.real.gaps()
        assert {n for low, high in gaps for n in range(low, high + 1)} == missing
        assert all(first[1] + 1 < second[0] for first, second in pairwise(gaps))


TestAgainstASet = AgainstASet.TestCase


@given(st.lists(ranges, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_adding_does_not_matter(added: list[tuple[int, int]], random: object) -> None:
    shuffled = list(added)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types its Random as object
    assert IntervalSet(added) == IntervalSet(shuffled)


@given(st.lists(ranges, max_size=12), numbers)
def test_a_floor_given_at_first_equals_one_raised_later(
    added: list[tuple[int, int]], floor: int
) -> None:
    later = IntervalSet(added, floor=-10)
    later.raise_floor(floor)
    assert IntervalSet(added, floor=floor) == later


@given(st.lists(ranges, max_size=12))
def test_its_ranges_make_it_again(added: list[tuple[int, int]]) -> None:
    made = IntervalSet(added)
    assert IntervalSet(list(made), floor=made.floor) == made


def test_a_year_of_frames_in_order_is_one_range() -> None:
    made = IntervalSet()
    for seq in range(10_000):
        assert made.add(seq)
    assert list(made) == [(0, 9_999)]
    assert made.gaps() == []


def test_below_the_floor_everything_counts_as_seen() -> None:
    made = IntervalSet(floor=100)
    assert 99 in made
    assert not made.add(99)
    assert 100 not in made
    made.add_range(0, 50)
    assert list(made) == []


def test_a_floor_never_sinks() -> None:
    made = IntervalSet([(5, 9)], floor=4)
    made.raise_floor(2)
    assert made.floor == 4


def test_an_empty_range_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"5\.\.4"):
        IntervalSet().add_range(5, 4)


def test_a_mutable_set_has_no_hash_and_equals_only_its_kind() -> None:
    with pytest.raises(TypeError):
        hash(IntervalSet())
    assert IntervalSet() != {0}
    assert repr(IntervalSet([(1, 2)], floor=1)) == "IntervalSet([(1, 2)], floor=1)"

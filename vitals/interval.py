"""Sets of integers kept as sorted, disjoint, inclusive ranges.

Used to remember which frames (edge, epoch, seq) were seen: a year of in-order frames is one
range. A ``floor`` below which everything counts as seen keeps holes from piling up.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class IntervalSet:
    """Integers as ranges, with a floor: every integer below ``floor`` is a member."""

    __slots__ = ("_ends", "_starts", "floor")

    def __init__(self, ranges: Iterable[tuple[int, int]] = (), floor: int = 0) -> None:
        """Make a set of the inclusive ``ranges`` above ``floor``."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.floor = floor
        for low, high in ranges:
            self.add_range(low, high)

    def __contains__(self, number: int) -> bool:
        if number < self.floor:
            return True
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number <= self._ends[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        """Return the number of ranges kept (what the set costs), not of members."""
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntervalSet):
            return NotImplemented
        return self.floor == other.floor and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"IntervalSet({list(self)!r}, floor={self.floor})"

    def add(self, number: int) -> bool:
        """Add one integer; return False if it was a member already."""
        ends = self._ends
        if ends and number > ends[-1]:  # frames come in order, mostly
            if number == ends[-1] + 1:
                ends[-1] = number
            else:
                self._starts.append(number)
                ends.append(number)
            return True
        if number in self:
            return False
        self.add_range(number, number)
        return True

    def add_range(self, low: int, high: int) -> None:
        """Add every integer of ``low``..``high`` inclusive, merging with its neighbours."""
        if high < low:
            raise ValueError(f"range {low}..{high} is empty; give low <= high")
        low = max(low, self.floor)
        if high < low:
            return
        first = bisect_right(self._ends, low - 2) if self._ends else 0
        # ranges that end before low - 1 stay apart; bisect on ends gives the first that touches
        last = bisect_right(self._starts, high + 1)
        if first < last:
            low = min(low, self._starts[first])
            high = max(high, self._ends[last - 1])
        self._starts[first:last] = [low]
        self._ends[first:last] = [high]

    def raise_floor(self, floor: int) -> None:
        """Make every integer below ``floor`` a member and forget the ranges there."""
        if floor <= self.floor:
            return
        self.floor = floor
        starts, ends = self._starts, self._ends
        gone = bisect_left(ends, floor)
        if gone:
            del starts[:gone], ends[:gone]
        if starts and starts[0] < floor:
            starts[0] = floor

    def covers(self, low: int, high: int) -> bool:
        """Tell whether every integer of ``low``..``high`` is a member."""
        if high < self.floor:
            return True
        low = max(low, self.floor)
        at = bisect_right(self._starts, low) - 1
        return at >= 0 and high <= self._ends[at]

    @property
    def highest(self) -> int:
        """Return the highest member, -1 when there is none."""
        return self._ends[-1] if self._ends else self.floor - 1

    def count(self) -> int:
        """Return how many members lie at or above the floor."""
        return sum(high - low + 1 for low, high in self)

    def gaps(self) -> list[tuple[int, int]]:
        """Return the missing inclusive ranges between the floor and the highest member."""
        missing = []
        expected = self.floor
        for low, high in self:
            if low > expected:
                missing.append((expected, low - 1))
            expected = high + 1
        return missing

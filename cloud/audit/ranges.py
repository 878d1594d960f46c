"""Ranges of sequence numbers: set difference, spelling, and what the table names. Pure."""

from collections.abc import Iterable
from typing import Final

import msgspec

from vitals.interval import IntervalSet

RANGES_SHOWN_MAX: Final = 8
"""Ranges named in one finding of the text."""

RANGES_LISTED_MAX: Final = 1000
"""Ranges of one epoch in the JSON."""

LATE: Final = "late"
KINDS: Final = ("lost", "partial", "doubled", "altered", "unknown", "unusable", LATE)
"""``lost``: an earlier stage has it, this one passed it over. ``partial``: some of its readings are
not there. ``doubled``: counted more than once. ``altered``: another content or number of readings.
``unknown``: no earlier stage has it. ``unusable``: set aside whole. ``late``: not there yet."""


class Named(msgspec.Struct, frozen=True, order=True):
    """Frames of one epoch that something is the matter with, first to last inclusive."""

    stage: str
    """samples, detect, archive or quarantine."""
    what: str
    """A member of KINDS."""
    partition: int | None
    """Of the samples topic; None: the frame whole."""
    first: int
    last: int


def merged(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as inclusive ranges in order."""
    found = IntervalSet()
    for seq in seqs:
        found.add(seq)
    return list(found)


def minus(ranges: Iterable[tuple[int, int]], other: IntervalSet) -> list[tuple[int, int]]:
    """Return the parts of ``ranges``, in order, that ``other`` (with its floor) does not hold."""
    left: list[tuple[int, int]] = []
    held = iter(other)
    start, end = next(held, (0, -1))
    for first, last in ranges:
        low = max(first, other.floor)
        while start <= end and end < low:
            start, end = next(held, (0, -1))
        while start <= end and start <= last:
            if start > low:
                left.append((low, start - 1))
            low = max(low, end + 1)
            if end > last:
                break
            start, end = next(held, (0, -1))
        if low <= last:
            left.append((low, last))
    return left


def spell(ranges: list[tuple[int, int]]) -> str:
    """Return ranges as text, such as ``3-7, 9 and 2 more``."""
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in ranges[:RANGES_SHOWN_MAX]]
    more = len(ranges) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")

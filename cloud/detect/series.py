"""The last hour of one vital of one subject, in a few bytes: for trends and flat lines.

Law: the same readings in the same order give the same series, however they are cut into batches;
time is event time. Of every SAMPLE_MS the first reading counts and no other, so that the engine
need not bring the rest here at all (`hold`), and so that a monitor at 1 Hz and one at 0.2 Hz are
judged alike. A reading older than the last that counted changes nothing. Only values without
doubt belong here: the caller's business.

A minute becomes the median of what counted in it (of an even number the lower middle one: always
a value that was measured), so that one outlier in a minute leaves no trace. A minute without a
reading is a gap, never the value before it.
"""

import struct
from typing import Final

import msgspec

from vitals.codes import VITALS, decimal_scale

SAMPLE_MS: Final = 15_000
"""4 values a minute are enough for a median that one outlier cannot move; with 12 the readings that
are looked at would cost a ward more than all others together."""
MINUTE_MS: Final = 60_000
MINUTES_MAX: Final = 60
"""The longest window of a trend."""
SAME_GAP_MS: Final = 30_000
"""Longer without a counted reading, and "all equal since" begins anew."""

_MINUTE_MARKS: Final = MINUTE_MS // SAMPLE_MS
_GAP: Final = -(2**15)
_GAP_BYTES: Final = struct.pack("<h", _GAP)
_WIDTH: Final = 2


class Series(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Kept in the state topic as an array of integers and bytes: fields are only added at the end.

    ``ring`` and ``pending`` hold values of the vital's scale as little-endian 16-bit integers:
    bytes, because a tuple would take 8 to 40 bytes a value instead of 2.
    """

    mark: int = -1
    """Number since 1970 of the SAMPLE_MS whose first reading counted last; -1: none yet."""
    same_since_ms: int = 0
    """Time of the first of the counted readings that are all equal up to the last."""
    last: int = 0
    """The value that counted last."""
    ring: bytes = b""
    """Medians of the finished minutes up to the one before ``mark``'s, the oldest first."""
    pending: bytes = b""
    """What counted in the minute of ``mark``."""


def advance(series: Series, time_ms: int, value: int, minutes: int = MINUTES_MAX) -> Series:
    """Return the series after one reading; the same object when the reading does not count.

    ``value`` is of the vital's scale, ``minutes`` how many finished ones are kept (1 to
    MINUTES_MAX): the longest window that looks at this vital.
    """
    mark = time_ms // SAMPLE_MS
    if mark <= series.mark:
        return series
    ring, pending = series.ring, series.pending
    before, now = series.mark // _MINUTE_MARKS, mark // _MINUTE_MARKS
    if series.mark >= 0 and now != before:
        gaps = min(now - before - 1, minutes)
        ring = (ring + _median(pending) + gaps * _GAP_BYTES)[-minutes * _WIDTH :]
        pending = b""
    same = value == series.last and mark - series.mark <= SAME_GAP_MS // SAMPLE_MS
    since_ms = series.same_since_ms if same and series.mark >= 0 else time_ms
    return Series(mark, since_ms, value, ring, pending + struct.pack("<h", value))


def hold(series: Series) -> int:
    """Return the time before which no reading changes the series: none need be given."""
    return (series.mark + 1) * SAMPLE_MS


def finished(series: Series) -> int:
    """Return the number of the minute since 1970 that ``medians`` end before.

    When it has grown, there is a new median to judge by.
    """
    return series.mark // _MINUTE_MARKS


def medians(series: Series, minutes: int = MINUTES_MAX) -> list[int | None]:
    """Return the medians of at most the last ``minutes`` finished minutes, the oldest first.

    None is a minute without a reading; minutes before the first reading are not there.
    """
    ring = series.ring[-minutes * _WIDTH :]
    return [None if v == _GAP else v for v in struct.unpack(f"<{len(ring) // _WIDTH}h", ring)]


def _median(pending: bytes) -> bytes:
    count = len(pending) // _WIDTH
    values = sorted(struct.unpack(f"<{count}h", pending))
    return struct.pack("<h", values[(count - 1) // 2])


assert MINUTE_MS % SAMPLE_MS == 0  # noqa: S101
assert all(  # noqa: S101
    _GAP < bound * decimal_scale(vital) < 2**15
    for vital in VITALS
    for bound in (vital.low, vital.high)
), "a vital's scaled values need more than 16 bits"

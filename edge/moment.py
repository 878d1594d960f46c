"""What one line said at one time, in the form that costs least on its way to the disk.

Law: the same as a tuple of readings, and turned into one for whoever wants to look. Nine of ten
readings of a ward are one of a few hundred, so a row is shared by all who say it: a line of six
vital signs is six references, where six readings of its own are half a kilobyte that is made,
gathered and thrown away for every line.
"""

from typing import Final

import msgspec

from vitals.codes import VITALS
from vitals.reading import Reading

SITE_BITS: Final = 32
"""Bits of a layout for one site: an integer without sites stays small."""

MARKED: Final = 1 << SITE_BITS - 1
"""Bit of a layout in which some row has more than a vital sign and its value."""
assert len(VITALS) < SITE_BITS  # noqa: S101

Row = tuple[int, float | None, int, int, int, int, int | None]
"""A settled measure: vital, value, status, site, channel and reason of a reading to be, and its
value as `vitals.columns.scaled` stores it. A plain tuple, because a named one takes twice as long
to take apart."""


def layout_of(row: Row) -> int:
    """Return a bit for a row's vital sign, another for its site if it has one, perhaps MARKED."""
    vital, _, status, site, channel, reason, _ = row
    layout = 1 << vital
    if site:
        layout |= 1 << SITE_BITS * site + vital
    return layout | MARKED if status or site or channel or reason else layout


class Moment(msgspec.Struct, frozen=True, gc=False):
    """Rows of one time of measurement and one of receipt; `vitals.reading.Reading` has units."""

    rows: tuple[Row, ...]
    time_ms: int
    received_ms: int
    time_source: int
    layout: int
    """All of `layout_of` its rows."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Return one reading a row."""
        time_ms, received_ms, source = self.time_ms, self.received_ms, self.time_source
        # In the order of Reading's fields: names would cost half as much again.
        return tuple(
            [
                Reading(vital, value, time_ms, received_ms, status, site, channel, source, reason)
                for vital, value, status, site, channel, reason, _ in self.rows
            ]
        )

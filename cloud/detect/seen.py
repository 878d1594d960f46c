"""Which frames of one (edge, epoch) were taken: each counts once.

Below the floor only sums are kept: frames, readings and the three of `vitals.tally`, which the
audit compares with the gateways'.
"""

import msgspec

from vitals.interval import IntervalSet
from vitals.tally import Sums, Tally


class Seen(msgspec.Struct, frozen=True):
    """The stored form of what was seen of one (edge, epoch)."""

    floor: int
    ranges: list[tuple[int, int]]
    readings: int
    frames: int
    again: int = 0
    """Records that had been seen before."""
    sums: Sums | None = None
    """Of `vitals.tally` over the frames taken; None: begun by a version that kept none."""


class Frames:
    """Memory of one (edge, epoch)."""

    __slots__ = ("again", "seen", "summed", "tally")

    def __init__(self, stored: Seen | None = None) -> None:
        if stored is None:
            stored = Seen(0, [], 0, 0, 0, (0, 0, 0))
        self.seen = IntervalSet(stored.ranges, stored.floor)
        self.tally = Tally(stored.frames, stored.readings, stored.sums or (0, 0, 0))
        self.again = stored.again
        self.summed = stored.sums is not None

    def stored(self) -> Seen:
        """Return what is written."""
        return Seen(
            self.seen.floor,
            list(self.seen),
            self.tally.readings,
            self.tally.frames,
            self.again,
            self.tally.sums if self.summed else None,
        )

    def once(self, seq: int, floor: int, readings: int) -> bool:
        """Take note of a frame and of its edge's floor; return False for one seen before."""
        new = self.seen.add(seq)
        self.seen.raise_floor(floor)
        if new:
            self.tally.add(seq, readings)
        else:
            self.again += 1
        return new


def decode_seen(value: bytes) -> Seen:
    """Return what was stored; raises msgspec.DecodeError."""
    return _decoder.decode(value)


_decoder = msgspec.msgpack.Decoder(Seen)

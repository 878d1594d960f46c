"""A fixed-size account of which frames were taken and how many readings each held.

An interval set forgets what lies below its floor; sums do not. Two accounts of the same frames are
equal; where they differ by a few frames, the differences of the sums say which ones (Newton's power
sums, over the integers modulo a prime).

Law: 5 numbers however many frames; order does not matter; nothing is ever taken out.
"""

from typing import Final

PRIME: Final = 2**61 - 1
"""Mersenne; larger than any product of a sequence number (under 2**32) and a frame's readings, and
a sum fits a signed 64-bit integer of msgpack."""

Sums = tuple[int, int, int]
"""Of seq, seq squared, seq times readings, each modulo PRIME."""


class Tally:
    """Frames, readings, and three sums over the frames."""

    __slots__ = ("frames", "readings", "seqs", "squares", "weighted")

    def __init__(self, frames: int = 0, readings: int = 0, sums: Sums = (0, 0, 0)) -> None:
        """Continue from what was stored."""
        self.frames = frames
        self.readings = readings
        self.seqs, self.squares, self.weighted = sums

    def add(self, seq: int, readings: int) -> None:
        """Take one frame."""
        self.frames += 1
        self.readings += readings
        self.seqs = (self.seqs + seq) % PRIME
        self.squares = (self.squares + seq * seq) % PRIME
        self.weighted = (self.weighted + seq * readings) % PRIME

    @property
    def sums(self) -> Sums:
        """Return the three sums, to be stored."""
        return self.seqs, self.squares, self.weighted

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        mine = (self.frames, self.readings, *self.sums)
        return mine == (other.frames, other.readings, *other.sums)

    __hash__ = None  # type: ignore[assignment]

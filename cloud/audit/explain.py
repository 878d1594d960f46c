"""Which frames two accounts differ by. Pure.

Law: a frame is named only when every sum agrees with that explanation; what no explanation fits is
said to be unnamed, never guessed. Accounts tell: one run of frames lost, or taken twice; one frame
lost and another taken twice; one frame whose number of readings changed. More than that at once is
unnamed. Each sum is modulo 2**61 - 1: an accident that fits has a chance of 1 in 10**18.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from vitals.tally import PRIME, Tally


class Differences(NamedTuple):
    """Sequence numbers by what happened to them."""

    lost: Sequence[int] = ()
    doubled: Sequence[int] = ()
    altered: Sequence[int] = ()
    unnamed: bool = False
    """They differ, and no explanation fits."""


def explain(expected: Sequence[tuple[int, int]], found: Tally) -> Differences:
    """Return how ``found`` differs from (seq, readings) of distinct frames."""
    whole = Tally()
    for seq, readings in expected:
        whole.add(seq, readings)
    if whole == found:
        return Differences()
    less = _Delta(found, whole)
    if less.frames == 0:
        named = _altered(expected, less) if less.same_frames else _swapped(expected, less)
    else:
        named = _run(sorted(expected), less)
    return named or Differences(unnamed=True)


class _Delta:
    """What was found minus what was expected."""

    def __init__(self, found: Tally, whole: Tally) -> None:
        self.frames = found.frames - whole.frames
        self.readings = found.readings - whole.readings
        self.seqs = (found.seqs - whole.seqs) % PRIME
        self.squares = (found.squares - whole.squares) % PRIME
        self.weighted = (found.weighted - whole.weighted) % PRIME

    @property
    def same_frames(self) -> bool:
        return not (self.seqs or self.squares)


def _over(number: int, by: int) -> int:
    """Return a quotient modulo PRIME; ``by`` is not 0 there."""
    return number * pow(by, -1, PRIME) % PRIME


def _altered(expected: Sequence[tuple[int, int]], less: _Delta) -> Differences | None:
    if not less.readings % PRIME:
        return None
    seq = _over(less.weighted, less.readings)
    before = dict(expected).get(seq)
    if before is None or before + less.readings < 0:
        return None
    return Differences(altered=[seq])


def _swapped(expected: Sequence[tuple[int, int]], less: _Delta) -> Differences | None:
    """Return one frame lost and another taken twice: x - y and x + y give both."""
    if not less.seqs:
        return None
    total = _over(less.squares, less.seqs)
    twice, lost = _over(total + less.seqs, 2), _over(total - less.seqs, 2)
    readings = dict(expected)
    if twice not in readings or lost not in readings:
        return None
    more = twice * readings[twice] - lost * readings[lost]
    if readings[twice] - readings[lost] != less.readings or more % PRIME != less.weighted:
        return None
    return Differences(lost=[lost], doubled=[twice])


def _run(expected: list[tuple[int, int]], less: _Delta) -> Differences | None:
    """Return one run of neighbours that was lost, or taken twice."""
    size, sign = abs(less.frames), 1 if less.frames > 0 else -1
    if size > len(expected):
        return None
    seqs = [0, *accumulate(seq for seq, _ in expected)]
    squares = [0, *accumulate(seq * seq for seq, _ in expected)]
    counts = [0, *accumulate(readings for _, readings in expected)]
    weighted = [0, *accumulate(seq * readings for seq, readings in expected)]
    for at in range(len(expected) - size + 1):
        end = at + size
        if (
            sign * (counts[end] - counts[at]) == less.readings
            and sign * (seqs[end] - seqs[at]) % PRIME == less.seqs
            and sign * (squares[end] - squares[at]) % PRIME == less.squares
            and sign * (weighted[end] - weighted[at]) % PRIME == less.weighted
        ):
            run = [seq for seq, _ in expected[at:end]]
            return Differences(doubled=run) if sign > 0 else Differences(lost=run)
    return None

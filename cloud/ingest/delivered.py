"""What this process delivered of late, so that a gateway that lost its answers need not send again.

Law: a courtesy, never a promise: it is in memory, bounded, and forgetting costs a resend. Only what
is durable in Kafka is ever noted.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from vitals.interval import IntervalSet

EPOCHS_MAX: Final = 4096
"""Epochs remembered: a few thousand gateways with the running one, under 2 MB."""

RANGES_MAX: Final = 256
"""Ranges of one epoch; more holes than these and the lowest are forgotten."""


class Delivered:
    """(edge, epoch) -> sequence numbers, the least recently noted forgotten first."""

    def __init__(self, epochs_max: int = EPOCHS_MAX) -> None:
        """Remember nothing yet."""
        self._max = epochs_max
        self._seen: OrderedDict[tuple[str, str], IntervalSet] = OrderedDict()

    def note(self, edge: str, epoch: str, seq: int) -> None:
        """Remember one durable frame."""
        key = (edge, epoch)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = IntervalSet()
            if len(self._seen) > self._max:
                self._seen.popitem(last=False)
        else:
            self._seen.move_to_end(key)
        seen.add(seq)
        if len(seen) > RANGES_MAX:
            kept = list(seen)[-RANGES_MAX // 2 :]
            self._seen[key] = IntervalSet(kept)

    def of(self, edge: str, epochs: Iterable[str]) -> list[tuple[str, list[tuple[int, int]]]]:
        """Return the resume points of a gateway for the epochs it names."""
        found = []
        for epoch in epochs:
            seen = self._seen.get((edge, epoch))
            if seen is not None:
                found.append((epoch, list(seen)))
        return found

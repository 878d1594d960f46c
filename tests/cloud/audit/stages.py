"""Stages as the readers would tell them, from (partition, seq, readings) of their records."""

from collections.abc import Iterable

from cloud.audit.evidence import Held, Part, Produced
from vitals.interval import IntervalSet
from vitals.tally import Tally

Record = tuple[int, int, int]


def produced(records: Iterable[Record], whole: dict[int, int] | None = None) -> Produced:
    """Return the samples topic; ``whole``: frame -> readings that its header says."""
    made = Produced()
    for partition, seq, readings in records:
        told = None if whole is None else whole[seq]
        made.add(partition, seq, readings, digest=readings, frame_readings=told)
    return made


def taken(records: Iterable[Record], floor: int = 0) -> Held:
    """Return a consumer that took these; below ``floor`` it remembers sums alone.

    A record that is there twice is counted twice, which no consumer of ours does.
    """
    held = Held()
    for partition, seq, readings in records:
        part = held.parts.setdefault(partition, Part(IntervalSet(), Tally()))
        part.seen.add(seq)
        part.tally.add(seq, readings)
    for part in held.parts.values():
        part.seen.raise_floor(floor)
    return held

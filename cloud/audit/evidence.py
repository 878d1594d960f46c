"""What the stages say, gathered: the input of `cloud.audit.compare`. Values only, no I/O."""

from typing import NamedTuple

import msgspec

from vitals.interval import IntervalSet


class EpochName(NamedTuple):
    """One epoch of one gateway: the unit that is compared."""

    edge: str
    epoch: str


class Spooled(msgspec.Struct):
    """A spool's counters of one epoch, and what is still in it."""

    readings_spooled: int = 0
    readings_acked: int = 0
    readings_dropped: int = 0
    readings_unsound: int = 0
    readings_lost: int = 0
    rejects_spooled: int = 0
    rejects_acked: int = 0
    rejects_dropped: int = 0
    rejects_unsound: int = 0
    rejects_lost: int = 0
    frames_spooled: int = 0
    frames_acked: int = 0
    frames_dropped: int = 0
    frames_waiting: int = 0


class Held:
    """What a stage downstream holds of one epoch."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.readings = 0
        """Distinct."""
        self.resent = 0
        """Records that were there already: the gateway sent a frame again, which is its right."""
        self.seen: dict[int, IntervalSet] = {}
        """Partition -> sequence numbers."""

    def add(self, partition: int, seq: int, readings: int) -> None:
        """Count one record; a second of the same (partition, seq) only counts as resent."""
        if self.seen.setdefault(partition, IntervalSet()).add(seq):
            self.readings += readings
        else:
            self.resent += 1


class Quarantined:
    """What the quarantine topic holds of one epoch."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.rejects = 0
        self.seen = IntervalSet()
        self.set_aside = IntervalSet()
        """Frames kept whole because they could not be used."""

    def add(self, kind: str, seq: int, count: int) -> None:
        """Count one record; a second of the same seq counts nothing."""
        if kind == "frame":
            if seq >= 0:
                self.set_aside.add(seq)
        elif self.seen.add(seq):
            self.rejects += count


class Evidence(NamedTuple):
    """Everything that was read, in the order it was read."""

    spool_before: dict[EpochName, Spooled]
    archive: dict[EpochName, Held]
    detect: dict[EpochName, Held]
    samples: dict[EpochName, Held]
    quarantine: dict[EpochName, Quarantined]
    project_lag: dict[str, int]
    """Topic -> records that project has not written to Redis."""
    spool_after: dict[EpochName, Spooled]
    samples_trimmed: bool
    """True when Kafka has deleted the oldest samples, so that they cannot all be counted."""

"""What the stages say, gathered: the input of `cloud.audit.compare`. Values only, no I/O."""

from array import array
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from vitals.interval import IntervalSet
from vitals.tally import Tally


class EpochName(NamedTuple):
    """One epoch of one gateway: the unit that is compared."""

    edge: str
    epoch: str


class Spooled(msgspec.Struct):
    """A spool's counters of one epoch, and what is still in it. `edge/SPOOL.md` has the meaning."""

    received_lines: int = 0
    received_messages: int = 0
    rejected: int = 0
    refused_inputs: int = 0
    readings_spooled: int = 0
    readings_acked: int = 0
    readings_dropped: int = 0
    readings_unsound: int = 0
    readings_lost: int = 0
    readings_salvaged: int = 0
    readings_sent: int = 0
    readings_resent: int = 0
    rejects_spooled: int = 0
    rejects_acked: int = 0
    rejects_dropped: int = 0
    rejects_unsound: int = 0
    rejects_lost: int = 0
    rejects_salvaged: int = 0
    rejects_sent: int = 0
    rejects_resent: int = 0
    frames_spooled: int = 0
    frames_acked: int = 0
    frames_dropped: int = 0
    frames_merged: int = 0
    frames_unsound: int = 0
    frames_lost: int = 0
    frames_salvaged: int = 0
    frames_sent: int = 0
    frames_resent: int = 0
    acked_forgotten: int = 0
    highest_seq: int = -1
    frames_waiting: int = 0
    """Stored; not a counter but counted."""
    split: dict[str, int] = {}
    """Counters with a reason: ``rejected:bad-number``, ``frames_dropped:age``."""
    began_ms: int = 0
    """When the epoch began; 0: not known."""
    acked: IntervalSet = msgspec.field(default_factory=IntervalSet)
    """What the cloud acknowledged, by sequence number."""
    waiting: IntervalSet | None = None
    """What is stored, by sequence number; None: too much to name."""

    def split_of(self, name: str) -> dict[str, int]:
        """Return reason -> count of a counter that is split."""
        return {
            key.partition(":")[2]: count
            for key, count in sorted(self.split.items())
            if key.partition(":")[0] == name
        }

    @property
    def by_number(self) -> bool:
        """Tell whether every acknowledged frame is known by its number, and nothing went astray."""
        astray = (
            self.frames_dropped
            + self.frames_unsound
            + self.frames_lost
            + self.frames_salvaged
            + self.acked_forgotten
        )
        return not astray and self.acked.count() >= self.frames_acked


class Part:
    """One partition's share of an epoch, as a consumer of the samples topic tells it."""

    def __init__(
        self,
        seen: IntervalSet | None = None,
        tally: Tally | None = None,
        again: int = 0,
        *,
        summed: bool = True,
    ) -> None:
        """``summed``: the tally's sums are of every frame taken, not of some."""
        self.seen = seen or IntervalSet()
        self.tally = tally or Tally()
        self.again = again
        """Records that were there already: the gateway sent a frame again, which is its right."""
        self.summed = summed


class Held:
    """What a consumer of the samples topic holds of one epoch."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.parts: dict[int, Part] = {}

    @property
    def readings(self) -> int:
        """Return the distinct readings."""
        return sum(part.tally.readings for part in self.parts.values())

    @property
    def frames(self) -> int:
        """Return the distinct records."""
        return sum(part.tally.frames for part in self.parts.values())

    @property
    def again(self) -> int:
        """Return the records that came again."""
        return sum(part.again for part in self.parts.values())


class Arrivals(Part):
    """One partition's distinct records in the order of their offsets: 24 bytes each."""

    def __init__(self) -> None:
        """Start with nothing."""
        super().__init__()
        self.seqs, self.readings, self.digests = array("q"), array("q"), array("q")
        self.altered = IntervalSet()
        """Came again with another content."""

    def add(self, seq: int, readings: int, digest: int) -> bool:
        """Take one record; return False if it was there before."""
        if self.seen.add(seq):
            self.tally.add(seq, readings)
            self.seqs.append(seq)
            self.readings.append(readings)
            self.digests.append(digest)
            return True
        self.again += 1
        if self.digests[self.seqs.index(seq)] != digest:
            self.altered.add(seq)
        return False


class Produced:
    """What lies in the samples topic of one epoch."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.parts: dict[int, Arrivals] = {}
        self.frames = IntervalSet()
        """Sequence numbers in any partition."""
        self.incomplete: dict[int, int] = {}
        """Frame -> readings that its partitions have too few (above 0) or too many."""
        self.newest_ms = 0

    def add(
        self,
        partition: int,
        seq: int,
        readings: int,
        *,
        digest: int = 0,
        frame_readings: int | None = None,
        at_ms: int = 0,
    ) -> None:
        """Count one record; a second of the same (partition, seq) only counts as sent again."""
        self.newest_ms = max(self.newest_ms, at_ms)
        if not self.parts.setdefault(partition, Arrivals()).add(seq, readings, digest):
            return
        if frame_readings is not None:
            whole = 0 if seq in self.frames else frame_readings
            left = self.incomplete.pop(seq, whole) - readings
            if left:
                self.incomplete[seq] = left
        self.frames.add(seq)

    @property
    def readings(self) -> int:
        """Return the distinct readings."""
        return sum(part.tally.readings for part in self.parts.values())

    @property
    def records(self) -> int:
        """Return the records, those that came again included."""
        return sum(part.tally.frames for part in self.parts.values()) + self.again

    @property
    def again(self) -> int:
        """Return the records that came again."""
        return sum(part.again for part in self.parts.values())


class Quarantined:
    """What the quarantine topic holds of one epoch."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.rejects = 0
        self.again = 0
        self.seen = IntervalSet()
        self.set_aside = IntervalSet()
        """Frames kept whole because they could not be used."""
        self.newest_ms = 0

    def add(self, kind: str, seq: int, count: int, at_ms: int = 0) -> None:
        """Count one record; a second of the same seq only counts as come again."""
        self.newest_ms = max(self.newest_ms, at_ms)
        if kind == "frame":
            if seq >= 0 and not self.set_aside.add(seq):
                self.again += 1
        elif self.seen.add(seq):
            self.rejects += count
        else:
            self.again += 1


class Evidence(NamedTuple):
    """Everything that was read, in the order it was read."""

    spool_before: dict[EpochName, Spooled]
    archive: dict[EpochName, Held]
    detect: dict[EpochName, Held]
    samples: dict[EpochName, Produced]
    quarantine: dict[EpochName, Quarantined]
    project_lag: dict[str, int]
    """Topic -> records that project has not written to Redis."""
    spool_after: dict[EpochName, Spooled]
    samples_trimmed: bool
    """True when Kafka has deleted the oldest samples, so that they cannot all be counted."""
    poison: Mapping[str, int] = MappingProxyType({})
    """Reason -> records that detect set aside."""

    def names(self) -> set[EpochName]:
        """Return the epochs that any stage knows."""
        return set().union(
            self.spool_after, self.samples, self.detect, self.archive, self.quarantine
        )

    def since(self, since_ms: int) -> set[EpochName]:
        """Return the epochs with anything at or after a time, in the spool, or of no known time."""
        found = set()
        for name in self.names():
            spooled = self.spool_after.get(name, Spooled())
            newest_ms = max(
                spooled.began_ms,
                self.samples.get(name, Produced()).newest_ms,
                self.quarantine.get(name, Quarantined()).newest_ms,
            )
            if spooled.frames_waiting or not newest_ms or newest_ms >= since_ms:
                found.add(name)
        return found

"""Recorded readings by patient, as machine integers, in the order in which they arrived.

Law: nothing is judged or left out here but what is the very same reading twice. In which order
files were read makes no difference.

Some 29 bytes a reading: a ward of 40 beds at 1 Hz with 5 vitals is 21 MB an hour.
"""

from array import array
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from cloud.whatif.errors import DataWrong

READINGS_MAX: Final = 50_000_000
"""1.5 GB: two and a half days of such a ward."""

BEDS_MAX: Final = 5_000
"""As many as a policy may name; each costs two subjects' memory."""

NO_VALUE: Final = -(2**31)
"""Stands for None: no scaled value is this (`vitals.columns.VALUE_MAX`)."""

MONITORED_GAP_MS: Final = 60_000
"""A bed without any reading for longer was not monitored meanwhile: the default policy's silence
of a device. Bed-days count monitored time only."""

_FIELDS: Final = {
    "time": "q",
    "arrival": "q",
    "value": "i",
    "source": "i",
    "vital": "b",
    "status": "b",
    "site": "b",
    "channel": "H",
}


class Row(NamedTuple):
    """One reading: times in milliseconds of UTC, the rest as in `vitals.columns`."""

    time_ms: int
    arrival_ms: int
    vital: int
    value: int
    """Scaled, or NO_VALUE."""
    status: int = 0
    site: int = 0
    channel: int = 0


class Origin(NamedTuple):
    """Where readings come from: device and gateway, by which a policy's layers are found."""

    device: str
    edge: str


class Rows(NamedTuple):
    """A bed's readings in the order of their arrival: columns of one length."""

    time: Any
    arrival: Any
    value: Any
    source: Any
    vital: Any
    status: Any
    site: Any
    channel: Any


class Bed:
    """Everything recorded of one subject."""

    def __init__(self, subject: str, label: str) -> None:
        """``label``: how a report calls it; never a person's name or number."""
        self.subject = subject
        self.label = label
        self._columns = {name: array(code) for name, code in _FIELDS.items()}

    def __len__(self) -> int:
        return len(self._columns["time"])

    def add(self, row: Row, source: int) -> None:
        """Append one reading."""
        columns = self._columns
        columns["time"].append(row.time_ms)
        columns["arrival"].append(row.arrival_ms)
        columns["value"].append(row.value)
        columns["source"].append(source)
        columns["vital"].append(row.vital)
        columns["status"].append(row.status)
        columns["site"].append(row.site)
        columns["channel"].append(row.channel)

    def extend(self, columns: Mapping[str, Any]) -> None:
        """Append whole columns: numpy arrays of one length by name."""
        for name, column in self._columns.items():
            column.frombytes(np.ascontiguousarray(columns[name], dtype=column.typecode).tobytes())

    def rows(self, ranks: Any) -> Rows:
        """Return the readings in order, each once; ``ranks``: of the sources, by name."""
        held = {
            name: np.frombuffer(column, dtype=column.typecode)
            for name, column in self._columns.items()
        }
        # The last key comes first. All of them, so that equal readings lie side by side and the
        # order of the files is forgotten.
        keys = ("status", "value", "site", "channel", "vital", "source", "time", "arrival")
        ranked = held | {"source": ranks[held["source"]]}
        order = np.lexsort([ranked[name] for name in keys])
        sorted_ = {name: column[order] for name, column in held.items()}
        differs = np.zeros(len(order), dtype=bool)
        differs[:1] = True
        for column in sorted_.values():
            differs[1:] |= column[1:] != column[:-1]
        return Rows(**{name: column[differs] for name, column in sorted_.items()})


class Ward:
    """Beds by subject, filled by the readers of this folder."""

    def __init__(self, start_ms: int | None = None, end_ms: int | None = None) -> None:
        """Only what was measured in ``start_ms <= time < end_ms`` is taken."""
        self.start_ms = 0 if start_ms is None else start_ms
        self.end_ms = 2**62 if end_ms is None else end_ms
        self.origins: list[Origin] = []
        self.passed = 0
        """Lines that are no reading: refused input, answers, alarms of devices."""
        self._sources: dict[Origin, int] = {}
        self._beds: dict[str, Bed] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def source(self, origin: Origin) -> int:
        """Return the number of an origin."""
        number = self._sources.setdefault(origin, len(self.origins))
        if number == len(self.origins):
            self.origins.append(origin)
        return number

    def bed(self, subject: str, label: str) -> Bed:
        """Return a subject's bed; of several labels the first in the alphabet stays."""
        bed = self._beds.get(subject)
        if bed is None:
            if len(self._beds) >= BEDS_MAX:
                raise DataWrong(f"more than {BEDS_MAX} patients; give a part: --start and --end")
            bed = self._beds[subject] = Bed(subject, label)
        bed.label = min(bed.label, label)
        return bed

    def counted(self, readings: int) -> None:
        """Take note of readings added; raise DataWrong when they are too many."""
        self._count += readings
        if self._count > READINGS_MAX:
            raise DataWrong(f"more than {READINGS_MAX} readings; give a part: --start and --end")

    def add(self, bed: Bed, row: Row, source: int) -> None:
        """Append one reading that is within the time asked for."""
        if self.start_ms <= row.time_ms < self.end_ms:
            bed.add(row, source)
            self.counted(1)

    def subjects(self) -> set[str]:
        """Return everybody who has readings."""
        return {subject for subject, bed in self._beds.items() if len(bed)}

    def ordered(self) -> Iterator[tuple[str, str, Rows]]:
        """Yield (label, subject, readings in order), by label; equal labels are numbered."""
        ranks = np.empty(len(self.origins), dtype=np.int32)
        ranks[sorted(range(len(self.origins)), key=self.origins.__getitem__)] = range(
            len(self.origins)
        )
        times: dict[str, int] = {}
        for bed in sorted(self._beds.values(), key=lambda one: (one.label, one.subject)):
            if len(bed):
                times[bed.label] = nth = times.get(bed.label, 0) + 1
                label = bed.label if nth == 1 else f"{bed.label} ({nth})"
                yield label, bed.subject, bed.rows(ranks)


def monitored_ms(rows: Rows) -> tuple[int, int]:
    """Return for how long a bed was monitored, and how long the gaps in between were."""
    steps = np.diff(rows.arrival)
    gaps = steps > MONITORED_GAP_MS
    return int(steps[~gaps].sum()), int(steps[gaps].sum())

"""One frame's columns -> pseudonymous columns, one set a partition.

Law: what comes out names no patient and no device; rows keep their order and none is lost or made;
every frame gives at least one record, if only an empty one.
Pure: a function of the columns and the subject key.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from vitals.columns import Columns, Source
from vitals.pseudonym import device_id, device_subject, patient_subject
from vitals.reading import Patient
from vitals.topics import partition_of

# Pseudonyms kept: three HMACs cost 6 µs, a ward says the same few names every second.
PSEUDONYMS_MAX: Final = 65_536


class Association(NamedTuple):
    """What a frame said of a subject: who it is, on which device, last when."""

    subject: str
    device: str
    patient: Patient
    time_ms: int


class Pseudonyms:
    """Names -> pseudonyms under the subject key, remembered up to PSEUDONYMS_MAX."""

    def __init__(self, key: bytes) -> None:
        """Take the 32-byte subject key, which only ingest holds."""
        self._key = key
        self.of: Callable[[str, str, str], tuple[str, str]] = lru_cache(PSEUDONYMS_MAX)(self._of)
        """(edge, device, mrn or empty) -> (subject, device pseudonym)."""

    def _of(self, edge: str, device: str, mrn: str) -> tuple[str, str]:
        subject = (
            patient_subject(self._key, mrn) if mrn else device_subject(self._key, edge, device)
        )
        return subject, device_id(self._key, edge, device)


def _deltas(numbers: Sequence[int]) -> list[int]:
    return [*numbers[:1], *(b - a for a, b in pairwise(numbers))]


def _pick(numbers: list[int], rows: list[int]) -> list[int]:
    """Return the rows of a sparse column; empty stays empty, all zeros become empty."""
    picked = [numbers[row] for row in rows] if numbers else []
    return picked if any(picked) else []


def split(edge: str, columns: Columns, pseudonyms: Pseudonyms) -> dict[int, Columns]:
    """Return partition -> its rows in their order, sources replaced by pseudonyms.

    ``columns`` must have passed `vitals.columns.check`; decoding does that.
    """
    named: list[tuple[int, Source]] = []
    for source in columns.sources:
        mrn = source.patient.mrn.strip() if source.patient else ""
        subject, device = pseudonyms.of(edge, source.device, mrn)
        named.append((partition_of(subject), Source(device, subject)))
    rows_of: dict[int, list[int]] = {}
    homes = [partition for partition, _ in named]
    for row, at in enumerate(columns.source):
        rows_of.setdefault(homes[at], []).append(row)
    times, received = list(accumulate(columns.time)), list(accumulate(columns.received))
    parts: dict[int, Columns] = {}
    for partition, rows in rows_of.items():
        index: dict[Source, int] = {}
        origin = [index.setdefault(named[columns.source[row]][1], len(index)) for row in rows]
        parts[partition] = Columns(
            sources=list(index),
            source=origin,
            vital=[columns.vital[row] for row in rows],
            value=[columns.value[row] for row in rows],
            time=_deltas([times[row] for row in rows]),
            received=_deltas([received[row] for row in rows]),
            status=_pick(columns.status, rows),
            site=_pick(columns.site, rows),
            channel=_pick(columns.channel, rows),
            time_source=_pick(columns.time_source, rows),
            reason=_pick(columns.reason, rows),
        )
    for at, alert in columns.alerts:
        partition, source = named[at]
        part = parts.setdefault(partition, Columns([], [], [], [], [], []))
        if source not in part.sources:
            part.sources.append(source)
        part.alerts.append((part.sources.index(source), alert))
    if not parts and named:
        # A frame that only names patients leaves its trace too: the audit looks for every frame.
        partition, source = named[0]
        parts[partition] = Columns([source], [], [], [], [], [])
    return parts


def associations(
    edge: str, columns: Columns, pseudonyms: Pseudonyms, last_ms: int
) -> list[Association]:
    """Return who the frame says is on which device, in the order of its sources.

    A source without rows is a bare association (a message that only names the patient) and
    takes ``last_ms``, the frame's latest time of receipt.
    """
    latest: dict[int, int] = {}
    if any(source.patient for source in columns.sources):
        for at, received_ms in zip(columns.source, accumulate(columns.received), strict=True):
            latest[at] = max(received_ms, latest.get(at, 0))
    found = []
    for at, source in enumerate(columns.sources):
        if source.patient is not None and source.patient != Patient():
            subject, device = pseudonyms.of(edge, source.device, source.patient.mrn.strip())
            found.append(Association(subject, device, source.patient, latest.get(at, last_ms)))
    return found

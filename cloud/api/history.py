"""Live and archived readings as one list of Observations, newest first, in pages.

Law: an entry of a page is there because both sources were read down to its time; the next page
goes on after its id. So pages neither skip nor repeat, whatever arrives meanwhile, and a reading
that is in Redis and in Parquet is one Observation. Blocking: call from a thread.

Each source gives rows from new to old in steps and says down to which time it is complete (its
horizon). Observations at or above the higher of the two horizons are certain.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from cloud.api.dates import bounds
from cloud.api.query import LastN, Search, own_codes
from cloud.fhir import observations
from cloud.fhir.ids import PANELS, ObservationId
from cloud.fhir.observations import Built
from cloud.project.layout import MINUTE_MS, Latest
from vitals.codes import BY_NAME
from vitals.reading import Reading

Row = tuple[str, Reading]
"""Device pseudonym, reading."""

# Buckets of one round trip: five minutes of a patient at 1 Hz are some 300 sealed frames.
LIVE_STEP_MINUTES: Final = 5

# Rows asked of the archive at first, and the factor by which later steps grow.
ARCHIVE_STEP_ROWS: Final = 500
ARCHIVE_STEP_GROWTH: Final = 4
ARCHIVE_STEP_ROWS_MAX: Final = 64_000


class Live(Protocol):
    """What is needed of `store.Store`."""

    def minutes(self, subject: str) -> list[int]:
        """Return minutes that have rows, newest first."""
        ...

    def rows(self, subject: str, minutes: Sequence[int]) -> list[Row]:
        """Return the rows of some minutes."""
        ...

    def latest(self, subject: str) -> list[Latest]:
        """Return the newest of each vital."""
        ...


class Archive(Protocol):
    """What is needed of `cloud.archive.reader.Archive`."""

    def rows(
        self,
        subject: str,
        start_ms: int | None,
        end_ms: int | None,
        vitals: frozenset[int] | None,
        newest: int,
    ) -> list[Row]:
        """Return the newest rows of a range, newest first, at most ``newest``."""
        ...


class Page(NamedTuple):
    """Entries, and whether there are more."""

    entries: list[Built]
    more: bool


class _LiveRows:
    def __init__(self, live: Live, subject: str, low: float, high: float) -> None:
        self._live = live
        self._subject = subject
        self._minutes = [
            minute
            for minute in live.minutes(subject)
            if minute * MINUTE_MS < high and (minute + 1) * MINUTE_MS > low
        ]
        self.horizon = math.inf

    def step(self) -> list[Row]:
        part, self._minutes = (
            self._minutes[:LIVE_STEP_MINUTES],
            self._minutes[LIVE_STEP_MINUTES:],
        )
        # complete down to the end of the next bucket not yet read
        self.horizon = (self._minutes[0] + 1) * MINUTE_MS if self._minutes else -math.inf
        return self._live.rows(self._subject, part) if part else []


class _ArchiveRows:
    def __init__(
        self,
        archive: Archive,
        subject: str,
        low: float,
        high: float,
        vitals: frozenset[int] | None,
    ) -> None:
        self._archive = archive
        self._subject = subject
        self._start = None if low == -math.inf else int(low)
        self._vitals = vitals
        self._ask = ARCHIVE_STEP_ROWS
        self.horizon = high

    def step(self) -> list[Row]:
        end = None if self.horizon == math.inf else int(self.horizon)
        rows = self._archive.rows(self._subject, self._start, end, self._vitals, self._ask)
        cut = len(rows) >= self._ask
        # whether the reader counts its end in or not, what is above the horizon was given before
        rows = [row for row in rows if row[1].time_ms < self.horizon]
        self._ask = min(self._ask * ARCHIVE_STEP_GROWTH, ARCHIVE_STEP_ROWS_MAX)
        if not cut:
            self.horizon = -math.inf
            return rows
        if not rows:
            if self._ask == ARCHIVE_STEP_ROWS_MAX:
                self.horizon -= 1
            return rows  # as many rows at the very end as were asked for: ask for more
        # the oldest time may be there in part
        oldest = min(reading.time_ms for _, reading in rows)
        complete = [row for row in rows if row[1].time_ms > oldest]
        if complete:
            self.horizon = oldest + 1
        elif self._ask == ARCHIVE_STEP_ROWS_MAX:
            self.horizon = oldest  # nothing measures so often: take what there is, and go on
            return rows
        return complete


def _build(subject: str, rows: Sequence[Row]) -> dict[str, Built]:
    """Return rows as Observations by id; equal rows are one, of two the later received stands."""
    distinct: dict[tuple[str, int, int, int, int], Reading] = {}
    for device, reading in rows:
        key = (device, reading.vital, reading.time_ms, reading.site, reading.channel)
        other = distinct.get(key)
        if other is None or _weight(reading) > _weight(other):
            distinct[key] = reading
    by_device: dict[str, list[Reading]] = {}
    for (device, *_), reading in distinct.items():
        by_device.setdefault(device, []).append(reading)
    found: dict[str, Built] = {}
    for device in sorted(by_device):
        for built in observations.of_rows(subject, device, by_device[device]):
            found.setdefault(built.id, built)
    return found


def _weight(reading: Reading) -> tuple[int, float]:
    return reading.received_ms, -math.inf if reading.value is None else reading.value


def _order(built: Built) -> tuple[int, str]:
    return -built.time_ms, built.id


def _after(cursor: ObservationId | None, cursor_id: str) -> Callable[[Built], bool]:
    if cursor is None:
        return lambda _built: True
    last = (-cursor.time_ms, cursor_id)
    return lambda built: _order(built) > last


def page(search: Search, cursor_id: str, live: Live, archive: Archive) -> Page:
    """Return one page of a search; raises what the sources raise."""
    if search.subject is None or not search.vital_signs:
        return Page([], more=False)
    vitals = search.vitals()
    if vitals is not None and not vitals:
        return Page([], more=False)
    low, high = _range(search)
    if low >= high:
        return Page([], more=False)
    after = _after(search.cursor, cursor_id)
    sources = (
        _ArchiveRows(archive, search.subject, low, high, vitals),
        _LiveRows(live, search.subject, low, high),
    )
    pending: list[Row] = []
    entries: list[Built] = []
    certain: float = math.inf
    while certain > -math.inf and len(entries) <= search.size:
        for source in sources:
            if source.horizon == max(each.horizon for each in sources):
                pending += [
                    row
                    for row in source.step()
                    if low <= row[1].time_ms < high and (vitals is None or row[1].vital in vitals)
                ]
        certain = max(source.horizon for source in sources)
        ready = [row for row in pending if row[1].time_ms >= certain]
        pending = [row for row in pending if row[1].time_ms < certain]
        built = _build(search.subject, ready).values()
        entries += sorted((b for b in built if search.fits(b) and after(b)), key=_order)
    return Page(entries[: search.size], more=len(entries) > search.size)


def _range(search: Search) -> tuple[float, float]:
    found = bounds(search.dates)
    low = -math.inf if found.low is None else found.low
    high = math.inf if found.high is None else found.high
    if search.cursor is not None:
        high = min(high, search.cursor.time_ms + 1)
    return low, high


def read(ident: str, parsed: ObservationId, live: Live, archive: Archive) -> Built | None:
    """Return one Observation by its id, or None."""
    names = PANELS.get(parsed.vital, (parsed.vital,))
    vitals = frozenset(BY_NAME[name].index for name in names)
    low, high = parsed.time_ms, parsed.time_ms + 1
    rows: list[Row] = []
    for source in (
        _ArchiveRows(archive, parsed.subject, low, high, vitals),
        _LiveRows(live, parsed.subject, low, high),
    ):
        while source.horizon > low:
            rows += source.step()
    rows = [row for row in rows if row[1].time_ms == low and row[1].vital in vitals]
    return _build(parsed.subject, rows).get(ident)


def lastn(wanted: LastN, live: Live) -> list[Built]:
    """Return the newest ``most`` Observations of each group of codes, newest first.

    R4 $lastn: Observations that share a coding are one group, transitively; those that tie on
    time with the last one are all returned. Reads the live window, and beyond it the newest of
    each vital.
    """
    search, subject = wanted.search, wanted.search.subject
    vitals = search.vitals()
    if subject is None or not search.vital_signs or (vitals is not None and not vitals):
        return []
    rows: list[Row] = [(each.device, each.reading) for each in live.latest(subject)]
    newest = [b for b in _build(subject, _of(rows, vitals)).values() if search.fits(b)]
    found: dict[str, Built] = {}
    if wanted.most > 1:
        source = _LiveRows(live, subject, -math.inf, math.inf)
        pending: list[Row] = []
        while source.horizon > -math.inf and not _enough(found, newest, wanted.most):
            pending += _of(source.step(), vitals)
            ready = [row for row in pending if row[1].time_ms >= source.horizon]
            pending = [row for row in pending if row[1].time_ms < source.horizon]
            found |= {i: b for i, b in _build(subject, ready).items() if search.fits(b)}
    for built in newest:
        found.setdefault(built.id, built)
    chosen: list[Built] = []
    for group in _groups(list(found.values())):
        group.sort(key=_order)
        last = group[: wanted.most][-1].time_ms
        chosen += [built for built in group if built.time_ms >= last]
    return sorted(chosen, key=_order)


def _of(rows: list[Row], vitals: frozenset[int] | None) -> list[Row]:
    return rows if vitals is None else [row for row in rows if row[1].vital in vitals]


def _enough(found: dict[str, Built], newest: list[Built], most: int) -> bool:
    groups = _groups([*found.values(), *(b for b in newest if b.id not in found)])
    return bool(groups) and all(sum(b.id in found for b in group) >= most for group in groups)


def _groups(all_built: list[Built]) -> list[list[Built]]:
    """Return Observations in groups that share codings, transitively."""
    group_of: dict[str, int] = {}
    groups: dict[int, list[Built]] = {}
    for at, built in enumerate(all_built):
        codes = own_codes(built)
        joined = sorted({group_of[code] for code in codes if code in group_of})
        into = joined[0] if joined else at
        members = groups.setdefault(into, [])
        for other in joined[1:]:
            members += groups.pop(other)
            group_of = {code: into if of == other else of for code, of in group_of.items()}
        members.append(built)
        group_of |= dict.fromkeys(codes, into)
    return list(groups.values())

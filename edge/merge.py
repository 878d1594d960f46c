"""Folding: while the link is down, many small frames become few large ones.

Law: a reading is in one stored frame at any moment, whatever is cut off when. What is folded was
never sent, is of the running epoch (its key is in memory), and gets a new sequence number; the
originals leave in the transaction in which the folded frame comes. The caller sees to it that no
session with the cloud is open meanwhile, and gives the highest sequence number ever sent.

A frame of one commit window holds a line or two: some 350 bytes for five readings, most of it the
header and the patient. A minute of a ward in one frame, sorted, is under one byte a reading.
Rows go by source, then time, then vital sign: the order in which a device said them. It costs 14 %
less than by vital sign first (SPOOL.md has the figures), and less work in the cloud.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from operator import sub
from typing import Final, NamedTuple
from zlib import crc32

from edge.seal import Sealed
from edge.spool import Spool
from edge.spool_change import Change
from vitals import columns, frame, limits
from vitals.columns import Columns, Source
from vitals.errors import FrameError
from vitals.frame import FrameOpener, Lane

FRAMES_MAX: Final = 2_000
"""Stored frames looked at in one call: a minute of a ward of 40 beds, some 100 ms of work."""

BYTES_MAX: Final = 4 * 1024 * 1024
READINGS_MAX: Final = limits.FRAME_READINGS_MAX
"""Of these frames: bound what one call holds in memory, sealed and open: some 6 MB, which the
process keeps ever after. A ward of 40 beds says as much in a minute and a half."""

LARGE: Final = limits.FRAME_READINGS_MAX // 40
"""Readings of a frame that is left as it is: 2.7 bytes each are small enough, and to fold sixty
thousand a second would cost more than to take them."""

SPAN_MS: Final = 300_000
"""Folded once they reach over five minutes, or there are as many as one call takes: the longer,
the smaller, but what waits to be folded is stored at its full size."""


class Folded(NamedTuple):
    """What one call did."""

    frames: int = 0
    """Originals that are gone."""
    into: int = 0
    """Frames that hold their readings now."""
    readings: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    upto: int = -1
    """Every frame up to this sequence number was looked at: ``after_seq`` of the next call."""


class _Original(NamedTuple):
    seq: int
    content: Columns
    bytes: int


def merge(parts: Sequence[Columns]) -> Columns:
    """Return the rows of all parts by source, time, vital sign, site and channel; alerts in order.

    Rows that agree in all of these stay in the order of arrival. Equal sources become one.
    """
    places: dict[Source, int] = {}
    at: list[list[int]] = [
        [places.setdefault(source, len(places)) for source in part.sources] for part in parts
    ]

    def joined(name: str) -> list[int]:
        return list(chain.from_iterable(getattr(part, name) or [0] * len(part) for part in parts))

    source = [mine[one] for mine, part in zip(at, parts, strict=True) for one in part.source]
    time = list(chain.from_iterable(accumulate(part.time) for part in parts))
    received = list(chain.from_iterable(accumulate(part.received) for part in parts))
    value = list(chain.from_iterable(part.value for part in parts))
    vital = list(chain.from_iterable(part.vital for part in parts))
    site, channel = joined("site"), joined("channel")
    keys = list(zip(source, time, vital, site, channel, strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)

    def sorted_(column: list[int]) -> list[int]:
        return [column[row] for row in order]

    def sparse(column: list[int]) -> list[int]:
        return sorted_(column) if any(column) else []

    return Columns(
        sources=list(places),
        source=sorted_(source),
        vital=sorted_(vital),
        value=[value[row] for row in order],
        time=_deltas(sorted_(time)),
        received=_deltas(sorted_(received)),
        status=sparse(joined("status")),
        site=sparse(site),
        channel=sparse(channel),
        time_source=sparse(joined("time_source")),
        reason=sparse(joined("reason")),
        alerts=[
            (mine[one], alert)
            for mine, part in zip(at, parts, strict=True)
            for one, alert in part.alerts
        ],
    )


def _deltas(numbers: list[int]) -> list[int]:
    return [*numbers[:1], *map(sub, numbers[1:], numbers)]


def fold(
    spool: Spool,
    epoch: str,
    after_seq: int,
    opener: FrameOpener,
    seal: Callable[[Columns], Sealed],
    *,
    span_ms: int = SPAN_MS,
    frames_max: int = FRAMES_MAX,
) -> Folded:
    """Fold what is stored of ``epoch`` above ``after_seq``, if there is enough of it.

    Refused input, frames folded before and frames that do not open stay as they are. Raises
    sqlite3.Error, and then nothing is changed but that sequence numbers are spent.
    """
    rows, full = _stored(spool, epoch, after_seq, frames_max)
    spans_ms = max((row.last_ms for row in rows), default=0) - min(
        (row.first_ms for row in rows), default=0
    )
    if not full and spans_ms < span_ms:
        return Folded(upto=after_seq)
    runs = _open(rows, opener)
    groups: list[tuple[Sealed, list[_Original]]] = []
    for run in runs:
        groups += [(seal(merged), originals) for merged, originals in _fit(run)]
    if groups:
        spool.transact(lambda db, change: _replace(spool, db, change, epoch, groups))
    gone = [original for _, originals in groups for original in originals]
    return Folded(
        len(gone),
        len(groups),
        sum(len(original.content) for original in gone),
        sum(original.bytes for original in gone),
        sum(len(sealed.data) for sealed, _ in groups),
        rows[-1].seq if rows else after_seq,
    )


class _Stored(NamedTuple):
    seq: int
    lane: int
    crc: int | None
    covers_from: int | None
    data: bytes
    first_ms: int
    last_ms: int
    readings: int


def _stored(
    spool: Spool, epoch: str, after_seq: int, frames_max: int
) -> tuple[list[_Stored], bool]:
    """Return the next stored frames, and whether there are as many as one call takes."""
    found: list[_Stored] = []
    full = False

    def work(db: sqlite3.Connection, _change: Change) -> None:
        nonlocal full
        size = readings = 0
        rows = db.execute(
            "SELECT seq, lane, crc, covers_from, bytes, first_ms, last_ms, count FROM frames"
            " WHERE epoch = ? AND seq > ? ORDER BY seq",
            (epoch, after_seq),
        )
        for row in rows:
            found.append(_Stored(*row))
            size += len(found[-1].data)
            readings += found[-1].readings
            full = len(found) >= frames_max or size >= BYTES_MAX or readings >= READINGS_MAX
            if full:
                break
        rows.close()

    spool.transact(work)
    return found, full


def _open(rows: Iterable[_Stored], opener: FrameOpener) -> list[list[_Original]]:
    """Return runs of frames that may become one: between two of a run none stays behind."""
    runs: list[list[_Original]] = [[]]
    for row in rows:
        if row.lane == Lane.QUARANTINE or row.covers_from is not None:
            continue
        content = None if row.readings >= LARGE else _content(row, opener)
        if content is None:
            runs.append([])  # it stays, so no folded frame may claim to stand for it
        else:
            runs[-1].append(_Original(row.seq, content, len(row.data)))
    return runs


def _content(row: _Stored, opener: FrameOpener) -> Columns | None:
    """Return what is in a stored frame, None if it does not open."""
    if crc32(row.data) != row.crc:
        return None
    try:
        return frame.read_readings(opener.open(row.data)[1])
    except FrameError:
        return None


def _fit(run: list[_Original]) -> Iterator[tuple[Columns, list[_Original]]]:
    """Yield merged contents within the limits of a frame, each of at least two originals."""
    group: list[_Original] = []
    readings = alerts = 0
    for original in run:
        readings += len(original.content)
        alerts += len(original.content.alerts)
        if group and (readings > limits.FRAME_READINGS_MAX or alerts > limits.FRAME_ALERTS_MAX):
            yield from _halved(group)
            group = []
            readings, alerts = len(original.content), len(original.content.alerts)
        group.append(original)
    yield from _halved(group)


def _halved(group: list[_Original]) -> Iterator[tuple[Columns, list[_Original]]]:
    if len(group) < 2:
        return
    merged = merge([original.content for original in group])
    if len(columns.encode(merged)) <= limits.COMMIT_BYTES_MAX:
        yield merged, group
    else:
        half = len(group) // 2
        yield from _halved(group[:half])
        yield from _halved(group[half:])


def _replace(
    spool: Spool,
    db: sqlite3.Connection,
    change: Change,
    epoch: str,
    groups: Iterable[tuple[Sealed, list[_Original]]],
) -> None:
    counts = change.counts[epoch]
    for sealed, originals in groups:
        span = originals[0].seq, originals[-1].seq
        where = "epoch = ? AND seq BETWEEN ? AND ? AND lane <> 2 AND covers_from IS NULL"
        there = db.execute(
            f"SELECT seq, lane, count, size FROM frames WHERE {where} ORDER BY seq",  # noqa: S608 - fixed text
            (epoch, *span),
        ).fetchall()
        if [row[0] for row in there] != [original.seq for original in originals] or sum(
            row[2] for row in there
        ) != sealed.count:
            raise RuntimeError("stored frames changed while they were folded; nothing was done")
        for _, lane, count, size in there:
            change.level(epoch, lane, -1, -count, -size)
        db.execute(f"DELETE FROM frames WHERE {where}", (epoch, *span))  # noqa: S608 - fixed text
        spool.insert(db, change, sealed, span)
        counts["frames_merged"] += len(originals)
        counts["frames_spooled"] += 1

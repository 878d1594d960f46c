"""The spool: sealed frames on disk until the cloud has them, and the counts that prove it.

Law: what `store` returned from is on the disk (WAL, synchronous=FULL); frames and the counters
that speak of them change in one transaction; nothing but sealed frames and counts is written.
A damaged file never blocks a start: it is moved aside, whole, and reported. Nor does a disk that
is full or read-only: the file is opened when the disk allows, until then `store` raises.

Counters, per epoch: ``received_lines``, ``received_messages``, ``readings_spooled``,
``rejected`` and ``rejected:<reason>``, ``rejects_spooled``, ``ignored_observations``,
``alerts_spooled``, ``turned_away``,
``frames_spooled``, ``frames_sent`` (to the cloud, for the first time since the start),
``frames_resent``, ``readings_sent``, ``readings_resent``, ``rejects_sent``, ``rejects_resent``,
``acked_forgotten``, ``frames_acked``, ``readings_acked``, ``rejects_acked``, ``frames_dropped``,
``readings_dropped``, ``rejects_dropped`` (each again as ``…:bytes`` and ``…:age``),
``frames_merged``, ``frames_unsound``, ``readings_unsound``, ``rejects_unsound``,
``frames_lost``, ``readings_lost``, ``rejects_lost``, ``frames_salvaged``,
``readings_salvaged``, ``rejects_salvaged``, ``frames_unsalvageable``, ``refused_inputs``
(answered, never kept) and ``highest_seq``. At any moment, per epoch: frames_spooled = acked +
dropped + merged + unsound + lost + still in ``frames``; readings and rejects the same but for
merged. SPOOL.md has the meaning of each.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from edge import (
    epoch_file,
    spool_acked,
    spool_admit,
    spool_aside,
    spool_devices,
    spool_schema,
    spool_upkeep,
)
from edge.backlog import Backlog, Held
from edge.seal import Sealed
from edge.spool_aside import set_aside
from edge.spool_change import Change, Stock
from edge.spool_devices import DeviceCounts
from edge.spool_quota import Keeper, Quota, SpoolFull
from edge.spool_schema import is_damage
from vitals import limits
from vitals.epoch import WrappedEpoch

__all__ = [
    "Backlog",
    "Held",
    "Quota",
    "Ranges",
    "Spool",
    "SpoolFull",
    "Stored",
    "is_damage",
    "open_spool",
    "set_aside",
]

UNSOUND_KEPT: Final = 1_000
"""Frames that failed their checksum, kept for whoever wants to look."""

_BROKEN_HANDLE: Final = frozenset(
    {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM}
)
"""After these the file is opened again: the handle may be of a disk that is no more, or was made
when the disk could only be read."""

Work = Callable[[sqlite3.Connection, Change], None]
"""What is done in one transaction."""


class Ranges(NamedTuple):
    """Inclusive ranges of an epoch that the cloud has."""

    epoch: str
    ranges: Sequence[tuple[int, int]]


class Stored(NamedTuple):
    """What one transaction did."""

    frames: list[Held]
    frames_now: int
    bytes_now: int
    dropped: int
    """Frames that gave way to a quota, of any kind."""
    dropped_quarantine: int = 0
    """Of these, refused input over its own quota."""
    dropped_age: int = 0
    """Of these, over the age."""


class Spool:
    """The file, open. Not for two threads at once, except `Backlog`'s own connection."""

    def __init__(
        self,
        path: Path,
        bytes_max: int,
        *,
        refuse_when_full: bool,
        quarantine_bytes_max: int = limits.QUARANTINE_BYTES_MAX,
        age_ms_max: int | None = None,
        after_id: int = 0,
        wait: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open or create; raise sqlite3.Error (see `is_damage`). Use `open_spool` to recover.

        ``after_id``: new frames get ids after it, for a file that takes a damaged one's place.
        With ``wait`` the disk is not touched yet: `store` opens the file, or raises.
        """
        self.path = path
        quota = Quota(bytes_max, quarantine_bytes_max, age_ms_max, refuse_when_full)
        self._keeper = Keeper(quota, monotonic)
        self._handle: sqlite3.Connection | None = None
        self._was_open = False
        self._begun: set[str] = set()
        self._last_id = after_id
        self.behind_hole = 0
        """Frames that a hole in the journal hid from SQLite and that were found behind it."""
        if not wait:
            self._open()

    @property
    def quota(self) -> Quota:
        """What it may hold; assign to change it, nothing stored is touched by that."""
        return self._keeper.quota

    @quota.setter
    def quota(self, quota: Quota) -> None:
        self._keeper.quota = quota

    @property
    def last_id(self) -> int:
        """Return the id of the newest frame ever stored here."""
        return self._last_id

    @property
    def frames(self) -> int:
        """Return how many frames are stored."""
        return self._stock.total()[0]

    @property
    def is_open(self) -> bool:
        """Tell whether the file is open; if not, the next call tries."""
        return self._handle is not None

    # -- the handle -----------------------------------------------------------------------------

    @property
    def _db(self) -> sqlite3.Connection:
        return self._handle or self._open()

    def _open(self) -> sqlite3.Connection:
        db, behind = spool_schema.connect(self.path)
        try:
            base = spool_schema.about(db, "base") or 1
            newest = db.execute("SELECT coalesce(max(id), 0) FROM frames").fetchone()[0]
            uncounted_to = spool_schema.about(db, "uncounted_to") or 0
            self._last_id = max(base - 1, newest, uncounted_to, self._last_id)
            if not self._was_open:
                self._last_id = spool_aside.reserve(db, self.path, self._last_id)
                self._was_open = True
            self._keeper.opened(self._last_id)
            self._stock = Stock(db)
            if uncounted_to:
                after = spool_schema.about(db, "uncounted_from") or 0
                self._stock.uncounted = after, uncounted_to
                self._transact(
                    db,
                    lambda db, change: spool_upkeep.settle(
                        db, change, self._stock, spool_upkeep.SETTLE_AT_START
                    ),
                )
            if behind:
                keys = epoch_file.read(spool_schema.epochs_path(self.path))
                self._transact(
                    db, lambda db, change: spool_admit.behind_hole(db, change, behind, keys)
                )
                self.behind_hole += len(behind)
                newest = db.execute("SELECT max(id) FROM frames").fetchone()[0]
                self._last_id = max(self._last_id, newest)
            spool_upkeep.prune(db, self._stock)
        except BaseException:
            db.close()
            raise
        self._begun.clear()
        self._handle = db
        return db

    def close(self) -> None:
        """Close the file; what was stored stays."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def transact(self, work: Work) -> None:
        """Do ``work`` in one durable transaction, counts included; raise sqlite3.Error."""
        self._transact(self._db, work)

    def _transact(self, db: sqlite3.Connection, work: Work) -> None:
        change = Change()
        before = self._last_id, self._stock.uncounted
        try:
            with spool_schema.garbled():
                db.execute("BEGIN IMMEDIATE")
                work(db, change)
                change.write(db)
                db.execute("COMMIT")
        except BaseException as error:
            self._last_id, self._stock.uncounted = before
            self._keeper.rewind()
            self._undo(db, error)
            raise
        self._stock.take(change)

    def _undo(self, db: sqlite3.Connection, error: BaseException) -> None:
        if db.in_transaction:
            try:
                db.execute("ROLLBACK")
            except sqlite3.Error:
                self.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN_HANDLE:
            self.close()

    # -- storing --------------------------------------------------------------------------------

    def begin(self, epoch: WrappedEpoch) -> None:
        """Store an epoch before its first frame, durably unless the disk refuses.

        Whatever the disk does, the start goes on: `store` writes it with the first frame.
        """
        with suppress(sqlite3.Error):
            self._write_epoch(self._db, epoch)
            self._begun.add(epoch.epoch)

    def _write_epoch(self, db: sqlite3.Connection, epoch: WrappedEpoch) -> None:
        db.execute(
            "INSERT OR IGNORE INTO epochs VALUES (?, ?, ?, ?, ?)",
            (epoch.epoch, epoch.edge, epoch.key_id, epoch.wrapped, epoch.began_ms),
        )
        epoch_file.add(spool_schema.epochs_path(self.path), epoch)

    def store(
        self,
        epoch: WrappedEpoch,
        frames: Sequence[Sealed],
        counts: Counter[str],
        acks: Iterable[Ranges] = (),
        now_ms: int | None = None,
        unsound: Sequence[int] = (),
        sending: Mapping[str, Mapping[str, int]] | None = None,
    ) -> Stored:
        """Store frames, counts of ``epoch`` and acknowledgements in one durable transaction.

        ``now_ms`` is for the quota by age (None: the newest frame's time). ``unsound`` are
        ids of frames that `Backlog` passed over: they are taken out and kept apart; ``sending``
        counts what was sent, by epoch. Raises
        SpoolFull (nothing of ``frames`` is kept; acknowledgements are not either: call again
        with them alone) or sqlite3.Error (nothing happened).
        """
        held: list[Held] = []
        gone = [0, 0, 0]

        def work(db: sqlite3.Connection, change: Change) -> None:
            for acked in acks:
                for low, high in acked.ranges:
                    self.delete(db, change, acked.epoch, low, high, "acked")
                    spool_acked.note(db, change, acked.epoch, low, high)
            self.set_apart(db, change, unsound)
            spool_upkeep.settle(db, change, self._stock, spool_upkeep.SETTLE_FRAMES)
            gone[:] = self._keeper.make_room(db, change, self._stock, frames, now_ms)
            held.extend(self.insert(db, change, frame) for frame in frames)
            if frames and epoch.epoch not in self._begun:
                self._write_epoch(db, epoch)
            change.counts[epoch.epoch].update(counts)
            for of, sent in (sending or {}).items():
                change.counts[of].update(sent)
            if change.freed:
                spool_upkeep.vacuum(db)

        self.transact(work)
        if frames:
            self._begun.add(epoch.epoch)
        return Stored(held, *self._stock.total(), sum(gone), gone[1], gone[2])

    def insert(
        self,
        db: sqlite3.Connection,
        change: Change,
        frame: Sealed,
        covers: tuple[int | None, int | None] = (None, None),
    ) -> Held:
        """Insert one frame within `transact`; ``covers`` are the ends of what it was made from."""
        size = len(frame.data)
        self._last_id += 1
        db.execute(
            "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._last_id,
                frame.epoch,
                frame.seq,
                frame.lane,
                frame.first_ms,
                frame.last_ms,
                frame.count,
                size,
                frame.data,
                crc32(frame.data),
                *covers,
            ),
        )
        change.level(frame.epoch, frame.lane, 1, frame.count, size)
        highest = change.highest.get(frame.epoch, 0)
        change.highest[frame.epoch] = max(highest, frame.seq)
        return Held(self._last_id, frame.epoch, frame.seq, frame.data, frame.count, frame.lane)

    def delete(
        self, db: sqlite3.Connection, change: Change, epoch: str, low: int, high: int, how: str
    ) -> None:
        """Take frames of a range out within `transact`, and count them as ``how``."""
        for lane, frames, rows, counted, counted_rows, counted_size in db.execute(
            "SELECT lane, count(*), sum(count), sum(id <= ?1 OR id > ?2),"
            " sum(count * (id <= ?1 OR id > ?2)), sum(size * (id <= ?1 OR id > ?2)) FROM frames"
            " WHERE epoch = ?3 AND seq BETWEEN ?4 AND ?5 GROUP BY lane",
            (*self._stock.uncounted, epoch, low, high),
        ):
            change.gone(epoch, lane, how, frames, rows)
            change.level(epoch, lane, -counted, -counted_rows, -counted_size)
        db.execute("DELETE FROM frames WHERE epoch = ? AND seq BETWEEN ? AND ?", (epoch, low, high))

    def set_apart(self, db: sqlite3.Connection, change: Change, ids: Sequence[int]) -> None:
        """Take frames that cannot be sent out within `transact`, and keep them apart."""
        after, to = self._stock.uncounted
        for id_ in ids:
            row = db.execute(
                "SELECT epoch, lane, count, size FROM frames WHERE id = ?", (id_,)
            ).fetchone()
            if row is None:
                continue
            epoch, lane, count, size = row
            db.execute(
                "INSERT OR IGNORE INTO unsound SELECT id, epoch, seq, bytes FROM frames"
                " WHERE id = ?",
                (id_,),
            )
            db.execute("DELETE FROM frames WHERE id = ?", (id_,))
            change.gone(epoch, lane, "unsound", 1, count)
            if not after < id_ <= to:
                change.level(epoch, lane, -1, -count, -size)
        if ids:
            db.execute(
                "DELETE FROM unsound WHERE id <="
                " (SELECT id FROM unsound ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (UNSOUND_KEPT,),
            )

    def note_devices(self, heard: Iterable[tuple[str, DeviceCounts]]) -> None:
        """Add what came from devices since the last call; raise sqlite3.Error."""
        several = iter(heard)
        first = next(several, None)
        if first is not None:
            every = chain([first], several)
            self.transact(lambda db, _change: spool_devices.write(db, every))

    def came_below(self) -> None:
        """Note that frames with old ids came in: they are the oldest now."""
        self._keeper.rewind()


def open_spool(
    path: Path,
    bytes_max: int,
    now_ms: int,
    *,
    refuse_when_full: bool,
    quarantine_bytes_max: int = limits.QUARANTINE_BYTES_MAX,
    age_ms_max: int | None = None,
    after_id: int = 0,
    damaged: bool = False,
    monotonic: Callable[[], float] = time.monotonic,
) -> tuple[Spool, Path | None]:
    """Return the spool, and where a damaged one was set aside (None: it was sound).

    Never raises for what lies on the disk, nor for a disk that is full, read-only or failing: then
    the spool is returned unopened, and `store` raises until it can be opened. ``damaged`` sets
    the file aside without trying it; ``after_id`` is the last id that this process has seen.
    """

    def spool(*, wait: bool = False) -> Spool:
        return Spool(
            path,
            bytes_max,
            refuse_when_full=refuse_when_full,
            quarantine_bytes_max=quarantine_bytes_max,
            age_ms_max=age_ms_max,
            after_id=after_id,
            wait=wait,
            monotonic=monotonic,
        )

    aside: Path | None = None
    try:
        if not damaged:
            try:
                return spool(), None
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
        aside = set_aside(path, now_ms)
        return spool(), aside
    except (sqlite3.Error, OSError):
        return spool(wait=True), aside

"""What can still be read of a spool's file: by SQLite as far as it answers, then page by page.

Law: reads only, in slices, and says nothing of soundness: a row has a frame's shape, `pages.sound`
tells whether it is one. SQLite is asked from the lowest id up and from the highest down. Between
the two places where it gave up the leaf pages of the file and its journal are read as bytes; there
only rows with ids in that gap count, and none on a page known to be free, so that what was deleted
does not come back where that can be known.
"""

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from edge import epoch_file, pages, spool_schema
from edge.pages import Row
from edge.wreck import Wreck
from vitals.epoch import WrappedEpoch

SLICE_FRAMES: Final = 500
SLICE_BYTES: Final = 1024 * 1024
"""Of one slice, whichever comes first: some 20 ms, within what a commit may wait anyway."""

SLICE_PAGES: Final = 256
"""Pages looked at in one slice: 1 MiB."""

ROWS_MAX: Final = 1_000_000
"""Of epochs or counters: 2,000 epochs of some 40 counters, many times over."""

_ID_END: Final = 2**62


class Remains:
    """A spool's file, sound or not. Close it."""

    def __init__(self, path: Path, *, still: bool = False) -> None:
        """Open it for reading; raise OSError when it is not there.

        ``still``: nothing writes to it, so that what is found must be as much as it says it has.
        """
        path.stat()
        self._still = still
        self._path = path
        self._db: sqlite3.Connection | None = None
        with suppress(sqlite3.Error):
            self._db = spool_schema.reader(path)
        self.damaged = False
        """SQLite gave up somewhere; known when `slices` is at its end."""
        self.epochs: dict[str, WrappedEpoch] = {}
        """Those in the file; page by page more may turn up."""
        for row in self.query("SELECT epoch, edge, key_id, wrapped, began_ms FROM epochs"):
            self._learn(pages.as_epoch(list(row)))

    def close(self) -> None:
        """Close it."""
        if self._db is not None:
            self._db.close()

    def _learn(self, epoch: WrappedEpoch | None) -> None:
        if epoch is not None:
            self.epochs.setdefault(epoch.epoch, epoch)

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Return what SQLite answers, as far as it does."""
        rows: list[tuple[Any, ...]] = []
        if self._db is not None:
            with suppress(sqlite3.Error, UnicodeDecodeError):
                for row in self._db.execute(text):
                    rows.append(row)
                    if len(rows) >= ROWS_MAX:
                        break
        return rows

    def counters(self) -> list[tuple[str, str, int]]:
        """Return (epoch, name, value) of those that can be read."""
        return [
            (epoch, name, value)
            for epoch, name, value in self.query("SELECT epoch, name, value FROM counters")
            if isinstance(epoch, str) and isinstance(name, str) and isinstance(value, int)
        ]

    def acked(self) -> list[tuple[str, int, int]]:
        """Return (epoch, first, last) of the acknowledged ranges that can be read."""
        return [
            (epoch, first, last)
            for epoch, first, last in self.query("SELECT epoch, first, last FROM acked")
            if isinstance(epoch, str) and isinstance(first, int) and isinstance(last, int)
        ]

    def second_keys(self, origin: Path) -> None:
        """Learn the epochs that the spool at ``origin`` wrote a second time."""
        for epoch in epoch_file.read(spool_schema.epochs_path(origin)):
            self.epochs[epoch.epoch] = epoch  # its checksum was looked at, a row's cannot be

    def slices(self) -> Iterator[list[Row]]:
        """Yield rows by id where SQLite answers, then what pages hold; may be called again."""
        low, high, seen = 0, self._end(), 0
        if self._db is not None:
            newer, expected = self._shape()
            low, seen = yield from self._by_sql(newer, low, high)
            if low < high:
                high, _ = yield from self._by_sql(newer, low, high, down=True)
            elif self._still and seen != expected:
                low = 0  # it answered to the end, and yet something is missing
        if low < high:
            self.damaged = True
            yield from self._by_pages(low, high)

    def _end(self) -> int:
        """Return the first id not to read: what a running gateway adds meanwhile is not chased."""
        newest = [] if self._still else self.query("SELECT max(id) FROM frames")
        return newest[0][0] + 1 if newest and isinstance(newest[0][0], int) else _ID_END

    def _shape(self) -> tuple[str, int | None]:
        """Return the columns of a frame that schema 2 added, and how many frames there are."""
        names = {row[1] for row in self.query("PRAGMA table_info(frames)")}
        if "covers_to" not in names:
            # Schema 1 has no levels; its counters tell as well.
            rows = self.query(
                "SELECT sum(CASE name WHEN 'frames_spooled' THEN value"
                " WHEN 'frames_acked' THEN -value WHEN 'frames_dropped' THEN -value"
                " ELSE 0 END) FROM counters"
            )
            return "NULL, NULL, NULL", (rows[0][0] or 0) if rows else None
        rows = self.query("SELECT coalesce(sum(frames), 0) FROM levels")
        uncounted = self.query(
            "SELECT count(*) FROM frames WHERE"
            " id > (SELECT value FROM about WHERE name = 'uncounted_from') AND"
            " id <= (SELECT value FROM about WHERE name = 'uncounted_to')"
        )
        expected = rows[0][0] + uncounted[0][0] if rows and uncounted else None
        return "crc, covers_from, covers_to", expected

    def _by_sql(
        self, newer: str, low: int, high: int, *, down: bool = False
    ) -> Generator[list[Row], None, tuple[int, int]]:
        """Yield rows from one end; return where SQLite gave up, or the other end, and how many."""
        seen = 0
        while True:
            rows, reached = self._slice(newer, low, high, down=down)
            seen += len(rows)
            if rows:
                yield rows
            if reached is not None:
                return reached, seen
            if not rows:
                return (low if down else high), seen
            if down:
                high = rows[-1].id
            else:
                low = rows[-1].id

    def _slice(
        self, newer: str, low: int, high: int, *, down: bool
    ) -> tuple[list[Row], int | None]:
        """Return the next rows, and if SQLite failed the last id that can be relied on."""
        rows: list[Row] = []
        size, last = 0, high if down else low
        assert self._db is not None  # noqa: S101 - for the type checker
        try:
            cursor = self._db.execute(
                "SELECT id, epoch, seq, lane, first_ms, last_ms, count, size, bytes,"  # noqa: S608 - fixed texts
                f" {newer} FROM frames WHERE id > ? AND id < ?"
                f" ORDER BY id{' DESC' if down else ''}",
                (low, high),
            )
            try:
                for id_, *columns in cursor:
                    row = pages.as_row(id_, [None, *columns])
                    if (id_ >= last) if down else (id_ <= last):
                        # Some id before this one is wrong: what it leapt over was not seen.
                        return rows, id_ + 1 if down else id_ - 1
                    if row is None:
                        return rows, last
                    rows.append(row)
                    last = id_
                    size += len(row.data)
                    if len(rows) >= SLICE_FRAMES or size >= SLICE_BYTES:
                        break
            finally:
                cursor.close()
        except (sqlite3.Error, UnicodeDecodeError):
            return rows, last
        return rows, None

    def _by_pages(self, low: int, high: int) -> Iterator[list[Row]]:
        with Wreck(self._path) as wreck:
            for begin in range(1, wreck.pages + 1, SLICE_PAGES):
                rows: list[Row] = []
                size = 0
                for number in range(begin, min(begin + SLICE_PAGES, wreck.pages + 1)):
                    for found in wreck.records(number):
                        if isinstance(found, WrappedEpoch):
                            self._learn(found)
                        elif low < found.id < high:
                            rows.append(found)
                            size += len(found.data)
                    if size >= SLICE_BYTES or len(rows) >= SLICE_FRAMES:
                        yield rows
                        rows, size = [], 0
                yield rows  # an empty one as well: it was work

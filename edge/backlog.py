"""Stored frames on their way to the uplink: a reader with its own connection.

Law: reads only, and holds no transaction open. What does not have the checksum it was stored with,
says another name of itself than its row, or has no epoch's key, is never handed out; it is passed
over and its id put into ``unsound``. A session
sees either all that was salvaged from a damaged file or nothing of it: a frame that turned up
below the floor of a session that is open would be taken for one the cloud already has.
"""

import zlib
from pathlib import Path
from typing import Final, NamedTuple

from edge import spool_schema
from vitals import frame
from vitals.epoch import WrappedEpoch
from vitals.errors import FrameError
from vitals.session import Waiting

UNSOUND_MAX: Final = 10_000
"""Frames named in one session; the rest is met again in the next."""


class Held(NamedTuple):
    """One stored frame. ``id`` grows with every frame of every epoch."""

    id: int
    epoch: str
    seq: int
    data: bytes
    rows: int = 0
    """Readings, or rejected inputs, in it."""
    lane: int = 0


class Stored(NamedTuple):
    """What the spool holds when a session begins to send."""

    last_id: int
    frames: int
    lowest: dict[str, int]
    """Epoch -> lowest sequence number stored."""


class Backlog:
    """A reader of stored frames, for the uplink: its own connection, read-only."""

    def __init__(self, path: Path) -> None:
        """Open the spool for reading; raise sqlite3.Error."""
        self._db = spool_schema.reader(path)
        try:
            with spool_schema.garbled():
                hidden = spool_schema.about(self._db, "hidden")
                base = spool_schema.about(self._db, "base") or 1
        except BaseException:
            self._db.close()
            raise
        self._first_id = base if hidden else 1
        self._known: set[str] = set()
        self.unsound: list[int] = []
        """Ids of frames passed over; give them to `Spool.store`, which takes them out."""

    def close(self) -> None:
        """Close it."""
        self._db.close()

    @spool_schema.garbled()
    def last_id(self) -> int:
        """Return the id of the newest frame, or 0."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM frames").fetchone()[0])

    @spool_schema.garbled()
    def epochs(self) -> list[WrappedEpoch]:
        """Return the epochs that have frames, oldest first."""
        lowest = self.lowest()
        rows = self._db.execute(
            "SELECT edge, epoch, key_id, wrapped, began_ms FROM epochs ORDER BY began_ms"
        )
        return [WrappedEpoch(*row) for row in rows if row[1] in lowest]

    @spool_schema.garbled()
    def lowest(self) -> dict[str, int]:
        """Return the lowest stored sequence number of each epoch that has frames."""
        # One seek an epoch: grouping would read the index of every frame.
        rows = self._db.execute(
            "SELECT epochs.epoch, frames.seq, frames.id FROM epochs JOIN frames ON frames.rowid ="
            " (SELECT rowid FROM frames WHERE epoch = epochs.epoch ORDER BY seq LIMIT 1)"
        )
        return {epoch: seq for epoch, seq, id_ in rows if id_ >= self._first_id}

    @spool_schema.garbled()
    def stored(self) -> Stored:
        """Return what is there when a session begins to send."""
        frames = self._db.execute("SELECT coalesce(sum(frames), 0) FROM levels").fetchone()[0]
        return Stored(self.last_id(), max(0, int(frames)), self.lowest())

    @spool_schema.garbled()
    def waiting(self) -> list[Waiting]:
        """Return what is stored of each epoch: first and last number, frames by lane."""
        lowest = self.lowest()
        lanes: dict[str, dict[int, int]] = {}
        for epoch, lane, frames in self._db.execute("SELECT epoch, lane, frames FROM levels"):
            lanes.setdefault(epoch, {})[lane] = frames
        found = []
        for epoch, low in lowest.items():
            row = self._db.execute(
                "SELECT max(seq) FROM frames WHERE epoch = ?", (epoch,)
            ).fetchone()
            frames = {lane: count for lane, count in lanes.get(epoch, {}).items() if count > 0}
            found.append(Waiting(epoch, low, max(low, row[0] or 0), frames))
        return found

    @spool_schema.garbled()
    def after(
        self,
        id_: int,
        last_id: int,
        bytes_max: int,
        count_max: int,
        *,
        newest_first: bool = False,
    ) -> list[Held]:
        """Return frames of ids in (``id_``, ``last_id``], at least one if any."""
        found: list[Held] = []
        size = 0
        rows = self._db.execute(
            "SELECT crc, id, epoch, seq, bytes, count, lane FROM frames WHERE id > ? AND id <= ?"  # noqa: S608
            f" ORDER BY id {'DESC' if newest_first else 'ASC'}",
            (max(id_, self._first_id - 1), last_id),
        )
        try:
            for crc, *row in rows:
                held = Held(*row)
                if not self._sound(held, crc):
                    if len(self.unsound) < UNSOUND_MAX:
                        self.unsound.append(held.id)
                    continue
                size += len(held.data)
                if found and size > bytes_max:
                    break
                found.append(held)
                if len(found) >= count_max:
                    break
        finally:
            rows.close()  # an open cursor would keep the journal from being emptied
        return found

    def _sound(self, held: Held, crc: int | None) -> bool:
        if crc is not None and zlib.crc32(held.data) != crc:
            return False
        try:
            header = frame.read_header(held.data)
        except FrameError:
            return False
        # A wrong number here would become a wrong floor there.
        if (header.epoch, header.seq) != (held.epoch, held.seq):
            return False
        if held.epoch not in self._known:
            row = self._db.execute("SELECT 1 FROM epochs WHERE epoch = ?", (held.epoch,)).fetchone()
            if row is None:
                return False
            self._known.add(held.epoch)
        return True

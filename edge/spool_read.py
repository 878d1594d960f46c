"""What a spool says of itself, for the commands: depth, lanes, counters, whether it is sound.

Law: reads only, beside a running gateway too; shows ids, counts and times, never a device's name.
`read` costs the same however much is stored; `verify` reads everything and says how far it is.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from edge import pages, spool_schema
from edge.pages import Row
from edge.remains import Remains
from edge.spool_change import READINGS, REJECTS, kind
from vitals.frame import Lane

WRONG_MAX: Final = 100
"""Sentences of one `verify`: a file with more wrong is broken as a whole."""

_GONE: Final = ("acked", "dropped", "unsound", "lost")
ASIDE_WORDS: Final = ("damaged", "salvaged", "unknown")
"""What a file put aside is called, by what became of it."""

LANES: Final = {lane.value: lane.name.lower() for lane in Lane}


@spool_schema.garbled()
def read(path: Path, now_ms: int) -> dict[str, Any]:
    """Return depth, age, lanes and counters per epoch of a spool; raise sqlite3.Error."""
    with closing(spool_schema.reader(path)) as db:
        db.execute("BEGIN")  # one consistent view
        levels = _levels(db)
        oldest = db.execute("SELECT first_ms FROM frames ORDER BY id LIMIT 1").fetchone()
        epochs: dict[str, dict[str, int]] = {}
        for epoch, name, value in db.execute("SELECT epoch, name, value FROM counters"):
            epochs.setdefault(epoch, {})[name] = value
        devices = _count(db, "devices")
        unsound = _count(db, "unsound")
    lanes = {name: {"frames": 0, "bytes": 0} for name in LANES.values()}
    for (_, lane), (frames, _, size) in levels.items():
        lanes[LANES.get(lane, "live")]["frames"] += frames
        lanes[LANES.get(lane, "live")]["bytes"] += size
    totals: Counter[str] = Counter()
    for counters in epochs.values():
        totals.update(counters)
    totals.pop("highest_seq", None)
    return {
        "frames": sum(lane["frames"] for lane in lanes.values()),
        "bytes": sum(lane["bytes"] for lane in lanes.values()),
        "oldest_s": None if oldest is None else max(0.0, round((now_ms - oldest[0]) / 1000, 1)),
        "lanes": lanes,
        "totals": dict(totals),
        "epochs": epochs,
        "devices": devices,
        "unsound": unsound,
        "aside": [{"file": file.name, "bytes": file.stat().st_size} for file in asides(path)],
    }


def asides(path: Path) -> list[Path]:
    """Return every file that was put aside beside a spool, whatever became of it."""
    return sorted(
        file for word in ASIDE_WORDS for file in path.parent.glob(f"{path.name}.{word}-*[0-9]")
    )


def _has(db: sqlite3.Connection, table: str) -> bool:
    found = db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return found is not None


def _count(db: sqlite3.Connection, table: str) -> int:
    if not _has(db, table):
        return 0  # a file of schema 1 that no gateway of today has opened yet
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - fixed names


_Levels = dict[tuple[str, int], list[int]]
"""(epoch, lane) -> frames, rows in them, bytes."""


def _levels(db: sqlite3.Connection) -> _Levels:
    levels: _Levels = {}
    after, to = 0, 2**62
    if _has(db, "levels"):
        for epoch, lane, *level in db.execute(
            "SELECT epoch, lane, frames, rows, bytes FROM levels"
        ):
            levels[epoch, lane] = level
        after = spool_schema.about(db, "uncounted_from") or 0
        to = spool_schema.about(db, "uncounted_to") or 0
    if after < to:
        _add(levels, counted(db, after, to))
    return levels


def counted(db: sqlite3.Connection, after: int = 0, to: int = 2**62) -> _Levels:
    """Return the levels by counting the frames of ids in (``after``, ``to``]; reads them all."""
    return {
        (epoch, lane): level
        for epoch, lane, *level in db.execute(
            "SELECT epoch, lane, count(*), sum(count), sum(size) FROM frames"
            " WHERE id > ? AND id <= ? GROUP BY epoch, lane",
            (after, to),
        )
    }


def _add(levels: _Levels, more: _Levels) -> None:
    for key, level in more.items():
        before = levels.get(key, [0, 0, 0])
        levels[key] = [a + b for a, b in zip(before, level, strict=True)]


def verify(path: Path, progress: Callable[[int], None] = lambda _: None) -> list[str]:
    """Read everything; return what is wrong, in words (nothing: it is sound). Raise OSError.

    Looks at every frame's checksum and header, at SQLite's own structures, and at the counts:
    levels against frames, and counters against what is stored.
    """
    wrong: list[str] = []
    with closing(Remains(path, still=origin(path) != path)) as remains:
        seen, without_key = 0, Counter[str]()
        for rows in remains.slices():
            for row in rows:
                wrong += _judge(row)
                if row.epoch not in remains.epochs:
                    without_key[row.epoch] += 1
            seen += len(rows)
            progress(seen)
            if len(wrong) >= WRONG_MAX:
                break
        if remains.damaged:
            wrong.insert(0, "SQLite cannot read all of it: pages are damaged or missing")
        # A gateway that runs may have begun an epoch meanwhile.
        known = {row[0] for row in remains.query("SELECT epoch FROM epochs")}
    wrong += [
        f"epoch {epoch}: its key is missing, {count} frames cannot be opened by anybody"
        for epoch, count in without_key.items()
        if epoch not in known
    ]
    try:
        with spool_schema.garbled(), closing(spool_schema.reader(path)) as db:
            db.execute("BEGIN")
            wrong += _structure(db)
            wrong += list(_counts(db))
    except sqlite3.Error as error:
        wrong.append(f"SQLite gives up: {getattr(error, 'sqlite_errorname', 'error')}")
    return wrong[:WRONG_MAX]


def _judge(row: Row) -> list[str]:
    if pages.sound(row):
        return []
    return [f"frame {row.id} (epoch {row.epoch} seq {row.seq}): its bytes are not what was stored"]


def _structure(db: sqlite3.Connection) -> list[str]:
    rows = db.execute(f"PRAGMA integrity_check({WRONG_MAX})").fetchall()
    if rows == [("ok",)]:
        return []
    return [f"structure: {row[0].splitlines()[0]}" for row in rows]


def _counts(db: sqlite3.Connection) -> Iterator[str]:
    stored = counted(db)
    for (epoch, lane), level in sorted(_levels(db).items()):
        found = stored.get((epoch, lane), [0, 0, 0])
        if level != found:
            yield (
                f"epoch {epoch} lane {LANES.get(lane, lane)}: levels say frames, readings, bytes"
                f" {level}, stored are {found}"
            )
    waiting: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (epoch, lane), (frames, rows, _) in stored.items():
        waiting[epoch]["frames"] += frames
        waiting[epoch][kind(lane)] += rows
    counters: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for epoch, name, value in db.execute("SELECT epoch, name, value FROM counters"):
        counters[epoch][name] = value
    for epoch in sorted(waiting.keys() | counters.keys()):
        have = counters[epoch]
        for what in ("frames", READINGS, REJECTS):
            gone = sum(have.get(f"{what}_{how}", 0) for how in _GONE)
            gone += have.get("frames_merged", 0) if what == "frames" else 0
            spooled = have.get(f"{what}_spooled", 0)
            if spooled != gone + waiting[epoch][what]:
                yield (
                    f"epoch {epoch}: {spooled} {what} spooled, but {gone} gone and"
                    f" {waiting[epoch][what]} stored"
                )


def headers(path: Path, most: int) -> list[Row]:
    """Return the first frames that can be read, whatever state the file is in; raise OSError."""
    found: list[Row] = []
    with closing(Remains(path)) as remains:
        for rows in remains.slices():
            found += rows[: most - len(found)]
            if len(found) >= most:
                break
    return found


def summary(path: Path) -> list[dict[str, Any]]:
    """Return what lies in the file, by epoch and lane, in whatever state it is; raise OSError."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    with closing(Remains(path)) as remains:
        remains.second_keys(origin(path))
        for rows in remains.slices():
            for row in rows:
                one = found.setdefault(
                    (row.epoch, row.lane),
                    {
                        "epoch": row.epoch,
                        "lane": LANES.get(row.lane, str(row.lane)),
                        "frames": 0,
                        "rows": 0,
                        "bytes": 0,
                        "broken": 0,
                        "first_seq": row.seq,
                        "last_seq": row.seq,
                        "first_ms": row.first_ms,
                        "last_ms": row.last_ms,
                    },
                )
                one["frames"] += 1
                one["rows"] += row.rows
                one["bytes"] += len(row.data)
                one["broken"] += not pages.sound(row)
                one["first_seq"] = min(one["first_seq"], row.seq)
                one["last_seq"] = max(one["last_seq"], row.seq)
                one["first_ms"] = min(one["first_ms"], row.first_ms)
                one["last_ms"] = max(one["last_ms"], row.last_ms)
        for one in found.values():
            one["key"] = one["epoch"] in remains.epochs
    return list(found.values())


def origin(path: Path) -> Path:
    """Return the spool that a file put aside was, or the path itself."""
    for word in ASIDE_WORDS:
        name, mark, _ = path.name.partition(f".{word}-")
        if mark:
            return path.with_name(name)
    return path

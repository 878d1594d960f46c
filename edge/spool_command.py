"""``healthsync edge spool status|inspect|verify|export``: the spool on disk, for a technician.

Law: reads only, whether the gateway runs or not; works on a file that was put aside, given by its
path; shows ids, counts, sizes and times, never a device's name or a value (frames stay sealed).
Exit codes: 0 sound or done, 1 `verify` found something wrong, 2 the file cannot be read.
"""

import argparse
import json
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edge import config as config_
from edge import pages, spool_export, spool_read
from edge.config import Config
from edge.pages import Row
from healthsync.runtime import clock
from healthsync.runtime.exits import Exit

FRAMES_MAX: Final = 100_000
"""Lines of one `inspect --frames`."""

PROGRESS_FRAMES: Final = 100_000
"""Between two signs of life of a long `verify`."""


def read_spool(config: Config) -> dict[str, Any]:
    """Return depth, age, lanes, quotas and counters per epoch; raise sqlite3.Error."""
    return spool_read.read(config.spool_path, clock.now_ms()) | {
        "bytes_max": config.spool_bytes_max,
        "quarantine_bytes_max": config.quarantine_bytes_max,
        "age_max_days": config.spool_age_max_days,
        "full": config.spool_full,
    }


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``spool`` and its actions to the parser of ``healthsync edge``."""
    text = "look at the spool on disk"
    actions = commands.add_parser("spool", help=text, description=text).add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    status = actions.add_parser("status", help="frames, bytes, age and counters")
    status.add_argument("--config", type=Path, required=True, metavar="FILE", help="edge.toml")
    _json(status)
    status.set_defaults(
        run=lambda options: show(config_.load(options.config), as_json=options.json)
    )
    inspect = actions.add_parser(
        "inspect", help="what lies in it, epoch by epoch or frame by frame"
    )
    inspect.add_argument("--frames", type=int, metavar="N", help="one line each of the first N")
    _json(inspect)
    _which(inspect, _inspect)
    verify = actions.add_parser("verify", help="read everything and say what is wrong")
    _json(verify)
    _which(verify, _verify)
    export = actions.add_parser("export", help="sealed frames into one file, to carry by hand")
    export.add_argument("--to", type=Path, required=True, metavar="NEW", help="file to make")
    _which(export, _export)


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _which(command: argparse.ArgumentParser, run: object) -> None:
    one = command.add_mutually_exclusive_group(required=True)
    one.add_argument("--config", type=Path, metavar="FILE", help="edge.toml: its spool")
    one.add_argument("file", type=Path, nargs="?", help="a spool's file, also one put aside")
    command.set_defaults(run=run)


def _path(options: argparse.Namespace) -> Path:
    if options.config is None:
        path: Path = options.file
        return path
    return config_.load(options.config).spool_path


def _unreadable(path: Path, error: Exception) -> int:
    what = getattr(error, "sqlite_errorname", type(error).__name__)
    print(f"{path}: cannot be read ({what})", file=sys.stderr)
    return Exit.FAILED


def show(config: Config, *, as_json: bool) -> int:
    """Print `read_spool`; return the exit code."""
    try:
        spool = read_spool(config)
    except sqlite3.Error as error:
        return _unreadable(config.spool_path, error)
    if as_json:
        print(json.dumps(spool, indent=2))
        return Exit.OK
    print(f"{config.edge_id}:")
    oldest = "nothing waits" if spool["oldest_s"] is None else f"oldest {spool['oldest_s']} s"
    print(f"  spool       {spool['frames']} frames, {spool['bytes']} bytes, {oldest}")
    _lanes(spool)
    for name, value in sorted(spool["totals"].items()):
        print(f"    {name:<30}{value}")
    for aside in spool["aside"]:
        print(f"  put aside   {aside['file']}, {aside['bytes']} bytes")
    return Exit.OK


def _lanes(spool: dict[str, Any]) -> None:
    for name, lane in spool["lanes"].items():
        most = spool["quarantine_bytes_max" if name == "quarantine" else "bytes_max"]
        print(f"    {name:<12}{lane['frames']:>9} frames {lane['bytes']:>13} bytes of {most}")


def _inspect(options: argparse.Namespace) -> int:
    path = _path(options)
    try:
        if options.frames is not None:
            rows = spool_read.headers(path, min(options.frames, FRAMES_MAX))
            return _print_frames(rows, as_json=options.json)
        summary = spool_read.summary(path)
    except OSError as error:
        return _unreadable(path, error)
    if options.json:
        print(json.dumps(summary, indent=2))
        return Exit.OK
    for one in summary:
        print(
            f"{one['epoch']} {one['lane']:<10} {one['frames']:>9} frames {one['rows']:>11} rows"
            f" {one['bytes']:>13} bytes  seq {one['first_seq']}..{one['last_seq']}"
            f"  {_when(one['first_ms'])} .. {_when(one['last_ms'])}"
            f"{'' if one['key'] else '  NO KEY'}{_broken(one['broken'])}"
        )
    return Exit.OK


def _broken(count: int) -> str:
    return f"  {count} BROKEN" if count else ""


def _print_frames(rows: list[Row], *, as_json: bool) -> int:
    for row in rows:
        sound = pages.sound(row)
        if as_json:
            fields = row._asdict() | {"bytes": len(row.data), "sound": sound}
            del fields["data"]
            print(json.dumps(fields))
            continue
        lane = spool_read.LANES.get(row.lane, str(row.lane))
        folded = "" if row.covers_from is None else f"  folds {row.covers_from}..{row.covers_to}"
        print(
            f"{row.id:>9} {row.epoch} {row.seq:>9} {lane:<10} {row.rows:>6} rows"
            f" {len(row.data):>8} bytes  {_when(row.first_ms)} .. {_when(row.last_ms)}"
            f"{folded}{'' if sound else '  BROKEN'}"
        )
    return Exit.OK


def _when(ms: int) -> str:
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return "?"  # of a broken row
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _verify(options: argparse.Namespace) -> int:
    path = _path(options)
    told = 0

    def progress(frames: int) -> None:
        nonlocal told
        if frames - told >= PROGRESS_FRAMES:
            told = frames
            print(f"{frames} frames read", file=sys.stderr)

    try:
        wrong = spool_read.verify(path, progress)
    except OSError as error:
        return _unreadable(path, error)
    if options.json:
        print(json.dumps({"file": str(path), "sound": not wrong, "wrong": wrong}, indent=2))
    else:
        print(f"{path}: {'sound' if not wrong else 'NOT sound'}")
        for sentence in wrong:
            print(f"  ! {sentence}")
    return Exit.DEGRADED if wrong else Exit.OK


def _export(options: argparse.Namespace) -> int:
    path = _path(options)
    to: Path = options.to
    try:
        done = spool_export.export(path, to, clock.now_ms(), spool_read.origin(path))
    except FileExistsError:
        print(f"{to}: is there already; choose another name", file=sys.stderr)
        return Exit.USAGE
    except (OSError, spool_export.ExportError) as error:
        return _unreadable(path, error)
    print(f"{to}: {done.frames} frames of {done.epochs} epochs, {done.bytes} bytes, read back")
    if done.left_out:
        print(f"  ! {done.left_out} frames are broken or have no key and were left out")
        return Exit.DEGRADED
    return Exit.OK

"""``healthsync whatif --policy NEW --from SOURCE...``: what another policy would have rung.

Reads recorded data once, replays it under two policies, compares. Changes nothing anywhere.

Exit codes: 0 both ring the same; 1 something rings otherwise; 64 the data is wrong or empty, the
message says where; 69 the archive does not answer; 78 a policy or configuration is wrong.
"""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from cloud.archive.config import ArchiveConfig
from cloud.archive.envelope import ParquetKeys
from cloud.archive.errors import ArchiveError, StoreUnavailable
from cloud.policy.default import DEFAULT
from cloud.policy.model import Policy
from cloud.policy.seal import open_published, publish
from cloud.policy.text import load
from cloud.whatif import files, lines, recorded
from cloud.whatif.errors import DataWrong
from cloud.whatif.page import as_html
from cloud.whatif.replay import Judge
from cloud.whatif.report import Report, compare
from cloud.whatif.table import as_text
from cloud.whatif.ward import Ward
from healthsync.runtime import config as config_
from healthsync.runtime.exits import Exit
from vitals.errors import ConfigError

ARCHIVE: Final = "archive"
STDIN: Final = "-"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


def register(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("--policy", type=Path, required=True, metavar="NEW", help="the policy to try")
    add("--baseline", type=Path, metavar="OLD", help="compare with this; default: the built-in one")
    add(
        "--from",
        dest="sources",
        nargs="+",
        required=True,
        metavar="SOURCE",
        help="the word archive (its bucket, by --config); .parquet files or folders copied from"
        " it (keys by --config); a recorded ward's folder or .csv; any other file, or -: JSON"
        " lines of `healthsync edge decode`",
    )
    add("--config", type=Path, metavar="FILE", help="archive.toml: bucket and keys of the archive")
    add("--start", type=_moment, metavar="TIME", help="measured at or after: 2026-11-23T10:00:00Z")
    add("--end", type=_moment, metavar="TIME", help="measured before")
    add("--gateway", default="", metavar="NAME", help="whose ward's layer holds for JSON lines")
    add("--html", type=Path, metavar="OUT", help="write a page with plots, by itself in one file")
    add("--json", action="store_true", help="the report as one JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare and print; return the exit code."""
    new = _policy(options.policy)
    baseline = DEFAULT if options.baseline is None else _policy(options.baseline)
    ward = Ward(options.start, options.end)
    try:
        _read(options, ward)
    except DataWrong as error:
        print(f"healthsync whatif: {error}", file=sys.stderr)
        return Exit.USAGE
    except ArchiveError as error:
        print(f"healthsync whatif: {error}; see --config", file=sys.stderr)
        return Exit.UNAVAILABLE if isinstance(error, StoreUnavailable) else Exit.USAGE
    except OSError as error:
        print(f"healthsync whatif: {error.filename}: {error.strerror}", file=sys.stderr)
        return Exit.USAGE
    if not len(ward):
        print(f"healthsync whatif: {_nothing(options, ward)}", file=sys.stderr)
        return Exit.USAGE
    for policy in (new, baseline):
        _warn_of_layers(policy, ward)
    began = time.process_time()
    report = compare(ward, Judge(baseline), Judge(new))
    _print_speed(report, time.process_time() - began)
    if options.html is not None:
        try:
            options.html.write_text(as_html(report), encoding="utf-8")
        except OSError as error:
            print(f"healthsync whatif: {options.html}: {error.strerror}", file=sys.stderr)
            return Exit.USAGE
    print(msgspec.json.encode(report).decode() if options.json else as_text(report))
    return Exit.OK if report.alike else Exit.DEGRADED


def _policy(path: Path) -> Policy:
    """Return a policy as whoever receives it has it: sealed, its version of its text."""
    return open_published(publish(load(path), str(path)).text)


def _moment(text: str) -> int:
    """Return a time in milliseconds of UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = datetime.min  # noqa: DTZ901  # without a zone, so refused below
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError("write a time as 2026-11-23T10:00:00Z")
    return (at - _EPOCH) // _MS


def _read(options: argparse.Namespace, ward: Ward) -> None:
    keys: list[ParquetKeys] = []

    def opened() -> ParquetKeys:
        if not keys:
            keys.append(files.keys_of(_settings(options).kms))
        return keys[0]

    for source in options.sources:
        path = Path(source)
        if source == ARCHIVE:
            files.read_store(_settings(options).s3, opened(), ward)
        elif source == STDIN:
            lines.read(sys.stdin.buffer, "stdin", options.gateway, ward)
        elif path.is_dir():
            _read_folder(path, opened, ward)
        elif path.suffix == files.SUFFIX:
            files.read_file(path, opened(), ward)
        elif path.suffix == ".csv":
            recorded.read(path, ward)
        else:
            with path.open("rb") as stream:
                lines.read(stream, source, options.gateway, ward)


def _read_folder(folder: Path, opened: Callable[[], ParquetKeys], ward: Ward) -> None:
    if (folder / recorded.FILE).is_file():
        recorded.read(folder / recorded.FILE, ward)
        return
    found = files.in_folder(folder)
    if not found:
        raise DataWrong(
            f"{folder}: holds neither {recorded.FILE} nor {files.SUFFIX} files; give JSON lines"
            " file by file"
        )
    for path in found:
        files.read_file(path, opened(), ward)


def _settings(options: argparse.Namespace) -> ArchiveConfig:
    if options.config is None:
        raise ConfigError("the archive's files are encrypted; give --config archive.toml")
    return config_.load(options.config, ArchiveConfig)


def _nothing(options: argparse.Namespace, ward: Ward) -> str:
    asked = " between --start and --end" if options.start or options.end else ""
    passed = f"; {ward.passed} lines were none" if ward.passed else ""
    return f"no reading{asked} in {' '.join(options.sources)}{passed}; give recorded data"


def _warn_of_layers(policy: Policy, ward: Ward) -> None:
    """Say what of a policy was not tried, because nobody in the data is known by its names."""
    subjects = ward.subjects()
    origins = {name for origin in ward.origins for name in origin}
    for what, layers in (
        ("ward", [ward_ for ward_ in policy.wards if origins.isdisjoint(ward_.gateways)]),
        ("bed", [bed for bed in policy.beds if bed.device_id not in origins]),
        ("patient", [one for one in policy.patients if one.subject not in subjects]),
    ):
        if layers:
            print(
                f"healthsync whatif: warning: {len(layers)} {what} layers of {policy.version} meet"
                " nobody in this data, so they were not tried",
                file=sys.stderr,
            )


def _print_speed(report: Report, cpu_s: float) -> None:
    lasted_s = (report.end_ms - report.start_ms) / 1000
    factor = f"{lasted_s / cpu_s:.0f} x real time" if cpu_s else "at once"
    print(
        f"healthsync whatif: {lasted_s / 3600:.1f} h of {len(report.beds)} beds under both"
        f" policies in {cpu_s:.1f} s of CPU: {factor}",
        file=sys.stderr,
    )

"""``healthsync audit --config FILE [--json] [--wait SECONDS]``: the table and the exit code.

Exit 0: every acknowledged reading is in every stage exactly once, nothing waits. 1: it is not, or
not yet. 2: a stage cannot be read.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from cloud.archive.reader import open_archive
from cloud.audit.compare import Verdict, compare
from cloud.audit.config import AuditConfig, Edge
from cloud.audit.errors import Unreachable
from cloud.audit.evidence import EpochName, Evidence, Spooled
from cloud.audit.others import connect_redis, project_lag, read_archive, read_spool
from cloud.audit.table import as_text
from cloud.audit.topics import DetectReader, QuarantineReader, SamplesReader, count_after
from healthsync.runtime import config as config_
from healthsync.runtime.exits import Exit

# Between two rounds of --wait; a round reads only what is new.
ROUND_S: Final = 1.0


def register(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="the table as one JSON object")
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="ask again until everything agrees, for at most this long",
    )
    parser.set_defaults(run=_run)


def spools(edges: list[Edge]) -> dict[EpochName, Spooled]:
    """Return all gateways' counters; raises Unreachable."""
    found: dict[EpochName, Spooled] = {}
    for edge in edges:
        found |= read_spool(edge.id, edge.spool)
    return found


def _run(options: argparse.Namespace) -> int:
    settings = config_.load(options.config, AuditConfig)
    deadline = time.monotonic() + options.wait
    while True:
        try:
            with ExitStack() as stack:
                verdict = _until_agreed(_gatherer(settings, stack), deadline)
            break
        except Unreachable as error:
            if time.monotonic() + ROUND_S >= deadline:
                print(f"healthsync audit: {error}", file=sys.stderr)
                return Exit.FAILED
            time.sleep(ROUND_S)
    print(msgspec.json.encode(verdict).decode() if options.json else as_text(verdict))
    return Exit.OK if verdict.verdict == "agrees" else Exit.DEGRADED


def _gatherer(settings: AuditConfig, stack: ExitStack) -> Callable[[], Evidence]:
    """Return what reads every stage once, from the last to the first."""
    archive = open_archive(settings.s3, settings.kms)
    stack.callback(archive.close)
    client = connect_redis(settings.redis)
    stack.callback(client.close)
    detect = DetectReader(settings.kafka)
    stack.callback(detect.close)
    samples = SamplesReader(settings.kafka)
    stack.callback(samples.close)
    quarantine = QuarantineReader(settings.kafka)
    stack.callback(quarantine.close)

    def gather() -> Evidence:
        return Evidence(
            spool_before=spools(settings.edge),
            archive=read_archive(archive),
            detect=detect.read(),
            project_lag=project_lag(client, partial(count_after, settings.kafka)),
            samples=samples.read(),
            quarantine=quarantine.read(),
            spool_after=spools(settings.edge),
            samples_trimmed=samples.trimmed,
        )

    return gather


def _until_agreed(gather: Callable[[], Evidence], deadline: float) -> Verdict:
    while True:
        verdict = compare(gather())
        if verdict.verdict == "agrees" or time.monotonic() + ROUND_S >= deadline:
            return verdict
        time.sleep(ROUND_S)

"""``healthsync audit --config FILE [--since TIME] [--frame NAME] [--json] [--wait SECONDS]``.

The table, or one frame's way, and the exit code. 0: every acknowledged reading is in every stage
exactly once, nothing waits. 1: it is not, or not yet. 2: a stage cannot be read.
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
from cloud.audit import trace
from cloud.audit.compare import Verdict, compare
from cloud.audit.config import AuditConfig, Edge
from cloud.audit.errors import Unreachable
from cloud.audit.evidence import EpochName, Evidence, Spooled
from cloud.audit.others import connect_redis, find_in_spool, project_lag, read_archive, read_spool
from cloud.audit.since import FrameName, frame_name, since
from cloud.audit.table import as_text
from cloud.audit.topics import (
    DetectReader,
    PoisonReader,
    QuarantineReader,
    SamplesReader,
    TopicReader,
    count_after,
)
from cloud.audit.trace import InKafka, InSpool, Trace
from healthsync.runtime import config as config_
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from vitals import topics

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
    parser.add_argument(
        "--since",
        type=since(now_ms),
        metavar="TIME",
        help="only epochs with anything newer: 2026-11-23T10:00:00Z, or 2h, 30m, 7d ago",
    )
    parser.add_argument(
        "--frame",
        type=frame_name,
        metavar="EDGE/EPOCH/SEQ",
        help="one frame's way through every stage instead of the table",
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
                judge = _tracer if options.frame else _judge
                verdict = _until_agreed(judge(settings, options, stack), deadline)
            break
        except Unreachable as error:
            if time.monotonic() + ROUND_S >= deadline:
                print(f"healthsync audit: {error}", file=sys.stderr)
                return Exit.FAILED
            time.sleep(ROUND_S)
    said = trace.as_text(verdict) if isinstance(verdict, Trace) else as_text(verdict)
    print(msgspec.json.encode(verdict).decode() if options.json else said)
    return Exit.OK if verdict.verdict == "agrees" else Exit.DEGRADED


def _judge(
    settings: AuditConfig, options: argparse.Namespace, stack: ExitStack
) -> Callable[[], Verdict]:
    """Return what reads every stage once and compares."""
    gather = _gatherer(settings, options.since or 0, stack)

    def once() -> Verdict:
        evidence = gather()
        only = None if options.since is None else evidence.since(options.since)
        return compare(evidence, only)

    return once


def _tracer(
    settings: AuditConfig, options: argparse.Namespace, stack: ExitStack
) -> Callable[[], Trace]:
    """Return what follows one frame through every stage once."""
    name: FrameName = options.frame
    archive = open_archive(settings.s3, settings.kms)
    stack.callback(archive.close)
    detect = DetectReader(settings.kafka)
    stack.callback(detect.close)
    spool = next((edge.spool for edge in settings.edge if edge.id == name.epoch.edge), None)
    topics_ = {}
    for topic in (topics.SAMPLES, topics.QUARANTINE):
        topics_[topic.name] = TopicReader(settings.kafka, topic)
        stack.callback(topics_[topic.name].close)
    kafka: list[InKafka] = []

    def once() -> Trace:
        held = InSpool("no spool listed") if spool is None else find_in_spool(spool, name)
        kafka.extend(trace.in_samples(topics_[topics.SAMPLES.name].new(), name))
        kafka.extend(trace.in_quarantine(topics_[topics.QUARANTINE.name].new(), name))
        at = trace.places(kafka)
        taken = trace.in_detect(detect.read(), name, at)
        return trace.judge(name, held, kafka, taken, trace.in_archive(archive, name, at))

    return once


def _gatherer(settings: AuditConfig, since_ms: int, stack: ExitStack) -> Callable[[], Evidence]:
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
    poison = PoisonReader(settings.kafka, since_ms)
    stack.callback(poison.close)

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
            poison=poison.read(),
        )

    return gather


def _until_agreed(
    once: Callable[[], Verdict] | Callable[[], Trace], deadline: float
) -> Verdict | Trace:
    while True:
        answer = once()
        if answer.verdict == "agrees" or time.monotonic() + ROUND_S >= deadline:
            return answer
        time.sleep(ROUND_S)

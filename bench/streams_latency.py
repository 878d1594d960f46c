"""The latency part of `bench.streams`: from a record to its alert, at stated rates.

Law: load, probes and both consumers are processes of their own, on the same cores as everything.
Two readers of ``alerts``: one that takes what is not committed yet, as a sink may whose writes are
idempotent by the episode's id; and one that reads committed.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from bench import streams_sides as sides
from bench.path import TapProcess
from bench.processes import cpu_s, process
from bench.streams_kafka import Kafka, running
from bench.streams_run import contending, warmed
from bench.streams_sides import Side
from bench.uplink import Goals

WARM_S: Final = 40
SECONDS: Final = 20
"""Measured at each rate."""

UNCOMMITTED_P99_MS: Final = {1_000: 25.0, 10_000: 50.0}
"""Goals by samples a second."""
COMMITTED_P99_MS: Final = 60.0

FEED_S_MAX: Final = 120.0
SETTLE_S: Final = 1.0
READERS: Final = ("read_uncommitted", "read_committed")


class Waits(NamedTuple):
    """What both readers saw, and the contender's share of a core."""

    seen: dict[str, dict[str, Any]]
    fed: dict[str, Any]
    core: float


def measure(side: Side, rate: int) -> Waits:
    """Measure one contender at a rate of samples a second."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running() as kafka, contending(side, kafka) as (child,):
        warmed(side, kafka, [child], "live", int(time.time() * 1000))
        feed_command = _program("feed", kafka, f"--rate={rate}", f"--seconds={WARM_S + SECONDS}")
        with (
            process(feed_command, kafka.folder / "feed.log", **pipes) as feeding,
            process(_watch(kafka, READERS[0]), kafka.folder / "watch-0.log", **pipes) as first,
            process(_watch(kafka, READERS[1]), kafka.folder / "watch-1.log", **pipes) as second,
        ):
            feed = TapProcess(feeding)
            watches = dict(zip(READERS, (TapProcess(first), TapProcess(second)), strict=True))
            feed.say("go")
            time.sleep(WARM_S)
            for watch in watches.values():
                watch.ask("mark")
            used_s, since_s = cpu_s(child.pid), time.monotonic()
            fed = feed.hear()
            used_s, took_s = cpu_s(child.pid) - used_s, time.monotonic() - since_s
            time.sleep(SETTLE_S)
            seen = {name: watch.ask("tell") for name, watch in watches.items()}
            return Waits(seen, fed, used_s / took_s)


def _program(name: str, kafka: Kafka, *more: str) -> list[str]:
    module = f"bench.streams_{name}"
    return [sys.executable, "-m", module, f"--bootstrap={kafka.bootstrap}", *more]


def _watch(kafka: Kafka, isolation: str) -> list[str]:
    return _program("watch", kafka, f"--isolation={isolation}")


def latency(goals: Goals, contenders: Sequence[Side], rates: Sequence[int]) -> None:
    """Print each contender's latency at each rate and judge ours."""
    for rate in rates:
        for side in contenders:
            found = measure(side, rate)
            for name, one in found.seen.items():
                print(
                    f"{side.name:<24} {rate:>6} samples/s  {name:<16} p50 {one['p50']:6.1f} ms"
                    f"  p99 {one['p99']:6.1f} ms  max {one['max']:6.1f} ms"
                    f"  ({one['measured']} probes; {found.core:.0%} of a core;"
                    f" fed {found.fed['late_ms']:.0f} ms late at most)",
                    flush=True,
                )
            if side is sides.OURS:
                judge(goals, rate, found)


def judge(goals: Goals, rate: int, found: Waits) -> None:
    """Hold ours against the goals."""
    uncommitted, committed = (found.seen[name]["p99"] for name in READERS)
    if rate in UNCOMMITTED_P99_MS:
        what = f"p99 ms to an alert at {rate} samples/s"
        goals.judge(f"{what}, uncommitted", uncommitted, UNCOMMITTED_P99_MS[rate])
        goals.judge(f"{what}, committed", committed, COMMITTED_P99_MS)

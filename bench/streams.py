"""The stream engine beside its peers: `python -m bench.streams`, part of `make bench`.

Law: every contender does the same job on the same records, one after the other, each with a Kafka
of its own, all of it on the same cores. What they wrote is compared before a number is printed.
Ends with 1 when a goal is missed or a contender did another job.

The job: read ``samples``, take each frame once, write five vital-signs Observations a sample as
transaction Bundles to ``fhir``, judge SpO2 < 90 % and heart rate > 130 /min with 10 s of delay
and with hysteresis, tell ``alerts``, keep the state in a changelog, exactly once.
"""

import argparse
import collections
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from bench import streams_sides as sides
from bench.processes import cpu_s
from bench.streams_data import SHAPES, Keyed, Plan, backlog
from bench.streams_kafka import Kafka, running
from bench.streams_latency import latency
from bench.streams_policy import bundles
from bench.streams_run import WORK_S_MAX, contending, warmed
from bench.streams_sides import Side
from bench.streams_state import SUBJECTS, state
from bench.uplink import Goals
from cloud.records import decode_samples

SAMPLES: Final = 1_000_000
SECONDS: Final = 100
"""Each subject says a sample a second for so long."""

THROUGHPUT_GOAL: Final = 3.0
"""Times the peer's samples a second, at least."""
PROCESSES: Final = (1, 2, 4)
"""Consumers of one group, for the table of scale-out."""

DEFAULT: Final = ("ours", "kafka-streams")
"""Who takes part unless it is said."""

PARTS: Final = ("throughput", "latency", "state", "scale")

CPU_GOAL: Final = 4.0
"""Times less CPU a sample than the peer, at least."""


class Run(NamedTuple):
    """One contender's numbers on one shape."""

    samples_s: float
    cpu_us: float
    """Of its processes, a sample."""
    broker_us: float
    raised: "collections.Counter[tuple[str, str, int, int]]"


def differences(kafka: Kafka, records: Sequence[Keyed]) -> list[str]:
    """Compare all Bundles with what our templates give; return what differs, field by field."""
    wanted = collections.Counter(
        message for record in records for message in bundles(decode_samples(record.value))
    )
    # Ours tells alerts there too, as DetectedIssue; the peers do not.
    found = collections.Counter(
        (key, value) for key, value in kafka.committed("fhir") if b"DetectedIssue/" not in value
    )
    if wanted == found:
        return []
    # The same content in other bytes is as good.
    said = [
        collections.Counter({(key, canonical(value)): n for (key, value), n in some.items()})
        for some in (wanted, found)
    ]
    if said[0] == said[1]:
        return []
    missing, extra = said[0] - said[1], said[1] - said[0]
    out = [f"{missing.total()} Bundles are missing, {extra.total()} are not as they should be"]
    if missing and extra:
        a, b = (json.loads(min(some)[1]) for some in (missing, extra))
        shown = [f"{path}: {one!r:.80} != {two!r:.80}" for path, one, two in walk("", a, b)]
        out += shown[:10]
    return out


def canonical(value: bytes) -> str:
    """Return JSON with sorted names."""
    return json.dumps(json.loads(value), sort_keys=True)


def walk(path: str, one: Any, two: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two JSON values differ."""
    if isinstance(one, dict) and isinstance(two, dict):
        for name in sorted({*one, *two}):
            yield from walk(f"{path}.{name}", one.get(name), two.get(name))
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for at, (a, b) in enumerate(zip(one, two, strict=True)):
            yield from walk(f"{path}[{at}]", a, b)
    elif one != two:
        yield path, one, two


def run(
    side: Side,
    shape: str,
    records: Sequence[Keyed],
    plan: Plan,
    count: int = 1,
) -> Run:
    """Measure one contender on a plan's records; raise RuntimeError when it did another job."""
    with running() as kafka, contending(side, kafka, count) as children:
        warm = warmed(side, kafka, children, shape, plan.end_ms)
        wrong = [] if side is sides.OURS_WHOLE else differences(kafka, warm)
        if wrong:
            raise RuntimeError(f"{side.name}, {shape}: " + "; ".join(wrong))
        with kafka.loaded(records):
            time.sleep(1)
            before = sum(cpu_s(child.pid) for child in children)
            broker = cpu_s(kafka.pid)
            since_s = time.monotonic()
        kafka.wait(side.group, children, WORK_S_MAX)
        took_s = time.monotonic() - since_s
        used_s = sum(cpu_s(child.pid) for child in children) - before
        broker = cpu_s(kafka.pid) - broker
        us = 1e6 / plan.samples
        return Run(plan.samples / took_s, used_s * us, broker * us, kafka.raised())


def throughput(goals: Goals, contenders: Sequence[Side], samples: int) -> None:
    """Print each shape's table, ours against the best peer."""
    now_ms = int(time.time() * 1000)
    for shape, records_of in SHAPES.items():
        plan = Plan(samples // SECONDS, SECONDS, now_ms)
        records = list(records_of(plan))
        print(
            f"{shape}: {plan.samples} samples of {plan.subjects} subjects in {len(records)}"
            f" records, {plan.samples / len(records):.1f} samples each",
            flush=True,
        )
        done: dict[str, Run] = {}
        for side in contenders:
            one = done[side.name] = run(side, shape, records, plan)
            print(
                f"  {side.name:<28} {one.samples_s:>9,.0f} samples/s  {one.cpu_us:6.1f} µs CPU a"
                f" sample  (Kafka {one.broker_us:.1f})  {one.raised.total()} alerts raised",
                flush=True,
            )
        compare(goals, shape, done)


def compare(goals: Goals, shape: str, done: dict[str, Run]) -> None:
    """Judge ours against the peers' best; raise RuntimeError when alerts differ."""
    same = [one for name, one in done.items() if name != sides.OURS_WHOLE.name]
    if len({frozenset(one.raised.items()) for one in same}) > 1:
        raise RuntimeError(f"{shape}: the contenders did not raise the same alerts")
    ours = done.get(sides.OURS.name)
    ours_too = {sides.OURS.name, sides.OURS_WHOLE.name}
    peers = [one for name, one in done.items() if name not in ours_too]
    if ours is None or not peers:
        return
    rate = ours.samples_s / max(one.samples_s for one in peers)
    cpu = min(one.cpu_us for one in peers) / ours.cpu_us
    goals.judge(f"times the best peer's throughput, {shape}", rate, THROUGHPUT_GOAL, least=True)
    goals.judge(f"times less CPU a sample than the best peer, {shape}", cpu, CPU_GOAL, least=True)


def scale(samples: int) -> None:
    """Print our throughput on a backlog by processes."""
    plan = Plan(samples // SECONDS, SECONDS, int(time.time() * 1000))
    records = list(backlog(plan))
    for count in PROCESSES:
        one = run(sides.OURS, "backlog", records, plan, count)
        print(
            f"ours, {count} processes, backlog: {one.samples_s:>9,.0f} samples/s "
            f" {one.cpu_us:6.1f} µs CPU a sample, on {os.cpu_count()} cores with Kafka",
            flush=True,
        )


def _everyone() -> dict[str, Side]:
    made = (
        sides.OURS,
        sides.OURS_WHOLE,
        sides.kafka_streams("kafka-streams"),
        sides.kafka_streams("kafka-streams-memory", store="memory"),
        sides.QUIX,
    )
    return {side.name: side for side in made}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--small", action="store_true", help="100,000 samples")
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--sides", nargs="*", help="of: " + ", ".join(_everyone()))
    parser.add_argument("--rates", type=int, nargs="*", default=[1_000, 10_000])
    options = parser.parse_args()
    # Told to end, every process that was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    goals = Goals()
    contenders = [side for name, side in _everyone().items() if name in (options.sides or DEFAULT)]
    sides.build_kafka_streams()
    if sides.QUIX in contenders:
        sides.build_quix()
    cores, load = os.cpu_count(), os.getloadavg()[0]
    print(f"{cores} cores, of others' work before: load {load:.1f}; only an idle machine's count")
    samples = SAMPLES // 10 if options.small else options.samples
    if "throughput" in options.parts:
        throughput(goals, contenders, samples)
    if "latency" in options.parts:
        latency(goals, contenders, options.rates)
    if "state" in options.parts:
        state(goals, contenders, SUBJECTS // 10 if options.small else SUBJECTS)
    if "scale" in options.parts:
        scale(samples)
    return 1 if goals.missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""From a bedside line to Kafka, in numbers: `python -m bench.uplink`, part of `make bench`.

Law: one run, everything durable (fsync at the gateway, acks=all), all of it and the load on the
same cores. The peer, rsyslog with a disk queue and omkafka over TLS, gets the same load and probe
against the same Kafka. A number that was not measured is not printed. Ends with 1 when a goal is
missed: on two quiet cores, with everything of it on them.
"""

import argparse
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.path import TapProcess, Way, running
from bench.processes import cpu_s, load, process, wait_for_port
from onebox import ports

PER_LINE = 6
"""Readings in a line of `bench.load`."""

SECONDS = 20.0
"""Measured at each rate."""

WARM_S = 10.0
"""Before it: Kafka compiles what it does often, and the first seconds tell of that alone."""

DRAIN_S_MAX = 600.0

LIVE_P99_MS = {1_000: 25.0, 10_000: 50.0}
"""Goals by readings a second; other rates have none."""

DRAIN_S_GOAL = 60.0
DRAIN_LIVE_P99_MS = 100.0
INGEST_GOAL = 150_000
"""Readings a second of ingest's CPU."""


class Goals:
    """Says of each number whether it is good enough, and remembers if one was not."""

    def __init__(self) -> None:
        """Begin with none missed."""
        self.missed = 0

    def judge(self, what: str, value: float, goal: float, *, least: bool = False) -> None:
        """Print one line; ``least``: the value has to reach the goal, not to stay below it."""
        met = value >= goal if least else value <= goal
        self.missed += not met
        word, sign = "met   " if met else "MISSED", ">=" if least else "<="
        print(f"  {word} {what}: {value:,.1f}, goal {sign} {goal:,.0f}", flush=True)


def latency(way: Way, goals: Goals, samples: int, connections: int) -> None:
    """Print ours and the peer's latency at a rate of readings a second."""
    line = way.plan.ports["line"]
    with way.tap("samples", line) as tap:
        p99 = ours(way, tap, line, samples, connections)
    if samples in LIVE_P99_MS:
        goals.judge(f"p99 ms at {samples} readings/s", p99, LIVE_P99_MS[samples])
    peer(way, samples, connections)


def ours(way: Way, tap: TapProcess, port: int, samples: int, connections: int) -> float:
    """Print our side; return its p99 in milliseconds."""
    rate = samples / PER_LINE
    log = way.plan.run.log / "load"
    with load(port, connections, rate, int(rate * WARM_S), log) as sender:
        sender.run()
    with load(port, connections, rate, int(rate * SECONDS), log) as sender:
        time.sleep(1)
        tap.ask("mark")
        before, wire = way.cpu(), way.wire_bytes()
        said = sender.run()
        time.sleep(0.5)
        found, after = tap.ask("tell"), way.cpu()
        wire = way.wire_bytes() - wire
    sent = said["sent"] * PER_LINE
    used = {name: after[name] - before[name] for name in after}
    show("ours", samples, found)
    share = ", ".join(f"{name} {used[name] / said['seconds']:.0%}" for name in sorted(used))
    print(f"         of a core: {share}")
    print(
        f"         {wire / found['readings']:.1f} bytes a reading on the wire, inside TLS;"
        f" {found['readings']:.0f} of {sent + found['probes']:.0f} readings in Kafka;"
        f" {sent / used['ingest']:,.0f} a second of ingest's CPU",
        flush=True,
    )
    return float(found["p99"])


def show(name: str, samples: int, found: dict[str, float]) -> None:
    """Print one side's latency."""
    print(
        f"{name:<8} {samples:>6} readings/s  p50 {found['p50']:6.1f} ms  p99 {found['p99']:6.1f} ms"
        f"  max {found['max']:6.1f} ms  ({found['measured']:.0f} of {found['probes']:.0f} probes)",
        flush=True,
    )


def peer(way: Way, samples: int, connections: int) -> None:
    """Print rsyslog's side, if it has its Kafka module."""
    if not list(Path("/usr/lib").glob("*/rsyslog/omkafka.so")):
        print("rsyslog  not measured: apt install rsyslog-kafka")
        return
    folder = Path(tempfile.mkdtemp(dir=way.plan.run.tmp))
    (port,) = ports.free(1)
    admin = way.plan.certificates["admin"]
    text = (Path(__file__).parent / "peers" / "rsyslog-kafka.conf").read_text()
    for name, value in (
        ("DIR", folder),
        ("IN", port),
        ("BROKER", f"127.0.0.1:{way.plan.ports['kafka']}"),
        ("TOPIC", "peer"),
        ("CA", way.plan.ca_file),
        ("CERT", admin.cert),
        ("KEY", admin.key),
    ):
        text = text.replace(f"@{name}@", str(value))
    conf = folder / "rsyslog.conf"
    conf.write_text(text)
    command = ["/usr/sbin/rsyslogd", "-n", "-f", str(conf), "-i", str(folder / "pid")]
    rate = samples / PER_LINE
    with process(command, folder / "log") as child:
        wait_for_port(port, child)
        log = folder / "load"
        with (
            way.tap("peer", port) as tap,
            load(port, connections, rate, int(rate * SECONDS), log) as sender,
        ):
            with load(port, connections, rate, int(rate * WARM_S), log) as warm:
                warm.run()
            tap.ask("mark")
            before = cpu_s(child.pid)
            said = sender.run()
            time.sleep(0.5)
            found = tap.ask("tell")
            used = cpu_s(child.pid) - before
    show("rsyslog", samples, found)
    print(f"         of a core: rsyslog {used / said['seconds']:.0%}, disk queue without fsync")
    shutil.rmtree(folder)


def backlog(way: Way, goals: Goals, samples: int, live: int) -> None:
    """Spool with the link down, let it return under live load; print how it drains."""
    proxy, line = way.services["haproxy-edge"], way.plan.ports["line"]
    log = way.plan.run.log / "load"
    lines = samples // PER_LINE
    proxy.stop()
    way.until(lambda: way.edge("link_up") == 0, 20, "the link to fall")
    began = way.edge("lines_total")
    with load(line, 40, 0, lines, log) as sender:
        since = time.monotonic()
        sender.run()
        way.until(lambda: way.edge("lines_total") - began >= lines, 300, "all lines committed")
        took = time.monotonic() - since
    time.sleep(15)  # the last of it is folded
    frames, size = way.edge("spool_frames"), way.edge("spool_bytes")
    print(
        f"spooled  {samples} readings in {took:.0f} s: {frames:.0f} frames,"
        f" {size / samples:.2f} bytes a reading",
        flush=True,
    )
    rate = live / PER_LINE
    with (
        way.tap("samples", line, probe=200) as tap,
        load(line, 40, rate, int(rate * 30), log) as sender,
    ):
        before, wire = way.cpu(), way.wire_bytes()
        talking = threading.Thread(target=sender.run)
        talking.start()
        proxy.start()
        way.until(lambda: way.edge("link_up") == 1, 30, "the link to return")
        tap.ask("mark")
        up = time.monotonic()
        way.until(lambda: way.edge("late_frames") > 0, 10, "the backlog to be seen")
        way.until(lambda: way.edge("late_frames") == 0, DRAIN_S_MAX, "the backlog to drain")
        took = time.monotonic() - up
        found, after = tap.ask("tell"), way.cpu()
        talking.join()
        wire = way.wire_bytes() - wire
        all_ = tap.ask("tell")["readings"]
    # A service that was started anew has used nothing before.
    used = {name: after[name] - before.get(name, 0.0) for name in after if name != "haproxy-edge"}
    show("drain", live, found)
    print(
        f"         drained in {took:.0f} s (seen every 2 s), {found['readings']:.0f} readings in"
        f" Kafka: {found['readings'] / took:,.0f} a second,"
        f" {found['readings'] / used['ingest']:,.0f} a second of ingest's CPU"
    )
    share = ", ".join(f"{name} {used[name] / took:.0%}" for name in sorted(used))
    print(f"         of a core: {share}; {wire / all_:.2f} bytes a reading on the wire")
    goals.judge("seconds to drain", took, DRAIN_S_GOAL)
    goals.judge("live p99 ms meanwhile", found["p99"], DRAIN_LIVE_P99_MS)
    per_core = found["readings"] / used["ingest"]
    goals.judge("readings a second of ingest's CPU", per_core, INGEST_GOAL, least=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backlog", type=int, default=3_456_000, help="readings; 0: none")
    parser.add_argument("--rates", type=int, nargs="*", default=[1_000, 10_000])
    options = parser.parse_args()
    folder, goals = Path(tempfile.mkdtemp(prefix="hs-bench-")), Goals()
    try:
        with running(folder / "run") as way:
            for samples in options.rates:
                latency(way, goals, samples, 200)
            if options.backlog:
                backlog(way, goals, options.backlog, 1_000)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if goals.missed else 0


if __name__ == "__main__":
    sys.exit(main())

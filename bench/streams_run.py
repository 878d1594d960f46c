"""A contender, started and warmed: what every part of `bench.streams` begins with."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.processes import process
from bench.streams_data import SHAPES, Keyed, Plan
from bench.streams_kafka import Kafka
from bench.streams_sides import Side

WARM: Final = Plan(500, 100, 0, first=900_000)
"""Before anything is measured: compiles the peer and Kafka, and is compared with what is right."""

START_S_MAX: Final = 120.0
WORK_S_MAX: Final = 600.0


def started(line: str, log: Path, child: Any) -> None:
    """Wait until a process wrote ``line`` into its log."""
    ends_s = time.monotonic() + START_S_MAX
    while line not in log.read_text():
        if child.poll() is not None:
            raise RuntimeError(f"a contender ended with {child.returncode}: {log.read_text()}")
        if time.monotonic() > ends_s:
            raise TimeoutError(f"a contender did not say {line!r}")
        time.sleep(0.01)


@contextlib.contextmanager
def contending(side: Side, kafka: Kafka, count: int = 1) -> Iterator[list[Any]]:
    """Run ``count`` processes of a contender while in the block, ready."""
    with contextlib.ExitStack() as stack:
        children = []
        for number in range(count):
            identity = f"bench-{number + 1}"
            log = kafka.folder / f"{identity}.log"
            command = side.command(kafka.bootstrap, identity, kafka.folder)
            child = stack.enter_context(process(command, log))
            started(side.ready, log, child)
            children.append(child)
        yield children


def warmed(
    side: Side, kafka: Kafka, children: Sequence[Any], shape: str, end_ms: int
) -> list[Keyed]:
    """Let a contender take `WARM`, the last of it at ``end_ms``; return what it took."""
    records = list(SHAPES[shape](WARM._replace(end_ms=end_ms)))
    with kafka.loaded(records):
        pass
    kafka.wait(side.group, children, WORK_S_MAX)
    return records

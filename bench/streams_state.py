"""The state part of `bench.streams`: memory a subject, and how long a killed one takes to return.

Law: killed means SIGKILL, amid nothing: everything was committed. The time is from the start of
the new process, its interpreter or JVM included, until it takes records.
"""

import time
from collections.abc import Sequence
from typing import Final

from bench import streams_sides as sides
from bench.processes import resident_mb
from bench.streams_data import Plan, backlog
from bench.streams_kafka import running
from bench.streams_run import WORK_S_MAX, contending, warmed
from bench.streams_sides import Side
from bench.uplink import Goals

SUBJECTS: Final = 100_000
SECONDS: Final = 2
"""Each says as many samples: enough to be remembered."""

RESTORE_S_GOAL: Final = 5.0
SUBJECT_BYTES_GOAL: Final = 2_000


def state(goals: Goals, contenders: Sequence[Side], subjects: int) -> None:
    """Print memory a subject and the time to return; judge ours."""
    for side in contenders:
        bytes_each, back_s = measure(side, subjects)
        print(
            f"{side.name:<24} {subjects} subjects: {bytes_each:,.0f} bytes of memory each;"
            f" killed, ready again in {back_s:.1f} s",
            flush=True,
        )
        if side is sides.OURS:
            goals.judge("bytes of memory a subject", bytes_each, SUBJECT_BYTES_GOAL)
            goals.judge("s from a kill to ready", back_s, RESTORE_S_GOAL)


def measure(side: Side, subjects: int) -> tuple[float, float]:
    """Return bytes a subject and seconds until ready."""
    with running() as kafka:
        with contending(side, kafka) as (child,):
            now_ms = int(time.time() * 1000)
            warmed(side, kafka, [child], "backlog", now_ms)
            before_mb = resident_mb(child.pid)
            with kafka.loaded(backlog(Plan(subjects, SECONDS, now_ms))):
                pass
            kafka.wait(side.group, [child], WORK_S_MAX)
            grown_mb = resident_mb(child.pid) - before_mb
            child.kill()
            child.wait()
        since_s = time.monotonic()
        with contending(side, kafka):
            return grown_mb * 1e6 / subjects, time.monotonic() - since_s

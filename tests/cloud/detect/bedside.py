"""One patient on one monitor behind one gateway, as a partition sees it."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from cloud.detect.made import Made
from cloud.policy.model import Policy
from cloud.records import AlertEvent, Command, Instruction, Presence, SamplesRecord
from tests.cloud.detect.policies import limits_only
from tests.cloud.detect.records_of import EDGE, T0, device, reading, record, subject_in
from tests.cloud.detect.turns import FIRST_MS, Log
from vitals.columns import Source
from vitals.reading import DeviceAlert

NUMBER = 3
SUBJECT = subject_in(NUMBER)
MONITOR = device(1000)
LIMITS = limits_only()


def presence(connected: bool = True, edge: str = EDGE) -> Presence:
    return Presence(edge, connected, T0)


class Bedside(Log):
    """Frames are numbered and commands identified by themselves."""

    def __init__(self, policy: Policy = LIMITS, number: int = NUMBER) -> None:
        super().__init__(number, policy)
        self._seq = 0
        self._ids = 0

    def frame(
        self,
        second: float,
        *,
        ingested_s: float | None = None,
        edge: str = EDGE,
        **values: float,
    ) -> SamplesRecord:
        """Return the next frame: values by vital at ``second``, arriving at once unless said."""
        at = T0 + round(second * 1000)
        rows = [(SUBJECT, reading(name, value, at)) for name, value in values.items()]
        arrived = at if ingested_s is None else T0 + round(ingested_s * 1000)
        made = record(self._seq, rows, ingested_ms=arrived, edge=edge)
        self._seq += 1
        return made

    def values(self, begin: int, end: int, **values: float) -> Made:
        """Give the same values every second of [begin, end) in one turn, at the last one's time."""
        frames = [
            self.frame(second, ingested_s=None, edge=EDGE, **values) for second in range(begin, end)
        ]
        return self.give(frames, at(end - 1))

    def alarm(
        self,
        second: float,
        *,
        ingested_s: float | None = None,
        device: str = MONITOR,
        **fields: Any,
    ) -> Made:
        """Give one alarm of the monitor itself."""
        time_ms = at(second)
        base = DeviceAlert(196648, "MDC_EVT_HI", time_ms, time_ms, id="A1", priority="medium")
        arrived = at(second if ingested_s is None else ingested_s)
        frame = record(self._seq, [], ingested_ms=arrived)
        self._seq += 1
        frame.columns.sources.append(Source(device, SUBJECT))
        frame.columns.alerts.append((0, msgspec.structs.replace(base, **fields)))
        return self.give([frame], arrived)

    def order(self, kind: str, episode: str = "", **fields: Any) -> Command:
        """Return a command of a nurse."""
        self._ids += 1
        base = Command(f"{self._ids:032x}", kind, SUBJECT, "nurse-1", T0, "seen", episode)
        return msgspec.structs.replace(base, **fields)

    def do(self, second: float, *orders: Instruction) -> Made:
        """Give a turn of instructions."""
        return self.give([], at(second), list(orders))

    def clock(self, second: float) -> list[AlertEvent]:
        """Let the clock act, going on from when it was last looked at, without a pause."""
        told = []
        last_ms = self.partition._ticked_ms
        while FIRST_MS < last_ms < at(second) - STEP_MS:
            last_ms += STEP_MS
            told += self.tick(last_ms)
        return told + self.tick(at(second))


STEP_MS = 4_700
"""Less than `silence.PAUSE_MS`."""


def at(second: float) -> int:
    return T0 + round(second * 1000)


def steps(told: Sequence[AlertEvent]) -> list[tuple[str, str]]:
    return [(event.rule, event.step) for event in told]


def observations(made: Made) -> list[str]:
    """Return the ids of the Observations made."""
    urls = [entry["request"]["url"] for m in made.fhir for entry in json.loads(m.value)["entry"]]
    return [url.removeprefix("Observation/") for url in urls if url.startswith("Observation/")]

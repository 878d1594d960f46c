"""What the running program says of itself: its metrics now, and what grew of late.

Law: reads the program's own metrics and nothing else; numbers only. A counter that once grew is
history, one that grows now is a complaint: so it remembers a sample a minute.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from edge import metrics

SAMPLE_MS: Final = 60_000
RECENT_MS: Final = 15 * 60_000
"""What happened within this is news: about a technician's way from the phone to the gateway."""

_SAMPLES_MAX: Final = RECENT_MS // SAMPLE_MS
_PREFIX: Final = "healthsync_edge_"
_REASON: Final = "reason"

GROWING: Final = (
    "lines_total",
    "messages_total",
    "readings_total",
    "dropped_frames_total",
    "refused_inputs_total",
    "connections_refused_total",
    "sessions_total",
)
"""Counters whose growth is shown."""


def flatten(families: Iterable[Metric]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the gateway's metrics without labels, and rejected inputs by reason."""
    live: dict[str, float] = {}
    rejects: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            name = sample.name.removeprefix(_PREFIX)
            if name == sample.name or name.endswith("_created"):
                continue
            if not sample.labels:
                live[name] = sample.value
            elif name == "rejected_total" and _REASON in sample.labels:
                rejects[sample.labels[_REASON]] = sample.value
    return live, rejects


def read_registry() -> tuple[dict[str, float], dict[str, float]]:
    """Return what `flatten` does of this process's own metrics.

    Not of the whole registry: it also counts this process's open files, one by one.
    """
    own = [one for one in vars(metrics).values() if isinstance(one, MetricWrapperBase)]
    return flatten(family for one in own for family in one.collect())


class Recent:
    """A sample of the counters a minute, for a quarter of an hour."""

    def __init__(self) -> None:
        """Remember nothing yet; before the first sample every counter was 0."""
        self._samples: deque[tuple[int, dict[str, float]]] = deque(maxlen=_SAMPLES_MAX)

    def due(self, now_ms: int) -> bool:
        """Tell whether the last sample is a minute old, or from the future of a clock set back."""
        return not (self._samples and 0 <= now_ms - self._samples[-1][0] < SAMPLE_MS)

    def note(self, now_ms: int, live: dict[str, float], rejects: dict[str, float]) -> None:
        """Take a sample."""
        self._samples.append((now_ms, _tracked(live, rejects)))

    def grown(
        self, now_ms: int, live: dict[str, float], rejects: dict[str, float]
    ) -> dict[str, Any]:
        """Return the seconds looked back over, the growth by counter, and rejects by reason."""
        if not self._samples:
            return {"seconds": 0.0, "rejects": {}} | dict.fromkeys(GROWING, 0)
        then_ms, then = self._samples[0]
        now = _tracked(live, rejects)
        grown = {name: int(value - then.get(name, 0.0)) for name, value in now.items()}
        return {
            "seconds": max(0.0, (now_ms - then_ms) / 1000),
            "rejects": {
                name.removeprefix("rejected/"): count
                for name, count in grown.items()
                if name.startswith("rejected/") and count
            },
        } | {name: grown.get(name, 0) for name in GROWING}


def _tracked(live: dict[str, float], rejects: dict[str, float]) -> dict[str, float]:
    return {name: live.get(name, 0.0) for name in GROWING} | {
        f"rejected/{reason}": count for reason, count in rejects.items()
    }

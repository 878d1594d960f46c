"""Reads Prometheus text on loopback and answers what a live summary needs."""

import math
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, Mapping[str, str], float]
SCRAPE_S_MAX: Final = 1.0


def scrape(url: str) -> list[Sample]:
    """Return (name, labels, value) of every sample at ``url``; empty when nobody answers."""
    if not url.startswith("http://127.0.0.1:"):
        raise ValueError("metrics are read on loopback only")
    try:
        with urllib.request.urlopen(url, timeout=SCRAPE_S_MAX) as answer:  # noqa: S310 - see above
            text = answer.read().decode()
    except (OSError, urllib.error.URLError):
        return []
    return parse(text)


def parse(text: str) -> list[Sample]:
    """Return the samples of Prometheus text."""
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def total(samples: Iterable[Sample], name: str) -> float:
    """Return the sum of a metric over all its labels."""
    return sum(value for found, _, value in samples if found == name)


def buckets(samples: Iterable[Sample], name: str) -> dict[float, float]:
    """Return upper bound -> cumulative count of a histogram, summed over its other labels."""
    found: dict[float, float] = {}
    for sample, labels, value in samples:
        if sample == f"{name}_bucket":
            bound = math.inf if labels["le"] == "+Inf" else float(labels["le"])
            found[bound] = found.get(bound, 0.0) + value
    return found


def quantile(now: Mapping[float, float], before: Mapping[float, float], q: float) -> float | None:
    """Return the q-quantile of what was counted between two scrapes, None when nothing was.

    Linear inside a bucket, as Prometheus' histogram_quantile; the last finite bound when the
    quantile lies beyond it.
    """
    counts = {bound: now[bound] - before.get(bound, 0.0) for bound in sorted(now)}
    whole = counts.get(math.inf, 0.0)
    if whole <= 0:
        return None
    low, below = 0.0, 0.0
    for bound, count in counts.items():
        if count >= q * whole:
            if math.isinf(bound):
                return low
            inside = count - below
            return low + (bound - low) * ((q * whole - below) / inside if inside else 1.0)
        low, below = bound, count
    return low

"""Random resources, drawn by seed from everything that can be said."""

import random
from collections.abc import Iterator

from cloud.fhir import chart
from cloud.fhir.observations import MINUTE_MS
from cloud.fhir.ranges import Limits
from cloud.fhir.templates import VALUED
from vitals.codes import VITALS, Site, Status, Vital, decimal_scale
from vitals.columns import CHANNEL_MAX, Source, pack
from vitals.reading import Reading

SUBJECT, DEVICE = "0123456789abcdef" * 2, "fedcba9876543210" * 2
AT = 1_795_428_000_123


def observations(seed: int, count: int) -> Iterator[bytes]:
    """Yield ``count`` Observations, each one resource: singles, panels and minutes."""
    draw = random.Random(seed)
    made = 0
    while made < count:
        one = chart.of(_limits(draw))
        rows = [_reading(draw) for _ in range(draw.randrange(1, 6))]
        if draw.random() < 0.1:
            rows = [
                Reading(r.vital, r.value, at - at % MINUTE_MS, at, r.status, r.site, r.channel)
                for r, at in ((r, r.time_ms) for r in rows)
                if VITALS[r.vital].continuous
            ]
            built = one.minute(SUBJECT, DEVICE, rows)
        else:
            built = one.rows(SUBJECT, DEVICE, rows)
        for observation in built[: count - made]:
            made += 1
            yield observation.body


def bundles(seed: int, count: int) -> Iterator[bytes]:
    """Yield ``count`` Bundles of both ways that columns leave."""
    draw = random.Random(seed)
    made = 0
    while made < count:
        rows = [(0, _reading(draw)) for _ in range(draw.randrange(1, 8))]
        if draw.random() < 0.7:  # the fast way
            rows = [
                (0, Reading(r.vital, r.value, AT, AT))
                for _, r in rows
                if r.value is not None or r.status == Status.OK
            ]
        columns = pack([Source(DEVICE, SUBJECT)], rows)
        for _, bundle in chart.of(_limits(draw)).bundles(columns):
            made += 1
            yield bundle


def _number(draw: random.Random, vital: Vital) -> float:
    scale = decimal_scale(vital)
    return draw.randint(int(vital.low * scale) + 1, int(vital.high * scale)) / scale


def _limits(draw: random.Random) -> dict[int, Limits]:
    out = {}
    for vital in VITALS:
        low_low, low, high, high_high = sorted(_number(draw, vital) for _ in range(4))
        given = [limit if draw.random() < 0.6 else None for limit in (low, high)]
        beyond = [limit if draw.random() < 0.4 else None for limit in (low_low, high_high)]
        out[vital.index] = Limits(*given, *beyond)
    return out


def _reading(draw: random.Random) -> Reading:
    vital, status = draw.choice(VITALS), draw.choice((Status.OK, *Status))
    value = _number(draw, vital) if status in VALUED and draw.random() < 0.95 else None
    site = draw.choice(list(Site))
    channel = draw.choice((0, 0, 0, 1, CHANNEL_MAX))
    at = AT + draw.choice((0, draw.randrange(10**9)))
    return Reading(vital.index, value, at, at, status, site, channel)

"""qSOFA at every edge of its three criteria."""

from itertools import product
from typing import Final

import pytest

from cloud.detect.scores import qsofa
from cloud.detect.scores.parameters import HOUR_MS, MINUTE_MS, Charted, Missing, Score, Snapshot
from vitals.codes import BY_NAME, Consciousness

NOW: Final = 1_795_428_000_000


def snapshot(age_ms: int = 0, **values: int) -> Snapshot:
    return Snapshot(
        {BY_NAME[name].index: Charted(value, NOW - age_ms) for name, value in values.items()}
    )


def scored(**values: int) -> Score:
    return qsofa.score(snapshot(**values), NOW)


@pytest.mark.parametrize(("rate", "fast"), [(21, 0), (22, 1)])
@pytest.mark.parametrize(("systolic", "low"), [(101, 0), (100, 1)])
@pytest.mark.parametrize("level", list(Consciousness))
def test_a_point_each(rate: int, fast: int, systolic: int, low: int, level: Consciousness) -> None:
    altered = int(level is not Consciousness.ALERT)
    total = fast + low + altered
    got = scored(resp_rate=rate, nibp_systolic=systolic, consciousness=level)
    assert got.sub_scores == {"resp_rate": fast, "systolic": low, "consciousness": altered}
    assert (got.total, got.bounds, got.missing) == (total, (total, total), ())
    assert got.band == ("high" if total >= 2 else "low")
    assert len(got.evidence) == 3


@pytest.mark.parametrize("left", ["resp_rate", "nibp_systolic", "consciousness"])
@pytest.mark.parametrize("points", list(product((0, 1), repeat=2)))
def test_each_parameter_missing_in_turn(left: str, points: tuple[int, int]) -> None:
    point_of = {"resp_rate": (16, 30), "nibp_systolic": (120, 90), "consciousness": (0, 2)}
    names = [name for name in point_of if name != left]
    got = scored(**{name: point_of[name][at] for name, at in zip(names, points, strict=True)})
    known = sum(points)
    assert (got.total, got.bounds) == (None, (known, known + 1))
    assert got.band == {0: "low", 1: None, 2: "high"}[known]
    parameter = "systolic" if left == "nibp_systolic" else left
    assert got.missing == (Missing(parameter, "absent"),)


def test_nothing_known() -> None:
    got = scored()
    assert (got.total, got.bounds, got.band) == (None, (0, 3), None)


def test_stale_is_missing_with_a_word_of_its_own() -> None:
    base = snapshot(5 * MINUTE_MS, resp_rate=30, nibp_systolic=90, consciousness=1)
    assert qsofa.score(base, NOW).total == 3
    assert qsofa.changes_at_ms(base, NOW) == NOW + 1
    got = qsofa.score(base, NOW + 1)
    assert (got.total, got.missing) == (None, (Missing("resp_rate", "stale"),))
    assert qsofa.changes_at_ms(base, NOW + 1) == NOW - 5 * MINUTE_MS + 6 * HOUR_MS + 1

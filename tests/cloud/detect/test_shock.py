"""The shock index: exact bands, shown in hundredths, only of one time."""

from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.detect.scores import shock
from cloud.detect.scores.parameters import MINUTE_MS, Charted, Missing, Snapshot
from vitals.codes import BY_NAME

NOW: Final = 1_795_428_000_000


def scored(**values: int) -> shock.Index:
    return shock.score(
        Snapshot({BY_NAME[name].index: Charted(value, NOW) for name, value in values.items()}), NOW
    )


@pytest.mark.parametrize(
    ("rate", "systolic", "value", "band"),
    [
        (70, 120, 0.58, "low"),
        (90, 100, 0.9, "low"),
        (91, 100, 0.91, "medium"),
        (901, 1000, 0.9, "medium"),  # above 0.9, though it is shown as 0.9
        (99, 100, 0.99, "medium"),
        (100, 100, 1.0, "high"),
        (109, 200, 0.55, "low"),  # 0.545 half up
        (0, 100, 0.0, "low"),
        (300, 1, 300.0, "high"),
    ],
)
def test_value_and_band(rate: int, systolic: int, value: float, band: str) -> None:
    got = scored(heart_rate=rate, abp_systolic=systolic)
    assert (got.value, got.band, got.missing) == (value, band, ())
    assert [taken.charted.value for taken in got.evidence] == [rate, systolic]


@given(st.integers(0, 390), st.integers(1, 375))
def test_the_value_is_within_half_a_hundredth(rate: int, systolic: int) -> None:
    value = scored(pulse_rate=rate, nibp_systolic=systolic).value
    assert value is not None
    off = Fraction(round(value * 100), 100) - Fraction(rate, systolic)
    assert Fraction(-1, 200) < off <= Fraction(1, 200)


def test_what_is_missing_is_named() -> None:
    pulse, systolic = Missing("pulse", "absent"), Missing("systolic", "absent")
    for got, missing in (
        (scored(), (pulse, systolic)),
        (scored(heart_rate=70), (systolic,)),
        (scored(nibp_systolic=70), (pulse,)),
        (scored(heart_rate=70, nibp_systolic=0), (Missing("systolic", "zero"),)),
        (scored(nibp_systolic=0), (pulse, Missing("systolic", "zero"))),
    ):
        assert (got.value, got.band, got.missing) == (None, None, missing)


def test_a_cuff_counts_for_a_quarter_of_an_hour() -> None:
    cuff, heart = BY_NAME["nibp_systolic"].index, BY_NAME["heart_rate"].index
    for age, missing in (
        (15 * MINUTE_MS, ()),
        (15 * MINUTE_MS + 1, (Missing("systolic", "stale"),)),
    ):
        base = Snapshot({cuff: Charted(100, NOW - age), heart: Charted(100, NOW)})
        assert shock.score(base, NOW).missing == missing
    assert shock.changes_at_ms(base, NOW) == NOW + 5 * MINUTE_MS + 1

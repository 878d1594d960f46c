"""NEWS2 against the chart, which stands here once more, row by row, as RCP 2017 prints it."""

from decimal import Decimal
from itertools import pairwise, product
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.detect.scores import news2
from cloud.detect.scores.parameters import (
    AGES,
    HOUR_MS,
    MINUTE_MS,
    Ages,
    Charted,
    Missing,
    Score,
    Snapshot,
    charted_value,
    oxygen_of,
)
from vitals.codes import BY_NAME, Consciousness

NOW: Final = 1_795_428_000_000

# (vital, from, to, points), both ends in, in chart units; None: no end.
ROWS: Final[dict[str, list[tuple[str | None, str | None, int]]]] = {
    "resp_rate": [
        (None, "8", 3), ("9", "11", 1), ("12", "20", 0), ("21", "24", 2), ("25", None, 3),
    ],
    "systolic": [
        (None, "90", 3), ("91", "100", 2), ("101", "110", 1), ("111", "219", 0), ("220", None, 3),
    ],
    "pulse": [
        (None, "40", 3), ("41", "50", 1), ("51", "90", 0), ("91", "110", 1), ("111", "130", 2),
        ("131", None, 3),
    ],
    "temperature": [
        (None, "35.0", 3), ("35.1", "36.0", 1), ("36.1", "38.0", 0), ("38.1", "39.0", 1),
        ("39.1", None, 2),
    ],
    "consciousness": [("0", "0", 0), ("1", "4", 3)],
    "spo2/1": [(None, "91", 3), ("92", "93", 2), ("94", "95", 1), ("96", None, 0)],
    "spo2/2/air": [(None, "83", 3), ("84", "85", 2), ("86", "87", 1), ("88", None, 0)],
    "spo2/2/oxygen": [
        (None, "83", 3), ("84", "85", 2), ("86", "87", 1), ("88", "92", 0), ("93", "94", 1),
        ("95", "96", 2), ("97", None, 3),
    ],
}  # fmt: skip
VITAL: Final = {"systolic": "nibp_systolic", "pulse": "heart_rate"}
NORMAL: Final[dict[str, float]] = {
    "resp_rate": 16, "spo2": 98, "nibp_systolic": 120, "heart_rate": 70, "consciousness": 0,
    "temperature": 37.0,
}  # fmt: skip
PARAMETERS: Final = {
    "resp_rate", "spo2", "oxygen", "systolic", "pulse", "consciousness", "temperature"
}  # fmt: skip
PARAMETER_OF: Final = {"nibp_systolic": "systolic", "heart_rate": "pulse"}


def points(row: str, number: Decimal) -> int:
    """Return the chart's points, or fail: the chart as printed has gaps between its columns."""
    found = [
        of
        for low, high, of in ROWS[row]
        if (low is None or number >= Decimal(low)) and (high is None or number <= Decimal(high))
    ]
    assert len(found) == 1, f"{row} {number} is in {len(found)} columns"
    return found[0]


def chart_row(name: str, scale: int, oxygen: bool) -> str:
    if name != "spo2":
        return PARAMETER_OF.get(name, name)
    return "spo2/1" if scale == 1 else f"spo2/2/{'oxygen' if oxygen else 'air'}"


def snapshot(
    values: dict[str, float], oxygen: bool | None = False, scale: Any = 1, **more: Any
) -> Snapshot:
    return Snapshot(
        {
            BY_NAME[name].index: Charted(charted_value(BY_NAME[name], value), NOW)
            for name, value in values.items()
        },
        None if oxygen is None else Charted(int(oxygen), NOW),
        scale,
        **more,
    )


def scored(*args: Any, **more: Any) -> Score:
    return news2.score(snapshot(*args, **more), NOW)


def edges(row: str, step: Decimal) -> list[tuple[Decimal, int]]:
    """Return every boundary of a row from both sides, with the points there."""
    out = []
    for (_, high, left), (low, _, right) in pairwise(ROWS[row]):
        assert high is not None
        assert low is not None
        assert Decimal(high) + step == Decimal(low)
        out += [(Decimal(high), left), (Decimal(low), right)]
    return out


def cases() -> list[tuple[str, str, Decimal, int]]:
    return [
        (row, VITAL.get(row.partition("/")[0], row.partition("/")[0]), number, of)
        for row in ROWS
        for number, of in edges(row, Decimal("0.1" if row == "temperature" else "1"))
    ]


@pytest.mark.parametrize(("row", "name", "number", "of"), cases())
def test_every_boundary_of_the_chart_from_both_sides(
    row: str, name: str, number: Decimal, of: int
) -> None:
    scale = 2 if row.startswith("spo2/2") else 1
    for oxygen in (False, True):
        if (row.endswith("air") and oxygen) or (row.endswith("oxygen") and not oxygen):
            continue
        values = NORMAL | ({"spo2": 90} if scale == 2 else {}) | {name: float(number)}
        got = scored(values, oxygen, scale)
        parameter = PARAMETER_OF.get(name, name)
        assert got.sub_scores[parameter] == of
        assert got.total == of + 2 * oxygen == got.bounds[0] == got.bounds[1]
        assert got.single_red == (of == 3)
        assert got.missing == ()
        assert set(got.sub_scores) == PARAMETERS
        assert got.sub_scores["oxygen"] == 2 * oxygen


def test_every_value_a_monitor_can_show_has_the_points_of_the_chart() -> None:
    for row in ROWS:
        name = row.partition("/")[0]
        vital = BY_NAME[VITAL.get(name, name)]
        unit = 10**vital.decimals
        scale, oxygen = (2 if "/2" in row else 1), row.endswith("oxygen")
        for value in range(round(vital.low * unit), round(vital.high * unit) + 1):
            got = news2.sub_score(name, value, scale, oxygen=oxygen)
            assert got == points(row, Decimal(value) / unit), (row, value)


@pytest.mark.parametrize(
    ("name", "number", "charted"),
    [
        ("temperature", 35.05, 351),  # binary 35.04999...
        ("temperature", 35.04, 350),
        ("temperature", 36.05, 361),
        ("temperature", 38.05, 381),
        ("temperature", 39.05, 391),
        ("temperature", 39.0499, 390),
        ("temperature", Decimal("39.04999999999999999999999999999999999"), 390),
        ("spo2", 91.5, 92),
        ("spo2", 91.4999, 91),
        ("spo2", 93.5, 94),
        ("spo2", 95.5, 96),
        ("spo2", 82.5, 83),  # half to even would say 82
        ("resp_rate", 8.5, 9),
        ("resp_rate", 11.5, 12),
        ("resp_rate", 20.5, 21),
        ("resp_rate", 24.5, 25),
        ("nibp_systolic", 90.5, 91),
        ("abp_systolic", 100.5, 101),
        ("nibp_systolic", 110.5, 111),
        ("nibp_systolic", 219.5, 220),
        ("heart_rate", 40.5, 41),
        ("heart_rate", 50.5, 51),
        ("heart_rate", 90.5, 91),
        ("heart_rate", 110.5, 111),
        ("heart_rate", 130.5, 131),
        ("heart_rate", 130.49, 130),
        ("fio2", 21.01, 22),
        ("fio2", 20.95, 21),
        ("o2_flow", 0.01, 1),
        ("o2_flow", 0, 0),
    ],
)
def test_what_lies_between_two_columns_is_rounded_half_up_first(
    name: str, number: Any, charted: int
) -> None:
    assert charted_value(BY_NAME[name], number) == charted


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), 101, 100.01, -0.01, Decimal("1e999")]
)
def test_what_is_no_saturation_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match=r"spo2 is .*leave it out"):
        charted_value(BY_NAME["spo2"], number)


@pytest.mark.parametrize(
    ("values", "oxygen", "total", "band"),
    [
        ({}, False, 0, "low"),
        ({"resp_rate": 9, "spo2": 95, "heart_rate": 91, "temperature": 36.0}, False, 4, "low"),
        ({"resp_rate": 25}, False, 3, "low_medium"),
        ({"resp_rate": 25, "heart_rate": 91}, False, 4, "low_medium"),
        ({"resp_rate": 21, "spo2": 95}, True, 5, "medium"),
        ({"resp_rate": 25}, True, 5, "medium"),
        ({"resp_rate": 21, "spo2": 93}, True, 6, "medium"),
        ({"resp_rate": 25, "spo2": 93}, True, 7, "high"),
        ({"resp_rate": 8, "spo2": 80, "nibp_systolic": 80, "heart_rate": 140,
          "consciousness": 4, "temperature": 34}, True, 20, "high"),
    ],
)  # fmt: skip
def test_bands(values: dict[str, float], oxygen: bool, total: int, band: str) -> None:
    got = scored(NORMAL | values, oxygen)
    assert (got.total, got.band) == (total, band)


@pytest.mark.parametrize("level", list(Consciousness))
def test_only_alert_scores_nothing(level: Consciousness) -> None:
    got = scored(NORMAL | {"consciousness": level})
    assert got.total == (0 if level is Consciousness.ALERT else 3)


@pytest.mark.parametrize("name", list(NORMAL))
def test_each_parameter_missing_in_turn_gives_bounds_and_no_total(name: str) -> None:
    values = {key: value for key, value in NORMAL.items() if key != name}
    got = scored(values)
    parameter = PARAMETER_OF.get(name, name)
    assert got.total is None
    assert got.bounds == (0, 3)
    assert got.missing == (Missing(parameter, "absent"),)
    assert parameter not in got.sub_scores
    assert got.band is None  # low, or low_medium with 3 points in what is missing


def test_oxygen_missing_gives_bounds_and_a_band_only_when_both_ways_have_it() -> None:
    got = scored(NORMAL, None)
    assert (got.total, got.bounds, got.band) == (None, (0, 2), "low")
    assert got.missing == (Missing("oxygen", "absent"),)
    got = scored(NORMAL | {"resp_rate": 21, "heart_rate": 91}, None)
    assert (got.bounds, got.band) == ((3, 5), None)


def test_nothing_known_is_anything() -> None:
    got = news2.score(Snapshot({}), NOW)
    assert (got.total, got.bounds, got.band, got.sub_scores) == (None, (0, 20), None, {})
    assert {missing.parameter for missing in got.missing} == PARAMETERS


def test_on_scale_2_an_unknown_oxygen_leaves_the_saturation_open_too() -> None:
    got = scored(NORMAL | {"spo2": 97}, None, 2)
    assert (got.bounds, got.band) == ((0, 5), None)
    assert "spo2" not in got.sub_scores
    assert not got.single_red
    assert [missing.parameter for missing in got.missing] == ["oxygen"]
    got = scored(NORMAL | {"spo2": 83}, None, 2)
    assert (got.bounds, got.sub_scores["spo2"], got.single_red) == ((3, 5), 3, True)


def test_high_so_far_is_high_whatever_is_missing() -> None:
    values = {"resp_rate": 25, "heart_rate": 131, "consciousness": 0, "nibp_systolic": 110}
    got = scored(values)
    assert (got.total, got.bounds, got.band) == (None, (7, 13), "high")


@st.composite
def charts(draw: st.DrawFn) -> tuple[dict[str, float], bool | None, int]:
    values = {}
    for name in NORMAL:
        vital = BY_NAME[name]
        unit = 10**vital.decimals
        value = st.integers(round(vital.low * unit), round(vital.high * unit))
        got = draw(st.none() | value)
        if got is not None:
            values[name] = got / unit
    return values, draw(st.sampled_from([None, False, True])), draw(st.sampled_from([1, 2]))


@settings(deadline=None)
@given(charts())
def test_bounds_and_band_are_those_of_every_way_to_complete_it(
    given_: tuple[dict[str, float], bool | None, int],
) -> None:
    """The oracle completes what is missing with one value of every column of the chart."""
    values, oxygen, scale = given_
    got = scored(values, oxygen, scale)
    totals, bands = set(), set()
    for way in (False, True) if oxygen is None else (oxygen,):
        known = {
            name: points(chart_row(name, scale, way), Decimal(str(value)))
            for name, value in values.items()
        }
        open_ = [
            sorted({of for _, _, of in ROWS[chart_row(name, scale, way)]})
            for name in NORMAL
            if name not in values
        ]
        for filled in product(*open_):
            each = [*known.values(), *filled]
            total = sum(each) + 2 * way
            totals.add(total)
            bands.add(
                "high" if total >= 7
                else "medium" if total >= 5
                else "low_medium" if 3 in each
                else "low"
            )  # fmt: skip
    assert got.bounds == (min(totals), max(totals))
    assert got.band == (bands.pop() if len(bands) == 1 else None)
    assert (got.total is None) == bool(got.missing)
    if got.total is not None:
        assert {got.total} == totals


@given(charts(), st.sampled_from(sorted(PARAMETERS - {"oxygen"})), st.integers(-3, 400))
def test_hold_is_the_widest_range_of_one_sub_score(
    given_: tuple[dict[str, float], bool | None, int], parameter: str, offset: int
) -> None:
    _, oxygen, scale = given_
    vital = BY_NAME[VITAL.get(parameter, parameter)]
    unit = 10**vital.decimals
    least, most = round(vital.low * unit), round(vital.high * unit)
    value = max(least, min(most, least + offset))
    ways = (False, True) if oxygen is None else (oxygen,)

    def points_of(at: int) -> list[int]:
        return [news2.sub_score(parameter, at, scale, oxygen=way) for way in ways]

    low, high = news2.hold(parameter, value, scale, oxygen)
    assert low <= value <= high
    assert all(points_of(at) == points_of(value) for at in range(low, high + 1))
    assert low == least or points_of(low - 1) != points_of(value)
    assert high == most or points_of(high + 1) != points_of(value)


def test_hold_of_oxygen_and_of_a_value_outside_the_plausible_range() -> None:
    assert news2.hold("oxygen", 0) == (0, 0)
    assert news2.hold("oxygen", 1) == (1, 1)
    assert news2.hold("pulse", 391) == (131, 391)
    assert news2.hold("temperature", 370) == (361, 380)
    assert news2.hold("spo2", 90, 2, oxygen=True) == (88, 92)
    assert news2.hold("spo2", 90, 2, oxygen=False) == (88, 100)
    assert news2.hold("spo2", 90, 2) == (88, 92)
    assert news2.hold("spo2", 95, 2) == (95, 96)


LIMIT = {
    "resp_rate": 5 * MINUTE_MS, "spo2": 5 * MINUTE_MS, "heart_rate": 5 * MINUTE_MS,
    "pulse_rate": 5 * MINUTE_MS, "abp_systolic": 5 * MINUTE_MS, "nibp_systolic": 6 * HOUR_MS,
    "consciousness": 6 * HOUR_MS, "temperature": 6 * HOUR_MS,
}  # fmt: skip


@pytest.mark.parametrize("name", list(LIMIT))
def test_a_measurement_counts_to_the_edge_of_its_age(name: str) -> None:
    values = dict(NORMAL)
    values[name] = values.get(name, {"pulse_rate": 70, "abp_systolic": 120}.get(name, 0))
    if name == "pulse_rate":
        del values["heart_rate"]
    if name == "abp_systolic":
        del values["nibp_systolic"]
    parameter = {"abp_systolic": "systolic", "nibp_systolic": "systolic", "heart_rate": "pulse",
                 "pulse_rate": "pulse"}.get(name, name)  # fmt: skip
    index = BY_NAME[name].index
    base = snapshot(values)

    def aged(age_ms: int, ages: Ages = AGES) -> Score:
        old = dict(base.values) | {index: Charted(base.values[index].value, NOW - age_ms)}
        return news2.score(msgspec.structs.replace(base, values=old), NOW, ages)

    assert aged(LIMIT[name]).total == 0
    stale = aged(LIMIT[name] + 1)
    assert stale.total is None
    assert stale.missing == (Missing(parameter, "stale"),)
    assert stale.bounds == (0, 3)
    assert aged(-60_000).total == 0  # a clock ahead of ours is not old
    tight = msgspec.structs.replace(AGES, **{name: 1000})
    assert aged(1000, tight).total == 0
    assert aged(1001, tight).total is None


def test_charted_oxygen_counts_to_the_edge_of_its_age() -> None:
    base = snapshot(NORMAL)
    for age, missing in ((12 * HOUR_MS, ()), (12 * HOUR_MS + 1, (Missing("oxygen", "stale"),))):
        old = msgspec.structs.replace(base, oxygen=Charted(0, NOW - age))
        assert news2.score(old, NOW).missing == missing


def test_the_newer_systolic_counts_and_the_arterial_line_when_both_are_of_one_time() -> None:
    cuff, line = BY_NAME["nibp_systolic"].index, BY_NAME["abp_systolic"].index

    def systolic(cuff_age: int, line_age: int) -> int:
        values = {**snapshot(NORMAL).values}
        values[cuff] = Charted(85, NOW - cuff_age)  # 3
        values[line] = Charted(105, NOW - line_age)  # 1
        return news2.score(Snapshot(values, Charted(0, NOW)), NOW).sub_scores["systolic"]

    assert systolic(0, 0) == 1
    assert systolic(1, 0) == 1
    assert systolic(0, 1) == 3
    assert systolic(MINUTE_MS * 10, MINUTE_MS * 5) == 1
    assert systolic(MINUTE_MS * 10, MINUTE_MS * 5 + 1) == 3  # the line is stale, the cuff is not


def test_the_pulse_is_the_heart_rate_while_that_is_fresh() -> None:
    values = {**snapshot(NORMAL).values}
    heart, pulse = BY_NAME["heart_rate"].index, BY_NAME["pulse_rate"].index
    values[pulse] = Charted(140, NOW)
    values[heart] = Charted(70, NOW - 5 * MINUTE_MS)
    base = Snapshot(values, Charted(0, NOW))
    assert news2.score(base, NOW).sub_scores["pulse"] == 0
    values[heart] = Charted(70, NOW - 5 * MINUTE_MS - 1)
    got = news2.score(base, NOW)
    assert got.sub_scores["pulse"] == 3
    assert pulse in {taken.vital for taken in got.evidence}
    assert heart not in {taken.vital for taken in got.evidence}


OLD = NOW - 60_000


@pytest.mark.parametrize(
    ("charted", "flow", "fio2", "is_oxygen"),
    [
        (None, None, None, None),
        ((1, NOW), None, None, True),
        ((0, NOW), None, None, False),
        (None, (1, NOW), None, True),
        (None, (0, NOW), None, False),
        (None, None, (22, NOW), True),
        (None, None, (21, NOW), False),
        ((0, OLD), (20, NOW), None, True),
        ((0, NOW), (20, OLD), None, False),
        ((0, NOW), (20, NOW), None, True),
        ((1, OLD), (0, NOW), None, False),
        ((1, OLD), None, (21, NOW), True),
        (None, (20, OLD), (21, NOW), True),
        ((0, NOW), (0, NOW), (40, OLD), True),
        (None, None, (40, NOW - 5 * MINUTE_MS), True),
        (None, None, (40, NOW - 5 * MINUTE_MS - 1), None),
        ((0, OLD), None, (40, NOW - 5 * MINUTE_MS - 1), False),
        (None, (20, NOW - 6 * HOUR_MS - 1), (21, NOW), False),
    ],
)
def test_oxygen_is_what_somebody_or_a_flow_says(
    charted: tuple[int, int] | None,
    flow: tuple[int, int] | None,
    fio2: tuple[int, int] | None,
    is_oxygen: bool | None,
) -> None:
    values = {
        BY_NAME[name].index: Charted(*said)
        for name, said in (("o2_flow", flow), ("fio2", fio2))
        if said is not None
    }
    got = oxygen_of(Snapshot(values, None if charted is None else Charted(*charted)), NOW)
    if is_oxygen is None:
        assert isinstance(got, Missing)
        assert got.why == ("absent" if fio2 is None else "stale")
    else:
        assert got is is_oxygen


@pytest.mark.parametrize("why", ["under_16", "pregnant"])
def test_it_does_not_apply_to_children_and_pregnant_patients(why: str) -> None:
    got = scored(NORMAL | {"resp_rate": 30}, **{why: True})
    assert (got.total, got.bounds, got.band, got.sub_scores) == (None, (0, 20), None, {})
    assert got.not_applicable == why


def test_scale_1_stands_unless_somebody_charted_2() -> None:
    assert Snapshot({}).scale == 1
    assert scored(NORMAL | {"spo2": 90}).sub_scores["spo2"] == 3
    assert scored(NORMAL | {"spo2": 90}, scale=2).sub_scores["spo2"] == 0


def test_the_score_may_change_when_the_first_measurement_gets_too_old() -> None:
    base = snapshot(NORMAL)
    at = news2.changes_at_ms(base, NOW)
    assert at == NOW + 5 * MINUTE_MS + 1
    assert news2.score(base, at - 1).total == 0
    assert news2.score(base, at).total is None
    assert news2.changes_at_ms(Snapshot({}), NOW) is None
    only = Snapshot({}, Charted(0, NOW))
    assert news2.changes_at_ms(only, NOW) == NOW + 12 * HOUR_MS + 1


@given(charts(), st.lists(st.integers(0, 13 * HOUR_MS), min_size=6, max_size=6))
def test_between_changes_nothing_changes(
    given_: tuple[dict[str, float], bool | None, int], ages: list[int]
) -> None:
    values, oxygen, scale = given_
    base = snapshot(values, oxygen, scale)
    aged = {
        index: Charted(charted.value, NOW - age)
        for (index, charted), age in zip(base.values.items(), ages, strict=False)
    }
    base = msgspec.structs.replace(base, values=aged)
    at = news2.changes_at_ms(base, NOW)
    later = NOW + 24 * HOUR_MS if at is None else at - 1
    assert news2.score(base, later) == news2.score(base, NOW)

"""The hot path makes what the general path makes, byte for byte; and alarm limits are said."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.observation import Observation
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.fhir import chart, observations, ranges, resources, scale
from cloud.fhir.chart import Chart
from cloud.fhir.observations import Built
from cloud.fhir.ranges import Limits
from tests.cloud.fhir.rows import AT, DEVICE, SUBJECT, limits_of, reading, readings
from vitals.codes import BY_NAME, VITALS, Status, decimal_scale
from vitals.columns import Columns, Source, check, pack
from vitals.reading import Reading

SUBJECTS = (SUBJECT, "1" * 32)
DEVICES = (DEVICE, "e" * 32)
SPO2, RATE = BY_NAME["spo2"].index, BY_NAME["heart_rate"].index


def greedy(made: Iterable[Built]) -> list[bytes]:
    """Cut as the law says, entry by entry, written without the code under test."""
    out: list[list[tuple[str, bytes]]] = []
    size = 0
    for one in made:
        entry = (f"Observation/{one.id}", one.body)
        length = len(resources.put(entry[0], entry[1].decode()))
        if not out or size + len(",") + length > chart.BUNDLE_BYTES_MAX:
            out.append([])
            size = -len(",")
        out[-1].append(entry)
        size += len(",") + length
    return [resources.transaction(entries) for entries in out]


def general(columns: Columns, limits: dict[int, Limits]) -> list[tuple[str, bytes]]:
    made = observations.of_columns(columns, scale.of_all(limits))
    return [(subject, bundle) for subject, built in made.items() for bundle in greedy(built)]


vitals_drawn = st.lists(st.sampled_from([v.index for v in VITALS]), min_size=1, max_size=8)


@st.composite
def samples(draw: st.DrawFn) -> tuple[tuple[int, ...], list[int | None], int]:
    vitals = tuple(draw(vitals_drawn))
    values: list[int | None] = [
        draw(st.none() | st.integers(*map(int, bounds(vital)))) for vital in vitals
    ]
    return vitals, values, draw(st.integers(0, 3) | st.integers(AT, AT + 10**7))


def bounds(vital: int) -> tuple[float, float]:
    one = VITALS[vital]
    return one.low * decimal_scale(one) + 0.999, one.high * decimal_scale(one)


@settings(deadline=None)  # the first of each template costs a model
@given(samples(), st.dictionaries(st.sampled_from(range(len(VITALS))), limits_of(), max_size=6))
def test_a_sample_is_what_the_general_path_makes(
    sample: tuple[tuple[int, ...], list[int | None], int], limits: dict[int, Limits]
) -> None:
    vitals, values, at = sample
    rows = [
        Reading(vital, None if v is None else v / decimal_scale(VITALS[vital]), at, at)
        for vital, v in zip(vitals, values, strict=True)
    ]
    one = Chart(limits)
    entries = [(f"Observation/{b.id}", b.body) for b in one.rows(SUBJECT, DEVICE, rows)]
    for _ in range(2):  # by a new plan and new texts, and by those remembered
        made = one.sample(SUBJECT, DEVICE, vitals, values, at)
        whole = resources.TRANSACTION.encode() + made + resources.TRANSACTION_END.encode()
        assert whole == resources.transaction(entries)


columns_drawn = st.lists(
    st.tuples(
        st.integers(0, 3), readings() | st.builds(reading, st.just("spo2"), st.integers(85, 100))
    ),
    max_size=14,
)


@given(
    columns_drawn,
    st.dictionaries(st.sampled_from(range(len(VITALS))), limits_of(), max_size=4),
    st.sampled_from([1, 1500, 4000, 64 * 1024]),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_bundles_are_what_the_general_path_makes(
    rows: list[tuple[int, Reading]], limits: dict[int, Limits], cap: int, two_devices: bool
) -> None:
    sources = [
        Source(DEVICES[0], SUBJECTS[0]),
        Source(DEVICES[1], SUBJECTS[1]),
        Source(DEVICES[0], SUBJECTS[1] if two_devices else "2" * 32),
        Source(DEVICES[1], SUBJECTS[0] if two_devices else "3" * 32),
    ]
    columns = pack(sources, rows)
    check(columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chart, "BUNDLE_BYTES_MAX", cap)
        assert Chart(limits).bundles(columns) == general(columns, limits)


def ward(seconds: int, beds: int = 2, **changes: int) -> Columns:
    sources = [Source(f"{at:032x}", f"{at + 100:032x}") for at in range(beds)]
    rows = [
        (bed, reading(vital, 90 + bed, at=AT + second * 1000, **changes))
        for second in range(seconds)
        for bed in range(beds)
        for vital in ("spo2", "heart_rate", "nibp_systolic")
    ]
    return pack(sources, rows)


def test_the_common_case_goes_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the general path would say, it is not asked."""
    monkeypatch.setattr(observations, "of_sources", None)
    assert len(Chart({}).bundles(ward(10))) == 2
    with pytest.raises(TypeError):
        Chart({}).bundles(ward(10, channel=1))


def test_a_ward_of_many_seconds_is_cut_alike_on_both_ways(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chart, "BUNDLE_BYTES_MAX", 64 * 1024)
    columns = ward(60)
    made = Chart({}).bundles(columns)
    assert made == general(columns, {})
    sizes = [len(bundle) for _, bundle in made]
    around = len(resources.TRANSACTION) + len(resources.TRANSACTION_END)
    assert max(sizes) <= chart.BUNDLE_BYTES_MAX + around
    full = [
        len(bundle)
        for at, (subject, bundle) in enumerate(made[:-1])
        if made[at + 1][0] == subject  # not the last of its subject
    ]
    assert len(full) > 2
    assert min(full) > chart.BUNDLE_BYTES_MAX - 1000
    ids = [e["resource"]["id"] for _, b in made for e in json.loads(b)["entry"]]
    assert len(set(ids)) == len(ids) == 60 * 2 * 3


def test_entries_of_just_the_largest_size_are_one_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = ward(3, beds=1)
    ((_, whole),) = Chart({}).bundles(columns)
    size = len(whole) - len(resources.TRANSACTION) - len(resources.TRANSACTION_END)
    monkeypatch.setattr(chart, "BUNDLE_BYTES_MAX", size)
    assert len(Chart({}).bundles(columns)) == 1
    monkeypatch.setattr(chart, "BUNDLE_BYTES_MAX", size - 1)
    made = [json.loads(bundle)["entry"] for _, bundle in Chart({}).bundles(columns)]
    assert [len(entries) for entries in made] == [8, 1]


def test_a_subject_with_limits_of_its_own_gets_those() -> None:
    columns = ward(1)
    ones_own = columns.sources[1].subject
    low = chart.of({SPO2: Limits(low=95)})
    made = dict(chart.of({}).bundles(columns, {ones_own: low}))
    assert b'"code":"L"' in made[ones_own]
    assert b"referenceRange" not in made[columns.sources[0].subject]
    assert made[ones_own] == dict(low.bundles(columns))[ones_own]


@pytest.mark.parametrize("source", [Source("bed-12", SUBJECT), Source(DEVICE, "M000123")])
def test_a_source_that_is_no_pseudonym_is_refused(source: Source) -> None:
    with pytest.raises(ValueError):
        Chart({}).bundles(pack([source], [(0, reading("spo2", 97))]))


def test_no_row_is_no_bundle() -> None:
    assert Chart({}).bundles(pack([Source(DEVICE, SUBJECT)], [])) == []
    assert Chart({}).bundles(pack([], [])) == []


def test_a_bundle_is_one_that_fhir_resources_accepts() -> None:
    ((_, bundle), *_) = Chart({SPO2: Limits(90, None, 85)}).bundles(ward(1))
    Bundle.model_validate_json(bundle)


# Alarm limits.


def one(made: Chart, *rows: Reading) -> dict[str, Any]:
    (built,) = made.rows(SUBJECT, DEVICE, rows)
    body: dict[str, Any] = json.loads(built.body)
    Observation.model_validate(body)
    return body


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (84, "LL"), (85, "L"), (89, "L"), (90, "N"), (110, "N"), (120, "N"), (121, "H"),
        (130, "H"), (131, "HH"),
    ],
)  # fmt: skip
def test_a_value_is_said_to_be_beyond_a_limit_exactly_when_its_alarm_would_be(
    value: int, said: str
) -> None:
    body = one(Chart({RATE: Limits(90, 120, 85, 130)}), reading("heart_rate", value))
    assert body["interpretation"] == [
        {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation",
                    "code": said,
                }
            ]
        }
    ]


def test_a_reference_range_is_that_of_the_alarm_limits() -> None:
    body = one(Chart({BY_NAME["temperature"].index: Limits(35.5, 39)}), reading("temperature", 37))
    quantity = {"unit": "°C", "system": "http://unitsofmeasure.org", "code": "Cel"}
    assert body["referenceRange"] == [
        {
            "low": {"value": 35.5, **quantity},
            "high": {"value": 39, **quantity},
            "type": {"text": "alarm limits"},
            "text": "35.5-39",
        }
    ]


@pytest.mark.parametrize(
    ("limits", "text", "sides"),
    [
        (Limits(90), ">=90", {"low": 90}),
        (Limits(None, 130), "<=130", {"high": 130}),
        (Limits(None, 120, 40, 130), "40-120", {"low": 40, "high": 120}),
        (Limits(None, None, None, 130), "<=130", {"high": 130}),
    ],
)
def test_a_side_without_limit_is_left_out(
    limits: Limits, text: str, sides: dict[str, float]
) -> None:
    (found,) = one(Chart({RATE: limits}), reading("heart_rate", 80))["referenceRange"]
    assert found["text"] == text
    assert {k: found[k]["value"] for k in ("low", "high") if k in found} == sides


def test_each_pressure_of_a_panel_has_its_own() -> None:
    limits = {BY_NAME["nibp_systolic"].index: Limits(90, 160)}
    body = one(Chart(limits), reading("nibp_systolic", 170), reading("nibp_diastolic", 80))
    systolic, diastolic = body["component"]
    assert systolic["interpretation"][0]["coding"][0]["code"] == "H"
    assert systolic["referenceRange"][0]["text"] == "90-160"
    assert not {"interpretation", "referenceRange"} & {*diastolic, *body}


@pytest.mark.parametrize("status", Status)
def test_only_a_value_that_may_ring_is_compared_with_limits(status: Status) -> None:
    compared = status in {Status.OK, Status.QUESTIONABLE, Status.ALARM_INHIBITED}
    absent = status in {Status.MISSING, Status.IMPLAUSIBLE}
    body = one(Chart({SPO2: Limits(90)}), reading("spo2", None if absent else 80, status))
    assert ("referenceRange" in body) == compared
    said = [i["coding"][0]["code"] for i in body.get("interpretation", []) if "coding" in i]
    assert said == (["L"] if compared else [])


def test_consciousness_has_no_limits() -> None:
    index = BY_NAME["consciousness"].index
    assert "interpretation" not in one(Chart({index: Limits(0, 0)}), reading("consciousness", 1))


@pytest.mark.parametrize(
    "limits",
    [
        Limits(91, 90), Limits(90, None, 91), Limits(None, 130, None, 129), Limits(float("nan")),
        Limits(high=float("inf")),
    ],
)  # fmt: skip
def test_limits_that_contradict_themselves_are_refused(limits: Limits) -> None:
    with pytest.raises(ValueError, match="heart_rate: "):
        Chart({RATE: limits})


@pytest.mark.parametrize("vital", [-1, len(VITALS)])
def test_limits_of_no_vital_are_refused(vital: int) -> None:
    with pytest.raises(ValueError, match="not in vitals"):
        Chart({vital: Limits(1)})


@given(limits_of(), st.floats(-100, 400))
def test_what_is_shown_and_what_is_flagged_agree(limits: Limits, value: float) -> None:
    flag, shown = ranges.flag(limits, value), ranges.shown(limits)
    inside = not (shown.low and value < float(shown.low)) and not (
        shown.high and value > float(shown.high)
    )
    assert (flag in ("", "N")) == inside
    assert (flag == "") == (shown.shape == 0)


# What is remembered is shared and bounded.


def test_a_ward_shares_one_chart_and_vitals_share_their_scale() -> None:
    assert chart.of({SPO2: Limits(90), RATE: Limits(40)}) is chart.of(
        {RATE: Limits(40), SPO2: Limits(90)}
    )
    assert chart.of({SPO2: Limits(90)}) is not chart.of({SPO2: Limits(91)})
    assert scale.of(RATE, Limits(40)) is scale.of(RATE, Limits(40))


def test_texts_and_plans_are_bounded() -> None:
    made = scale.Scale(BY_NAME["perfusion_index"].index, Limits())
    texts = [made.texts[at] for at in range(scale.TEXTS_MAX + 10)]
    assert len(made.texts) == scale.TEXTS_MAX
    assert texts[-1] == made.texts[scale.TEXTS_MAX + 9]
    plans = Chart({})
    for count in range(chart.PLANS_MAX + 10):
        vitals = pair(count)
        before = plans.sample(SUBJECT, DEVICE, vitals, (1,) * len(vitals), AT)
        assert before == plans.sample(SUBJECT, DEVICE, vitals, (1,) * len(vitals), AT)
    assert len(plans._plans) == chart.PLANS_MAX


def pair(number: int) -> tuple[int, ...]:
    first, second = divmod(number, 16)
    return (first, second if second < first else second + 1)

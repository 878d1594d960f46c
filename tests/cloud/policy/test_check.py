"""What a policy must be: every bound at its edge, every message with its place and a next step."""

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from cloud.policy import bounds, rules
from cloud.policy.check import check, problems, warnings
from cloud.policy.default import DEFAULT
from cloud.policy.model import Policy
from cloud.policy.text import read
from tests.cloud.policy.files import (
    DEFAULT_TEXT,
    HR_HIGH,
    HR_LOW,
    HR_MEDIUM,
    SPO2,
    SUBJECTS,
    TEMPERATURE,
    built,
    change,
    raw,
    ward,
)
from vitals.codes import VITALS
from vitals.errors import ConfigError


def wrong(policy: Policy) -> list[str]:
    return list(problems(policy))


EDGES = [
    ("gap_s", 5, 300, 0.1),
    (f"{SPO2}.delay_s", 0, 300, 0.1),
    (f"{SPO2}.clear_delay_s", 0, 300, 0.1),
    (f"{SPO2}.late_s", 10, 86_400, 0.1),
    ("signal_loss.delay_s", 0, 300, 0.1),
    ("signal_loss.clear_delay_s", 0, 300, 0.1),
    ("signal_loss.late_s", 10, 86_400, 0.1),
    ("signal_loss.stale_s", 5, 600, 0.1),
    ("silence.after_s", 10, 600, 0.1),
    ("silence.gateway_s", 25, 600, 0.1),
    ("silence.forget_s", 900, 86_400, 0.1),
    ("trend.0.window_min", 5, 60, 0.1),
    ("scores.news2.medium_at", 1, 6, 1),
    ("scores.news2.high_at", 6, 20, 1),
    ("scores.news2.pulse_s", 10, 86_400, 0.1),
    ("scores.news2.oxygen_s", 10, 86_400, 0.1),
    ("scores.qsofa.at", 1, 3, 1),
    ("scores.shock_index.at", 0.3, 3, 0.01),
    ("life.low.acknowledge_s", 60, 43_200, 0.1),
    ("life.high.shelve_s_max", 60, 43_200, 0.1),
    ("life.medium.flap_count", 2, 100, 1),
    ("life.medium.flap_s", 10, 86_400, 0.1),
    ("charting.around_alarm_s", 0, 3_600, 0.1),
    (f"{SPO2}.hysteresis", 0, 10, 0.1),
    (f"{SPO2}.limit", 0.1, 99, 0.1),
    (f"{HR_MEDIUM}.limit", 47, 149.9, 0.1),
    (f"{HR_HIGH}.limit", 130.1, 389.9, 0.1),
    (f"{HR_LOW}.limit", 0.1, 123, 0.1),
    ("trend.0.change", 0.1, 99.9, 0.1),
]


@pytest.mark.parametrize(("path", "low", "high", "step"), EDGES, ids=[edge[0] for edge in EDGES])
def test_a_bound_is_allowed_and_what_lies_beyond_is_refused(
    path: str, low: float, high: float, step: float
) -> None:
    assert wrong(built({path: low})) == []
    assert wrong(built({path: high})) == []
    for beyond in (low - step, high + step):
        found = wrong(built({path: beyond}))
        assert found, beyond
        assert all(line.count("; ") >= 1 for line in found), "a next step"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({f"{SPO2}.limit": 0}, "rule spo2.low.high: no value is ever beyond 0"),
        ({f"{HR_HIGH}.limit": 390}, "never rings"),
        ({f"{SPO2}.limit": 101}, "limit 101 is not plausible; give 0 to 100 %"),
        ({f"{SPO2}.limit": -1}, "is not plausible"),
        ({f"{SPO2}.hysteresis": 10.5}, r"no value \(100.5\) could ever clear it"),
        ({f"{SPO2}.hysteresis": -1}, "hysteresis is below 0"),
        ({f"{HR_HIGH}.limit": 130}, "heart_rate.high.high: its limit 130 is not further out"),
        ({f"{HR_LOW}.limit": 130}, "is not below 130 of heart_rate.high.medium"),
        ({f"{HR_LOW}.limit": 124}, "no value clears it and heart_rate.high.medium both"),
        ({f"{TEMPERATURE}.delay_s": 1}, "taken now and then"),
        ({f"{TEMPERATURE}.clear_delay_s": 1}, "taken now and then"),
        ({f"{SPO2}.vital": "glucose"}, "rule glucose.low.high: no such vital"),
        ({"trend.0.vital": "glucose"}, "trend glucose.falling: no such vital"),
        ({"trend.0.vital": "temperature"}, "now and then"),
        ({"scores.news2.high_at": 5}, "high_at is not above medium_at"),
        ({"scores.news2.high_priority": "low"}, "high_priority is below medium_priority"),
        ({"life.high.escalate_s": [300, 300]}, "life.high.escalate_s: .*sort them"),
        ({"life.high.escalate_s": [9.9]}, "life.high.escalate_s: 9.9 is outside"),
        ({"life.high.escalate_s": [43_200.1]}, "life.high.escalate_s"),
        ({"version": "a b"}, "version: letters"),
        ({"version": ""}, "version: letters"),
        ({"version": "v" * 41}, "version: letters"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(built(changes))


def test_the_longest_version_is_taken() -> None:
    assert wrong(built({"version": "v" * 40})) == []


def test_the_graver_low_limit_must_be_the_lower_one() -> None:
    for limit, is_good in ((90.1, True), (90, False), (85, False)):
        extra = change(priority="medium", limit=limit, hysteresis=1)
        found = wrong(built(rule=[*_rules(), extra]))
        assert (found == []) is is_good, limit


def _rules() -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = raw()["rule"]
    return tables


def test_two_priorities_a_side_and_no_third() -> None:
    third = change("heart_rate", "high", "low", limit=120)
    assert any("3 priorities on one side" in line for line in wrong(built(rule=[*_rules(), third])))


def test_one_rule_and_one_trend_twice_are_refused() -> None:
    tables = _rules()
    assert "rule spo2.low.high: given 2 times; keep one" in wrong(built(rule=[*tables, tables[0]]))
    trend = {"vital": "spo2", "direction": "falling", "change": 5, "window_min": 9}
    two = [trend | {"priority": "low"}, trend | {"priority": "high"}]
    assert "trend spo2.falling: given 2 times; keep one" in wrong(built(trend=two))


# Caps ---------------------------------------------------------------------------------------------


def _many_rules(count: int) -> list[dict[str, Any]]:
    made = []
    for vital in VITALS:
        span = vital.high - vital.low
        delays = {} if vital.continuous else {"delay_s": 0, "clear_delay_s": 0}
        for side, priority, part in (
            ("low", "medium", 0.3),
            ("low", "high", 0.2),
            ("high", "medium", 0.7),
            ("high", "high", 0.8),
        ):
            made.append(change(vital.name, side, priority, limit=vital.low + part * span, **delays))
    return made[:count]


def test_as_many_rules_as_the_cap_and_not_one_more() -> None:
    assert wrong(built(rule=_many_rules(bounds.RULES_MAX))) == []
    assert wrong(built(rule=_many_rules(bounds.RULES_MAX + 1))) == ["rule: 49 entries; keep 48"]
    assert wrong(built(ward=[ward(rule=_many_rules(bounds.RULES_MAX))], rule=[])) == []
    assert wrong(built(ward=[ward(rule=_many_rules(bounds.RULES_MAX + 1))], rule=[])) == [
        "ward[0]: 49 rules; keep 48"
    ]


def _many_trends(count: int) -> list[dict[str, Any]]:
    vitals = [vital.name for vital in VITALS if vital.continuous]
    every = itertools.product(vitals, ("falling", "rising"))
    return [
        {"vital": v, "direction": d, "change": 5, "window_min": 9, "priority": "low"}
        for v, d in itertools.islice(every, count)
    ]


def test_as_many_trends_as_the_cap_and_not_one_more() -> None:
    assert wrong(built(trend=_many_trends(bounds.TRENDS_MAX))) == []
    assert wrong(built(trend=_many_trends(bounds.TRENDS_MAX + 1))) == ["trend: 17 entries; keep 16"]
    assert wrong(built(ward=[ward(trend=_many_trends(bounds.TRENDS_MAX))], trend=[])) == []
    assert wrong(built(ward=[ward(trend=_many_trends(bounds.TRENDS_MAX + 1))], trend=[])) == [
        "ward[0]: 17 trends; keep 16"
    ]


def test_as_many_wards_beds_patients_as_the_cap_and_not_one_more() -> None:
    for kind, most, entry in (
        ("ward", bounds.WARDS_MAX, lambda n: ward(f"w{n}", f"gw{n}")),
        ("bed", bounds.BEDS_MAX, lambda n: {"device_id": SUBJECTS[n]}),
        ("patient", bounds.PATIENTS_MAX, lambda n: {"subject": SUBJECTS[n]}),
    ):
        assert wrong(built({kind: [entry(n) for n in range(most)]})) == []
        found = wrong(built({kind: [entry(n) for n in range(most + 1)]}))
        assert found == [f"{kind}: {most + 1} entries; keep {most}"]


def test_as_many_gateways_and_levels_as_the_cap_and_not_one_more() -> None:
    names = [f"gw{n}" for n in range(bounds.GATEWAYS_MAX + 1)]
    assert wrong(built(ward=[ward("ICU", *names[:-1])])) == []
    assert wrong(built(ward=[ward("ICU", *names)])) == ["ward[0].gateways: 65 of them; keep 64"]
    levels = [60 * level for level in range(1, bounds.ESCALATIONS_MAX + 2)]
    assert wrong(built({"life.low.escalate_s": levels[:-1]})) == []
    assert wrong(built({"life.low.escalate_s": levels})) == [
        "life.low.escalate_s: 9 levels; keep 8"
    ]


def test_a_file_of_the_most_bytes_is_read_and_one_of_more_is_not() -> None:
    text = DEFAULT_TEXT.encode()
    full = text + b"#" * (bounds.TEXT_BYTES_MAX - len(text))
    assert read(full, "file").version == "default-2"
    with pytest.raises(ConfigError, match="more than 900000 bytes"):
        read(full + b"#", "file")


def test_problems_are_shown_up_to_their_cap() -> None:
    wards = [ward(f"w{n}", f"gw{n}", silence={"after_s": 1}) for n in range(21)]
    with pytest.raises(ConfigError) as caught:
        check(built(ward=wards[:20]), "f.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("f.toml: ward[0].silence.after_s: 1 is outside 10 to 600")
    with pytest.raises(ConfigError) as caught:
        check(built(ward=wards))
    assert str(caught.value).splitlines()[20:] == ["policy: and more; mend these first"]


# Layers and who they are for ----------------------------------------------------------------------

SCALE_2 = {"subject": SUBJECTS[1], "spo2_scale": 2}


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"ward": [ward(), ward("ICU", "gw-2")]}, "ward ICU: given 2 times"),
        ({"ward": [ward(), ward("B", "gw-1")]}, "gateway gw-1 is in 2 wards"),
        ({"ward": [{"name": "ICU", "gateways": []}]}, r"ward\[0\].gateways: a ward has gateways"),
        ({"ward": [{"name": "I\nU", "gateways": ["g"]}]}, r"ward\[0\].name"),
        ({"bed": [{}]}, r"bed\[0\]: give either device with gateway, or device_id"),
        ({"bed": [{"device": "b", "gateway": "g", "device_id": SUBJECTS[0]}]}, "give either"),
        ({"bed": [{"device": "b"}]}, "give gateway"),
        ({"bed": [{"device": "b ", "gateway": "g"}]}, "spaces around it"),
        ({"bed": [{"device_id": "A" * 32}]}, "32 small hex digits"),
        ({"bed": [{"device_id": "a" * 31}]}, "32 small hex digits"),
        ({"bed": [{"device": "b", "gateway": "g"}] * 2}, r"bed\[1\]: is for the same as bed\[0\]"),
        ({"patient": [{}]}, r"patient\[0\]: give either mrn or subject"),
        ({"patient": [{"mrn": "1", "subject": SUBJECTS[0]}]}, "give either mrn or subject"),
        ({"patient": [{"subject": "x"}]}, "32 small hex digits"),
        ({"patient": [{"mrn": "1"}, {"mrn": " 1 "}]}, r"patient\[1\]: is for the same"),
        ({"patient": [SCALE_2]}, r"patient\[0\]: SpO2 scale 2 is a clinician's decision"),
        ({"patient": [SCALE_2 | {"by": "dr"}]}, "give by and why"),
        ({"patient": [SCALE_2 | {"why": "COPD", "by": " "}]}, "give by and why"),
        ({"patient": [{"mrn": "1", "why": "w" * 501}]}, "more than 500 characters"),
        ({"patient": [{"mrn": "1", "age_years": -1}]}, r"patient\[0\].age_years: -1 is outside"),
        ({"patient": [{"mrn": "1", "age_years": 131}]}, "age_years: 131 is outside"),
        ({"patient": [{"mrn": "1", "age_years": 16, "under_16": True}]}, "disagree"),
        ({"patient": [{"mrn": "1", "age_years": 15, "under_16": False}]}, "disagree"),
        ({"ward": [ward(rule=[change(), change()])]}, r"ward\[0\].rule spo2.low.high: given 2"),
        ({"ward": [ward(rule=[change("glucose", limit=1)])]}, "no such vital"),
        ({"ward": [ward(rule=[change(priority="low")])]}, "no layer below has this rule"),
        (
            {"ward": [ward(trend=[{"vital": "spo2", "direction": "rising", "change": 2}])]},
            "no layer below has this trend",
        ),
        (
            {"bed": [{"device_id": SUBJECTS[0], "silence": {"gateway_s": 60}}]},
            "set it for the ward",
        ),
        ({"ward": [ward(signal_loss={"delay_s": -1})]}, r"ward\[0\].signal_loss.delay_s"),
        ({"ward": [ward(scores={"news2": {"high_at": 5}})]}, r"ward\[0\].scores.news2: high_at"),
        (
            {"ward": [ward(trend=[{"vital": "spo2", "direction": "falling", "change": 0}])]},
            r"ward\[0\].trend spo2.falling: change 0",
        ),
    ],
)
def test_a_layer_that_cannot_work_is_refused(tables: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(built(tables))


@pytest.mark.parametrize(
    "tables",
    [
        {"patient": [SCALE_2 | {"by": "dr", "why": "w" * 500}]},
        {"patient": [{"mrn": "1", "age_years": 130}, {"mrn": "2", "age_years": 0}]},
        {"patient": [{"mrn": "1", "age_years": 15, "under_16": True}]},
        {"ward": [ward(silence={"gateway_s": 60})]},
        {"ward": [ward(rule=[change(priority="low", limit=92, off=True)])]},
        {
            "ward": [ward(rule=[change("resp_rate", "high", "high", limit=35)])],
            "bed": [{"device_id": SUBJECTS[0], "rule": [change("resp_rate", "high", off=True)]}],
        },
    ],
)
def test_a_layer_that_works_is_taken(tables: dict[str, Any]) -> None:
    assert wrong(built(tables)) == []


def test_layers_that_are_good_alone_and_bad_together_are_refused() -> None:
    a_ward = ward(rule=[change("heart_rate", "high", "medium", limit=100)])
    a_bed = {"device_id": SUBJECTS[0], "gateway": "gw-1"}
    a_bed["rule"] = [change("heart_rate", "low", limit=90)]  # type: ignore[assignment]
    a_patient = {"mrn": "1", "rule": [change("heart_rate", "low", limit=110, hysteresis=0)]}
    for tables in ({"ward": [a_ward]}, {"bed": [a_bed]}, {"patient": [a_patient]}):
        assert wrong(built(tables)) == [], tables
    assert wrong(built(ward=[a_ward], patient=[a_patient])) == [
        (
            "ward[0] + patient[0]: rule heart_rate.low.high: its limit 110 is not below 100 of"
            " heart_rate.high.medium, so one of them always rings; move them apart"
        )
    ]
    close = a_bed | {"rule": [change("heart_rate", "low", limit=94)]}
    assert wrong(built(ward=[a_ward], bed=[a_bed])) == []
    assert wrong(built(ward=[a_ward], bed=[close]))[0].startswith("ward[0] + bed[0]: rule")
    elsewhere = close | {"gateway": "gw-2"}
    assert wrong(built(ward=[a_ward], bed=[elsewhere])) == []
    anywhere = close | {"gateway": ""}
    assert wrong(built(ward=[a_ward], bed=[anywhere]))[0].startswith("ward[0] + bed[0]: rule")


def test_combinations_are_looked_at_up_to_their_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = [{"subject": SUBJECTS[n], "rule": [change(limit=80 + n)]} for n in range(3)]
    policy = built(patient=patients)
    monkeypatch.setattr("cloud.policy.rules.COMBINATIONS_MAX", 4)
    assert not rules.Combinations(policy, "spo2").is_cut
    monkeypatch.setattr("cloud.policy.rules.COMBINATIONS_MAX", 3)
    assert rules.Combinations(policy, "spo2").is_cut
    assert [line for line in warnings(policy, DEFAULT, 0) if "combinations" in line] == [
        (
            "spo2: more than 50000 combinations of wards, beds and patients; the others were not"
            " looked at"
        )
    ]


def test_beds_in_no_known_ward_do_not_multiply_without_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cloud.policy.rules.COMBINATIONS_MAX", 50)
    wards = [ward(f"w{n}", f"g{n}", rule=[change(limit=60 + n)]) for n in range(20)]
    beds = [{"device_id": SUBJECTS[n], "rule": [change(delay_s=n)]} for n in range(20)]
    looked = rules.Combinations(built(ward=wards, bed=beds), "spo2")
    assert looked.is_cut
    assert len(looked._places) == 51


def test_what_is_said_names_nobody() -> None:
    number, device = "MRN-CANARY-1", "bed-CANARY"
    policy = built(
        patient=[{"mrn": number, "rule": [change(limit=0)]}, {"mrn": number}],
        bed=[{"gateway": "g", "device": device, "rule": [change(limit=0)]}] * 2,
    )
    assert len(wrong(policy)) > 2
    assert "CANARY" not in "".join(wrong(policy))


# Warnings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({f"{SPO2}.limit": 89}, "rule spo2.low.high: limit 89 is looser than the default 90"),
        ({f"{HR_HIGH}.limit": 151}, "rule heart_rate.high.high: limit 151 is looser"),
        ({f"{SPO2}.delay_s": 10.5}, "delay_s 10.5 is looser than the default 10"),
        ({f"{SPO2}.late_s": 59}, "late_s 59 is looser than the default 60"),
        ({f"{SPO2}.priority": "medium"}, "the default has it and this policy does not; add it"),
        ({"silence.enabled": False}, "silence: the default has it on"),
        ({"signal_loss.enabled": False}, "signal_loss: the default has it on"),
        ({"scores.news2.enabled": False}, "scores.news2: the default has it on"),
    ],
)
def test_an_alarm_lost_against_the_default_is_a_warning(changes: dict[str, Any], says: str) -> None:
    policy = check(built(changes))
    (found,) = warnings(policy, DEFAULT, 0)
    assert says in found


def test_the_default_and_anything_tighter_give_no_warning() -> None:
    assert warnings(built(), DEFAULT, 0) == []
    tighter = {f"{SPO2}.limit": 91, f"{SPO2}.delay_s": 5, f"{HR_HIGH}.limit": 145}
    assert warnings(built(tighter), DEFAULT, 0) == []
    assert warnings(built({f"{HR_MEDIUM}.limit": 140}), DEFAULT, 0) == [], "a medium one"


def test_an_entry_that_has_ended_is_a_warning() -> None:
    until = datetime(2026, 11, 23, 10, tzinfo=UTC)
    policy = built(patient=[{"mrn": "1"}, {"mrn": "2", "until": until}])
    ends_ms = round(until.timestamp() * 1000)
    assert warnings(policy, DEFAULT, ends_ms - 1) == []
    assert warnings(policy, DEFAULT, ends_ms) == [
        "patient[1]: until is in the past, so it does nothing; remove it"
    ]

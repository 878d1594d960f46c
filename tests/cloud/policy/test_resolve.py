"""What holds for a subject: the later layer wins field by field, equal overrides are one object."""

import gc
import weakref
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.policy.check import check
from cloud.policy.default import DEFAULT
from cloud.policy.model import Policy, Rule
from cloud.policy.resolve import Effective, refusal, resolve
from tests.cloud.policy.files import SUBJECTS, built, change, ward
from vitals.codes import BY_NAME
from vitals.errors import ConfigError

SPO2 = BY_NAME["spo2"].index
EDGE, OTHER_EDGE = "gw-1", "gw-2"
DEVICE, OTHER_DEVICE = "d" * 32, "e" * 32
WHO, OTHER = SUBJECTS[1], SUBJECTS[2]


def of(policy: Policy, edge: str = EDGE, device: str = DEVICE, who: str = WHO) -> Effective:
    return resolve(policy, edge, device, who, {})


def spo2(effective: Effective) -> Rule:
    (rule,) = (one for one in effective.rules if one.name == "spo2.low.high")
    return rule


def layers(site: Any = (), a_ward: Any = (), bed: Any = (), patient: Any = ()) -> Policy:
    """Return the default with changes of ``spo2.low.high`` by layer."""
    changes = {f"rule.0.{name}": value for name, value in dict(site).items()}
    return built(
        changes,
        ward=[ward("ICU", EDGE, rule=[change(**dict(a_ward))])],
        bed=[{"device_id": DEVICE, "rule": [change(**dict(bed))]}],
        patient=[{"subject": WHO, "rule": [change(**dict(patient))]}],
    )


def test_each_layer_wins_over_the_one_below_and_only_where_it_is_meant() -> None:
    policy = layers({"limit": 90}, {"limit": 89}, {"limit": 88}, {"limit": 87})
    assert spo2(of(policy)).limit == 87
    assert spo2(of(policy, who=OTHER)).limit == 88
    assert spo2(of(policy, who=OTHER, device=OTHER_DEVICE)).limit == 89
    assert spo2(of(policy, OTHER_EDGE, OTHER_DEVICE, OTHER)).limit == 90
    assert spo2(of(policy, OTHER_EDGE, OTHER_DEVICE)).limit == 87
    own = {"spo2.low.high": 86.0}
    assert spo2(resolve(policy, EDGE, DEVICE, WHO, own)).limit == 86


def test_a_layer_leaves_what_it_does_not_name() -> None:
    policy = layers({}, {"limit": 88}, {"delay_s": 20}, {"hysteresis": 2})
    rule = spo2(of(policy))
    assert (rule.limit, rule.delay_s, rule.hysteresis, rule.clear_delay_s) == (88, 20, 2, 5)


FIELDS = ("limit", "delay_s", "hysteresis", "clear_delay_s", "late_s", "off")
changes_ = st.dictionaries(st.sampled_from(FIELDS), st.integers(60, 98), max_size=len(FIELDS)).map(
    lambda d: {k: v % 2 == 0 if k == "off" else float(v) for k, v in d.items()}
)


@settings(max_examples=150, deadline=None)
@given(changes_, changes_, changes_, st.none() | st.integers(60, 98))
def test_the_later_layer_wins_field_by_field(
    a_ward: dict[str, Any], bed: dict[str, Any], patient: dict[str, Any], own: int | None
) -> None:
    policy = layers({}, a_ward, bed, patient)
    commanded = {} if own is None else {"spo2.low.high": float(own)}
    expected: dict[str, Any] = {
        "limit": 90,
        "delay_s": 10,
        "hysteresis": 1,
        "clear_delay_s": 5,
        "late_s": 60,
        "off": False,
    }
    for layer in (a_ward, bed, patient):
        expected.update(layer)
    if own is not None:
        expected["limit"] = own
    found = resolve(policy, EDGE, DEVICE, WHO, commanded)
    ready = found.limits[SPO2]
    if expected["off"]:
        assert ready == ()
        assert SPO2 not in found.alarm_limits
        return
    (limit,) = ready
    assert (limit.rule, limit.vital, limit.direction) == ("spo2.low.high", SPO2, "low")
    assert limit.limit == expected["limit"]
    assert limit.hysteresis == expected["hysteresis"]
    assert limit.delay_ms == expected["delay_s"] * 1000
    assert limit.clear_delay_ms == expected["clear_delay_s"] * 1000
    assert limit.late_ms == expected["late_s"] * 1000
    assert limit.gap_ms == 30_000
    assert found.alarm_limits[SPO2] == (expected["limit"], None)
    assert resolve(policy, EDGE, DEVICE, WHO, dict(commanded)) is found


def test_a_rule_switched_off_is_back_with_its_fields() -> None:
    policy = layers({}, {"limit": 88, "off": True}, {"delay_s": 20}, {"off": False})
    assert of(policy, who=OTHER).limits[SPO2] == ()
    assert (spo2(of(policy)).limit, spo2(of(policy)).delay_s) == (88, 20)


def test_a_layer_adds_a_rule_and_a_change_of_a_rule_that_is_not_there_is_nothing() -> None:
    policy = built(
        ward=[ward("ICU", EDGE, rule=[change("etco2", "low", limit=20, hysteresis=2)])],
        patient=[{"subject": WHO, "rule": [change("etco2", "low", delay_s=20)]}],
    )
    check(policy)
    at = BY_NAME["etco2"].index
    assert [one.delay_ms for one in of(policy).limits[at]] == [20_000]
    assert [one.delay_ms for one in of(policy, who=OTHER).limits[at]] == [10_000]
    assert of(policy, OTHER_EDGE).limits[at] == ()


def test_a_ward_of_ten_thousand_without_overrides_is_one_object() -> None:
    policy = built(
        ward=[ward("ICU", EDGE), ward("B", OTHER_EDGE, rule=[change(limit=88)])],
        patient=[{"subject": WHO, "rule": [change(limit=85)]}],
    )
    first = of(policy, EDGE, "0" * 32, f"{10**6:032x}")
    for number in range(10_000):
        subject = f"{10**6 + number:032x}"
        assert resolve(policy, EDGE, subject, subject, {}) is first
    assert of(policy, "gw-nowhere", who=OTHER) is first, "a ward that changes nothing is no ward"
    assert of(policy, OTHER_EDGE, who=OTHER) is not first
    assert of(policy) is not first


def test_equal_overrides_are_one_object_whoever_has_them() -> None:
    policy = built(patient=[{"subject": s, "rule": [change(limit=85)]} for s in (WHO, OTHER)])
    held = of(policy)
    assert of(policy, who=OTHER) is held
    one = resolve(policy, EDGE, DEVICE, WHO, {"spo2.low.high": 80, "heart_rate.low.high": 35})
    two = resolve(policy, EDGE, DEVICE, OTHER, {"heart_rate.low.high": 35, "spo2.low.high": 80})
    assert one is two
    assert one is not held


def test_what_nobody_holds_is_let_go() -> None:
    gone = weakref.ref(resolve(built(), EDGE, DEVICE, WHO, {"spo2.low.high": 77.0}))
    gc.collect()
    assert gone() is None


def test_everything_is_in_milliseconds_and_by_vital() -> None:
    found = of(DEFAULT)
    assert found.version == DEFAULT.version
    assert (found.losses.delay_ms, found.losses.stale_ms, found.losses.gap_ms) == (
        10_000,
        30_000,
        30_000,
    )
    assert (found.losses.clear_delay_ms, found.losses.late_ms) == (5_000, 60_000)
    quiet = found.silence
    assert (quiet.after_ms, quiet.forget_ms, quiet.gateway_ms) == (60_000, 1_800_000, 30_000)
    assert quiet.priority == "medium"
    (slope,) = found.trends[SPO2]
    assert (slope.rule, slope.direction, slope.change) == ("spo2.falling", "falling", 6)
    assert (slope.window_ms, slope.priority, slope.vital) == (600_000, "low", SPO2)
    news = found.scores.news2
    assert (news.enabled, news.medium_at, news.high_at, news.single_red) == (True, 5, 7, False)
    assert (news.ages.pulse, news.ages.systolic, news.ages.oxygen) == (
        300_000,
        21_600_000,
        21_600_000,
    )
    assert (found.scores.qsofa.enabled, found.scores.qsofa.at) == (False, 2)
    assert (found.scores.shock_index.enabled, found.scores.shock_index.at) == (False, 0.9)
    high = found.life["high"]
    assert (high.latch, high.escalate_ms, high.acknowledge_ms) == (
        True,
        (120_000, 180_000),
        600_000,
    )
    assert (high.shelve_ms_max, high.flap_count, high.flap_ms) == (1_800_000, 5, 900_000)
    assert not found.life["low"].latch
    assert (found.charting.mode, found.charting.around_alarm_ms) == ("every", 300_000)
    assert found.artefact


def test_the_tightest_limit_of_each_side_is_what_is_charted() -> None:
    found = of(DEFAULT).alarm_limits
    assert found[BY_NAME["heart_rate"].index] == (40, 130)
    assert found[BY_NAME["temperature"].index] == (None, 39)
    assert BY_NAME["etco2"].index not in found
    two = built(ward=[ward("ICU", EDGE, rule=[change(priority="medium", limit=92, hysteresis=1)])])
    assert of(two).alarm_limits[SPO2] == (92, None)


def test_losses_silence_trends_and_scores_are_layered_too() -> None:
    policy = built(
        ward=[
            ward(
                "ICU",
                EDGE,
                signal_loss={"delay_s": 20},
                silence={"gateway_s": 60},
                scores={"news2": {"single_red": True}, "qsofa": {"enabled": True}},
                trend=[{"vital": "spo2", "direction": "falling", "change": 4}],
            )
        ],
        bed=[{"device_id": DEVICE, "silence": {"enabled": False}}],
        patient=[
            {
                "subject": WHO,
                "signal_loss": {"enabled": False},
                "trend": [{"vital": "spo2", "direction": "falling", "off": True}],
                "scores": {"news2": {"medium_at": 6}, "shock_index": {"enabled": True, "at": 1.0}},
            }
        ],
    )
    check(policy)
    found, neighbour = of(policy), of(policy, device=OTHER_DEVICE, who=OTHER)
    assert (found.losses.enabled, found.losses.delay_ms) == (False, 20_000)
    assert neighbour.losses.enabled
    assert (found.silence.enabled, found.silence.gateway_ms) == (False, 60_000)
    assert neighbour.silence.enabled
    assert found.trends[SPO2] == ()
    assert neighbour.trends[SPO2][0].change == 4
    assert (found.scores.news2.single_red, found.scores.news2.medium_at) == (True, 6)
    assert (found.scores.qsofa.enabled, found.scores.shock_index.at) == (True, 1.0)
    assert neighbour.scores.news2.medium_at == 5
    assert not neighbour.scores.shock_index.enabled


@pytest.mark.parametrize(
    ("flags", "excluded", "scale"),
    [
        ({}, "", 1),
        ({"spo2_scale": 2, "by": "a" * 32, "why": "b" * 32}, "", 2),
        ({"spo2_scale": 1}, "", 1),
        ({"under_16": True}, "under 16", 1),
        ({"under_16": False}, "", 1),
        ({"pregnant": True}, "pregnant", 1),
    ],
)
def test_news2_asks_who_the_patient_is(flags: dict[str, Any], excluded: str, scale: int) -> None:
    news = of(built(patient=[{"subject": WHO, **flags}])).scores.news2
    assert (news.enabled, news.excluded, news.spo2_scale) == (not excluded, excluded, scale)


def test_a_patients_part_ends() -> None:
    until = datetime(2026, 11, 23, 10, tzinfo=UTC)
    policy = built(patient=[{"subject": WHO, "until": until, "rule": [change(limit=85)]}])
    ends_ms = round(until.timestamp() * 1000)
    before = resolve(policy, EDGE, DEVICE, WHO, {}, at_ms=ends_ms - 1)
    assert (spo2(before).limit, before.until_ms) == (85, ends_ms)
    after = resolve(policy, EDGE, DEVICE, WHO, {}, at_ms=ends_ms)
    assert (spo2(after).limit, after.until_ms) == (90, None)
    assert after is of(policy, who=OTHER)


@pytest.mark.parametrize(
    "tables",
    [
        {"bed": [{"gateway": "g", "device": "bed-1"}]},
        {"patient": [{"mrn": "1"}]},
        {"patient": [{"subject": WHO, "age_years": 12}]},
        {"patient": [{"subject": WHO, "by": "Dr Ng"}]},
        {"patient": [{"subject": WHO, "why": "COPD"}]},
    ],
)
def test_a_policy_with_somebody_in_clear_is_refused(tables: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="names somebody in clear; seal it first"):
        of(built(tables))


@pytest.mark.parametrize(
    ("rule", "limit", "says"),
    [
        ("spo2.low.high", 85, None),
        ("spo2.low.high", 99, None),
        ("spo2.low.high", 99.5, "could ever clear it"),
        ("spo2.low.high", 0, "never rings"),
        ("spo2.low.high", 101, "not plausible"),
        ("spo2.low.high", float("nan"), "not finite"),
        ("spo2.low.high", float("inf"), "not finite"),
        ("spo2.low.medium", 92, "there is no rule spo2.low.medium"),
        ("heart_rate.high.medium", 149, None),
        ("heart_rate.high.medium", 150, "not further out"),
        ("heart_rate.high.high", 130, "not further out"),
        ("heart_rate.low.high", 130, "one of them always rings"),
    ],
)
def test_a_limit_by_command_is_held_against_the_checks(
    rule: str, limit: float, says: str | None
) -> None:
    found = refusal(of(DEFAULT), rule, limit)
    if says is None:
        assert found is None
    else:
        assert says in (found or "")


def test_a_refusal_knows_the_limits_set_before() -> None:
    moved = resolve(DEFAULT, EDGE, DEVICE, WHO, {"heart_rate.high.medium": 120})
    assert refusal(moved, "heart_rate.high.high", 125) is None
    assert refusal(of(DEFAULT), "heart_rate.high.high", 125) is not None


def test_a_commanded_limit_of_a_rule_that_is_gone_changes_nothing() -> None:
    found = resolve(DEFAULT, EDGE, DEVICE, WHO, {"cvp_mean.high.low": 12.0})
    assert found.limits == of(DEFAULT).limits


@pytest.mark.parametrize(
    ("direction", "value", "breach", "recovered"),
    [
        ("low", 89, True, False),
        ("low", 90, False, False),
        ("low", 91, False, True),
        ("high", 91, True, False),
        ("high", 90, False, False),
        ("high", 89, False, True),
    ],
)
def test_a_limit_judges_a_value(
    direction: str, value: float, breach: bool, recovered: bool
) -> None:
    table = change("spo2", direction, limit=90, hysteresis=1)
    (limit,) = of(built(rule=[table])).limits[SPO2]
    assert (limit.breach(value), limit.recovered(value)) == (breach, recovered)
    assert limit.worse(85, 88) is (direction == "low")
    assert limit.worse(88, 88) is False

"""What rings otherwise, and for whom: one word each."""

from typing import Any

import pytest

from cloud.policy.differ import Row, as_text, differences
from tests.cloud.policy.files import HR_MEDIUM, SPO2, SUBJECTS, built, change, ward


def verdicts(changes: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = differences(built(), built(changes))
    assert all(row.who == "site" for row in rows)
    return [(row.alarm, row.change, row.verdict) for row in rows]


@pytest.mark.parametrize(
    ("changes", "alarm", "louder"),
    [
        ({f"{SPO2}.limit": 91}, "spo2.low.high", True),
        ({f"{SPO2}.limit": 89}, "spo2.low.high", False),
        ({f"{HR_MEDIUM}.limit": 125}, "heart_rate.high.medium", True),
        ({f"{HR_MEDIUM}.limit": 135}, "heart_rate.high.medium", False),
        ({f"{SPO2}.delay_s": 5}, "spo2.low.high", True),
        ({f"{SPO2}.delay_s": 15}, "spo2.low.high", False),
        ({f"{SPO2}.hysteresis": 2}, "spo2.low.high", True),
        ({f"{SPO2}.clear_delay_s": 4}, "spo2.low.high", False),
        ({f"{SPO2}.late_s": 50}, "spo2.low.high", False),
        ({f"{SPO2}.limit": 91, f"{SPO2}.delay_s": 5}, "spo2.low.high", True),
        ({"signal_loss.delay_s": 20}, "signal_loss", False),
        ({"signal_loss.stale_s": 20}, "signal_loss", True),
        ({"signal_loss.priority": "high"}, "signal_loss", True),
        ({"silence.after_s": 50}, "silence", True),
        ({"silence.forget_s": 1000}, "silence", False),
        ({"silence.gateway_s": 40}, "silence", False),
        ({"silence.priority": "low"}, "silence", False),
        ({"trend.0.change": 5}, "trend spo2.falling", True),
        ({"trend.0.window_min": 5}, "trend spo2.falling", False),
        ({"scores.news2.high_at": 6}, "news2 high", True),
        ({"scores.news2.medium_priority": "low"}, "news2 medium", False),
        ({"gap_s": 20}, "gap", False),
        ({"life.medium.latch": True}, "life medium", True),
        ({"life.high.escalate_s": [120]}, "life high", False),
        ({"life.high.escalate_s": [60, 300]}, "life high", True),
        ({"life.high.acknowledge_s": 900}, "life high", False),
        ({"life.high.shelve_s_max": 900}, "life high", True),
        ({"life.high.flap_count": 3}, "life high", False),
    ],
)
def test_a_change_has_one_word(changes: dict[str, Any], alarm: str, louder: bool) -> None:
    expected = ("tighter", "louder") if louder else ("looser", "quieter")
    assert verdicts(changes) == [(alarm, *expected)]


def test_what_is_new_gone_or_both_at_once() -> None:
    assert verdicts({"silence.enabled": False}) == [("silence", "gone", "quieter")]
    assert verdicts({"scores.qsofa.enabled": True}) == [("qsofa", "new", "louder")]
    assert verdicts({"scores.news2.single_red": True}) == [("news2 single red", "new", "louder")]
    assert verdicts({"scores.news2.enabled": False}) == [
        ("news2 medium", "gone", "quieter"),
        ("news2 high", "gone", "quieter"),
    ]
    assert verdicts({f"{SPO2}.priority": "medium"}) == [
        ("spo2.low.medium", "new", "louder"),
        ("spo2.low.high", "gone", "quieter"),
    ]
    assert verdicts({f"{SPO2}.limit": 91, f"{SPO2}.delay_s": 15}) == [
        ("spo2.low.high", "changed", "mixed")
    ]
    assert verdicts({"charting.mode": "minute"}) == [("charting", "changed", "same")]
    assert verdicts({"artefact.enabled": False}) == [("artefact marks", "changed", "same")]
    assert verdicts({"version": "other"}) == []
    assert verdicts({}) == []


def test_a_class_is_listed_where_it_feels_the_change_otherwise() -> None:
    held = [ward("Held", "gw-1", rule=[change(limit=88)]), ward("Other", "gw-2")]
    old = built(ward=held, patient=[{"subject": SUBJECTS[1], "rule": [change(limit=85)]}])
    new = built(
        {f"{SPO2}.limit": 91},
        ward=held,
        patient=[{"subject": SUBJECTS[1], "rule": [change(limit=84)]}],
    )
    assert differences(old, new) == [
        Row("site", "spo2.low.high", "tighter", "limit 90 -> 91", "louder"),
        Row("ward Held", "spo2.low.high", "same", "", "same"),
        Row(f"patient {SUBJECTS[1]}", "spo2.low.high", "looser", "limit 85 -> 84", "quieter"),
    ]


def test_a_bed_is_compared_in_its_ward() -> None:
    def policy(limit: float, delay: float) -> Any:
        bed = {"device_id": SUBJECTS[3], "gateway": "gw-1", "rule": [change(delay_s=delay)]}
        return built(ward=[ward("ICU", "gw-1", rule=[change(limit=limit)])], bed=[bed])

    assert differences(policy(88, 20), policy(87, 20)) == [
        Row("ward ICU", "spo2.low.high", "looser", "limit 88 -> 87", "quieter")
    ]
    assert [row[0:4:3] for row in differences(policy(88, 20), policy(88, 30))] == [
        (f"bed {SUBJECTS[3]}", "delay_s 20 -> 30")
    ]


def test_a_layer_that_comes_or_goes() -> None:
    with_ = built(ward=[ward("ICU", "gw-1", rule=[change(off=True)])])
    assert differences(built(), with_) == [
        Row("ward ICU", "spo2.low.high", "gone", "limit 90", "quieter")
    ]
    assert differences(with_, built()) == [
        Row("ward ICU", "spo2.low.high", "new", "limit 90", "louder")
    ]
    young = built(patient=[{"subject": SUBJECTS[1], "under_16": True}])
    assert [(row.alarm, row.change) for row in differences(built(), young)] == [
        ("news2 medium", "gone"),
        ("news2 high", "gone"),
    ]
    scale = {"spo2_scale": 2, "by": "a", "why": "b"}
    scaled = built(patient=[{"subject": SUBJECTS[1], **scale}])
    assert [(row.detail, row.verdict) for row in differences(built(), scaled)] == [
        ("spo2_scale 1 -> 2", "mixed"),
        ("spo2_scale 1 -> 2", "mixed"),
    ]


def test_nobody_is_named_who_is_named_in_clear() -> None:
    new = built(
        patient=[{"mrn": "MRN-CANARY", "rule": [change(limit=80)]}],
        bed=[{"device": "CANARY-1", "gateway": "g", "rule": [change(limit=80)]}],
    )
    for rows in (differences(built(), new), differences(new, built())):
        assert [row.who for row in rows] == ["bed number 1", "patient number 1"]
        assert "CANARY" not in as_text(rows)


def test_the_table_is_for_people() -> None:
    assert as_text([]) == "no alarm differs"
    text = as_text(differences(built(), built({f"{SPO2}.limit": 91})))
    assert text.splitlines() == [
        "who   alarm          change   detail          verdict",
        "site  spo2.low.high  tighter  limit 90 -> 91  louder",
    ]

"""The default policy: what the product promises, and how often it rings over recorded patients."""

import statistics
from collections.abc import Callable

from cloud.policy.default import DEFAULT
from cloud.policy.model import Rule
from cloud.policy.seal import open_published, publish
from simulators.recorded import Second, recordings

VALUES: dict[str, Callable[[Second], int | None]] = {
    "heart_rate": lambda s: s.heart_rate,
    "resp_rate": lambda s: s.resp,
    "spo2": lambda s: s.spo2,
}


def rang(rule: Rule) -> int:
    """Return in how many recordings every value was a breach for the rule's delay."""
    counted = 0
    for recording in recordings():
        began: int | None = None
        for at, second in enumerate(recording):
            value = VALUES[rule.vital](second)
            if value is None:
                continue
            if (value >= rule.limit) if rule.direction == "low" else (value <= rule.limit):
                began = None
            elif began is None:
                began = at
            if began is not None and at - began >= rule.delay_s:
                counted += 1
                break
    return counted


def test_the_limit_of_the_product_stands() -> None:
    rule = DEFAULT.rules[0]
    assert (rule.name, rule.limit, rule.delay_s) == ("spo2.low.high", 90, 10)
    assert (rule.hysteresis, rule.clear_delay_s) == (1, 5)


def test_the_default_rings_as_often_as_its_file_says() -> None:
    counted = {rule.name: rang(rule) for rule in DEFAULT.rules if rule.vital in VALUES}
    assert counted == {
        "spo2.low.high": 2,
        "heart_rate.high.medium": 0,
        "heart_rate.high.high": 0,
        "heart_rate.low.high": 0,
        "resp_rate.low.high": 1,
        "resp_rate.high.medium": 0,
    }


def test_what_was_left_out_would_have_rung() -> None:
    assert rang(Rule("resp_rate", "high", 24, "medium", delay_s=10)) == 6
    red = {"resp_rate": (8, 25), "spo2": (91, 1000)}
    bands = {}
    for vital, (low, high) in red.items():
        bands[vital] = 0
        for recording in recordings():
            values = [VALUES[vital](second) for second in recording]
            run, longest = 0, 0
            for value in values:
                run = run + 1 if value is not None and not low < value < high else 0
                longest = max(longest, run)
            bands[vital] += longest >= 10
    assert bands == {"resp_rate": 8, "spo2": 3}


def test_no_recording_falls_as_the_trend_does() -> None:
    (trend,) = DEFAULT.trends
    steepest = 0.0
    for recording in recordings():
        values = [VALUES[trend.vital](second) for second in recording]
        cut = [values[at : at + 60] for at in range(0, 480, 60)]
        medians = [
            statistics.median(have)
            for minute in cut
            if (have := [v for v in minute if v is not None])
        ]
        falls = [a - b for at, a in enumerate(medians) for b in medians[at + 1 :]]
        steepest = max(steepest, *falls)
    assert steepest == 3
    assert trend.change == 2 * steepest


def test_the_default_is_as_one_that_was_pushed() -> None:
    made = publish(DEFAULT)
    assert made.version == DEFAULT.version
    assert open_published(made.text) == DEFAULT

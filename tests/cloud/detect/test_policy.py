"""Policies: what cannot work is refused when it is read."""

from pathlib import Path

import msgspec
import pytest

from cloud.detect.policy import DEFAULT, check, load_policy
from vitals.errors import ConfigError

GOOD = """
version = "ward-3"
gap_s = 20
[[rules]]
vital = "spo2"
direction = "low"
limit = 88
priority = "high"
hysteresis = 1
[signal_loss]
enabled = false
"""


def test_a_file_replaces_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(GOOD)
    policy = load_policy(file)
    assert (policy.version, policy.gap_s, policy.rules[0].limit) == ("ward-3", 20, 88)
    assert not policy.signal_loss.enabled
    assert load_policy(None) is DEFAULT


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('"spo2"', '"glucose"'), "no such vital"),
        (("limit = 88", "limit = 100"), "clear"),
        (("hysteresis = 1", "hysteresis = -1"), "below 0"),
        (("gap_s = 20", "gap_s = 0"), "gap_s"),
        (('"spo2"', '"temperature"'), "now and then"),
        (("priority", "prioritee"), "did you mean `priority`"),
        (('"low"', '"down"'), "down"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(GOOD.replace(*change))
    with pytest.raises(ConfigError, match=says):
        load_policy(file)


def test_one_rule_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="twice"):
        check(msgspec.structs.replace(DEFAULT, rules=[*DEFAULT.rules, DEFAULT.rules[0]]))


def test_the_limit_of_the_product_stands() -> None:
    rule = DEFAULT.rules[0]
    assert (rule.name, rule.limit, rule.delay_s, rule.priority) == ("spo2.low", 90, 10, "high")

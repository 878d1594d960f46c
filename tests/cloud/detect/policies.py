"""Policies for tests, as they are once pushed: no number of the default's is relied on."""

from typing import Any

import msgspec

from cloud.detect.rules import Rules
from cloud.policy.default import DEFAULT
from cloud.policy.model import Artefact, News2, Policy, Rule, Scores
from cloud.policy.resolve import resolve
from cloud.policy.seal import open_published, publish

SPO2 = Rule("spo2", "low", 90, "high", hysteresis=1)
SPO2_MILD = Rule("spo2", "low", 93, "medium", hysteresis=1)
HEART = Rule("heart_rate", "high", 130, "medium", hysteresis=5)
SLOW = Rule("heart_rate", "low", 40, "high", hysteresis=2)
BREATH = Rule("resp_rate", "low", 8, "high", hysteresis=1)
FEVER = Rule(
    "temperature", "high", 39, "low", delay_s=0, hysteresis=0.2, clear_delay_s=0, late_s=900
)


def pushed(policy: Policy) -> Policy:
    """Return a policy as whoever receives it holds it: with the version of its text."""
    read = open_published(publish(policy).text)  # a whole number becomes a float: another text
    return open_published(publish(read).text)


def limits_only(*rules: Rule, **fields: Any) -> Policy:
    """Return a policy of ``rules`` without scores and trends; ``fields`` as of `Policy`."""
    bare = msgspec.structs.replace(
        DEFAULT,
        version="test",
        rules=rules or (SPO2, HEART, SLOW, BREATH, FEVER),
        trends=(),
        scores=Scores(news2=News2(enabled=False)),
        artefact=Artefact(enabled=False),
    )
    return pushed(msgspec.structs.replace(bare, **fields))


def rules_of(policy: Policy, subject: str = "") -> Rules:
    """Return what a policy means to a subject that nothing is said of."""
    return Rules(resolve(policy, "", "", subject, {}))

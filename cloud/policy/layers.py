"""One layer over another: the later wins, field by field.

Law: pure. A rule or trend that no layer completes does not exist; one switched off by a layer is
back when a later one says ``off = false``, with whatever fields the layers in between gave it.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from cloud.policy.model import (
    Overrides,
    Policy,
    Rule,
    RuleChange,
    Scores,
    SignalLoss,
    Silence,
    Trend,
    TrendChange,
    given,
)

S = TypeVar("S", bound=msgspec.Struct)


class Layered(NamedTuple):
    """What stands after some layers, in the file's units."""

    rules: tuple[Rule, ...]
    trends: tuple[Trend, ...]
    signal_loss: SignalLoss
    silence: Silence
    scores: Scores


def layered(policy: Policy, layers: tuple[Overrides, ...]) -> Layered:
    """Return the site's part of a policy with ``layers`` over it, the last one winning."""
    loss, silence, scores = policy.signal_loss, policy.silence, policy.scores
    for layer in layers:
        loss = changed(loss, layer.signal_loss)
        silence = changed(silence, layer.silence)
        if layer.scores is not UNSET:
            scores = Scores(
                changed(scores.news2, layer.scores.news2),
                changed(scores.qsofa, layer.scores.qsofa),
                changed(scores.shock_index, layer.scores.shock_index),
            )
    rules = layered_rules(policy.rules, (layer.rules for layer in layers))
    trends = layered_trends(policy.trends, (layer.trends for layer in layers))
    return Layered(rules, trends, loss, silence, scores)


def layered_rules(
    site: Iterable[Rule], layers: Iterable[tuple[RuleChange, ...]]
) -> tuple[Rule, ...]:
    """Return the rules in force after some layers; the site's come first, in its order."""
    made = _merged(site, layers)
    return tuple(Rule(**fields) for fields in made if "limit" in fields)


def layered_trends(
    site: Iterable[Trend], layers: Iterable[tuple[TrendChange, ...]]
) -> tuple[Trend, ...]:
    """Return the trends in force after some layers."""
    whole = set(Trend.__struct_fields__)
    made = _merged(site, layers)
    return tuple(Trend(**fields) for fields in made if fields.keys() == whole)


def changed(base: S, change: msgspec.Struct | UnsetType) -> S:
    """Return ``base`` with the fields that ``change`` gives."""
    if isinstance(change, UnsetType):
        return base
    return msgspec.structs.replace(base, **given(change))


def _merged(
    site: Iterable[Rule] | Iterable[Trend],
    layers: Iterable[tuple[RuleChange, ...]] | Iterable[tuple[TrendChange, ...]],
) -> list[dict[str, Any]]:
    """Return the fields by name, without those that are off."""
    made = {one.name: msgspec.structs.asdict(one) for one in site}
    for layer in layers:
        for change in layer:
            made.setdefault(change.name, {}).update(given(change))
    return [fields for fields in made.values() if not fields.pop("off", False)]

"""What a policy means for one subject: layers merged, in milliseconds, by vital.

Law: pure; the later layer wins field by field (site, ward, bed, patient, limit by command). Equal
overrides give the very same object while anybody holds it, so a ward without overrides costs one,
however many patients lie in it. A combination that `cloud.policy.check` would refuse is watched as
it is said: two limits that cross ring too much, never too little.
"""

from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Final, Literal
from weakref import WeakValueDictionary

import msgspec
from msgspec import UNSET

from cloud.policy.check import is_sealed
from cloud.policy.layers import Layered, layered
from cloud.policy.manners import Manners
from cloud.policy.model import (
    Charting,
    Direction,
    Life,
    Overrides,
    Patient,
    Policy,
    Priority,
    Rule,
    SignalLoss,
    Silence,
    Trend,
    Trending,
)
from cloud.policy.rules import rule_problems
from vitals.codes import BY_NAME, VITALS
from vitals.errors import ConfigError

POLICIES_HELD: Final = 4
"""Prepared policies kept: the one in force, the one before, and room for a comparison."""


class Limit(msgspec.Struct, frozen=True):
    """A rule made ready. Values in the vital's unit, times in milliseconds."""

    rule: str
    """Its name."""
    vital: int
    """Index in the code table."""
    direction: Direction
    limit: float
    hysteresis: float
    priority: Priority
    delay_ms: int
    clear_delay_ms: int
    late_ms: int
    gap_ms: int

    def breach(self, value: float) -> bool:
        """Tell whether the value is beyond the limit."""
        return value < self.limit if self.direction == "low" else value > self.limit

    def recovered(self, value: float) -> bool:
        """Tell whether the value is back inside by the hysteresis."""
        if self.direction == "low":
            return value >= self.limit + self.hysteresis
        return value <= self.limit - self.hysteresis

    def worse(self, value: float, than: float) -> bool:
        """Tell whether ``value`` is further out."""
        return value < than if self.direction == "low" else value > than


class Loss(msgspec.Struct, frozen=True):
    """Signal loss made ready."""

    enabled: bool
    delay_ms: int
    clear_delay_ms: int
    late_ms: int
    stale_ms: int
    gap_ms: int
    priority: Priority


class Quiet(msgspec.Struct, frozen=True):
    """Silence of device and gateway made ready."""

    enabled: bool
    after_ms: int
    forget_ms: int
    gateway_ms: int
    priority: Priority


class Slope(msgspec.Struct, frozen=True):
    """A trend made ready."""

    rule: str
    vital: int
    direction: Trending
    change: float
    window_ms: int
    priority: Priority


class Ages(msgspec.Struct, frozen=True):
    """How old a value may be to count in NEWS2, in milliseconds."""

    pulse: int
    spo2: int
    resp_rate: int
    systolic: int
    temperature: int
    consciousness: int
    oxygen: int


class News(msgspec.Struct, frozen=True):
    """NEWS2 made ready for a subject."""

    enabled: bool
    """Off too when it does not apply to this patient; see ``excluded``."""
    excluded: str
    """Why it does not apply: ``under 16``, ``pregnant``, or empty."""
    spo2_scale: Literal[1, 2]
    medium_at: int
    medium_priority: Priority
    high_at: int
    high_priority: Priority
    single_red: bool
    red_priority: Priority
    ages: Ages


class Score(msgspec.Struct, frozen=True):
    """A score with one threshold: qSOFA, shock index."""

    enabled: bool
    at: float
    priority: Priority


class Scored(msgspec.Struct, frozen=True):
    """All scores of a subject."""

    news2: News
    qsofa: Score
    shock_index: Score


class Chart(msgspec.Struct, frozen=True):
    """Charting made ready."""

    mode: Literal["every", "minute"]
    around_alarm_ms: int


class Effective(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """What holds for a subject. Compare with ``is``: equal overrides are one object."""

    version: str
    rules: tuple[Rule, ...]
    """In the file's units, for `refusal` and for people."""
    limits: tuple[tuple[Limit, ...], ...]
    """By index of the code table."""
    alarm_limits: Mapping[int, tuple[float | None, float | None]]
    """Vital index -> the tightest low and high limit, as FHIR's referenceRange shows them."""
    losses: Loss
    silence: Quiet
    trends: tuple[tuple[Slope, ...], ...]
    """By index of the code table."""
    scores: Scored
    artefact: bool
    life: Mapping[str, Manners]
    """By priority."""
    charting: Chart
    until_ms: int | None = None
    """When the patient's own part ends; resolve anew then."""


def resolve(
    policy: Policy,
    edge: str,
    device: str,
    subject: str,
    own: Mapping[str, float],
    *,
    at_ms: int = 0,
) -> Effective:
    """Return what holds for a subject on a device of a gateway; all three are as in `samples`.

    ``own``: limits set by command, by rule name; one of a rule that does not exist changes
    nothing. ``at_ms``: a patient's part whose ``until`` is not after it is over. Raises
    ConfigError for a policy with somebody named in clear: nobody would be found in it.
    """
    return _prepared(policy).effective(edge, device, subject, own, at_ms)


def refusal(effective: Effective, rule: str, limit: float) -> str | None:
    """Return why a rule's limit cannot be set to ``limit`` by command, or None."""
    named = next((one for one in effective.rules if one.name == rule), None)
    if named is None:
        return f"there is no rule {rule} for this subject"
    changed = _with_own([one for one in effective.rules if one.vital == named.vital], {rule: limit})
    wrong = next(iter(rule_problems(changed)), None)
    return None if wrong is None else f"{wrong[0]}: {wrong[1]}"


class _Prepared:
    """A policy's layers by whom they are for."""

    def __init__(self, policy: Policy) -> None:
        if not is_sealed(policy):
            raise ConfigError(
                f"policy {policy.version}: names somebody in clear; seal it first"
                " (healthsync cloud policy check --seal)"
            )
        self._policy = policy
        self._wards = {edge: _plain(ward) for ward in policy.wards for edge in ward.gateways}
        self._beds = {bed.device_id: _plain(bed) for bed in policy.beds}
        self._patients = {patient.subject: patient for patient in policy.patients}
        self._made: WeakValueDictionary[object, Effective] = WeakValueDictionary()

    def effective(
        self, edge: str, device: str, subject: str, own: Mapping[str, float], at_ms: int
    ) -> Effective:
        patient = self._patients.get(subject)
        until_ms = None if patient is None else _until_ms(patient)
        if until_ms is not None and until_ms <= at_ms:
            patient = until_ms = None
        layers = (
            self._wards.get(edge, _NOTHING),
            self._beds.get(device, _NOTHING),
            _NOTHING if patient is None else _plain(patient),
        )
        who = _Who() if patient is None else _who(patient)
        key = (layers, who, until_ms, tuple(sorted(own.items())))
        found = self._made.get(key)
        if found is None:
            found = _effective(self._policy, layered(self._policy, layers), who, until_ms, own)
            self._made[key] = found
        return found


class _Who(msgspec.Struct, frozen=True):
    """What of a patient NEWS2 asks for."""

    scale: Literal[1, 2] = 1
    excluded: str = ""


_NOTHING: Final = Overrides()


@lru_cache(maxsize=POLICIES_HELD)
def _prepared(policy: Policy) -> _Prepared:
    return _Prepared(policy)


def _plain(layer: Overrides) -> Overrides:
    """Return a layer without whom it is for, so that equal ones are equal."""
    return Overrides(
        rules=layer.rules,
        trends=layer.trends,
        signal_loss=layer.signal_loss,
        silence=layer.silence,
        scores=layer.scores,
    )


def _who(patient: Patient) -> _Who:
    excluded = "under 16" if patient.under_16 else "pregnant" if patient.pregnant else ""
    return _Who(1 if patient.spo2_scale is UNSET else patient.spo2_scale, excluded)


def _until_ms(patient: Patient) -> int | None:
    return None if patient.until is None else round(patient.until.timestamp() * 1000)


def _with_own(rules: list[Rule], own: Mapping[str, float]) -> list[Rule]:
    return [
        msgspec.structs.replace(rule, limit=own[rule.name]) if rule.name in own else rule
        for rule in rules
    ]


def _effective(
    policy: Policy, whole: Layered, who: _Who, until_ms: int | None, own: Mapping[str, float]
) -> Effective:
    gap_ms = _ms(policy.gap_s)
    rules = tuple(_with_own([*whole.rules], own))
    limits: list[list[Limit]] = [[] for _ in VITALS]
    for rule in rules:
        ready = _limit(rule, gap_ms)
        limits[ready.vital].append(ready)
    slopes: list[list[Slope]] = [[] for _ in VITALS]
    for trend in whole.trends:
        slope = _slope(trend)
        slopes[slope.vital].append(slope)
    return Effective(
        version=policy.version,
        rules=rules,
        limits=tuple(map(tuple, limits)),
        alarm_limits=MappingProxyType(
            {at: _tightest(ready) for at, ready in enumerate(limits) if ready}
        ),
        losses=_loss(whole.signal_loss, gap_ms),
        silence=_quiet(whole.silence),
        trends=tuple(map(tuple, slopes)),
        scores=_scored(whole, who),
        artefact=policy.artefact.enabled,
        life=MappingProxyType(
            {
                "high": _living(policy.life.high),
                "medium": _living(policy.life.medium),
                "low": _living(policy.life.low),
            }
        ),
        charting=_chart(policy.charting),
        until_ms=until_ms,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _limit(rule: Rule, gap_ms: int) -> Limit:
    return Limit(
        rule.name,
        BY_NAME[rule.vital].index,
        rule.direction,
        rule.limit,
        rule.hysteresis,
        rule.priority,
        _ms(rule.delay_s),
        _ms(rule.clear_delay_s),
        _ms(rule.late_s),
        gap_ms,
    )


def _tightest(limits: list[Limit]) -> tuple[float | None, float | None]:
    lows = [one.limit for one in limits if one.direction == "low"]
    highs = [one.limit for one in limits if one.direction == "high"]
    return max(lows, default=None), min(highs, default=None)


def _loss(loss: SignalLoss, gap_ms: int) -> Loss:
    return Loss(
        loss.enabled,
        _ms(loss.delay_s),
        _ms(loss.clear_delay_s),
        _ms(loss.late_s),
        _ms(loss.stale_s),
        gap_ms,
        loss.priority,
    )


def _quiet(silence: Silence) -> Quiet:
    return Quiet(
        silence.enabled,
        _ms(silence.after_s),
        _ms(silence.forget_s),
        _ms(silence.gateway_s),
        silence.priority,
    )


def _slope(trend: Trend) -> Slope:
    vital, window_ms = BY_NAME[trend.vital].index, _ms(trend.window_min * 60)
    return Slope(trend.name, vital, trend.direction, trend.change, window_ms, trend.priority)


def _scored(whole: Layered, who: _Who) -> Scored:
    news2, qsofa, shock = whole.scores.news2, whole.scores.qsofa, whole.scores.shock_index
    return Scored(
        News(
            enabled=news2.enabled and not who.excluded,
            excluded=who.excluded,
            spo2_scale=who.scale,
            medium_at=news2.medium_at,
            medium_priority=news2.medium_priority,
            high_at=news2.high_at,
            high_priority=news2.high_priority,
            single_red=news2.single_red,
            red_priority=news2.red_priority,
            ages=Ages(
                **{name: _ms(getattr(news2, f"{name}_s")) for name in Ages.__struct_fields__}
            ),
        ),
        Score(qsofa.enabled, qsofa.at, qsofa.priority),
        Score(shock.enabled, shock.at, shock.priority),
    )


def _living(life: Life) -> Manners:
    return Manners(
        life.latch,
        tuple(_ms(after) - _ms(before) for before, after in pairwise((0.0, *life.escalate_s))),
        _ms(life.acknowledge_s),
        _ms(life.shelve_s_max),
        life.flap_count,
        _ms(life.flap_s),
    )


def _chart(charting: Charting) -> Chart:
    return Chart(charting.mode, _ms(charting.around_alarm_s))

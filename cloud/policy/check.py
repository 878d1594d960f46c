"""What a policy must be: everything that could keep an alarm from ringing or from ending.

Law: pure; what is refused is named with the table it stands in and what to do. Nothing said here
repeats a record number or a device's name: what is wrong with a patient is said of ``patient[3]``,
by its place in the file (from 0).
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from msgspec import UNSET

from cloud.policy.bounds import (
    ADULT_YEARS,
    AGE_S_MAX,
    AGE_S_MIN,
    AGE_YEARS_MAX,
    AROUND_S_MAX,
    BEDS_MAX,
    COMBINATIONS_MAX,
    DELAY_S_MAX,
    ESCALATE_S_MIN,
    ESCALATIONS_MAX,
    FLAP_COUNT_MAX,
    FLAP_COUNT_MIN,
    FLAP_S_MAX,
    FLAP_S_MIN,
    FORGET_S_MAX,
    FORGET_S_MIN,
    GAP_S_MAX,
    GAP_S_MIN,
    GATEWAY_S_MIN,
    GATEWAYS_MAX,
    HOLD_S_MAX,
    HOLD_S_MIN,
    LATE_S_MAX,
    LATE_S_MIN,
    NEWS2_MAX,
    PATIENTS_MAX,
    PROBLEMS_SHOWN_MAX,
    QSOFA_MAX,
    RULES_MAX,
    SHOCK_INDEX_MAX,
    SHOCK_INDEX_MIN,
    SILENT_S_MAX,
    SILENT_S_MIN,
    STALE_S_MAX,
    STALE_S_MIN,
    TRENDS_MAX,
    WARDS_MAX,
    WINDOW_MIN_MAX,
    WINDOW_MIN_MIN,
    WORDS_MAX,
    outside,
    same,
    twice,
)
from cloud.policy.layers import Layered, layered
from cloud.policy.model import (
    RANK,
    Life,
    Overrides,
    Patient,
    Policy,
    SignalLoss,
    Silence,
    Trend,
    Ward,
)
from cloud.policy.rules import Combinations
from vitals.codes import BY_NAME, VITALS
from vitals.errors import ConfigError
from vitals.pseudonym import SUBJECT_HEX

_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,40}(\+[0-9a-f]{16})?")
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")
_PSEUDONYM: Final = re.compile(rf"[0-9a-f]{{{SUBJECT_HEX}}}")


def check(policy: Policy, path: str = "policy") -> Policy:
    """Return the policy; raise ConfigError that names everything wrong, table by table."""
    found = list(itertools.islice(problems(policy), PROBLEMS_SHOWN_MAX + 1))
    if not found:
        return policy
    shown = found[:PROBLEMS_SHOWN_MAX]
    more = ["and more; mend these first"] if len(found) > PROBLEMS_SHOWN_MAX else []
    raise ConfigError("\n".join(f"{path}: {line}" for line in [*shown, *more]))


def problems(policy: Policy) -> Iterator[str]:
    """Yield what is wrong: ``TABLE: WHAT; NEXT STEP``."""
    if not _VERSION.fullmatch(policy.version):
        yield "version: letters, digits, . _ - only, 1 to 40 of them; give another"
    caps = [*_caps(policy)]
    yield from caps
    if caps:
        return  # what follows costs by the number of entries
    yield from outside("gap_s", policy.gap_s, GAP_S_MIN, GAP_S_MAX)
    yield from outside("charting.around_alarm_s", policy.charting.around_alarm_s, 0.0, AROUND_S_MAX)
    for priority in RANK:
        yield from _life(f"life.{priority}", getattr(policy.life, priority))
    yield from twice("rule", (rule.name for rule in policy.rules))
    yield from twice("trend", (trend.name for trend in policy.trends))
    yield from _watch_problems("", layered(policy, ()))
    yield from _wards(policy)
    yield from _beds(policy)
    yield from _patients(policy)
    yield from _layers(policy)
    for rule in policy.rules:
        if rule.vital not in BY_NAME:
            yield f"rule {rule.name}: no such vital; see vitals/codes.py"
    for vital in VITALS:
        yield from Combinations(policy, vital.name).problems()


def warnings(policy: Policy, default: Policy, now_ms: int) -> list[str]:
    """Return what is allowed and yet worth a second look.

    An alarm that ``default`` has and this policy loses everywhere, and entries that have ended.
    """
    found = [*_lost(policy, default)]
    for at, patient in enumerate(policy.patients):
        if patient.until is not None and patient.until.timestamp() * 1000 <= now_ms:
            found.append(f"patient[{at}]: until is in the past, so it does nothing; remove it")
    cut = [vital.name for vital in VITALS if Combinations(policy, vital.name).is_cut]
    what = f"more than {COMBINATIONS_MAX} combinations of wards, beds and patients"
    return [*found, *(f"{name}: {what}; the others were not looked at" for name in cut)]


def is_sealed(policy: Policy) -> bool:
    """Tell whether nobody is named in clear."""
    return not (
        any(bed.device for bed in policy.beds)
        or any(p.mrn or p.age_years is not None for p in policy.patients)
        or any(
            word and not _PSEUDONYM.fullmatch(word)
            for p in policy.patients
            for word in (p.by, p.why)
        )
    )


def _lost(policy: Policy, default: Policy) -> Iterator[str]:
    have = {rule.name: rule for rule in policy.rules}
    for rule in default.rules:
        if rule.priority != "high":
            continue
        mine = have.get(rule.name)
        if mine is None:
            yield f"rule {rule.name}: the default has it and this policy does not; add it"
            continue
        sign = 1 if rule.direction == "low" else -1
        for name, quieter in (
            ("limit", (mine.limit - rule.limit) * sign < 0),
            ("delay_s", mine.delay_s > rule.delay_s),
            ("late_s", mine.late_s < rule.late_s),
        ):
            if quieter:
                now, before = getattr(mine, name), getattr(rule, name)
                yield f"rule {rule.name}: {name} {now:g} is looser than the default {before:g}"
    for name, here, there in (
        ("signal_loss", policy.signal_loss, default.signal_loss),
        ("silence", policy.silence, default.silence),
        ("scores.news2", policy.scores.news2, default.scores.news2),
    ):
        if there.enabled and not here.enabled:
            yield f"{name}: the default has it on and this policy off"


def _all_layers(policy: Policy) -> Iterator[tuple[str, Overrides]]:
    for kind, layers in (
        ("ward", policy.wards),
        ("bed", policy.beds),
        ("patient", policy.patients),
    ):
        for at, layer in enumerate(layers):
            yield f"{kind}[{at}]", layer


def _layers(policy: Policy) -> Iterator[str]:
    """Yield what is wrong with a layer by itself."""
    with_limit = {rule.name for rule in policy.rules}
    whole_trends = {trend.name for trend in policy.trends}
    for where, layer in _all_layers(policy):
        if len(layer.rules) > RULES_MAX:
            yield f"{where}: {len(layer.rules)} rules; keep {RULES_MAX}"
        if len(layer.trends) > TRENDS_MAX:
            yield f"{where}: {len(layer.trends)} trends; keep {TRENDS_MAX}"
        yield from twice(f"{where}.rule", (change.name for change in layer.rules))
        yield from twice(f"{where}.trend", (change.name for change in layer.trends))
        with_limit |= {change.name for change in layer.rules if change.limit is not UNSET}
        whole_trends |= {
            change.name
            for change in layer.trends
            if UNSET not in (change.change, change.window_min, change.priority)
        }
        for change in layer.rules:
            if change.vital not in BY_NAME:
                yield f"{where}.rule {change.name}: no such vital; see vitals/codes.py"
            elif change.name not in with_limit:
                what = "no layer below has this rule"
                yield f"{where}.rule {change.name}: {what}; give its limit, or mend its name"
        for trend in layer.trends:
            if trend.name not in whole_trends:
                what = "no layer below has this trend"
                yield f"{where}.trend {trend.name}: {what}; give all of it, or mend its name"
        silence = UNSET if isinstance(layer, Ward) else layer.silence
        if silence is not UNSET and silence.gateway_s is not UNSET:
            yield f"{where}.silence.gateway_s: belongs to a gateway; set it for the ward"
        if layer.trends or not layer.signal_loss is layer.silence is layer.scores is UNSET:
            yield from _watch_problems(where, layered(policy, (layer,)))


def _watch_problems(where: str, whole: Layered) -> Iterator[str]:
    """Yield what is wrong with all but rules, as it stands with one layer over the site."""
    at = f"{where}." if where else ""
    yield from _loss(f"{at}signal_loss", whole.signal_loss)
    yield from _silence(f"{at}silence", whole.silence)
    for trend in whole.trends:
        yield from _trend(f"{at}trend {trend.name}", trend)
    news2, qsofa, shock = whole.scores.news2, whole.scores.qsofa, whole.scores.shock_index
    score = f"{at}scores.news2"
    yield from outside(f"{score}.medium_at", news2.medium_at, 1, NEWS2_MAX)
    yield from outside(f"{score}.high_at", news2.high_at, 1, NEWS2_MAX)
    if news2.high_at <= news2.medium_at:
        yield f"{score}: high_at is not above medium_at; set high_at higher"
    if RANK[news2.high_priority] < RANK[news2.medium_priority]:
        yield f"{score}: high_priority is below medium_priority; swap them"
    for name in (name for name in news2.__struct_fields__ if name.endswith("_s")):
        yield from outside(f"{score}.{name}", getattr(news2, name), AGE_S_MIN, AGE_S_MAX)
    yield from outside(f"{at}scores.qsofa.at", qsofa.at, 1, QSOFA_MAX)
    yield from outside(f"{at}scores.shock_index.at", shock.at, SHOCK_INDEX_MIN, SHOCK_INDEX_MAX)


def _loss(where: str, loss: SignalLoss) -> Iterator[str]:
    yield from outside(f"{where}.delay_s", loss.delay_s, 0.0, DELAY_S_MAX)
    yield from outside(f"{where}.clear_delay_s", loss.clear_delay_s, 0.0, DELAY_S_MAX)
    yield from outside(f"{where}.late_s", loss.late_s, LATE_S_MIN, LATE_S_MAX)
    yield from outside(f"{where}.stale_s", loss.stale_s, STALE_S_MIN, STALE_S_MAX)


def _silence(where: str, silence: Silence) -> Iterator[str]:
    yield from outside(f"{where}.after_s", silence.after_s, SILENT_S_MIN, SILENT_S_MAX)
    yield from outside(f"{where}.gateway_s", silence.gateway_s, GATEWAY_S_MIN, SILENT_S_MAX)
    yield from outside(f"{where}.forget_s", silence.forget_s, FORGET_S_MIN, FORGET_S_MAX)


def _trend(where: str, trend: Trend) -> Iterator[str]:
    vital = BY_NAME.get(trend.vital)
    if vital is None:
        yield f"{where}: no such vital; see vitals/codes.py"
        return
    if not vital.continuous:
        yield f"{where}: {trend.vital} is taken now and then and has no trend; remove it"
    if not 0 < trend.change < vital.high - vital.low:
        span = f"below {vital.high - vital.low:g} {vital.unit}"
        yield f"{where}: change {trend.change:g} can never be seen; give one above 0 and {span}"
    yield from outside(f"{where}: window_min", trend.window_min, WINDOW_MIN_MIN, WINDOW_MIN_MAX)


def _life(where: str, life: Life) -> Iterator[str]:
    steps = life.escalate_s
    if len(steps) > ESCALATIONS_MAX:
        yield f"{where}.escalate_s: {len(steps)} levels; keep {ESCALATIONS_MAX}"
    if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        yield f"{where}.escalate_s: times since the alert was raised; sort them, each once"
    for step in steps:
        yield from outside(f"{where}.escalate_s", step, ESCALATE_S_MIN, HOLD_S_MAX)
    yield from outside(f"{where}.acknowledge_s", life.acknowledge_s, HOLD_S_MIN, HOLD_S_MAX)
    yield from outside(f"{where}.shelve_s_max", life.shelve_s_max, HOLD_S_MIN, HOLD_S_MAX)
    yield from outside(f"{where}.flap_count", life.flap_count, FLAP_COUNT_MIN, FLAP_COUNT_MAX)
    yield from outside(f"{where}.flap_s", life.flap_s, FLAP_S_MIN, FLAP_S_MAX)


# Who ----------------------------------------------------------------------------------------------


def _caps(policy: Policy) -> Iterator[str]:
    for name, entries, most in (
        ("rule", policy.rules, RULES_MAX),
        ("trend", policy.trends, TRENDS_MAX),
        ("ward", policy.wards, WARDS_MAX),
        ("bed", policy.beds, BEDS_MAX),
        ("patient", policy.patients, PATIENTS_MAX),
    ):
        if len(entries) > most:
            yield f"{name}: {len(entries)} entries; keep {most}"


def _wards(policy: Policy) -> Iterator[str]:
    yield from twice("ward", (ward.name for ward in policy.wards))
    for at, ward in enumerate(policy.wards):
        if not _NAME.fullmatch(ward.name):
            yield f"ward[{at}].name: 1 to 100 characters on one line; give another"
        if not ward.gateways or not all(map(_NAME.fullmatch, ward.gateways)):
            yield f"ward[{at}].gateways: a ward has gateways; give their edge ids"
        if len(ward.gateways) > GATEWAYS_MAX:
            yield f"ward[{at}].gateways: {len(ward.gateways)} of them; keep {GATEWAYS_MAX}"
    counted = Counter(edge for ward in policy.wards for edge in ward.gateways)
    for edge, times in counted.items():
        if times > 1:
            yield f"ward: gateway {edge} is in {times} wards; keep it in one"


def _beds(policy: Policy) -> Iterator[str]:
    for at, bed in enumerate(policy.beds):
        where = f"bed[{at}]"
        if bool(bed.device) == bool(bed.device_id):
            yield f"{where}: give either device with gateway, or device_id"
        elif bed.device and not bed.gateway:
            yield f"{where}: a device is known by its gateway too; give gateway"
        elif bed.device_id and not _PSEUDONYM.fullmatch(bed.device_id):
            yield f"{where}.device_id: {SUBJECT_HEX} small hex digits; or give device and gateway"
        if bed.device.strip() != bed.device:
            yield f"{where}.device: has spaces around it, which its gateway cuts; remove them"
    yield from same(
        "bed", [(bed.gateway, bed.device) if bed.device else bed.device_id for bed in policy.beds]
    )


def _patients(policy: Policy) -> Iterator[str]:
    for at, patient in enumerate(policy.patients):
        yield from _patient(f"patient[{at}]", patient)
    yield from same("patient", [p.mrn.strip() or f"subject {p.subject}" for p in policy.patients])


def _patient(where: str, patient: Patient) -> Iterator[str]:
    if bool(patient.mrn.strip()) == bool(patient.subject):
        yield f"{where}: give either mrn or subject"
    elif patient.subject and not _PSEUDONYM.fullmatch(patient.subject):
        yield f"{where}.subject: {SUBJECT_HEX} small hex digits; or give mrn"
    if patient.spo2_scale == 2 and not (patient.by.strip() and patient.why.strip()):
        yield f"{where}: SpO2 scale 2 is a clinician's decision; give by and why"
    if max(len(patient.by), len(patient.why)) > WORDS_MAX:
        yield f"{where}: by or why has more than {WORDS_MAX} characters; shorten it"
    if patient.age_years is not None:
        yield from outside(f"{where}.age_years", patient.age_years, 0, AGE_YEARS_MAX)
        if patient.under_16 not in (None, patient.age_years < ADULT_YEARS):
            yield f"{where}: age_years and under_16 disagree; remove one"

"""What the rules of one vital must be together, in whatever ward, bed and patient they meet.

Law: pure; a rule that could never raise, or never clear, is refused. A rule's checks need all
rules of its vital, and which those are depends on the layers: every different combination is
looked at, up to COMBINATIONS_MAX of a vital.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

from cloud.policy.bounds import (
    COMBINATIONS_MAX,
    DELAY_S_MAX,
    LATE_S_MAX,
    LATE_S_MIN,
    PRIORITIES_PER_SIDE_MAX,
    outside,
)
from cloud.policy.layers import layered_rules
from cloud.policy.model import RANK, Overrides, Policy, Rule, RuleChange
from vitals.codes import BY_NAME

_Changes = tuple[RuleChange, ...]


def rule_problems(rules: Sequence[Rule]) -> Iterator[tuple[str, str]]:
    """Yield (rule name, what is wrong; next step) of rules that stand together.

    Their vitals are of the code table.
    """
    for rule in rules:
        for wrong in _one_rule(rule):
            yield rule.name, wrong
    sides: dict[tuple[str, str], list[Rule]] = {}
    for rule in rules:
        sides.setdefault((rule.vital, rule.direction), []).append(rule)
    for side in sides.values():
        yield from _side(side)
    for vital in dict.fromkeys(rule.vital for rule in rules):
        lows, highs = sides.get((vital, "low"), []), sides.get((vital, "high"), [])
        for low, high in itertools.product(lows, highs):
            if low.limit >= high.limit:
                wrong = f"its limit {low.limit:g} is not below {high.limit:g} of {high.name}"
                yield low.name, f"{wrong}, so one of them always rings; move them apart"
            elif low.limit + low.hysteresis > high.limit - high.hysteresis:
                wrong = f"no value clears it and {high.name} both"
                yield low.name, f"{wrong}; make a hysteresis smaller or move the limits apart"


def _one_rule(rule: Rule) -> Iterator[str]:
    vital = BY_NAME[rule.vital]
    if not all(map(math.isfinite, (rule.limit, rule.delay_s, rule.hysteresis, rule.clear_delay_s))):
        yield "a number is not finite; give a plain one"
        return
    low = rule.direction == "low"
    if not vital.low <= rule.limit <= vital.high:
        plausible = f"{vital.low:g} to {vital.high:g} {vital.unit}"
        yield f"limit {rule.limit:g} is not plausible; give {plausible}"
    elif rule.limit == (vital.low if low else vital.high):
        yield f"no value is ever beyond {rule.limit:g}, so it never rings; move the limit inwards"
    elif rule.hysteresis < 0:
        yield "hysteresis is below 0; give 0 or more"
    else:
        back = rule.limit + (rule.hysteresis if low else -rule.hysteresis)
        if not vital.low <= back <= vital.high:
            yield f"no value ({back:g}) could ever clear it; make hysteresis smaller"
    if not vital.continuous and (rule.delay_s or rule.clear_delay_s):
        yield (
            f"{rule.vital} is taken now and then, so that no delay would ever be over;"
            " set delay_s = 0 and clear_delay_s = 0"
        )
    for name, value in (("delay_s", rule.delay_s), ("clear_delay_s", rule.clear_delay_s)):
        yield from outside(name, value, 0.0, DELAY_S_MAX)
    yield from outside("late_s", rule.late_s, LATE_S_MIN, LATE_S_MAX)


def _side(side: list[Rule]) -> Iterator[tuple[str, str]]:
    if len(side) > PRIORITIES_PER_SIDE_MAX:
        what = f"{len(side)} priorities on one side"
        yield side[-1].name, f"{what}; keep {PRIORITIES_PER_SIDE_MAX}"
    ordered = sorted(side, key=lambda rule: RANK[rule.priority])
    for milder, graver in itertools.pairwise(ordered):
        if milder.priority == graver.priority:
            continue  # given twice, which is said elsewhere
        sign = -1 if graver.direction == "low" else 1
        if (graver.limit - milder.limit) * sign <= 0:
            what = f"its limit {graver.limit:g} is not further out than {milder.limit:g}"
            yield graver.name, f"{what} of {milder.name}; swap or move them"


class Combinations:
    """All different sets of changes of one vital that may meet in a subject."""

    def __init__(self, policy: Policy, vital: str) -> None:
        """Gather them, each with the first place in the file that has it."""
        self._site = tuple(rule for rule in policy.rules if rule.vital == vital)
        wards: dict[_Changes, str] = {(): ""}
        ward_of: dict[str, _Changes] = {}
        for at, ward in enumerate(policy.wards):
            changes = _of(ward, vital)
            wards.setdefault(changes, f"ward[{at}]")
            ward_of |= dict.fromkeys(ward.gateways, changes)
        places: dict[tuple[_Changes, _Changes], str] = {
            (changes, ()): where for changes, where in wards.items()
        }
        for at, bed in enumerate(policy.beds):
            changes = _of(bed, vital)
            if not changes:
                continue
            # Without its gateway a bed may be in any ward.
            under = [ward_of.get(bed.gateway, ())] if bed.gateway else [*wards]
            for below in under[: max(0, COMBINATIONS_MAX + 1 - len(places))]:
                places.setdefault((below, changes), _joined(wards[below], f"bed[{at}]"))
        patients: dict[_Changes, str] = {(): ""}
        for at, patient in enumerate(policy.patients):
            patients.setdefault(_of(patient, vital), f"patient[{at}]")
        self._places, self._patients = places, patients
        self.is_cut = len(places) * len(patients) > COMBINATIONS_MAX

    def problems(self) -> Iterator[str]:
        """Yield each problem once, said of the fewest layers that have it."""
        said: set[tuple[str, str]] = set()
        # Patients outside: the site and every place are looked at first, whatever is cut off.
        every = itertools.product(self._patients.items(), self._places.items())
        for (own, who), (place, where) in itertools.islice(every, COMBINATIONS_MAX):
            rules = layered_rules(self._site, (*place, own))
            for name, wrong in rule_problems(rules):
                if (name, wrong) not in said:
                    said.add((name, wrong))
                    at = _joined(where, who)
                    yield f"{at and f'{at}: '}rule {name}: {wrong}"


def _of(layer: Overrides, vital: str) -> _Changes:
    return tuple(change for change in layer.rules if change.vital == vital)


def _joined(*names: str) -> str:
    return " + ".join(name for name in names if name)

"""What one policy rings otherwise than another, for whom, in one word each.

Law: pure. An alarm is compared as a subject has it, after all layers, so that a change nobody
feels is none. Subjects come in classes: the site (nobody's own layer), each ward, each bed in its
ward, each patient over the site. A class is listed where it feels the change otherwise than the
class around it does, ``same`` included. Nobody is named who is named in clear: by place instead.

Verdicts: louder (rings earlier, longer, more or graver), quieter, same, mixed (both at once).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from cloud.policy.bounds import ADULT_YEARS, ESCALATIONS_MAX
from cloud.policy.layers import layered
from cloud.policy.model import RANK, Bed, Overrides, Patient, Policy, Ward

Verdict = Literal["louder", "quieter", "same", "mixed"]
Change = Literal["tighter", "looser", "new", "gone", "changed", "same"]


class Row(NamedTuple):
    """One alarm of one class of subjects."""

    who: str
    alarm: str
    change: Change
    detail: str
    """Such as ``limit 90 -> 88``."""
    verdict: Verdict


class _Field(NamedTuple):
    """A number of an alarm; ``sign`` is 1 when more of it is louder, -1 when quieter, else 0."""

    value: float | str
    sign: int


_Alarms = Mapping[str, Mapping[str, _Field]]
"""Fields by name, by alarm."""

_SITE: Final = "site"
_NEVER: Final = math.inf
"""Seconds to a level of escalation that there is not."""


def differences(old: Policy, new: Policy) -> list[Row]:
    """Return every alarm that some class of subjects has otherwise in ``new``."""
    site = _rows(_alarms(old, ()), _alarms(new, ()))
    rows = [Row(_SITE, *row) for row in site]
    rows += [Row(_SITE, *row) for row in _rows(_shared(old), _shared(new))]
    for who, mine, around in _classes(old, new):
        own = _rows(_alarms(old, mine[0]), _alarms(new, mine[1]))
        theirs = _rows(_alarms(old, around[0]), _alarms(new, around[1]))
        rows += [Row(who, *row) for row in own if row not in theirs]
        felt = {row[0] for row in own}
        rows += [Row(who, row[0], "same", "", "same") for row in theirs if row[0] not in felt]
    return rows


def as_text(rows: list[Row]) -> str:
    """Return the table for people."""
    if not rows:
        return "no alarm differs"
    table = [("who", "alarm", "change", "detail", "verdict"), *rows]
    widths = [max(len(row[at]) for row in table) for at in range(5)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


# Classes ------------------------------------------------------------------------------------------

_Layers = tuple[Overrides, ...]
_Pair = tuple[_Layers, _Layers]
"""Of the old and of the new policy."""


def _classes(old: Policy, new: Policy) -> Iterator[tuple[str, _Pair, _Pair]]:
    """Yield (name, its layers, the layers of the class around it)."""
    nobody: _Pair = ((), ())
    before, after = _by(old.wards, _ward_key), _by(new.wards, _ward_key)
    for key in _keys(before, after):
        yield f"ward {key}", (_over((), before.get(key)), _over((), after.get(key))), nobody
    wards = [_ward_of(policy) for policy in (old, new)]
    beds = [_by(policy.beds, _bed_key) for policy in (old, new)]
    for at, key in enumerate(_keys(*beds)):
        pair = [one.get(key) for one in beds]
        known = [bed for bed in pair if bed is not None]
        around = tuple(_over((), ward.get(next(bed.gateway for bed in known))) for ward in wards)
        mine = tuple(_over(below, bed) for below, bed in zip(around, pair, strict=True))
        name = known[-1].device_id or f"number {at + 1}"
        yield f"bed {name}", (mine[0], mine[1]), (around[0], around[1])
    patients = [_by(policy.patients, _patient_key) for policy in (old, new)]
    for at, key in enumerate(_keys(*patients)):
        pair_ = [one.get(key) for one in patients]
        name = next(p.subject for p in reversed(pair_) if p is not None) or f"number {at + 1}"
        yield f"patient {name}", (_over((), pair_[0]), _over((), pair_[1])), nobody


def _ward_key(ward: Ward) -> str:
    return ward.name


def _bed_key(bed: Bed) -> object:
    return (bed.gateway, bed.device) if bed.device else bed.device_id


def _patient_key(patient: Patient) -> object:
    return ("mrn", patient.mrn.strip()) if patient.mrn else patient.subject


def _by(entries: tuple[Any, ...], key: Callable[[Any], object]) -> dict[object, Any]:
    return {key(entry): entry for entry in entries}


def _keys(before: Mapping[object, Any], after: Mapping[object, Any]) -> list[object]:
    """Return every key once, in the new policy's order, those that are gone last."""
    return [*after, *(key for key in before if key not in after)]


def _over(below: _Layers, layer: Overrides | None) -> _Layers:
    return below if layer is None else (*below, layer)


def _ward_of(policy: Policy) -> dict[str, Ward]:
    return {edge: ward for ward in policy.wards for edge in ward.gateways}


# Alarms -------------------------------------------------------------------------------------------


def _alarms(policy: Policy, layers: _Layers) -> _Alarms:
    """Return every alarm that is on, with what its loudness hangs on."""
    whole = layered(policy, layers)
    made: dict[str, dict[str, _Field]] = {}
    for rule in whole.rules:
        inward = 1 if rule.direction == "low" else -1
        made[rule.name] = {
            "limit": _Field(rule.limit, inward),
            "delay_s": _Field(rule.delay_s, -1),
            "hysteresis": _Field(rule.hysteresis, 1),
            "clear_delay_s": _Field(rule.clear_delay_s, 1),
            "late_s": _Field(rule.late_s, 1),
        }
    for trend in whole.trends:
        made[f"trend {trend.name}"] = {
            "change": _Field(trend.change, -1),
            "window_min": _Field(trend.window_min, 1),
            "priority": _Field(trend.priority, 1),
        }
    made |= _technical(policy.gap_s, whole.signal_loss, whole.silence)
    made |= _scores(whole.scores, _patient_of(layers))
    return made


def _technical(gap_s: float, loss: Any, silence: Any) -> dict[str, dict[str, _Field]]:
    made = {"gap": {"gap_s": _Field(gap_s, 1)}}
    if loss.enabled:
        made["signal_loss"] = {
            "delay_s": _Field(loss.delay_s, -1),
            "clear_delay_s": _Field(loss.clear_delay_s, 1),
            "late_s": _Field(loss.late_s, 1),
            "stale_s": _Field(loss.stale_s, -1),
            "priority": _Field(loss.priority, 1),
        }
    if silence.enabled:
        made["silence"] = {
            "after_s": _Field(silence.after_s, -1),
            "forget_s": _Field(silence.forget_s, 1),
            "gateway_s": _Field(silence.gateway_s, -1),
            "priority": _Field(silence.priority, 1),
        }
    return made


def _scores(scores: Any, patient: Patient | None) -> dict[str, dict[str, _Field]]:
    made: dict[str, dict[str, _Field]] = {}
    news2 = scores.news2
    if news2.enabled and not (patient is not None and _is_not_for(patient)):
        ages = {
            name: _Field(getattr(news2, name), 1)
            for name in news2.__struct_fields__
            if name.endswith("_s")
        }
        scale = 2 if patient is not None and patient.spo2_scale == 2 else 1
        shared = {**ages, "spo2_scale": _Field(scale, 0)}
        made["news2 medium"] = {
            "medium_at": _Field(news2.medium_at, -1),
            "medium_priority": _Field(news2.medium_priority, 1),
            **shared,
        }
        made["news2 high"] = {
            "high_at": _Field(news2.high_at, -1),
            "high_priority": _Field(news2.high_priority, 1),
            **shared,
        }
        if news2.single_red:
            made["news2 single red"] = {"red_priority": _Field(news2.red_priority, 1), **shared}
    for name, score in (("qsofa", scores.qsofa), ("shock_index", scores.shock_index)):
        if score.enabled:
            made[name] = {"at": _Field(score.at, -1), "priority": _Field(score.priority, 1)}
    return made


def _patient_of(layers: _Layers) -> Patient | None:
    return next((layer for layer in layers if isinstance(layer, Patient)), None)


def _is_not_for(patient: Patient) -> bool:
    young = patient.age_years is not None and patient.age_years < ADULT_YEARS
    return bool(patient.under_16) or young or patient.pregnant


def _shared(policy: Policy) -> _Alarms:
    """Return what the whole site has alike: the life of an alert, marks, charting."""
    made: dict[str, dict[str, _Field]] = {}
    for priority in RANK:
        life = getattr(policy.life, priority)
        made[f"life {priority}"] = {
            "latch": _Field(life.latch, 1),
            **{
                f"level_{level}_s": _Field(
                    life.escalate_s[level - 1] if level <= len(life.escalate_s) else _NEVER, -1
                )
                for level in range(1, ESCALATIONS_MAX + 1)
            },
            "acknowledge_s": _Field(life.acknowledge_s, -1),
            "shelve_s_max": _Field(life.shelve_s_max, -1),
            "flap_count": _Field(life.flap_count, 1),
            "flap_s": _Field(life.flap_s, -1),
        }
    made["artefact marks"] = {"enabled": _Field(policy.artefact.enabled, 0)}
    charting = msgspec.structs.asdict(policy.charting)
    made["charting"] = {name: _Field(value, 0) for name, value in charting.items()}
    return made


# Comparing ----------------------------------------------------------------------------------------

_Told = tuple[str, Change, str, Verdict]


def _rows(old: _Alarms, new: _Alarms) -> list[_Told]:
    rows: list[_Told] = []
    for name, fields in new.items():
        before = old.get(name)
        if before is None:
            rows.append((name, "new", _all(fields), "louder"))
        elif before != fields:
            rows.append(_changed(name, before, fields))
    rows += [(name, "gone", _all(was), "quieter") for name, was in old.items() if name not in new]
    return rows


def _changed(name: str, old: Mapping[str, _Field], new: Mapping[str, _Field]) -> _Told:
    moves = {
        field: _move(old[field].value, value.value) * value.sign
        for field, value in new.items()
        if old[field] != value
    }
    detail = ", ".join(f"{at} {_say(old[at].value)} -> {_say(new[at].value)}" for at in moves)
    signs = set(moves.values())
    if signs == {1}:
        return name, "tighter", detail, "louder"
    if signs == {-1}:
        return name, "looser", detail, "quieter"
    silent = name in {"charting", "artefact marks"}
    return name, "changed", detail, "same" if silent else "mixed"


def _move(old: float | str, new: float | str) -> int:
    """Return 1 for more or graver, -1 for less or milder."""
    before, after = (RANK.get(one, 0) if isinstance(one, str) else one for one in (old, new))
    return (after > before) - (after < before)


def _all(fields: Mapping[str, _Field]) -> str:
    name, field = next(iter(fields.items()))
    return f"{name} {_say(field.value)}"


def _say(value: float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return "never" if value == _NEVER else f"{value:g}"

"""Scores of one subject as conditions: NEWS2, qSOFA, shock index.

Law: a score alarms on what is certain. Incomplete, its lowest possible total counts; and it ends
only on as much knowledge as it was raised on: a parameter that grew old in between proves nothing.

A total that stands at a limit flickers with every beat, so a score must hold for DELAY_MS to
alarm, and be below for as long to end. Only while one of these delays runs is every reading of
its parameters looked at (`running`).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from cloud.detect.episode import Delays, Sample
from cloud.detect.lanes import Condition, Pair, Watches, event, judge
from cloud.detect.scores import news2, qsofa, shock
from cloud.detect.scores.parameters import PARAMETER_OF, Ages, Score, Snapshot
from cloud.detect.scores.parameters import Charted as Measured
from cloud.detect.threshold import Finding
from cloud.fhir import resources
from cloud.policy.resolve import Effective
from vitals.codes import BY_NAME, VITALS

DELAY_MS: Final = 60_000
CHART_MS: Final = 60_000
"""A score that flickers is charted once a minute; one that rises, at once."""
GAP_MS: Final = 300_000
"""Longer without a look, and a delay starts anew."""

NEWS2: Final = "news2"
QSOFA: Final = "qsofa"
SHOCK: Final = "shock_index"
KINDS: Final = frozenset({NEWS2, QSOFA, SHOCK})
NAMES: Final = {NEWS2: "news2", QSOFA: "qsofa", SHOCK: "shock"}
"""As their Observations name them."""

SINGLE: Final = frozenset(BY_NAME[name].index for name in ("heart_rate", "spo2", "resp_rate"))
"""Vitals that a parameter is always read from while they are fresh: a change of points is one of
the total."""

_RISES: Final = {NEWS2: (news2.MEDIUM_AT, news2.HIGH_AT), QSOFA: (qsofa.HIGH_AT,), SHOCK: (0.9,)}
"""Where the clinical risk of a score rises."""

_QSOFA_EDGES: Final = {
    "resp_rate": qsofa.RESP_RATE_FROM,
    "systolic": qsofa.SYSTOLIC_TO + 1,
    "consciousness": 1,
}
"""The first value of the other side."""

_DELAYS: Final = Delays(DELAY_MS, DELAY_MS, GAP_MS)
_FRESH: Final = Pair()

PARAMETERS: Final = frozenset(PARAMETER_OF) | {BY_NAME["o2_flow"].index, BY_NAME["fio2"].index}
"""Vitals that a score is read from."""


class Level(NamedTuple):
    """One condition of a score."""

    rule: str
    kind: str
    at: float
    priority: str


class Charted(NamedTuple):
    """What of a score was charted last."""

    at_ms: int
    lowest: float
    highest: float


class Read(NamedTuple):
    """A score at one time, as its conditions see it."""

    kind: str
    lowest: float
    """Lowest possible total; the index itself."""
    missing: int
    """How many parameters are."""
    red: bool
    text: str
    vitals: tuple[int, ...]
    """Whose newest readings it rests on."""
    highest: float
    """Highest possible total."""
    sub_scores: Mapping[str, int]
    gaps: tuple[tuple[str, str], ...]
    """(parameter, why it is missing)."""


def levels_of(policy: Effective) -> tuple[Level, ...]:
    """Return the conditions a policy has on scores, most urgent first within a kind."""
    scores = policy.scores
    out: list[Level] = []
    if scores.news2.enabled:
        news = scores.news2
        out.append(Level("news2.high", NEWS2, news.high_at, news.high_priority))
        out.append(Level("news2.medium", NEWS2, news.medium_at, news.medium_priority))
        if news.single_red:
            out.append(Level("news2.red", NEWS2, news2.RED, news.red_priority))
    if scores.qsofa.enabled:
        out.append(Level("qsofa.high", QSOFA, scores.qsofa.at, scores.qsofa.priority))
    if scores.shock_index.enabled:
        index = scores.shock_index
        out.append(Level("shock_index.high", SHOCK, index.at, index.priority))
    return tuple(out)


def ages_of(policy: Effective) -> Ages:
    """Return how old a policy lets a measurement be."""
    ages = policy.scores.news2.ages
    return Ages(
        resp_rate=ages.resp_rate,
        spo2=ages.spo2,
        heart_rate=ages.pulse,
        pulse_rate=ages.pulse,
        abp_systolic=min(ages.systolic, ages.pulse),
        nibp_systolic=ages.systolic,
        consciousness=ages.consciousness,
        temperature=ages.temperature,
        o2_flow=ages.oxygen,
        fio2=ages.oxygen,
        oxygen=ages.oxygen,
    )


def snapshot(values: Mapping[int, Measured], policy: Effective) -> Snapshot:
    """Return what the scores read."""
    news = policy.scores.news2
    return Snapshot(
        values,
        scale=news.spo2_scale,
        under_16=news.excluded == "under 16",
        pregnant=news.excluded == "pregnant",
    )


def read(kind: str, known: Snapshot, at_ms: int, ages: Ages) -> Read | None:
    """Return one score at a time; None while nothing at all is known."""
    if kind == SHOCK:
        index = shock.score(known, at_ms, ages)
        if index.value is None:
            return None
        vitals = tuple(taken.vital for taken in index.evidence)
        text = f"shock index {index.value:.2f}"
        return Read(kind, index.value, 0, False, text, vitals, index.value, {}, ())
    found: Score = (news2 if kind == NEWS2 else qsofa).score(known, at_ms, ages)
    if found.not_applicable:
        return None
    low, high = found.bounds
    name = "NEWS2" if kind == NEWS2 else "qSOFA"
    text = f"{name} {low}" if found.total is not None else f"{name} {low} to {high}"
    if found.missing:
        text += " without " + ", ".join(missing.parameter for missing in found.missing)
    vitals = tuple(taken.vital for taken in found.evidence)
    gaps = tuple((missing.parameter, missing.why) for missing in found.missing)
    return Read(kind, low, len(gaps), found.single_red, text, vitals, high, found.sub_scores, gaps)


def chart(subject: str, score: Read, at_ms: int, evidence: Sequence[str], scale: int) -> bytes:
    """Return the Observation of a score."""
    whole = not score.gaps
    bounds = None if whole else (score.lowest, score.highest)
    total = score.lowest if whole else None
    return resources.score(
        subject,
        at_ms,
        NAMES[score.kind],
        total,
        bounds,
        score.sub_scores,
        score.gaps,
        evidence,
        spo2_scale=scale,
    )


def news(before: Charted | None, score: Read, at_ms: int) -> bool:
    """Tell whether to chart a score: when it changed, once in CHART_MS unless its risk rises."""
    if before is None:
        return True
    if (score.lowest, score.highest) == (before.lowest, before.highest):
        return False
    rises = any(before.lowest < at <= score.lowest for at in _RISES[score.kind])
    return rises or at_ms - before.at_ms >= CHART_MS


def step(
    watches: Watches,
    missing: dict[str, int],
    subject: str,
    score: Read,
    level: Level,
    at_ms: int,
    evidence: list[str],
    policy: Effective,
) -> Iterator[Finding]:
    """Take a score into one condition of ``watches``; yield what is to be told.

    ``missing``: by rule, how many parameters were missing while it was a breach.
    """
    red = level.rule == "news2.red"
    breach = score.red if red else score.lowest >= level.at
    pair = watches.get(level.rule, _FRESH)
    if not breach and pair is _FRESH:
        return
    if breach:
        missing[level.rule] = score.missing
    recovered = not breach and score.missing <= missing.get(level.rule, score.missing)
    worse = breach and score.lowest > pair.live.worst
    sample = Sample(at_ms, float(score.lowest), 0, breach, recovered, worse)
    after, steps = judge(pair, sample, _DELAYS, worse_late=False, late=False)
    if after.still:
        watches.pop(level.rule, None)
        missing.pop(level.rule, None)
    else:
        watches[level.rule] = after
    for judged in steps:
        condition = Condition(
            subject, level.kind, level.rule, "", 0, level.priority, level.at, policy.version
        )
        yield Finding(level.rule, judged, event(condition, judged, score.text, evidence))


class Reads(NamedTuple):
    """What of a policy decides where a score changes."""

    scale: Literal[1, 2]
    qsofa: bool
    shock: bool


def reads_of(policy: Effective) -> Reads:
    """Return what `hold` asks of a policy."""
    scores = policy.scores
    return Reads(scores.news2.spo2_scale, scores.qsofa.enabled, scores.shock_index.enabled)


@lru_cache(8_192)
def hold(vital: int, value: int, reads: Reads) -> tuple[int, int]:
    """Return the range of a vital's scaled values around ``value`` that change no score."""
    parameter = PARAMETER_OF.get(vital)
    if parameter is None or reads.shock:
        return value, value
    low, high = news2.hold(parameter, value, reads.scale)
    edge = _QSOFA_EDGES.get(parameter)
    if reads.qsofa and edge is not None:
        low, high = (max(low, edge), high) if value >= edge else (low, min(high, edge - 1))
    return low, high


@lru_cache(8_192)
def points(vital: int, value: int) -> int:
    """Return what a value of one of SINGLE scores in NEWS2 on scale 1."""
    return news2.sub_score(PARAMETER_OF[vital], value)


@lru_cache(8_192)
def wide(vital: int, value: int, more: int) -> tuple[int, int]:
    """Return the range around ``value`` that scores at most ``more`` points more, on scale 1.

    ``vital``: one of SINGLE.
    """
    parameter, most = PARAMETER_OF[vital], points(vital, value) + more
    low, high = news2.hold(parameter, value)
    floor, ceiling = VITALS[vital].low, VITALS[vital].high
    while low > floor and points(vital, low - 1) <= most:
        low = news2.hold(parameter, low - 1)[0]
    while high < ceiling and points(vital, high + 1) <= most:
        high = news2.hold(parameter, high + 1)[1]
    return low, high


def running(watches: Watches, levels: tuple[Level, ...]) -> bool:
    """Tell whether a delay of a score runs, so that time alone decides."""
    for level in levels:
        pair = watches.get(level.rule)
        if pair is not None and (not pair.live.active or pair.live.since_ms):
            return True
    return False


assert set(PARAMETER_OF) <= {vital.index for vital in VITALS}  # noqa: S101

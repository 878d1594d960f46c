"""The life of one alert: who was told, who answered, and whether it rings.

Law: only a user's acknowledgement or clearing ends an alert that latches. Silence (shelving, a
root cause, an acknowledgement) ends by itself and is told; whatever is in doubt rings. The same
inputs give the same steps: nothing here knows a clock, and no input raises but a raise without
an episode's id, which is a fault of the program.

`episode` finds in event time whether a condition is true and feeds this; people and the clock
do the rest. The state tables are in ALERTS.md, and a test holds them against this module.
Vocabulary: IEC 60601-1-8 (priority, latching, acknowledged) and ISA-18.2 (shelved, suppressed).

Two kinds of time meet here. Raised, Worsened and Returned carry event time, which may lag or lead
by minutes; commands and Tick carry the clock. They are never subtracted from each other: the
waits of escalation and of flapping start with the first Tick that sees them, the flap guard
counts in event time alone, and a wait that starts ahead of the clock is not believed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import msgspec

from cloud.policy.manners import Manners

NEVER: Final = 2**63 - 1
"""`due_ms` when no Tick would change anything: beyond every time in milliseconds."""

FLAP_COUNT_MAX: Final = 16
"""Raises remembered for the flap guard; a policy's higher ``flap_count`` counts as this. An alert
that rises more often than that has long been a nuisance."""

RAISES_KEPT_MS: Final = 24 * 3_600_000
"""Raises are forgotten this long after the last (or after ``flap_ms``, if longer). The clock
decides it, so it is longer than any backlog takes to be read, in which event time lags."""

SKEW_MS: Final = 60_000
"""An acknowledgement or shelving this far ahead of the clock is not believed: the clock was set
back, and the silence would last as much too long. Less is two servers' clocks."""

StepName = Literal[
    "raised",
    "raised-again",
    "worse",
    "latched",
    "ended",
    "acknowledged",
    "re-alarmed",
    "escalated",
    "shelved",
    "unshelved",
    "suppressed",
    "released",
    "flapping",
    "cleared",
]
State = Literal["", "active", "latched", "ended"]

CONDITION: Final = "condition"
"""Why of a step: the condition became true, worse, or no longer true."""
TIME: Final = "time"
"""Why: a wait was over."""
CLOCK: Final = "clock"
"""Why: the clock was set back, see SKEW_MS."""
CALM: Final = "calm"
"""Why: a flapping alert did not rise for ``flap_ms``."""
CAUSE: Final = "cause"
"""Why: the root cause began or ended."""
ANSWERED: Final = "acknowledged"
"""Why: the acknowledgement ended what was latched."""


DEFAULTS: Final[Mapping[str, Manners]] = MappingProxyType(
    {
        "high": Manners(True, (60_000, 120_000), 180_000, 120_000, 5, 600_000),
        "medium": Manners(False, (300_000,), 600_000, 900_000, 5, 600_000),
        "low": Manners(False, (900_000,), 4 * 3_600_000, 3_600_000, 5, 600_000),
    }
)
"""By priority. Latching: high does, low does not, as on Dräger's monitors; medium as our ward
station draws it, a silent message. ``acknowledge_ms``: Philips V24 alarms again after 2 or 3 min,
Mindray N1 reminds after 1 to 10 min; low: 4 h, a round of observations, because a fever lasts.
``shelve_ms_max``: high: the 2 min of Dräger's audio pause. The other numbers are our judgement
(no standard gives them) and belong to the ward, hence the policy. Low escalates too: sensors
that came off and were ignored for hours have cost lives."""


class Life(msgspec.Struct, frozen=True, array_like=True):
    """One condition's alert. The default: no episode, nothing remembered.

    Kept in the state topic as an array: fields are only ever added at the end. 0 and "" are "not".
    """

    episode: str = ""
    """Kept after the end only while a shelving outlives it."""
    number: int = 0
    """Steps told in this episode."""
    began_ms: int = 0
    """First sample of the episode; event time."""
    ended_ms: int = 0
    """When the condition was last found to have ended; event time, or a clearing's."""
    active: bool = False
    """The condition is true now."""
    latched: bool = False
    standing: bool = False
    level: int = 0
    acknowledged_ms: int = 0
    acknowledged_by: str = ""
    shelved_ms: int = 0
    """When it was shelved; bounds it even when the policy is changed meanwhile."""
    shelved_until_ms: int = 0
    shelved_by: str = ""
    suppressed_by: str = ""
    """Episode of the root cause."""
    since_ms: int = 0
    """Clock time since when it rings at this level; 0 until a Tick sees it ring."""
    calm_ms: int = 0
    """Clock time of a standing alert's last raise; 0 until a Tick sees it."""
    raises: tuple[int, ...] = ()
    """Event times of the last raises, at most FLAP_COUNT_MAX."""

    @property
    def state(self) -> State:
        """Return `AlertEvent.state`; "" without an episode.

        A standing alert is active throughout.
        """
        if not self.episode:
            return ""
        if self.active or self.standing:
            return "active"
        return "latched" if self.latched else "ended"

    @property
    def live(self) -> bool:
        """True from the raise to the end."""
        return self.state in ("active", "latched")

    @property
    def audible(self) -> bool:
        """True when it rings."""
        return self.live and not (
            self.acknowledged_ms or self.shelved_until_ms or self.suppressed_by
        )


class Raised(NamedTuple):
    """The condition is true, its delay over. Event time. ``episode`` is not empty."""

    episode: str
    began_ms: int
    at_ms: int


class Worsened(NamedTuple):
    """The condition is further out than before. Event time."""

    at_ms: int


class Returned(NamedTuple):
    """The condition is no longer true, since ``ended_ms``. Event time."""

    at_ms: int
    ended_ms: int


class Acknowledge(NamedTuple):
    """A user has seen it. ``episode``, here and below: if given, which one is meant."""

    who: str
    why: str
    at_ms: int
    episode: str = ""


class Shelve(NamedTuple):
    """A user silences it for a time."""

    who: str
    why: str
    until_ms: int
    at_ms: int
    episode: str = ""


class Unshelve(NamedTuple):
    """A user takes the shelving back."""

    who: str
    why: str
    at_ms: int
    episode: str = ""


class Clear(NamedTuple):
    """A user ends the episode. If the condition is true it must be raised anew by the caller."""

    who: str
    why: str
    at_ms: int
    episode: str = ""


class Suppress(NamedTuple):
    """A root cause that explains it began; clock time."""

    cause_episode: str
    at_ms: int


class Release(NamedTuple):
    """The root cause is over; clock time."""

    at_ms: int


class Tick(NamedTuple):
    """The clock."""

    now_ms: int


ByUser = Acknowledge | Shelve | Unshelve | Clear
Given = Raised | Worsened | Returned | ByUser | Suppress | Release | Tick


class Step(NamedTuple):
    """One thing that happened, to be told once."""

    name: StepName
    at_ms: int
    """Event time when the condition caused it, clock time otherwise."""
    who: str
    """The user; empty: the system."""
    why: str
    """The user's reason, or one of the words above."""
    life: Life
    """As it is after the step."""


def advance(life: Life, given: Given, manners: Manners) -> tuple[Life, tuple[Step, ...]]:
    """Return the alert after one input, and the steps to tell, in order.

    What means nothing (a repeated command, one for another episode, one without a user) changes
    and tells nothing. Raises ValueError for a raise without an episode's id.
    """
    course = _Course(life)
    match given:
        case Raised():
            _raised(course, given, manners)
        case Worsened():
            if life.active:
                course.tell("worse", given.at_ms, CONDITION)
        case Returned():
            _returned(course, given, manners)
        case Suppress():
            _suppress(course, given)
        case Release():
            if life.suppressed_by and life.live:
                course.tell("released", given.at_ms, CAUSE, suppressed_by="")
            elif life.suppressed_by:
                course.change(suppressed_by="")
        case Tick():
            _tick(course, given.now_ms, manners)
        case _:
            _command(course, given, manners)
    return _rest(course.life), tuple(course.steps)


def due_ms(life: Life, manners: Manners) -> int:
    """Return the earliest clock time at which a Tick would change anything, or NEVER.

    0: at once, because a wait starts with the next Tick. The clock is taken to go forward; after
    it was set back, Tick every alert once.
    """
    waits = [NEVER]
    if life.standing and not life.calm_ms:
        return 0
    if life.standing and not life.active:
        waits.append(life.calm_ms + manners.flap_ms)
    if life.shelved_until_ms:
        waits.append(_shelf_end_ms(life, manners))
    if _acknowledgement_ends(life, manners):
        waits.append(life.acknowledged_ms + manners.acknowledge_ms)
    if _escalates(life, manners):
        if not life.since_ms:
            return 0
        waits.append(life.since_ms + manners.escalate_ms[life.level])
    if life.raises and not life.live:
        waits.append(_forget_ms(life, manners))
    return max(0, min(waits))


class _Course:
    """An alert while one input acts on it."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.steps: list[Step] = []

    def change(self, **changes: Any) -> None:
        """Change fields; what falls silent has its wait begin anew when it rings again."""
        self.life = msgspec.structs.replace(self.life, **changes)
        if self.life.since_ms and not self.life.audible:
            self.life = msgspec.structs.replace(self.life, since_ms=0)

    def tell(self, name: StepName, at_ms: int, why: str, who: str = "", **changes: Any) -> None:
        """Change fields, and tell it."""
        self.change(number=self.life.number + 1, **changes)
        self.steps.append(Step(name, at_ms, who, why, self.life))


def _raised(course: _Course, given: Raised, manners: Manners) -> None:
    if not given.episode:
        raise ValueError("a raise without an episode: give it the id of lanes.episode_id")
    life = course.life
    if life.active:
        return
    if life.standing:
        course.change(active=True, calm_ms=0)
        return
    count = min(manners.flap_count, FLAP_COUNT_MAX)
    near = (at for at in life.raises if abs(given.at_ms - at) < manners.flap_ms)
    raises = (*near, given.at_ms) if count >= 2 else ()
    if life.latched:
        course.tell(
            "raised-again", given.at_ms, CONDITION, active=True, latched=False, raises=raises
        )
    else:
        course.life = Life(
            episode=given.episode,
            began_ms=given.began_ms,
            shelved_ms=life.shelved_ms,
            shelved_until_ms=life.shelved_until_ms,
            shelved_by=life.shelved_by,
            # Nothing is its own cause: it would never ring.
            suppressed_by="" if life.suppressed_by == given.episode else life.suppressed_by,
        )
        course.tell("raised", given.at_ms, CONDITION, active=True, raises=raises)
    if len(raises) >= count >= 2:
        course.tell("flapping", given.at_ms, CONDITION, standing=True, raises=())


def _returned(course: _Course, given: Returned, manners: Manners) -> None:
    if not course.life.active:
        return
    if course.life.standing:
        course.change(active=False, ended_ms=given.ended_ms)
    else:
        _over(course, given.at_ms, CONDITION, given.ended_ms, manners)


def _over(course: _Course, at_ms: int, why: str, ended_ms: int, manners: Manners) -> None:
    """Latch what nobody has acknowledged, or end it. A shelving or a cause is no answer."""
    latched = manners.latch and not course.life.acknowledged_ms
    course.tell(
        "latched" if latched else "ended",
        at_ms,
        why,
        active=False,
        standing=False,
        calm_ms=0,
        latched=latched,
        ended_ms=ended_ms,
    )


def _suppress(course: _Course, given: Suppress) -> None:
    life, cause = course.life, given.cause_episode
    if cause in ("", life.episode, life.suppressed_by):
        return
    if life.live:
        course.tell("suppressed", given.at_ms, CAUSE, suppressed_by=cause)
    else:
        course.change(suppressed_by=cause)


def _command(course: _Course, given: ByUser, manners: Manners) -> None:
    life, at = course.life, given.at_ms
    if not life.episode or not given.who or given.episode not in ("", life.episode):
        return
    if isinstance(given, Unshelve):
        if life.shelved_until_ms:
            _unshelve(course, at, given.why, given.who)
    elif not life.live:
        return
    elif isinstance(given, Acknowledge):
        if life.acknowledged_ms:
            return
        course.tell(
            "acknowledged",
            at,
            given.why,
            given.who,
            acknowledged_ms=max(1, at),
            acknowledged_by=given.who,
        )
        if life.latched:
            course.tell("ended", at, ANSWERED, latched=False)
    elif isinstance(given, Shelve):
        until = min(given.until_ms, at + manners.shelve_ms_max)
        if until <= max(0, at) or until == life.shelved_until_ms:
            return
        course.tell(
            "shelved",
            at,
            given.why,
            given.who,
            shelved_ms=max(1, at),
            shelved_until_ms=until,
            shelved_by=given.who,
        )
    else:
        course.tell(
            "cleared",
            at,
            given.why,
            given.who,
            active=False,
            latched=False,
            standing=False,
            calm_ms=0,
            ended_ms=at if life.active else life.ended_ms,
            raises=(),
        )


def _unshelve(course: _Course, at_ms: int, why: str, who: str = "") -> None:
    changes: dict[str, Any] = {"shelved_ms": 0, "shelved_until_ms": 0, "shelved_by": ""}
    if course.life.live:
        changes["level"] = 0
        if not who:
            changes |= {"acknowledged_ms": 0, "acknowledged_by": ""}
    course.tell("unshelved", at_ms, why, who, **changes)


def _tick(course: _Course, now: int, manners: Manners) -> None:
    """Do what is due, each thing once: an engine that was away does not skip a level."""
    life = course.life
    if life.standing:
        if not 0 < life.calm_ms <= now:
            course.change(calm_ms=max(1, now))
        elif not life.active and now - life.calm_ms >= manners.flap_ms:
            _over(course, now, CALM, life.ended_ms, manners)
    if course.life.shelved_until_ms:
        if now >= _shelf_end_ms(course.life, manners):
            _unshelve(course, now, TIME)
        elif course.life.shelved_ms - now > SKEW_MS:
            _unshelve(course, now, CLOCK)
    if _acknowledgement_ends(course.life, manners):
        passed = now - course.life.acknowledged_ms
        if passed >= manners.acknowledge_ms or passed < -SKEW_MS:
            why = CLOCK if passed < 0 else TIME
            course.tell("re-alarmed", now, why, acknowledged_ms=0, acknowledged_by="", level=0)
    if _escalates(course.life, manners):
        since, level = course.life.since_ms, course.life.level
        if not 0 < since <= now:
            course.change(since_ms=max(1, now))
        elif now - since >= manners.escalate_ms[level]:
            course.tell("escalated", now, TIME, level=level + 1, since_ms=max(1, now))
    if course.life.raises and not course.life.live and now >= _forget_ms(course.life, manners):
        course.change(raises=())


def _shelf_end_ms(life: Life, manners: Manners) -> int:
    return min(life.shelved_until_ms, life.shelved_ms + manners.shelve_ms_max)


def _acknowledgement_ends(life: Life, manners: Manners) -> bool:
    """Tell whether it is acknowledged, and not for ever."""
    return life.state == "active" and life.acknowledged_ms != 0 and manners.acknowledge_ms > 0


def _escalates(life: Life, manners: Manners) -> bool:
    return life.audible and life.level < len(manners.escalate_ms)


def _forget_ms(life: Life, manners: Manners) -> int:
    return max(life.raises) + max(RAISES_KEPT_MS, manners.flap_ms)


def _rest(life: Life) -> Life:
    """Return what is kept of an alert that ended: all of it while its shelving is to be told."""
    if life.state != "ended" or life.shelved_until_ms:
        return life
    return Life(suppressed_by=life.suppressed_by, raises=life.raises)

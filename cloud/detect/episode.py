"""The life of one condition, in event time: the state table every detector shares.

Law: time comes from readings only. The same readings in the same order give the same steps,
however they are cut into batches; nothing here knows the clock.

=========  ==================================  ==========================================
phase      reading                             next
=========  ==================================  ==========================================
quiet      breach                              pending (began = its time)
pending    breach, delay over                  active: RAISED
pending    breach after a gap                  pending anew (began = its time)
pending    no breach                           quiet
active     breach, further out than the worst  active: WORSE
active     recovered                           clearing (since = its time)
clearing   recovered, clear delay over         quiet: ENDED (at ``since``)
clearing   recovered after a gap               clearing anew (since = its time)
clearing   breach, or between limit and band   active
=========  ==================================  ==========================================

A delay of 0 raises, or clears, with the first reading. Silence changes nothing: a condition that
was true when the data stopped is not known to have ended.
"""

from enum import Enum
from typing import NamedTuple

import msgspec


class Step(Enum):
    """What a reading did that somebody must be told."""

    NONE = 0
    RAISED = 1
    WORSE = 2
    ENDED = 3


class Sample(NamedTuple):
    """One reading as a condition sees it."""

    time_ms: int
    value: float
    site: int
    breach: bool
    recovered: bool
    worse: bool
    """Further out than the worst so far; meant only with ``breach``."""


class Watch(msgspec.Struct, frozen=True, array_like=True):
    """One condition of one subject. All zero when quiet, but for ``last_ms``.

    Kept in the state topic as an array: fields are only ever added at the end.
    """

    last_ms: int = 0
    """Time of the last reading that counted."""
    began_ms: int = 0
    raised_ms: int = 0
    """0 until the delay is over."""
    worst: float = 0.0
    worst_ms: int = 0
    began_site: int = 0
    worst_site: int = 0
    since_ms: int = 0
    """First reading of the recovery; 0 while there is none."""
    ended_ms: int = 0
    """Set only in the step that ends it."""
    last_site: int = 0

    @property
    def active(self) -> bool:
        """True from RAISED to ENDED."""
        return self.raised_ms != 0


class Delays(NamedTuple):
    """Milliseconds of event time."""

    delay_ms: int
    clear_delay_ms: int
    gap_ms: int


def advance(watch: Watch, sample: Sample, delays: Delays) -> tuple[Watch, Step]:
    """Return the condition after one reading, whose time is not before ``watch.last_ms``.

    On ENDED the returned watch still describes the episode, with ``ended_ms``; keep its `quiet`.
    """
    at = sample.time_ms
    gap = watch.last_ms != 0 and at - watch.last_ms > delays.gap_ms
    if not watch.active:
        if not sample.breach:
            return Watch(at, last_site=sample.site), Step.NONE
        if watch.began_ms == 0 or gap:
            site = sample.site
            watch = Watch(at, at, 0, sample.value, at, site, site, last_site=site)
        else:
            watch = _deepened(watch, sample)
        if at - watch.began_ms >= delays.delay_ms:
            return msgspec.structs.replace(watch, raised_ms=at), Step.RAISED
        return watch, Step.NONE
    if sample.breach:
        step = Step.WORSE if sample.worse else Step.NONE
        return msgspec.structs.replace(_deepened(watch, sample), since_ms=0), step
    if not sample.recovered:
        return msgspec.structs.replace(
            watch, last_ms=at, last_site=sample.site, since_ms=0
        ), Step.NONE
    since = at if watch.since_ms == 0 or gap else watch.since_ms
    watch = msgspec.structs.replace(watch, last_ms=at, last_site=sample.site, since_ms=since)
    if at - since >= delays.clear_delay_ms:
        return msgspec.structs.replace(watch, ended_ms=since), Step.ENDED
    return watch, Step.NONE


def quiet(watch: Watch) -> Watch:
    """Return what is kept of a condition that ended."""
    return Watch(watch.last_ms, last_site=watch.last_site)


def cut(watch: Watch) -> Watch:
    """Return an active condition ended at its last reading, for readings that jump back."""
    return msgspec.structs.replace(watch, ended_ms=watch.last_ms)


def _deepened(watch: Watch, sample: Sample) -> Watch:
    if sample.worse:
        return msgspec.structs.replace(
            watch,
            last_ms=sample.time_ms,
            last_site=sample.site,
            worst=sample.value,
            worst_ms=sample.time_ms,
            worst_site=sample.site,
        )
    return msgspec.structs.replace(watch, last_ms=sample.time_ms, last_site=sample.site)

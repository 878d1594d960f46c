"""Doubts about a measurement: a flat line, a jump no body makes, motion.

Law: it marks, it never hides. An alert whose readings are marked rings all the same; the mark tells
who comes running what to look at first. Pure, in event time, one trace a vital and channel.

=========  ============================================================================
mark       when
=========  ============================================================================
flat_line  a vital that always moves kept one value for its ``flat_ms``, one reading in
           SAMPLE_MS looked at; ends with the first other value
jump       the value is further from the last one than ``jump`` a second (at least one second
           is counted, and nothing is said after JUMP_GAP_MS); holds for JUMP_HOLD_MS
motion     MOTION_COUNT doubts (a jump, or a reading the device itself calls QUESTIONABLE) within
           MOTION_MS; or a saturation DROP below what it just was while the ECG's rate and the
           oximeter's are RATES_APART: the oximeter does not see the heart. Holds for
           MOTION_HOLD_MS after the last of them
=========  ============================================================================

Atrial fibrillation sets the two rates apart as well, with a true saturation: one more reason to
mark and not to hide.

The bounds below are starting points for doubts, wider than what the 53 recordings of ICU patients
in ``simulators/recordings`` do within a second (heart rate 25, pulse 17, respiration 19 a minute,
SpO2 3 %) and longer than what they keep (see `BOUNDS`). Of pressures, EtCO2 and perfusion nothing
was recorded: those are judgement.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from cloud.detect.series import SAMPLE_MS
from vitals.codes import BY_NAME, VITALS, Status, decimal_scale

FLAT_LINE: Final = "flat_line"
JUMP: Final = "jump"
MOTION: Final = "motion"

JUMP_GAP_MS: Final = 10_000
"""After that long without a value another one is news, not a jump."""
JUMP_HOLD_MS: Final = 30_000
"""Longer than an alarm's delay (10 s): an alert that a jump began still bears its mark."""
MOTION_COUNT: Final = 3
MOTION_MS: Final = 30_000
MOTION_HOLD_MS: Final = 30_000
FLAT_GAP_MS: Final = 30_000
"""Longer without a value, and a flat line begins anew."""
DROP: Final = 3
"""% of SpO2 below the highest of this minute and the one before; 3 % is the accuracy of oximeters
as their makers state it (ISO 80601-2-61 asks for 4 %)."""
RATES_APART: Final = 20
"""/min between the ECG's rate and the oximeter's."""
RATES_MS: Final = 10_000
"""Both rates at most this much older than the saturation."""
FOREVER_MS: Final = 2**62
"""No time is later."""

_MINUTE_MARKS: Final = 60_000 // SAMPLE_MS
_WIDE: Final = 2**31
_VALUED: Final = frozenset({int(Status.OK), int(Status.ALARM_INHIBITED)})
_QUESTIONABLE: Final = int(Status.QUESTIONABLE)
_MINUTES_15: Final = 900_000
_MINUTES_30: Final = 1_800_000


class Bound(NamedTuple):
    """What is no doubt for one vital. Values are of the vital's scale."""

    flat_ms: int = 0
    """0: it may stay as it is for ever."""
    flat_below: int = _WIDE
    """At or above this a constant value is no doubt."""
    jump: int = 0
    """Largest change a second; 0: any."""
    motion: bool = False
    """Measured by an oximeter's sensor."""
    drop: int = 0
    """See DROP; 0: not looked at."""


# Flat lines. SpO2 stays at 97 to 100 as long as a healthy or ventilated patient lies still: never
# there; below, recorded patients kept one value for all of their 8 minutes, so 30. Heart and pulse
# rates were constant for up to 122 and 173 s, and a pacemaker holds them much longer: 15 min. A
# ventilator sets respiration, and a set FiO2 is not measured: never. A transducer that is clamped
# or closed to the patient shows a pressure that no longer moves: 5 min for an artery (it moves with
# every breath), 30 min for a vein (few whole numbers to move in).
_OF: Final[Mapping[str, Bound]] = {
    "heart_rate": Bound(_MINUTES_15, jump=30),
    "pulse_rate": Bound(_MINUTES_15, jump=30, motion=True),
    "spo2": Bound(_MINUTES_30, 97, jump=4, motion=True, drop=DROP),
    "resp_rate": Bound(jump=30),
    "abp_systolic": Bound(300_000, jump=60),
    "abp_diastolic": Bound(300_000, jump=40),
    "abp_mean": Bound(300_000, jump=50),
    "cvp_mean": Bound(_MINUTES_30, jump=20),
    "etco2": Bound(_MINUTES_15, jump=30),
    "perfusion_index": Bound(_MINUTES_15),
}
BOUNDS: Final = tuple(_OF.get(vital.name, Bound()) for vital in VITALS)
"""By index of the code table. What is taken now and then, and what is set, has none."""


class Trace(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is remembered of one vital and channel.

    Kept in the state topic as an array: fields are only ever added at the end.
    """

    last_ms: int = -1
    """Time of the last value; -1: none yet."""
    last: int = 0
    mark: int = -1
    """Number since 1970 of the SAMPLE_MS whose first value was looked at last."""
    flat_value: int = 0
    flat_since_ms: int = 0
    jump_until_ms: int = 0
    motion_until_ms: int = 0
    doubts: tuple[int, ...] = ()
    """Times of the last doubts, at most MOTION_COUNT - 1."""
    high: int = 0
    """Highest value looked at in the minute of ``mark``; for `Bound.drop` only."""
    high_before: int = 0
    """And in the minute before; as ``high`` when nothing was looked at then."""


class Rates(NamedTuple):
    """The newest heart rate (ECG) and pulse rate (oximeter) of the subject, with their times."""

    heart_rate: int
    heart_ms: int
    pulse_rate: int
    pulse_ms: int


class Hold(NamedTuple):
    """While a value is within and its time before the end, `step` would mark nothing."""

    lo: int
    hi: int
    until_ms: int
    """The first time that is out."""


Marks = frozenset[str]
NONE: Final[Marks] = frozenset()
NEVER: Final = Hold(0, -1, 0)


def step(
    trace: Trace,
    bound: Bound,
    time_ms: int,
    value: int | None,
    status: int = 0,
    rates: Rates | None = None,
) -> tuple[Trace, Marks]:
    """Return the trace after one reading, and that reading's marks.

    ``value`` is of the vital's scale. A reading that is not newer than the last changes nothing and
    gets no mark, nor does one without a value or of no patient (MISSING, TEST and their like).
    """
    if time_ms <= trace.last_ms:
        return trace, NONE
    if status == _QUESTIONABLE:
        if not bound.motion or time_ms in trace.doubts:
            return trace, NONE
        trace = _doubted(trace, time_ms)
        return trace, _marks(trace, bound, time_ms, None)
    if status not in _VALUED or value is None:
        return trace, NONE
    jumped = _jumps(trace, bound, time_ms, value)
    trace = _looked_at(trace, bound, time_ms, value)
    if jumped:
        trace = msgspec.structs.replace(trace, jump_until_ms=time_ms + JUMP_HOLD_MS)
        if bound.motion:
            trace = _doubted(trace, time_ms)
    if bound.drop and value <= _level(trace) - bound.drop and _apart(rates, time_ms):
        trace = msgspec.structs.replace(trace, motion_until_ms=time_ms + MOTION_HOLD_MS)
    return trace, _marks(trace, bound, time_ms, value)


def hold(trace: Trace, bound: Bound) -> Hold:
    """Return what need not be given to `step`: readings of status OK within it, after the last one.

    Whoever leaves readings out calls `resumed` with the last of them before the next `step`. Half
    a jump on either side, so that no two readings left out are a jump apart.
    """
    if trace.last_ms < max(0, trace.jump_until_ms, trace.motion_until_ms):
        return NEVER
    until_ms = (trace.mark + 1) * SAMPLE_MS if _looks(bound) else FOREVER_MS
    if bound.flat_ms and trace.flat_value < bound.flat_below:
        until_ms = min(until_ms, trace.flat_since_ms + bound.flat_ms)
    half = bound.jump // 2 if bound.jump else _WIDE
    lo, hi = trace.last - half, trace.last + half
    if bound.drop:
        lo = max(lo, _level(trace) - bound.drop + 1)
    return Hold(lo, hi, until_ms)


def resumed(trace: Trace, time_ms: int, value: int) -> Trace:
    """Return the trace as if the readings left out had come; this is the last of them."""
    return msgspec.structs.replace(trace, last_ms=time_ms, last=value)


def _jumps(trace: Trace, bound: Bound, time_ms: int, value: int) -> bool:
    apart_ms = time_ms - trace.last_ms
    return (
        bound.jump > 0
        and trace.last_ms >= 0
        and apart_ms <= JUMP_GAP_MS
        and abs(value - trace.last) * 1000 > bound.jump * max(apart_ms, 1000)
    )


def _looked_at(trace: Trace, bound: Bound, time_ms: int, value: int) -> Trace:
    """Return the trace with its last value, and with what the first of SAMPLE_MS changes."""
    mark = time_ms // SAMPLE_MS
    if mark <= trace.mark or not _looks(bound):
        return msgspec.structs.replace(trace, last_ms=time_ms, last=value)
    goes_on = (
        trace.mark >= 0
        and value == trace.flat_value
        and mark - trace.mark <= FLAT_GAP_MS // SAMPLE_MS
    )
    high, before = trace.high, trace.high_before
    if bound.drop:
        minutes = mark // _MINUTE_MARKS - trace.mark // _MINUTE_MARKS
        if trace.mark < 0 or minutes > 1:
            high = before = value
        elif minutes == 1:
            high, before = value, high
        else:
            high = max(high, value)
    return msgspec.structs.replace(
        trace,
        last_ms=time_ms,
        last=value,
        mark=mark,
        flat_value=value,
        flat_since_ms=trace.flat_since_ms if goes_on else time_ms,
        high=high,
        high_before=before,
    )


def _looks(bound: Bound) -> bool:
    """Tell whether anything depends on more than the last value and its time."""
    return bound.flat_ms > 0 or bound.drop > 0


def _doubted(trace: Trace, time_ms: int) -> Trace:
    recent = [at for at in trace.doubts if abs(time_ms - at) <= MOTION_MS]
    until_ms = trace.motion_until_ms
    if len(recent) >= MOTION_COUNT - 1:
        until_ms = time_ms + MOTION_HOLD_MS
    kept = tuple(sorted([*recent, time_ms])[1 - MOTION_COUNT :])
    return msgspec.structs.replace(trace, doubts=kept, motion_until_ms=until_ms)


def _level(trace: Trace) -> int:
    return max(trace.high, trace.high_before)


def _apart(rates: Rates | None, time_ms: int) -> bool:
    return (
        rates is not None
        and abs(rates.heart_rate - rates.pulse_rate) > RATES_APART
        and time_ms - min(rates.heart_ms, rates.pulse_ms) <= RATES_MS
    )


def _marks(trace: Trace, bound: Bound, time_ms: int, value: int | None) -> Marks:
    flat = (
        bound.flat_ms > 0
        and value == trace.flat_value
        and value < bound.flat_below
        and time_ms - trace.flat_since_ms >= bound.flat_ms
    )
    if not flat and time_ms >= trace.jump_until_ms and time_ms >= trace.motion_until_ms:
        return NONE
    marks = (
        (FLAT_LINE, flat),
        (JUMP, time_ms < trace.jump_until_ms),
        (MOTION, time_ms < trace.motion_until_ms),
    )
    return frozenset(name for name, holds in marks if holds)


assert [vital.name for vital, b in zip(VITALS, BOUNDS, strict=True) if b != Bound()] == list(_OF)  # noqa: S101
assert all(BY_NAME[name].continuous for name in _OF)  # noqa: S101
assert decimal_scale(BY_NAME["spo2"]) == decimal_scale(BY_NAME["heart_rate"]) == 1  # noqa: S101

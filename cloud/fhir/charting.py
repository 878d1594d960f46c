"""Which readings are charted: every one, or a median a minute and everything around an alarm.

Law: pure, without clock; what a step decides follows from the state and what it is given. Nothing
that is not OK is passed off as a measurement, and no reading that could matter to an alarm is
left out: detectors see every reading anyway, this decides only about what leaves as FHIR.

Mode ``every``: all readings leave, as they come. Mode ``minute``, one `State` a subject:

=============================================== ==================================================
a reading                                       what leaves
=============================================== ==================================================
of a vital taken now and then                   itself, at once: its time is news
within ``around_ms`` of an alarm                itself, at once; it counts for its minute as well
of the source's open minute                     later: one median per (vital, site, channel)
of a later minute                               the medians of the open one; then as above
of an earlier minute than the open one          itself: its minute has left, or never was
an alarm that begins or is told                 what is remembered of the time around it
=============================================== ==================================================

A minute's median is that of the values of one status, the first of BELIEF that has any, so that a
test never mixes with a patient; a minute without any value says so with the status of its last
reading. An even number of values has the lower of the middle two: a value that was measured. A
minute leaves when the next begins or `close` is told of a time past its end; its id and bytes
follow from subject, vital and minute, so writing it again changes nothing. A process that loses
its state in a minute and begins again makes that minute's median of the rest.

For the time before an alarm RECENT_MAX readings a subject are remembered that have not left;
five vitals at 1 Hz for five minutes are 1,500. What is over falls out, oldest first: its median
leaves with its minute.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from cloud.fhir.observations import MINUTE_MS
from vitals.codes import VITALS, Status
from vitals.reading import Reading

Mode = Literal["every", "minute"]

RECENT_MAX: Final = 2048
"""Readings of one subject that are remembered, some 100 bytes each."""

SOURCES_MAX: Final = 16
"""Devices of one subject with an open minute; one more closes the oldest's."""

BELIEF: Final = (
    Status.OK,
    Status.ALARM_INHIBITED,
    Status.QUESTIONABLE,
    Status.CALIBRATION,
    Status.TEST,
)
"""Statuses with a value, the one to be believed first."""


class Charting(msgspec.Struct, frozen=True):
    """What the policy says."""

    mode: Mode = "every"
    around_ms: int = 300_000


class Span(NamedTuple):
    """An alarm of the subject in milliseconds of event time; ``ended_ms`` None while it lasts."""

    began_ms: int
    ended_ms: int | None = None


class Given(NamedTuple):
    """A reading and the pseudonym of the device it is of."""

    device: str
    reading: Reading


class Leaving(NamedTuple):
    """What is charted now, in the order it came to leave."""

    readings: tuple[Given, ...] = ()
    """As measured: for `Chart.rows` or `Chart.bundles`."""
    minutes: tuple[Given, ...] = ()
    """Medians, ``time_ms`` the minute's first: for `Chart.minute`."""


Key = tuple[int, int, int]
"""Vital, site, channel."""


class Minute(msgspec.Struct, frozen=True, array_like=True):
    """The open minute of one device. Fields are only added at the end."""

    start_ms: int
    values: dict[Key, list[tuple[int, float | None]]]
    """(status, value) of each reading, in the order they came."""


class State(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of one subject. Fields are only added at the end."""

    minutes: dict[str, Minute] = {}
    """By device."""
    recent: list[Given] = []
    """Readings that have not left, in the order they came."""


NOTHING: Final = State()


def advance(
    state: State, given: Iterable[Given], alarms: Sequence[Span], charting: Charting
) -> tuple[State, Leaving]:
    """Return the state after some readings of one subject, and what leaves.

    ``alarms``: every alarm of the subject that lasts, began, or ended less than ``around_ms``
    before the oldest reading given or remembered; more of them do no harm.
    """
    if charting.mode == "every":
        # What a change of the policy from minute to every leaves behind leaves with it.
        left, closed = close(state, None)
        return NOTHING, Leaving((*left.recent, *given), closed.minutes)
    around = charting.around_ms
    out: list[Given] = []
    medians: list[Given] = []
    recent: list[Given] = []
    for one in state.recent:
        (out if _near(one.reading.time_ms, alarms, around) else recent).append(one)
    minutes = dict(state.minutes)
    for one in given:
        reading = one.reading
        if not VITALS[reading.vital].continuous:
            out.append(one)
            continue
        start_ms = reading.time_ms - reading.time_ms % MINUTE_MS
        minute = minutes.get(one.device)
        if minute is not None and start_ms < minute.start_ms:
            out.append(one)
            continue
        if minute is None or start_ms > minute.start_ms:
            if minute is not None:
                medians += _medians(one.device, minutes.pop(one.device))
            elif len(minutes) == SOURCES_MAX:
                oldest = min(minutes, key=lambda device: (minutes[device].start_ms, device))
                medians += _medians(oldest, minutes.pop(oldest))
            minute = Minute(start_ms, {})
        key = (reading.vital, reading.site, reading.channel)
        said = [*minute.values.get(key, ()), (reading.status, reading.value)]
        minutes[one.device] = Minute(start_ms, minute.values | {key: said})
        (out if _near(reading.time_ms, alarms, around) else recent).append(one)
    newest = max((one.reading.time_ms for one in recent), default=0)
    recent = [one for one in recent if one.reading.time_ms >= newest - around]
    return State(minutes, recent[-RECENT_MAX:]), Leaving(tuple(out), tuple(medians))


def close(state: State, now_ms: int | None) -> tuple[State, Leaving]:
    """Return the state and the medians of minutes that ended at or before ``now_ms``; None: all.

    For devices that have gone: no later reading closes their minute.
    """
    over = {
        device: minute
        for device, minute in state.minutes.items()
        if now_ms is None or minute.start_ms + MINUTE_MS <= now_ms
    }
    medians = [one for device, minute in over.items() for one in _medians(device, minute)]
    kept = {device: m for device, m in state.minutes.items() if device not in over}
    return State(kept, state.recent), Leaving((), tuple(medians))


def _near(time_ms: int, alarms: Iterable[Span], around_ms: int) -> bool:
    return any(
        alarm.began_ms - around_ms <= time_ms
        and (alarm.ended_ms is None or time_ms <= alarm.ended_ms + around_ms)
        for alarm in alarms
    )


def _medians(device: str, minute: Minute) -> list[Given]:
    out = []
    for (vital, site, channel), said in minute.values.items():
        status, value = _median(said)
        start = minute.start_ms
        out.append(Given(device, Reading(vital, value, start, start, status, site, channel)))
    return out


def _median(said: Sequence[tuple[int, float | None]]) -> tuple[int, float | None]:
    for status in BELIEF:
        values = sorted(v for of, v in said if of == status and v is not None)
        if values:
            return int(status), values[(len(values) - 1) // 2]
    return said[-1][0], None

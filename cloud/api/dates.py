"""FHIR date parameters as ranges of milliseconds (R4 search, date; prefixes as R5 words them).

A parameter is the half-open range its precision covers: ``2013-01-14`` is the whole day,
``2013-01-14T10:00`` the minute. A resource's time is a range too; an instant is one millisecond.
A time without zone is taken as UTC. Law: pure.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

PREFIXES: Final = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")

_DATE: Final = re.compile(
    r"(?P<prefix>[a-z]{2})?"
    r"(?P<year>\d{4})(?:-(?P<month>\d{2})(?:-(?P<day>\d{2})"
    r"(?:T(?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>Z|[+ -]\d{2}:\d{2})?)?)?)?",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DateError(ValueError):
    """Not a date parameter."""


class Range(NamedTuple):
    """Milliseconds of UTC, ``low`` included, ``high`` not; None is open."""

    low: int | None
    high: int | None


class DateParam(NamedTuple):
    """A prefix and the range its date covers."""

    prefix: str
    low: int
    high: int


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _zone(text: str | None) -> timedelta:
    if not text or text == "Z":
        return timedelta(0)
    # a "+" that nobody escaped arrives as a space
    sign = -1 if text[0] == "-" else 1
    hours, minutes = int(text[1:3]), int(text[4:6])
    if hours > 14 or minutes > 59:
        raise DateError("no such zone")
    return sign * timedelta(hours=hours, minutes=minutes)


def parse(text: str) -> DateParam:
    """Return a date parameter; raise DateError that says what would be right."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise DateError("a date is YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm[:ss[.sss]][zone]")
    prefix = match["prefix"] or "eq"
    if prefix not in PREFIXES:
        raise DateError(f"a prefix is one of {', '.join(PREFIXES)}")
    year, month, day = int(match["year"]), int(match["month"] or 1), int(match["day"] or 1)
    fraction = match["fraction"]
    try:
        low = datetime(
            year,
            month,
            day,
            int(match["hour"] or 0),
            int(match["minute"] or 0),
            int(match["second"] or 0),
            tzinfo=UTC,
        ) - _zone(match["zone"])
        if match["hour"] is None:
            low, high = _calendar(low, month=match["month"], day=match["day"])
            return DateParam(prefix, _ms(low), _ms(high))
    except (ValueError, OverflowError) as error:
        raise DateError("no such date") from error
    start = _ms(low)
    if fraction:
        start += int(fraction[:3].ljust(3, "0"))
        return DateParam(prefix, start, start + 10 ** max(0, 3 - len(fraction)))
    return DateParam(prefix, start, start + (1_000 if match["second"] else 60_000))


def _calendar(low: datetime, month: str | None, day: str | None) -> tuple[datetime, datetime]:
    if day:
        return low, low + timedelta(days=1)
    if month:
        return low, (low + timedelta(days=31)).replace(day=1)
    return low, low.replace(year=low.year + 1)


def matches(wanted: DateParam, found: Range) -> bool:
    """Tell whether a resource's time fits a parameter."""
    within = (
        found.low is not None
        and found.high is not None
        and wanted.low <= found.low
        and found.high <= wanted.high
    )
    above = found.high is None or found.high > wanted.high
    below = found.low is None or found.low < wanted.low
    match wanted.prefix:
        case "eq":
            return within
        case "ne":
            return not within
        case "gt":
            return above
        case "lt":
            return below
        case "ge":
            return above or within
        case "le":
            return below or within
        case "sa":
            return found.low is not None and found.low >= wanted.high
        case _:
            return found.high is not None and found.high <= wanted.low


def instant_matches(wanted: DateParam, time_ms: int) -> bool:
    """Tell whether an instant fits a parameter."""
    return matches(wanted, Range(time_ms, time_ms + 1))


def bounds(wanted: list[DateParam]) -> Range:
    """Return the range outside of which no instant can fit all of the parameters."""
    low: int | None = None
    high: int | None = None
    for param in wanted:
        at_least, below = {
            "eq": (param.low, param.high),
            "ne": (None, None),
            "gt": (param.high, None),
            "sa": (param.high, None),
            "ge": (param.low, None),
            "lt": (None, param.low),
            "eb": (None, param.low),
            "le": (None, param.high),
        }[param.prefix]
        if at_least is not None:
            low = at_least if low is None else max(low, at_least)
        if below is not None:
            high = below if high is None else min(high, below)
    return Range(low, high)

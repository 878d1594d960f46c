"""The traces of one subject: which doubts its readings carry, and when none can."""

from collections.abc import Sequence
from typing import Final

from cloud.detect.artefact import BOUNDS, Hold, Marks, Rates, Trace, hold, resumed, step
from vitals.codes import BY_NAME
from vitals.reading import Reading

Traces = dict[str, Trace]
"""``vital`` or ``vital#channel`` -> trace."""

_HEART: Final = BY_NAME["heart_rate"].index
_PULSE: Final = BY_NAME["pulse_rate"].index
_FREE: Final = Hold(-(2**31), 2**31 - 1, 2**62)
"""Of a vital that nothing is asked of."""


def key_of(vital: int, channel: int) -> str:
    """Return how a trace is known."""
    return f"{vital}#{channel}" if channel else str(vital)


def take(
    traces: Traces,
    reading: Reading,
    scaled: int | None,
    at_ms: int,
    newest: tuple[int, int],
    rates: Rates | None,
) -> Marks:
    """Take a live reading into ``traces``; return its marks.

    ``newest``: time and scaled value of the vital's newest reading, which may have been left out
    here because it lay within the hold.
    """
    bound = BOUNDS[reading.vital]
    key = key_of(reading.vital, reading.channel)
    trace = traces.get(key, Trace())
    if not reading.channel and newest[0] > trace.last_ms >= 0:
        trace = resumed(trace, *newest)
    traces[key], marks = step(trace, bound, at_ms, scaled, reading.status, rates)
    return marks


def rates_of(last: Sequence[int], value: Sequence[int]) -> Rates | None:
    """Return both rates of a subject, if both were measured."""
    if not last[_HEART] or not last[_PULSE]:
        return None
    return Rates(value[_HEART], last[_HEART], value[_PULSE], last[_PULSE])


def held(traces: Traces, vital: int) -> Hold:
    """Return within what a vital's readings on channel 0 carry no marks and change nothing."""
    trace = traces.get(str(vital))
    return _FREE if trace is None else hold(trace, BOUNDS[vital])

"""Readings to Observations: templates filled.

Law: one reading is one Observation; systolic, diastolic and mean of one source, time and channel
are one (LOINC 85354-9), with a dataAbsentReason for a half that is missing. The same rows give
the same bytes. Of two rows with one id, the later in order stands: one Bundle never holds an id
twice.

A pressure whose halves come in different records gives the panel's id twice, the second time
with what that record knows; decoders keep the halves of one measurement in one record.

Measured by `of_columns` on a busy 2-core x86-64, CPU time a reading: 3.5 to 5 µs for one that
stands alone, 12 µs for a panel of three (with the collector frozen; about twice that without).
Filling a template is 0.16 µs of it; the same text by ``%`` formatting took 0.7.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from cloud.fhir.ids import NAME_IN_ID, PANEL_OF, PANELS, instant, is_subject, suffix
from cloud.fhir.templates import (
    CONSCIOUSNESS,
    HEADS,
    MARKING,
    PARTS,
    SINGLES,
    TEMPERATURE,
    VALUED,
)
from vitals.codes import VITALS, Status, decimal_scale
from vitals.columns import Columns
from vitals.reading import Reading


class Built(NamedTuple):
    """One Observation ready to leave."""

    id: str
    body: bytes
    vital: str
    """Name of the code table; ``nibp`` or ``abp`` for a panel."""
    time_ms: int
    codes: frozenset[str]
    """Bare LOINC, MDC and local codes in it, those of components included."""
    component_codes: frozenset[str] = frozenset()
    """Those of ``codes`` that only components carry."""


Row = tuple[int, float | None, int, int, int, int]
"""Vital, value, time_ms, status, site, channel."""

_NAME: Final = tuple(NAME_IN_ID.get(vital.name, "") for vital in VITALS)
_FORMAT: Final = tuple(f"{{:.{vital.decimals}f}}".format for vital in VITALS)
_SCALE: Final = tuple(decimal_scale(vital) for vital in VITALS)
_PANEL: Final = tuple(PANEL_OF.get(vital.name) for vital in VITALS)
_PART_AT: Final = {name: at for parts in PANELS.values() for at, name in enumerate(parts)}
_PART_VITAL: Final = {vital.name: vital.index for vital in VITALS if vital.name in PANEL_OF}
_VALUED: Final = frozenset(int(status) for status in VALUED)

# What stands in a panel for a pressure nobody sent: expected to exist, not known (unknown).
_UNSENT: Final = (int(Status.OK), None)


class Parts(dict[int, tuple[int, float | None]]):
    """The pressures of one panel so far: position -> (status, value)."""

    def __init__(self, panel: str, time_ms: int, device: str) -> None:
        """Begin empty; ``device`` is the first that gave one."""
        super().__init__()
        self.panel = panel
        self.time_ms = time_ms
        self.device = device


def _number(vital: int, value: float) -> str:
    """Return the value with the vital's decimals; never ``-0``."""
    text = _FORMAT[vital](value)
    return text if text[0] != "-" or float(text) else text[1:]


def _component(name: str, status: int, value: float | None) -> tuple[str, frozenset[str]]:
    vital = _PART_VITAL[name]
    if value is None or status not in _VALUED:
        template = PARTS[vital, status, False]
        return template.pieces[0], template.codes
    template = PARTS[vital, status, True]
    before, after = template.pieces
    return f"{before}{_number(vital, value)}{after}", template.codes


def _panel(subject: str, ident: str, parts: Parts) -> Built:
    made = [
        _component(name, *parts.get(at, _UNSENT))
        for at, name in enumerate(PANELS[parts.panel])
        if at < 2 or at in parts  # the mean is optional
    ]
    codes = frozenset().union(*(found for _, found in made))
    marks = frozenset(Status(status) for status, _ in parts.values()) & MARKING
    head = HEADS[parts.panel, marks]
    a, b, c, d, e = head.pieces
    at = instant(parts.time_ms)
    components = ",".join(text for text, _ in made)
    text = f"{a}{ident}{b}{subject}{c}{at}{d}{parts.device}{e}{components}]}}"
    return Built(ident, text.encode(), parts.panel, parts.time_ms, codes | head.codes, codes)


def _build(subject: str, device: str, rows: Iterable[Row], out: dict[str, Built | Parts]) -> None:
    """Add the Observations of one source's rows to ``out``, the panels' still in parts.

    One loop without calls for the common row: this is the hot path.
    """
    if not (is_subject(subject) and is_subject(device)):
        raise ValueError("a source's subject and device have 32 hex digits each")
    stamped = -1
    stamp = at = ""
    for vital, value, time_ms, status, site, channel in rows:
        if time_ms != stamped:
            stamped, stamp, at = time_ms, suffix(time_ms), instant(time_ms)
        panel = _PANEL[vital]
        if panel is not None:
            ident = f"{subject}.{panel}.{suffix(time_ms, 0, channel) if channel else stamp}"
            parts = out.get(ident)
            if not isinstance(parts, Parts) or parts.device != device:
                parts = out[ident] = Parts(panel, time_ms, device)
            parts[_PART_AT[VITALS[vital].name]] = (status, value)
            continue
        if vital == TEMPERATURE or channel:
            site = site if vital == TEMPERATURE else 0  # noqa: PLW2901 - a site is of temperature
            ident = f"{subject}.{_NAME[vital]}.{suffix(time_ms, site, channel)}"
        else:
            site = 0  # noqa: PLW2901 - as above
            ident = f"{subject}.{_NAME[vital]}.{stamp}"
        if value is None or status not in _VALUED or vital == CONSCIOUSNESS:
            level = -1 if value is None or status not in _VALUED else int(value)
            template = SINGLES[vital, site, status, level]
            a, b, c, d, e = template.pieces
            text = f"{a}{ident}{b}{subject}{c}{at}{d}{device}{e}"
        else:
            template = SINGLES[vital, site, status, 0]
            a, b, c, d, e, f = template.pieces
            number = _number(vital, value)
            text = f"{a}{ident}{b}{subject}{c}{at}{d}{number}{e}{device}{f}"
        out[ident] = Built(ident, text.encode(), template.name, time_ms, template.codes)


def _finish(subject: str, made: dict[str, Built | Parts]) -> list[Built]:
    return [
        _panel(subject, ident, built) if isinstance(built, Parts) else built
        for ident, built in made.items()
    ]


def of_rows(subject: str, device: str, rows: Sequence[Reading]) -> list[Built]:
    """Return the Observations of one source's readings, in order of first appearance.

    ``subject`` and ``device`` are pseudonyms (32 hex digits). Raises ValueError or KeyError for a
    reading that has no place in the code table.
    """
    made: dict[str, Built | Parts] = {}
    flat = ((r.vital, r.value, r.time_ms, r.status, r.site, r.channel) for r in rows)
    _build(subject, device, flat, made)
    return _finish(subject, made)


def of_columns(columns: Columns) -> dict[str, list[Built]]:
    """Return the Observations of downstream columns, by subject.

    Raises ValueError or KeyError for columns that ingest would not have written.
    """
    count = len(columns)
    zeros = [0] * count
    by_source: list[list[Row]] = [[] for _ in columns.sources]
    for source, vital, value, time_ms, status, site, channel in zip(
        columns.source,
        columns.vital,
        columns.value,
        accumulate(columns.time),
        columns.status or zeros,
        columns.site or zeros,
        columns.channel or zeros,
        strict=True,
    ):
        number = None if value is None else value / _SCALE[vital]
        by_source[source].append((vital, number, time_ms, status, site, channel))
    subjects: dict[str, dict[str, Built | Parts]] = {}
    for origin, rows in zip(columns.sources, by_source, strict=True):
        if rows:
            _build(origin.subject, origin.device, rows, subjects.setdefault(origin.subject, {}))
    return {subject: _finish(subject, made) for subject, made in subjects.items()}

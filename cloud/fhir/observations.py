"""Readings to Observations, one at a time: the general path, which `cloud.fhir.chart` must equal.

Law: one reading is one Observation; systolic, diastolic and mean of one source, time and channel
are one (LOINC 85354-9), with a dataAbsentReason for a half that is missing. The same rows give
the same bytes. Of two rows with one id, the later in order stands: one Bundle never holds an id
twice.

A pressure whose halves come in different records gives the panel's id twice, the second time
with what that record knows; decoders keep the halves of one measurement in one record.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from cloud.fhir import scale, templates
from cloud.fhir.ids import NAME_IN_ID, PANEL_OF, PANELS, instant, is_subject, suffix
from cloud.fhir.scale import Scale
from cloud.fhir.templates import (
    COMPONENTS_END,
    MARKING,
    OPEN,
    TEMPERATURE,
    TO_DEVICE,
    TO_SUBJECT,
    TO_TIME,
)
from vitals.codes import BY_NAME, VITALS, Status, decimal_scale
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

Moment = Callable[[int], tuple[str, str]]
"""Milliseconds of UTC -> what ends the id, and the text between subject and device."""

Scales = tuple[Scale, ...]
"""By index of the vital."""

PLAIN: Final = scale.of_all({})
"""No alarm limits."""

UNSENT: Final = (int(Status.OK), None)
"""A pressure of a panel that nobody sent: expected to exist, not known (unknown)."""

MINUTE_MS: Final = 60_000
MINUTE_MARK: Final = ".m"
"""Ends the id of a minute's median; no id of a reading ends so."""

NEEDED: Final = 2
"""Pressures that every panel has a component of: systolic and diastolic. The mean is optional."""

PART_AT: Final = {name: at for parts in PANELS.values() for at, name in enumerate(parts)}

_NAME: Final = tuple(NAME_IN_ID.get(vital.name, "") for vital in VITALS)
_SCALE: Final = tuple(decimal_scale(vital) for vital in VITALS)
_PANEL: Final = tuple(PANEL_OF.get(vital.name) for vital in VITALS)


class Parts(dict[int, tuple[int, float | None]]):
    """The pressures of one panel so far: position -> (status, value)."""

    def __init__(self, panel: str, time_ms: int, device: str, when: str) -> None:
        """Begin empty; ``device`` is the one that gives them; ``when``: text of the time."""
        super().__init__()
        self.panel = panel
        self.time_ms = time_ms
        self.device = device
        self.when = when


def at_once(time_ms: int) -> tuple[str, str]:
    """Return the `Moment` of a reading: measured at this time."""
    return "", f"{TO_TIME}{instant(time_ms)}{TO_DEVICE}"


def of_minute(time_ms: int) -> tuple[str, str]:
    """Return the `Moment` of a minute's median, by the minute's first millisecond.

    The minute's first millisecond and a method that says so; not the Period that it is, because
    HL7's validator fails any vital sign with a Period by the profile's vs-1. An id of its own,
    because a reading of the minute's first millisecond may leave as well.
    """
    method = '"method":{"text":"median of the minute that begins at this time"}'
    return MINUTE_MARK, f'{TO_TIME}{instant(time_ms)}",{method}{TO_DEVICE[1:]}'


def _panel(subject: str, ident: str, parts: Parts, scales: Scales) -> Built:
    codes: frozenset[str] = frozenset()
    texts = []
    for at, name in enumerate(PANELS[parts.panel]):
        if at < NEEDED or at in parts:
            status, value = parts.get(at, UNSENT)
            template, text = scales[BY_NAME[name].index].said(value, status, 0)
            codes |= template.codes
            texts.append(text)
    marks = frozenset(Status(status) for status, _ in parts.values()) & MARKING
    head = templates.head(parts.panel, marks)
    body = (
        f"{OPEN}{ident}{TO_SUBJECT}{subject}{parts.when}{parts.device}"
        f"{head.fixed}{head.before}{','.join(texts)}{COMPONENTS_END}"
    )
    return Built(ident, body.encode("ascii"), parts.panel, parts.time_ms, codes | head.codes, codes)


def _build(
    subject: str,
    device: str,
    rows: Iterable[Row],
    scales: Scales,
    out: dict[str, Built | Parts],
    moment: Moment,
) -> None:
    """Add the Observations of one source's rows to ``out``, the panels' still in parts."""
    if not (is_subject(subject) and is_subject(device)):
        raise ValueError("a source's subject and device have 32 hex digits each")
    stamped = -1
    mark, when = "", ""
    for vital, value, time_ms, status, site, channel in rows:
        if time_ms != stamped:
            stamped, (mark, when) = time_ms, moment(time_ms)
        panel = _PANEL[vital]
        if panel is not None:
            ident = f"{subject}.{panel}.{suffix(time_ms, 0, channel)}{mark}"
            parts = out.get(ident)
            if not isinstance(parts, Parts) or parts.device != device:
                parts = out[ident] = Parts(panel, time_ms, device, when)
            parts[PART_AT[VITALS[vital].name]] = (status, value)
            continue
        where = site if vital == TEMPERATURE else 0  # a site is of temperature
        ident = f"{subject}.{_NAME[vital]}.{suffix(time_ms, where, channel)}{mark}"
        template, said = scales[vital].said(value, status, where)
        body = f"{OPEN}{ident}{TO_SUBJECT}{subject}{when}{device}{template.fixed}{said}"
        out[ident] = Built(ident, body.encode("ascii"), template.name, time_ms, template.codes)


def _finish(subject: str, made: dict[str, Built | Parts], scales: Scales) -> list[Built]:
    return [
        _panel(subject, ident, built, scales) if isinstance(built, Parts) else built
        for ident, built in made.items()
    ]


def of_rows(
    subject: str, device: str, rows: Sequence[Reading], scales: Scales = PLAIN
) -> list[Built]:
    """Return the Observations of one source's readings, in order of first appearance.

    ``subject`` and ``device`` are pseudonyms (32 hex digits). Raises ValueError or IndexError for
    a reading that has no place in the code table.
    """
    flat = ((r.vital, r.value, r.time_ms, r.status, r.site, r.channel) for r in rows)
    return of_sources(subject, [(device, flat)], scales)


def of_columns(columns: Columns, scales: Scales = PLAIN) -> dict[str, list[Built]]:
    """Return the Observations of downstream columns, by subject.

    Raises ValueError or IndexError for columns that ingest would not have written.
    """
    zeros = [0] * len(columns)
    rows: list[list[Row]] = [[] for _ in columns.sources]
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
        rows[source].append((vital, number, time_ms, status, site, channel))
    by_subject: dict[str, list[tuple[str, list[Row]]]] = {}
    for origin, given in zip(columns.sources, rows, strict=True):
        if given:
            by_subject.setdefault(origin.subject, []).append((origin.device, given))
    return {subject: of_sources(subject, of, scales) for subject, of in by_subject.items()}


def of_sources(
    subject: str,
    given: Iterable[tuple[str, Iterable[Row]]],
    scales: Scales = PLAIN,
    moment: Moment = at_once,
) -> list[Built]:
    """Return the Observations of one subject's devices and their rows, one after the other."""
    made: dict[str, Built | Parts] = {}
    for device, rows in given:
        _build(subject, device, rows, scales, made, moment)
    return _finish(subject, made, scales)

"""Readings to Bundles: the hot path, and the policy's alarm limits in what leaves.

Law: byte for byte what `cloud.fhir.observations` makes of the same rows, faster. What it cannot
do fast it leaves to that path: no third way.

The common case is one device, one time, several vitals, all of status OK, without site or
channel. Of its five Observations (6 kB) only subject, device, time and values are news, and
templates and entries are laid out so that these stand together: everything between two static
pieces is the same text for all five. So a `Plan` of these vitals is a list in which five of ten
pieces are set by strides, and one join makes the sample.

Measured, CPU time on a busy 2-core x86-64 with the collector frozen: `Chart.sample` of five with
limits 2.3 µs, where the general path takes 9.6. Other ways, compared beforehand on the bare text,
where strides and a join took 1.7: one f-string a vital 1.9; ``%`` over the whole sample 1.8; a
join of bytes 1.9. An f-string over the whole sample, generated as source and compiled, took 1.3;
generated source was not worth 0.4 µs. Time as text is 0.3 of it; the rest is lists, and 6 kB
copied twice. Larger records cost more than their samples, 4 to 6 µs: fresh memory for what leaves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, compress
from operator import getitem, ne, or_
from typing import Final, NamedTuple

from cloud.fhir import observations, resources, scale, templates, terms
from cloud.fhir.ids import NAME_IN_ID, PANEL_OF, PANELS, is_subject, stamp
from cloud.fhir.observations import NEEDED, PART_AT, UNSENT, Built
from cloud.fhir.ranges import Limits
from cloud.fhir.scale import Texts
from cloud.fhir.templates import (
    COMPONENTS,
    COMPONENTS_END,
    OPEN,
    TO_DEVICE,
    TO_SUBJECT,
    TO_TIME,
)
from vitals.codes import BY_NAME, VITALS, decimal_scale
from vitals.columns import Columns, Source
from vitals.reading import Reading

# A Bundle whose entries are more than this together is cut: well under a Kafka message
# (librdkafka's default message.max.bytes is 1,000,000 before compression), and what
# a FHIR server takes in one request.
BUNDLE_BYTES_MAX: Final = 512 * 1024

CHARTS_MAX: Final = 4096
"""Sets of limits with a `Chart` of their own that is kept: one a ward, and changed patients."""

PLANS_MAX: Final = 256
"""Orders of vitals with a plan; a device sends one or two, and who sends more is served slowly."""

_PIECES: Final = 10
"""Of one Observation in a plan: what opens its entry, subject, name, entry to fullUrl, name,
fullUrl to id, name, id to device, the template's ``fixed``, its value."""

_NAMED: Final = tuple(PANEL_OF.get(vital.name, vital.name) for vital in VITALS)
"""By the vital's index: the name of its Observation."""

_BETWEEN: Final = resources.BETWEEN_ENTRIES.encode("ascii")
_TRANSACTION: Final = resources.TRANSACTION.encode("ascii")
_TRANSACTION_END: Final = resources.TRANSACTION_END.encode("ascii")

_NO_ONE: Final = frozenset[str]()
_NOBODY: Final[Mapping[str, "Chart"]] = {}


_TO_FULL_URL: Final = f'"}},"fullUrl":"{terms.BASE}/Observation/'
_TO_ID: Final = f'","resource":{OPEN}'


class Plan(NamedTuple):
    """How a sample of certain vitals, in their order, is put together."""

    pieces: list[str]
    """Of its entries, comma-joined."""
    whole: list[str]
    """The same, of a Bundle of them alone."""
    texts: tuple[Texts, ...]
    """Of each vital: its scaled integer -> text."""
    panels: tuple[tuple[int, ...], ...]
    """Of each Observation the places of its parts in the list of texts, and then in ``unsent``;
    empty when no vital is a pressure."""
    unsent: tuple[str, ...]
    names: tuple[str, ...]
    """How the ids name the Observations."""


class Chart:
    """Makes Observations and Bundles with one set of alarm limits; get it from `of`."""

    __slots__ = ("_plans", "_scales")

    def __init__(self, limits: Mapping[int, Limits]) -> None:
        """Take limits by the vital's index; raises ValueError for such as are none."""
        self._scales = scale.of_all(limits)
        self._plans: dict[tuple[int, ...], Plan] = {}

    def rows(self, subject: str, device: str, rows: Sequence[Reading]) -> list[Built]:
        """Return the Observations of any readings of one source; as `observations.of_rows`."""
        return observations.of_rows(subject, device, rows, self._scales)

    def minute(self, subject: str, device: str, rows: Sequence[Reading]) -> list[Built]:
        """Return the Observations of a minute's medians; ``time_ms`` is the minute's first.

        As `rows` else, but for continuous vitals only: raises ValueError for another.
        """
        if not all(VITALS[row.vital].continuous for row in rows):
            raise ValueError("a vital that is taken now and then has no median of a minute")
        flat = ((r.vital, r.value, r.time_ms, r.status, r.site, r.channel) for r in rows)
        return observations.of_sources(
            subject, [(device, flat)], self._scales, observations.of_minute
        )

    def sample(
        self,
        subject: str,
        device: str,
        vitals: tuple[int, ...],
        values: Sequence[int | None],
        time_ms: int,
    ) -> bytes:
        """Return the comma-joined Bundle entries of readings of status OK, site and channel none.

        ``values`` are the vitals' scaled integers. Subject and device must be pseudonyms: they
        are not checked here. Raises ValueError or IndexError for what cannot be said.
        """
        plan = self._plans.get(vitals) or self._plan(vitals)
        if plan is None:
            rows = [
                (vital, None if value is None else value / self._scales[vital].per_unit, time_ms)
                for vital, value in zip(vitals, values, strict=True)
            ]
            flat = [(*row, 0, 0, 0) for row in rows]
            built = observations.of_sources(subject, [(device, flat)], self._scales)
            return b",".join(_entries(built))
        return _filled(plan, plan.pieces, subject, device, values, time_ms)

    def _plan(self, vitals: tuple[int, ...]) -> Plan | None:
        """Return the plan of these vitals, kept; None when one of them comes twice."""
        plan = self._make(vitals)
        if plan is not None and len(self._plans) < PLANS_MAX:
            self._plans[vitals] = plan
        return plan

    def _make(self, vitals: tuple[int, ...]) -> Plan | None:
        if len(set(vitals)) < len(vitals) or not vitals:
            return None
        groups: dict[str, dict[int, int]] = {}
        for place, vital in enumerate(vitals):
            name = VITALS[vital].name
            parts = groups.setdefault(PANEL_OF.get(name, name), {})
            parts[PART_AT.get(name, 0)] = place
        pieces: list[str] = []
        panels: list[tuple[int, ...]] = []
        unsent: list[str] = []
        for name, parts in groups.items():
            fixed = self._scales[vitals[parts.get(0, 0)]].said(None, 0, 0)[0].fixed
            places = [place for _, place in sorted(parts.items())]
            if name in PANELS:
                fixed = templates.head(name, frozenset()).fixed
                for at in range(NEEDED):
                    if at not in parts:
                        absent = self._scales[BY_NAME[PANELS[name][at]].index]
                        places.insert(at, len(vitals) + len(unsent))
                        unsent.append(absent.said(UNSENT[1], UNSENT[0], 0)[1])
            between = resources.BETWEEN_ENTRIES if pieces else resources.BETWEEN_ENTRIES[2:]
            ident = f".{NAME_IN_ID[name]}."
            pieces += [f"{between}Observation/", "", ident, "", ident, "", ident, "", fixed, ""]
            panels.append(tuple(places))
        first = resources.TRANSACTION + pieces[0]
        return Plan(
            [*pieces, "}"],
            [first, *pieces[1:], "}" + resources.TRANSACTION_END],
            tuple(self._scales[vital].texts for vital in vitals),
            tuple(panels) if PANELS.keys() & groups.keys() else (),
            tuple(unsent),
            tuple(groups),
        )

    def bundles(
        self, columns: Columns, own: Mapping[str, "Chart"] = _NOBODY
    ) -> list[tuple[str, bytes]]:
        """Return (subject, transaction Bundle) of columns that `vitals.columns.check` passed.

        ``own``: the charts of subjects whose limits are not these. One Bundle a subject, in the
        order of the sources, cut at BUNDLE_BYTES_MAX; no id stands twice among a subject's, the
        later row stands. Raises ValueError or IndexError for columns that ingest would not have
        written, and for a source that is no pseudonym.
        """
        if len(columns.sources) == 1 and (alone := self._alone(columns, own)) is not None:
            return [alone]
        times = list(accumulate(columns.time))
        sources = _sources(columns, times)
        by_subject: dict[str, list[_Source]] = {}
        for _, one in sorted(sources.items()):
            by_subject.setdefault(one.subject, []).append(one)
        shared = _shared_moments(columns, times) if len(by_subject) < len(sources) else _NO_ONE
        out = []
        for subject, given in by_subject.items():
            chart = own.get(subject, self) if own else self
            if subject in shared or True in [one.slow for one in given]:
                rows = [(one.device, _rows(columns, times, one)) for one in given]
                built = observations.of_sources(subject, rows, chart._scales)
                out += [(subject, bundle) for bundle in _cut(_entries(built))]
            else:
                texts = chart._samples(columns, given, times)
                out += [(subject, bundle) for bundle in _cut(texts)]
        return out

    def _alone(self, columns: Columns, own: Mapping[str, "Chart"]) -> tuple[str, bytes] | None:
        """Return the Bundle of columns that are one sample, as a live record's are; else None."""
        if not columns.vital or any(columns.time[1:]):
            return None
        if columns.status or columns.site or columns.channel:
            return None
        ((subject, device),) = [(one.subject, one.device) for one in columns.sources]
        if not (is_subject(subject) and is_subject(device)):
            raise ValueError("a source's subject and device have 32 hex digits each")
        chart = own.get(subject, self) if own else self
        vitals = tuple(columns.vital)
        plan = chart._plans.get(vitals) or chart._plan(vitals)
        # A plan has each vital once: far from BUNDLE_BYTES_MAX.
        if plan is None:
            return None
        made = _filled(plan, plan.whole, subject, device, columns.value, columns.time[0])
        return subject, made

    def _samples(
        self, columns: Columns, given: Sequence["_Source"], times: Sequence[int]
    ) -> Iterator[bytes]:
        """Yield the entries of each run; one at a time, so that memory just used is used again."""
        vital, value = columns.vital, columns.value
        for one in given:
            subject, device = one.subject, one.device
            for begin, end in one.runs:
                vitals = tuple(vital[begin:end])
                yield self.sample(subject, device, vitals, value[begin:end], times[begin])


class _Source:
    """The runs of rows of one time that one source of columns has.

    ``slow``: they cannot go by the fast path.
    """

    __slots__ = ("device", "runs", "slow", "subject")

    def __init__(self, origin: Source) -> None:
        self.subject, self.device = origin.subject, origin.device
        if not (is_subject(self.subject) and is_subject(self.device)):
            raise ValueError("a source's subject and device have 32 hex digits each")
        self.runs: list[tuple[int, int]] = []
        self.slow = False


def _sources(columns: Columns, times: Sequence[int]) -> dict[int, _Source]:
    """Return each source that has rows, with its runs."""
    source, count = columns.source, len(times)
    changes = map(or_, map(ne, source[1:], source), columns.time[1:])
    starts = [*compress(range(1, count), changes), count] if count else []
    unusual = [c for c in (columns.status, columns.site, columns.channel) if c]
    found: dict[int, _Source] = {}
    begin = 0
    for end in starts:
        at = source[begin]
        one = found.get(at)
        if one is None:
            one = found[at] = _Source(columns.sources[at])
        elif times[one.runs[-1][0]] >= times[begin]:
            one.slow = True  # it may hold an id that was there before
        one.runs.append((begin, end))
        if unusual and any(any(column[begin:end]) for column in unusual):
            one.slow = True
        begin = end
    return found


def _rows(columns: Columns, times: Sequence[int], one: _Source) -> Iterator[observations.Row]:
    zeros = [0] * len(columns)
    for begin, end in one.runs:
        run = slice(begin, end)
        for vital, value, time_ms, status, site, channel in zip(
            columns.vital[run],
            columns.value[run],
            times[run],
            (columns.status or zeros)[run],
            (columns.site or zeros)[run],
            (columns.channel or zeros)[run],
            strict=True,
        ):
            number = None if value is None else value / decimal_scale(VITALS[vital])
            yield vital, number, time_ms, status, site, channel


def _shared_moments(columns: Columns, times: Sequence[int]) -> set[str]:
    """Return the subjects of which two sources give one vital at one time: their ids meet."""
    shared = set()
    first: dict[tuple[str, int, str], int] = {}
    for at, vital, time_ms in zip(columns.source, columns.vital, times, strict=True):
        subject = columns.sources[at].subject
        if first.setdefault((subject, time_ms, _NAMED[vital]), at) != at:
            shared.add(subject)
    return shared


def _filled(
    plan: Plan,
    pieces: list[str],
    subject: str,
    device: str,
    values: Sequence[int | None],
    time_ms: int,
) -> bytes:
    """Return the text of a plan's pieces (its entries or the whole Bundle), the slots filled."""
    key, at = stamp(time_ms)
    pieces = pieces.copy()
    count = len(plan.names)
    pieces[1::_PIECES] = [subject] * count
    pieces[3::_PIECES] = [f"{key}{_TO_FULL_URL}{subject}"] * count
    pieces[5::_PIECES] = [f"{key}{_TO_ID}{subject}"] * count
    head = f"{key}{TO_SUBJECT}{subject}{TO_TIME}{at}{TO_DEVICE}{device}"
    pieces[7::_PIECES] = [head] * count
    if plan.panels:
        texts = [*map(getitem, plan.texts, values), *plan.unsent]
        pieces[9::_PIECES] = [_value(texts, places) for places in plan.panels]
    else:
        pieces[9::_PIECES] = map(getitem, plan.texts, values)
    return "".join(pieces).encode("ascii")


def _value(texts: Sequence[str], places: tuple[int, ...]) -> str:
    if len(places) == 1:
        return texts[places[0]]
    return f"{COMPONENTS}{','.join([texts[place] for place in places])}{COMPONENTS_END}"


def _entries(built: Iterable[Built]) -> Iterator[bytes]:
    for one in built:
        yield resources.put(f"Observation/{one.id}", one.body.decode("ascii")).encode("ascii")


def _cut(texts: Iterable[bytes]) -> list[bytes]:
    """Return Bundles of comma-joined entries, each full to the last entry that fits."""
    out: list[bytes] = []
    kept: list[bytes] = []
    size = -1  # of the entries kept, joined: a comma fewer than entries
    for text in texts:
        if size + 1 + len(text) <= BUNDLE_BYTES_MAX:
            kept.append(text)
            size += 1 + len(text)
            continue
        for entry in _apart(text):
            if kept and size + 1 + len(entry) > BUNDLE_BYTES_MAX:
                out.append(_bundle(kept))
                kept, size = [], -1
            kept.append(entry)
            size += 1 + len(entry)
    if kept:
        out.append(_bundle(kept))
    return out


def _apart(text: bytes) -> list[bytes]:
    """Return the entries of comma-joined ones."""
    first, *others = text.split(_BETWEEN)
    whole = [first, *(_BETWEEN[2:] + other for other in others)]
    return [entry + b"}" for entry in whole[:-1]] + whole[-1:]


def _bundle(entries: list[bytes]) -> bytes:
    """Return the Bundle of entries, changing the list: nothing large is copied twice."""
    if len(entries) == 1:
        return b"%b%b%b" % (_TRANSACTION, entries[0], _TRANSACTION_END)
    entries[0] = _TRANSACTION + entries[0]
    entries[-1] += _TRANSACTION_END
    return b",".join(entries)


@lru_cache(maxsize=CHARTS_MAX)
def _of(limits: frozenset[tuple[int, Limits]]) -> Chart:
    return Chart(dict(limits))


def of(limits: Mapping[int, Limits]) -> Chart:
    """Return the chart of these limits, shared by all who have the same; raises ValueError."""
    return _of(frozenset(limits.items()))

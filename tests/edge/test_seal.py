"""Frames hold what entries held, stay within their limits, and never repeat a number."""

import os

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import normalize
from edge.entry import accepted, noted
from edge.moment import Moment, layout_of
from edge.normalize import Measure
from edge.seal import Sealing
from tests.edge.gateway import NOW, PRIVATE, entry, reading, reject
from tests.edge.ingest import Opener
from vitals import limits
from vitals.codes import VITALS, decimal_scale
from vitals.columns import Columns, Source, scaled
from vitals.frame import Lane
from vitals.reading import DeviceAlert, Patient, Reading


def _sealing() -> tuple[Sealing, Opener]:
    sealing, opener = Sealing("ward-1", PRIVATE.public_key(), NOW), Opener(PRIVATE)
    opener.learn(sealing.epoch)
    return sealing, opener


def test_readings_and_refused_input_go_in_frames_of_one_sequence() -> None:
    sealing, opener = _sealing()
    frames = sealing.seal([entry(1), reject(), entry(2)], NOW)
    assert [(f.seq, f.lane, f.count) for f in frames] == [
        (0, Lane.LIVE, 2),
        (1, Lane.QUARANTINE, 1),
    ]
    header, live = opener.open(frames[0].data)
    assert isinstance(live, Columns)
    assert [r.value for _, r in live.rows()] == [1, 2]
    assert (header.first_ms, header.last_ms) == (NOW, NOW)
    _, rejects = opener.open(frames[1].data)
    assert isinstance(rejects, list)
    assert rejects[0].raw == b"hr=x"


def test_one_source_a_connection_and_patient() -> None:
    sealing, opener = _sealing()
    ada, other = Source("a", patient=Patient("M1")), Source("a", patient=Patient("M2"))
    again = Source("a", patient=Patient("M1"))  # of another connection
    sources = [ada, other, ada, again]
    frames = sealing.seal([accepted(s, (reading(1),), None) for s in sources], NOW)
    _, body = opener.open(frames[0].data)
    assert isinstance(body, Columns)
    assert body.sources == [ada, other, again]
    assert body.source == [0, 1, 0, 2]


def test_the_clear_part_of_a_frame_names_no_patient() -> None:
    sealing, _ = _sealing()
    source = Source("bed-SECRET", patient=Patient("M-SECRET", "SECRET"))
    frames = sealing.seal([accepted(source, (reading(1),), None), reject(b"SECRET")], NOW)
    assert not any(b"SECRET" in frame.data for frame in frames)


def test_frames_are_closed_by_readings_and_by_bytes() -> None:
    sealing, opener = _sealing()
    many = accepted(Source("a"), tuple(reading(i) for i in range(1, 300)), None)
    frames = sealing.seal([many] * 100, NOW)
    assert sum(frame.count for frame in frames) == 29_900
    assert max(frame.count for frame in frames) <= limits.FRAME_READINGS_MAX
    long = [
        accepted(Source("a", patient=Patient(f"{i}", "é" * 250)), (reading(1),), None)
        for i in range(2000)
    ]
    noise = [reject(os.urandom(limits.QUARANTINE_RAW_BYTES_MAX)) for _ in range(20)]
    frames = sealing.seal(long + noise, NOW)
    assert max(len(frame.data) for frame in frames) < limits.FRAME_BYTES_MAX // 2
    for frame in frames:
        opener.open(frame.data)


def test_an_epoch_ends_with_its_hours_and_when_the_clock_goes_back() -> None:
    sealing, _ = _sealing()
    first = sealing.epoch.epoch
    hours = int(limits.EPOCH_S_MAX * 1000)
    assert sealing.seal([entry()], NOW + hours)[0].epoch == first
    (frame,) = sealing.seal([entry()], NOW + hours + 1)
    assert frame.epoch != first
    assert frame.seq == 0
    (frame,) = sealing.seal([entry()], NOW)
    assert frame.seq == 0
    assert frame.epoch == sealing.epoch.epoch
    assert sealing.epoch.began_ms == NOW


_ROWS = st.builds(
    normalize.row,
    st.builds(
        Measure,
        st.integers(0, 16),
        st.none() | st.floats(0, 100).map(lambda value: round(value, 2)),
        st.just(""),
        site=st.integers(0, 8),
        channel=st.integers(0, 3),
        status=st.sampled_from([0, 2, 3, 4, 6]),
        reason=st.just(0),
    ),
)


@st.composite
def _moments(draw: st.DrawFn) -> Moment:
    rows = draw(st.lists(_ROWS, min_size=1, max_size=7))
    received_ms = draw(st.sampled_from([NOW, NOW + 7]))
    source = draw(st.integers(0, 2))
    time_ms = draw(st.integers(NOW - 100, NOW + 100)) if source else received_ms
    layout = 0
    for row in rows:
        layout |= layout_of(row)
    return Moment(tuple(rows), time_ms, received_ms, source, layout)


_ALERTS = st.builds(DeviceAlert, st.just(196_648), st.just("MDC_EVT_HI"), st.just(NOW), st.just(7))


@given(st.lists(st.tuples(st.integers(0, 3), _moments(), st.booleans(), st.lists(_ALERTS))))
@settings(max_examples=300)
def test_a_moment_is_sealed_as_its_readings_one_by_one_would_be(
    said: list[tuple[int, Moment, bool, list[DeviceAlert]]],
) -> None:
    _sealed_as_said(said)


@given(st.lists(st.tuples(st.integers(0, 3), _moments())))
@settings(max_examples=300)
def test_lines_alone_are_sealed_as_their_readings_would_be(
    said: list[tuple[int, Moment]],
) -> None:
    _sealed_as_said([(at, moment, False, []) for at, moment in said])


def _sealed_as_said(said: list[tuple[int, Moment, bool, list[DeviceAlert]]]) -> None:
    sources = [Source(f"m-{at}") for at in range(4)]
    entries, rows, alerts = [], [], []
    for at, moment, own, raised in said:
        one = accepted(sources[at], moment.readings, None) if own else None
        one = one or noted(sources[at], moment, None)
        one.alerts = tuple(raised)
        entries.append(one)
        rows += [(f"m-{at}", msgspec.structs.replace(r, value=_kept(r))) for r in moment.readings]
        alerts += [(f"m-{at}", alert) for alert in raised]
    sealing, opener = _sealing()
    frames = sealing.seal(entries, NOW)
    assert len(frames) == bool(entries)
    for frame in frames:
        header, body = opener.open(frame.data)
        assert isinstance(body, Columns)
        assert [(body.sources[at].device, r) for at, r in body.rows()] == rows
        assert [(body.sources[at].device, alert) for at, alert in body.alerts] == alerts
        times = [r.received_ms for _, r in rows] + [alert.received_ms for _, alert in alerts]
        assert (header.first_ms, header.last_ms) == (min(times), max(times))
        assert header.count == len(rows)


def _kept(r: Reading) -> float | None:
    """Return the value as it is stored: an integer of its vital's scale."""
    number = scaled(r.vital, r.value)
    return None if number is None else number / decimal_scale(VITALS[r.vital])

"""Frames hold what entries held, stay within their limits, and never repeat a number."""

import os

from edge.entry import accepted
from edge.seal import Sealing
from tests.edge.gateway import NOW, PRIVATE, entry, reading, reject
from tests.edge.ingest import Opener
from vitals import limits
from vitals.columns import Columns, Source
from vitals.frame import Lane
from vitals.reading import Patient


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

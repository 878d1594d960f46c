"""Damaged input of both protocols, by a seed: `bench/fuzz.py` runs a million of each.

Here 20,000 lines and 5,000 messages; HEALTHSYNC_FUZZ_LINES and _MESSAGES set other numbers.
"""

import os
import tracemalloc
from typing import get_args

import pytest

from edge.bedside import LineTalk
from edge.entry import Entry, accepted
from edge.hl7_talk import Hl7Talk
from edge.lines import LineReader
from edge.mllp import MllpReader
from edge.refusal import Reason
from tests.edge.mutator import (
    SESSION_INPUTS,
    TWIN_EVERY,
    Fuzz,
    Mutator,
    Protocol,
    Sealer,
    answered,
    hl7_seeds,
    judge,
    line_seeds,
)
from vitals import columns, limits
from vitals.columns import Source
from vitals.errors import FrameMalformed
from vitals.reading import Reading

LINES = int(os.environ.get("HEALTHSYNC_FUZZ_LINES", "20000"))
MESSAGES = int(os.environ.get("HEALTHSYNC_FUZZ_MESSAGES", "5000"))
SEED = 4
HELD_GROWTH_BYTES_MAX = 8 * 1024 * 1024
"""Caches of the first inputs, once over; a leak of 1 KB an input would be 20 MB."""


def _run(protocol: Protocol, inputs: int) -> Fuzz:
    fuzz = Fuzz(protocol, SEED)
    while fuzz.inputs < inputs:
        fuzz.session()
    return fuzz


def test_damaged_lines_are_taken_rightly_or_refused_whole() -> None:
    fuzz = _run("line", LINES)
    assert fuzz.accepted > LINES // 20  # else only the refusals were looked at
    assert fuzz.rejected > LINES // 20


def test_damaged_messages_are_taken_rightly_or_refused_whole() -> None:
    fuzz = _run("hl7", MESSAGES)
    assert fuzz.accepted > MESSAGES // 20
    assert fuzz.rejected > MESSAGES // 20


@pytest.mark.parametrize(("protocol", "inputs"), [("line", 4000), ("hl7", 1200)])
def test_what_is_held_does_not_grow_with_the_inputs(protocol: Protocol, inputs: int) -> None:
    fuzz = Fuzz(protocol, SEED)
    while fuzz.inputs < inputs // 2:
        fuzz.session()
    tracemalloc.start()
    try:
        while fuzz.inputs < inputs:
            fuzz.session()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < HELD_GROWTH_BYTES_MAX


@pytest.mark.parametrize("protocol", ["line", "hl7"])
def test_a_seed_gives_the_same_inputs_and_another_gives_others(protocol: Protocol) -> None:
    first, again, other = (Mutator(protocol, seed) for seed in (1, 1, 2))
    made = [first.input() for _ in range(200)]
    assert made == [again.input() for _ in range(200)]
    assert made != [other.input() for _ in range(200)]


def test_chunks_are_the_input_cut_in_many_ways() -> None:
    mutator = Mutator("line", SEED)
    data = bytes(range(200))
    ways = [list(mutator.chunks(data)) for _ in range(100)]
    assert all(b"".join(way) == data and all(way) for way in ways)
    assert {len(way) == 1 for way in ways} == {True, False}
    assert max(map(len, ways)) > 60


@pytest.mark.parametrize(("protocol", "limit"), [("line", 8192), ("hl7", 1024 * 1024)])
def test_some_inputs_are_over_the_limit_and_some_seeds_are_sound(
    protocol: Protocol, limit: int
) -> None:
    mutator = Mutator(protocol, SEED)
    made = [mutator.input() for _ in range(2400)]
    assert any(len(data) > limit for data in made)
    assert max(map(len, made)) < 2 * limit
    seeds = set(line_seeds() if protocol == "line" else hl7_seeds())
    assert len(seeds) > 20
    assert sum(data in seeds for data in made) > 200


# -- it would be seen ---------------------------------------------------------------------------


def _value(value: float, vital: int = 0, time_ms: int = 1_795_428_000_000) -> Entry:
    return accepted(Source("bed-1"), (Reading(vital, value, time_ms, time_ms),), None)


@pytest.mark.parametrize(
    "entry",
    [
        _value(391),
        _value(float("nan")),
        _value(78, vital=99),
        _value(78, time_ms=1 << 50),
        accepted(Source("bed-1"), (Reading(0, None, 0, 0),), None),
        accepted(Source(""), (), None),
        accepted(Source("x" * 257), (), None),
        Entry(None, (Reading(0, 78, 0, 0),), (), 0),
    ],
)
def test_an_entry_that_is_not_sound_is_seen(entry: Entry) -> None:
    with pytest.raises((AssertionError, IndexError, ValueError, FrameMalformed)):
        judge(entry)


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("line", b"ok"),
        ("line", b"ok\nok\n"),
        ("line", b"rejected \x07\n"),
        ("hl7", b"MSH|\r"),
        ("hl7", b"\x0bMSA|AE|1\r\x0b\x1c\r"),
        ("hl7", b"\x0bMSA|AE|\x1c1\r\x1c\r"),
    ],
)
def test_a_badly_framed_answer_is_seen(protocol: Protocol, said: bytes) -> None:
    with pytest.raises(AssertionError):
        answered(accepted(Source("b"), (), lambda failure: said), protocol)


@pytest.mark.parametrize(
    ("protocol", "said"), [("line", b"ok\n"), ("hl7", b"\x0bMSA|AA|1\r\x1c\r")]
)
def test_a_promise_of_what_the_disk_refused_is_seen(protocol: Protocol, said: bytes) -> None:
    entry = accepted(Source("b"), (Reading(0, 78, 0, 0),), lambda failure: said)
    assert answered(entry, protocol)
    with pytest.raises(AssertionError):
        answered(entry, protocol, Reason.SPOOL_FULL)


def test_an_entry_lost_by_the_seal_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sealer = Sealer()
    sealer.seal([_value(78)])
    monkeypatch.setattr("edge.seal._columns", lambda entries: (columns.gather([], [], ()), 0, 0))
    with pytest.raises((AssertionError, ValueError)):
        sealer.seal([_value(78)])


def _sessions(protocol: Protocol, count: int) -> None:
    fuzz = Fuzz(protocol, SEED)
    for _ in range(count):
        fuzz.session()


def test_a_reader_that_holds_all_it_gets_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def hold(self: LineReader, data: bytes) -> None:
        self._half += data

    monkeypatch.setattr(LineReader, "_hold", hold)
    with pytest.raises(AssertionError):
        _sessions("line", 60)


def test_a_reader_that_minds_where_the_network_cuts_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receive = LineReader.receive

    def stripped(self: LineReader, data: bytes) -> object:
        return receive(self, data.lstrip(b" "))

    monkeypatch.setattr(LineReader, "receive", stripped)
    with pytest.raises(AssertionError):
        _sessions("line", 10 * TWIN_EVERY)


def test_what_is_raised_by_a_talk_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(LineTalk, "_refuse", raises)
    monkeypatch.setattr(Hl7Talk, "_junk", raises)
    for protocol in get_args(Protocol):
        with pytest.raises(KeyError):
            _sessions(protocol, 5)


def test_the_limits_held_to_are_those_of_the_readers() -> None:
    line, block = LineReader(), MllpReader()
    line.receive(b"x" * 3 * limits.LINE_BYTES_MAX)
    block.receive(b"\x0b" + b"x" * limits.HL7_MESSAGE_BYTES_MAX)
    assert line.held_bytes() == limits.LINE_BYTES_MAX + 1
    assert block.held_bytes() == limits.HL7_MESSAGE_BYTES_MAX + 1
    assert SESSION_INPUTS * 2 < limits.FRAME_READINGS_MAX

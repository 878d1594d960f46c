"""Blocks come out whole however the bytes come in; junk never takes the next block with it."""

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.mllp import Junk, MllpReader, Oversize, block
from vitals import limits

Event = bytes | Oversize | Junk


def _fed(chunks: list[bytes], message_bytes_max: int = 64) -> list[Event]:
    reader = MllpReader(message_bytes_max)
    found: list[Event] = []
    for chunk in chunks:
        reader.receive(chunk)
        while (event := reader.next_event()) is not None:
            found.append(event)
    return found


def test_two_blocks_in_one_read_are_two_messages() -> None:
    assert _fed([block(b"one\r") + block(b"two\r")]) == [b"one\r", b"two\r"]


def test_line_ends_between_blocks_are_no_junk() -> None:
    assert _fed([b"\x0bone\x1c\r\n\r\n\x0btwo\x1c\r"]) == [b"one", b"two"]
    assert _fed([b"\r\n\x0bone\x1c", b"\r", b"\n", b"\x0btwo\x1c\r"]) == [b"one", b"two"]


def test_a_block_is_over_before_its_carriage_return() -> None:
    assert _fed([b"\x0bone\x1c"]) == [b"one"]
    assert _fed([b"\x0bone\x1c\x0btwo\x1c"]) == [b"one", b"two"]


def test_an_empty_block_is_an_empty_message() -> None:
    assert _fed([b"\x0b\x1c\r"]) == [b""]


def test_a_byte_at_a_time_gives_the_same() -> None:
    data = b"junk" + block(b"one") + b"\x0bcut" + block(b"two") + b"\x0b" + b"x" * 90 + b"\x1c\r"
    whole = _fed([data])
    assert _fed([data[i : i + 1] for i in range(len(data))]) == whole
    assert whole == [Junk(b"junk", 4), b"one", Junk(b"cut", 3), b"two", Oversize(b"x" * 64, 90)]


def test_trailing_junk_is_told_with_the_next_block_or_the_end() -> None:
    reader = MllpReader()
    reader.receive(block(b"one") + b"tail\r\nmore")
    assert reader.next_event() == b"one"
    assert reader.next_event() is None
    assert reader.half() == Junk(b"tail\r\nmore", 10)
    reader.receive(block(b"two"))
    assert [reader.next_event(), reader.next_event()] == [Junk(b"tail\r\nmore", 10), b"two"]


@pytest.mark.parametrize(("size", "whole"), [(63, True), (64, True), (65, False)])
@pytest.mark.parametrize("cut", [1, 30, 200])
def test_the_limit_is_the_content_without_its_marks(size: int, *, whole: bool, cut: int) -> None:
    data = block(b"x" * size)
    (event,) = _fed([data[i : i + cut] for i in range(0, len(data), cut)])
    assert event == (b"x" * size if whole else Oversize(b"x" * 64, size))


def test_after_too_long_a_block_the_next_is_read_as_if_nothing_had_been() -> None:
    long, limit = b"\x0b" + b"x" * 200, 64
    assert _fed([long, b"\x1c\r", block(b"two")], limit) == [Oversize(b"x" * 64, 200), b"two"]
    assert _fed([long, block(b"two")], limit) == [Junk(b"x" * 64, 200), b"two"]


def test_what_an_unfinished_block_holds_is_bounded() -> None:
    reader = MllpReader()
    reader.receive(b"\x0b")
    most = 0
    for _ in range(64):
        reader.receive(b"x" * 65_536)
        most = max(most, reader.held_bytes())
    half = reader.half()
    assert half is not None
    assert len(half.head) == limits.QUARANTINE_RAW_BYTES_MAX
    assert half.total_bytes == 64 * 65_536
    assert most == limits.HL7_MESSAGE_BYTES_MAX + 1
    assert reader.held_bytes() == limits.QUARANTINE_RAW_BYTES_MAX + 1, "no message any more"


def test_what_junk_holds_is_bounded() -> None:
    reader = MllpReader()
    for _ in range(16):
        reader.receive(b"x" * 65_536)
    assert reader.half() == Junk(b"x" * limits.QUARANTINE_RAW_BYTES_MAX, 16 * 65_536)
    assert reader.held_bytes() == limits.QUARANTINE_RAW_BYTES_MAX


def test_a_block_that_has_only_begun_is_held_but_is_no_junk() -> None:
    reader = MllpReader()
    assert (reader.held_bytes(), reader.half()) == (0, None)
    reader.receive(b"\x0b")
    assert (reader.held_bytes(), reader.half()) == (1, None)
    reader.receive(b"\x0b")
    assert (reader.next_event(), reader.held_bytes()) == (None, 1)
    reader.receive(b"\x1c\r")
    assert (reader.next_event(), reader.held_bytes()) == (b"", 0)


def test_a_megabyte_of_noise_is_accounted_for_to_the_byte() -> None:
    noise = random.Random(7).randbytes(1024 * 1024)
    reader, told = MllpReader(), 0
    marks = noise.count(b"\x0b")
    for at in range(0, len(noise), 16_384):
        reader.receive(noise[at : at + 16_384])
        assert reader.held_bytes() <= limits.HL7_MESSAGE_BYTES_MAX + 1
        while (event := reader.next_event()) is not None:
            told += len(event) + 1 if isinstance(event, bytes) else event.total_bytes
    half = reader.half()
    told += half.total_bytes if half is not None else 0
    blank = len(noise) - told - marks
    assert 0 <= blank < 100, "nothing but line ends after blocks is passed over"
    reader.receive(block(b"good"))
    last = None
    while (event := reader.next_event()) is not None:
        last = event
    assert last == b"good"


@pytest.mark.parametrize("pattern", [b"\x0b", b"\x1c", b"\x0b\x1c", b"x\x0b", b"\r\x0b\x1c\r"])
def test_no_pattern_of_marks_costs_more_than_its_length(pattern: bytes) -> None:
    def cost_s(count: int) -> float:
        data = pattern * (count // len(pattern))
        best = 9.0
        for _ in range(5):
            reader = MllpReader()
            began = time.process_time()
            reader.receive(data)
            best = min(best, time.process_time() - began)
        return best

    # Eight times the bytes cost eight times as much; 64 times if it were quadratic.
    assert cost_s(128 * 1024) < 40 * max(cost_s(16 * 1024), 0.0002)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\n", b"a", b"bc"]), max_size=60),
    st.lists(st.integers(0, 100), max_size=8),
)
def test_where_noise_is_cut_makes_no_difference(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert _fed([data[a:b] for a, b in pairwise(at)], 5) == _fed([data], 5)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\x0b", b"").replace(b"\x1c", b"")))
)
def test_whatever_is_framed_comes_out(contents: list[bytes]) -> None:
    assert _fed([b"".join(block(one) for one in contents)]) == contents

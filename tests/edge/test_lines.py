"""Lines come out whole however the bytes come in, and never more is held than one line's limit."""

import tracemalloc
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.lines import LineReader, Oversize
from vitals import limits


def _all(reader: LineReader) -> list[bytes | Oversize]:
    found = []
    while (event := reader.next_event()) is not None:
        found.append(event)
    return found


def _fed(chunks: list[bytes], line_bytes_max: int = 16) -> list[bytes | Oversize]:
    reader = LineReader(line_bytes_max)
    found = []
    for chunk in chunks:
        reader.receive(chunk)
        found += _all(reader)
    return found


def test_whole_input_gives_its_lines_without_their_ends() -> None:
    assert _fed([b"one\ntwo\r\n\nthree"]) == [b"one", b"two", b""]


def test_a_byte_at_a_time_gives_the_same_lines() -> None:
    data = b"one\ntwo\r\n" + b"x" * 40 + b"\nthree\n"
    assert _fed([data[i : i + 1] for i in range(len(data))]) == _fed([data])


def test_the_unfinished_line_is_held_and_told() -> None:
    reader = LineReader(16)
    reader.receive(b"one\nhalf")
    assert reader.next_event() == b"one"
    assert reader.next_event() is None
    assert reader.half() == Oversize(b"half", 4)
    reader.receive(b"\n")
    assert reader.next_event() == b"half"
    assert reader.half() is None


def test_a_line_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    at, over = b"x" * 16, b"x" * 17
    assert _fed([at + b"\r\n"]) == [at]
    assert _fed([at, b"\r", b"\n"]) == [at]
    assert _fed([over + b"\nnext\n"]) == [Oversize(at, 17), b"next"]
    assert _fed([over, b"\nnext\n"]) == [Oversize(at, 17), b"next"]


def test_the_line_after_an_oversize_one_is_read_as_if_it_had_not_been() -> None:
    assert _fed([b"x" * 100, b"y" * 100, b"z\ngood\nhalf"]) == [Oversize(b"x" * 16, 201), b"good"]


def test_fifty_megabytes_without_a_newline_hold_one_lines_limit() -> None:
    reader = LineReader()
    chunk = b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(50 * 16):
            reader.receive(chunk)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 * limits.LINE_BYTES_MAX
    assert peak < 512 * 1024
    reader.receive(b"\nheart_rate=78\n")
    assert _all(reader) == [
        Oversize(b"x" * limits.LINE_BYTES_MAX, 50 * 1024 * 1024),
        b"heart_rate=78",
    ]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_where_noise_is_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert _fed([data[a:b] for a, b in pairwise(at)]) == _fed([data])

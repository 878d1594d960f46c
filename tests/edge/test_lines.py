"""Lines come out whole however the bytes come in, and never more is held than one line's limit."""

import tracemalloc
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.lines import LineReader, Oversize
from vitals import limits


def _fed(chunks: list[bytes], line_bytes_max: int = 16) -> list[bytes | Oversize]:
    reader = LineReader(line_bytes_max)
    return [line for chunk in chunks for line in reader.receive(chunk)]


def test_whole_input_gives_its_lines_without_their_ends() -> None:
    assert _fed([b"one\ntwo\r\n\nthree"]) == [b"one", b"two", b""]


def test_a_byte_at_a_time_gives_the_same_lines() -> None:
    data = b"one\ntwo\r\n" + b"x" * 40 + b"\nthree\n"
    assert _fed([data[i : i + 1] for i in range(len(data))]) == _fed([data])


def test_the_unfinished_line_is_held_and_told() -> None:
    reader = LineReader(16)
    assert list(reader.receive(b"one\nhalf")) == [b"one"]
    assert reader.half() == Oversize(b"half", 4)
    assert reader.held_bytes() == 4
    assert list(reader.receive(b"\n")) == [b"half"]
    assert reader.half() is None
    assert reader.held_bytes() == 0


def test_the_end_of_a_line_is_one_newline_and_one_return_before_it() -> None:
    assert _fed([b"a\r\r\n"]) == [b"a\r"]
    assert _fed([b"a\rb\n"]) == [b"a\rb"]
    assert _fed([b"\r\n"]) == [b""]
    assert _fed([b"a", b"\r\n"]) == [b"a"]
    assert _fed([b"\n"]) == [b""]


def test_a_line_at_the_limit_passes_and_one_byte_more_does_not() -> None:
    at, over = b"x" * 16, b"x" * 17
    assert _fed([at + b"\r\n"]) == [at]
    assert _fed([at, b"\r", b"\n"]) == [at]
    assert _fed([over + b"\nnext\n"]) == [Oversize(at, 17), b"next"]
    assert _fed([over, b"\nnext\n"]) == [Oversize(at, 17), b"next"]
    assert _fed([over + b"\r\n"]) == [Oversize(at, 17)]
    assert _fed([over, b"\r", b"\n"]) == [Oversize(at, 17)]
    assert _fed([over, b"\ry", b"\n"]) == [Oversize(at, 19)]
    assert _fed([over, b"y\r\n"]) == [Oversize(at, 18)]
    assert _fed([over + b"yy", b"y\r\n"]) == [Oversize(at, 20)]
    assert _fed([over + b"yy", b"\r", b"\n"]) == [Oversize(at, 19)]
    assert _fed([over + b"yy", b"\ry\n"]) == [Oversize(at, 21)]


def test_an_oversize_line_that_does_not_end_is_told_with_its_head() -> None:
    reader = LineReader(16)
    assert list(reader.receive(b"x" * 20)) == []
    assert list(reader.receive(b"y" * 5)) == []
    assert reader.half() == Oversize(b"x" * 16, 25)
    assert reader.held_bytes() <= 17


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
    assert list(reader.receive(b"\nheart_rate=78\n")) == [
        Oversize(b"x" * limits.LINE_BYTES_MAX, 50 * 1024 * 1024),
        b"heart_rate=78",
    ]


def test_a_fresh_reader_costs_next_to_nothing() -> None:
    """Ten thousand are held at once."""
    tracemalloc.start()
    try:
        readers = [LineReader() for _ in range(1000)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(readers) < 80


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"x" * 15, b"x", b"\r", b"\n"]), max_size=40).map(b"".join),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_where_noise_is_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    plain = [line.removesuffix(b"\r") for line in data.split(b"\n")[:-1]]
    expected = [p if len(p) <= 16 else Oversize(p[:16], len(p)) for p in plain]
    assert _fed([data[a:b] for a, b in pairwise(at)]) == _fed([data]) == expected

"""A file of HL7 messages, framed or not, becomes what a connection would bring."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.hl7_file import Framing
from edge.mllp import block


def _framed(*parts: bytes) -> bytes:
    framing = Framing()
    return b"".join([*(framing.receive(part) for part in parts), framing.end()])


FIRST, SECOND = b"MSH|^~\\&|A\rOBR|1\rOBX|1\r", b"MSH|^~\\&|B\rOBR|1\r"


def test_a_message_begins_with_each_segment_msh() -> None:
    assert _framed(FIRST + SECOND) == block(FIRST) + block(SECOND)


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\n\n"])
def test_segments_may_end_as_editors_end_lines(end: bytes) -> None:
    first, second = (m.replace(b"\r", end) for m in (FIRST, SECOND))
    assert _framed(first + second) == block(first) + block(second)
    assert _framed(first + second.removesuffix(end)) == block(first) + block(
        second.removesuffix(end)
    )


def test_a_file_that_is_framed_passes_as_it_is() -> None:
    data = b"\r\n" + block(FIRST) + b"junk" + block(SECOND) + b"\x0bhalf"
    assert _framed(data) == data[2:]
    assert _framed(b"\r", b"\n", data) == data[2:]


@pytest.mark.parametrize("blank", [b"", b"\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n \t"])
def test_blank_lines_and_an_editors_mark_before_the_first_message_are_nothing(
    blank: bytes,
) -> None:
    assert _framed(blank + FIRST) == block(FIRST)
    assert _framed(blank) == b""


@pytest.mark.parametrize("text", [b"OBX|MSH|", b"XMSH|", b"MSHA|", b"MSH1|", b"NTE|\rMSHX|1"])
def test_msh_within_a_segment_or_a_longer_name_is_none(text: bytes) -> None:
    assert _framed(b"MSH|1\r" + text) == block(b"MSH|1\r" + text)


def test_what_is_no_message_is_framed_and_left_to_be_refused() -> None:
    assert _framed(b"hello\rMSH|1") == block(b"hello\r") + block(b"MSH|1")


def test_the_last_message_ends_with_the_file() -> None:
    assert _framed(b"MSH|1\rMSH") == block(b"MSH|1\r") + block(b"MSH")
    assert _framed(b"MSH|1\rMS") == block(b"MSH|1\rMS")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"MSH", b"MSH|", *(bytes([b]) for b in b"MSH|\r\n\x0b ")]),
             max_size=30).map(b"".join),
    st.lists(st.integers(0, 60), max_size=8),
)  # fmt: skip
def test_where_the_file_is_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert _framed(*(data[a:b] for a, b in pairwise(at))) == _framed(data)
    assert _framed(*(data[i : i + 1] for i in range(len(data)))) == _framed(data)


def test_little_is_held_however_long_a_message_is() -> None:
    framing = Framing()
    framing.receive(b"MSH|1\r")
    for _ in range(100):
        assert len(framing.receive(b"\r" + b"x" * 65_535)) >= 65_536
    assert framing._tail == b""
    framing.receive(b"\rMSH")
    assert framing._tail == b"\rMSH"

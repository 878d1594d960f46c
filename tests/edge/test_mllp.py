"""Blocks come out whole however the bytes come in; junk never takes the next block with it."""

from itertools import pairwise

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


def test_a_byte_at_a_time_gives_the_same() -> None:
    data = b"junk" + block(b"one") + b"\x0bcut" + block(b"two") + b"\x0b" + b"x" * 90 + b"\x1c\r"
    whole = _fed([data])
    assert _fed([data[i : i + 1] for i in range(len(data))]) == whole
    assert whole == [Junk(b"junk", 4), b"one", Junk(b"cut", 3), b"two", Oversize(b"x" * 64, 90)]


def test_what_an_unfinished_block_holds_is_bounded() -> None:
    reader = MllpReader()
    reader.receive(b"\x0b")
    for _ in range(64):
        reader.receive(b"x" * 65_536)
    half = reader.half()
    assert half is not None
    assert len(half.head) == limits.QUARANTINE_RAW_BYTES_MAX
    assert half.total_bytes == 64 * 65_536
    assert len(reader._held) <= limits.HL7_MESSAGE_BYTES_MAX


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\n", b"a", b"bc"]), max_size=60),
    st.lists(st.integers(0, 100), max_size=8),
)
def test_where_noise_is_cut_makes_no_difference(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert _fed([data[a:b] for a, b in pairwise(at)]) == _fed([data])

"""Session messages: they survive the wire, newer peers are understood, garbage is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitals import limits, session
from vitals.epoch import WrappedEpoch
from vitals.errors import SessionError
from vitals.session import CloudMessage, EdgeMessage

EPOCH = WrappedEpoch("edge-1", "ab" * 16, "0123456789abcdef", bytes(80), 1_700_000_000_000)
FROM_EDGE: list[EdgeMessage] = [
    session.Hello(session.PROTOCOL, "edge-1", "0.1.0", [EPOCH]),
    session.Hello(
        2, "edge-1", "0.1.0", [EPOCH], 1, [session.Waiting("ab" * 16, 3, 9, {0: 5, 2: 1})], 7
    ),
    session.Epoch(EPOCH),
    session.Data(b"HSF1\x00", 5),
    session.Data(b"HSF1\x00", 5, late=True),
    session.Ping(1_700_000_000_000),
    session.Outcome(7, "kept"),
    session.Close("going-away", "restart"),
]
FROM_CLOUD: list[CloudMessage] = [
    session.Welcome(session.PROTOCOL, 256, 1_700_000_000_000),
    session.Welcome(1, 256, 1_700_000_000_000, [("ab" * 16, [(0, 4)])], ["0123456789abcdef"]),
    session.Settings(7, b"ward = 'W1'", "0123456789abcdef", bytes(64)),
    session.Ack("ab" * 16, [(0, 5), (7, 7)]),
    session.Credit(0),
    session.Pong(1, 2, 3),
    session.Close("overload"),
]
DECODERS: list[Callable[[bytes], object]] = [session.decode_edge, session.decode_cloud]


@pytest.mark.parametrize("message", FROM_EDGE, ids=lambda m: type(m).__name__)
def test_what_the_edge_says_arrives(message: EdgeMessage) -> None:
    assert session.decode_edge(session.encode(message)) == message


@pytest.mark.parametrize("message", FROM_CLOUD, ids=lambda m: type(m).__name__)
def test_what_the_cloud_says_arrives(message: CloudMessage) -> None:
    assert session.decode_cloud(session.encode(message)) == message


@pytest.mark.parametrize("message", FROM_EDGE, ids=lambda m: type(m).__name__)
def test_unknown_keys_of_a_newer_edge_are_ignored(message: EdgeMessage) -> None:
    raw = msgspec.msgpack.decode(session.encode(message))
    newer = msgspec.msgpack.encode(raw | {"later": {"deep": [1, {"er": b"x"}]}})
    assert session.decode_edge(newer) == message


@pytest.mark.parametrize("message", FROM_CLOUD, ids=lambda m: type(m).__name__)
def test_unknown_keys_of_a_newer_cloud_are_ignored(message: CloudMessage) -> None:
    raw = msgspec.msgpack.decode(session.encode(message))
    assert session.decode_cloud(msgspec.msgpack.encode(raw | {"later": 1})) == message


def test_each_side_refuses_what_only_the_other_may_say() -> None:
    for message in FROM_EDGE[:-1]:
        with pytest.raises(SessionError):
            session.decode_cloud(session.encode(message))
    for reply in FROM_CLOUD[:-1]:
        with pytest.raises(SessionError):
            session.decode_edge(session.encode(reply))


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GET / HTTP/1.1",
        b"\x80",
        b"\x81\xa1t\xa4ping",
        b"\x82\xa1t\xa4ping\xa7sent_ms\xa1x",
        b"\x83\xa1t\xa5hello\xa6epochs\xdd\xff\xff\xff\xff",
        b"\x83\xa1t\xa3ack\xa6ranges\xdd\xff\xff\xff\xff",
    ],
)
def test_garbage_is_refused(decode: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(SessionError):
        decode(raw)


@pytest.mark.parametrize("decode", DECODERS)
def test_text_that_is_not_utf_8_is_refused(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(SessionError):
        decode(b"\x82\xa1t\xa5close\xa6reason\xa2\xff\xfe")


@pytest.mark.parametrize("decode", DECODERS)
def test_nesting_without_end_is_refused(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(SessionError):
        decode(b"\x83\xa1t\xa5close\xa6reason\xa1x\xa5later" + b"\x91" * 100_000 + b"\xc0")


@given(st.binary(max_size=100), st.sampled_from(FROM_EDGE), st.data())
def test_cut_lengthened_and_random_messages_are_refused(
    junk: bytes, message: EdgeMessage, data: st.DataObject
) -> None:
    whole = session.encode(message)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (junk, whole[:cut], whole + b"\x00"):
        with pytest.raises(SessionError):
            session.decode_edge(wrong)


@pytest.mark.parametrize("decode", DECODERS)
def test_a_message_over_the_limit_is_refused_unread(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(SessionError, match="limit"):
        decode(bytes(limits.SESSION_MESSAGE_BYTES_MAX + 1))


def test_the_largest_frame_fits_into_a_message() -> None:
    message = session.Data(bytes(limits.FRAME_BYTES_MAX), limits.EPOCH_FRAMES_MAX)
    assert session.decode_edge(session.encode(message)) == message


def test_reasons_of_closing_are_the_documented_set() -> None:
    row = _row("Close")
    named = re.findall(r"[a-z-]+", row.split("`reason`: ")[1].split(" |")[0])
    assert set(named) == session.CLOSE_REASONS
    row = _row("Outcome")
    named = re.findall(r"[a-z-]+", row.split("`outcome`: ")[1].split(";")[0])
    assert set(named) == session.OUTCOMES


def _row(kind: str) -> str:
    """Return a message's row in the specification."""
    page = (Path(__file__).parents[2] / "edge/UPLINK.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    return next(line for line in rows if kind in line.split("|")[1])


def test_every_message_and_field_is_in_the_specification() -> None:
    for message in FROM_EDGE + FROM_CLOUD:
        assert _row(type(message).__name__)
    for kind in (
        session.Hello,
        session.Welcome,
        session.Data,
        session.Settings,
        session.Outcome,
    ):
        for name in kind.__struct_fields__:
            assert f"`{name}`" in _row(kind.__name__), (kind, name)


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("raw", [b"\x81\xa1t\xa7unknown", b"\x82\xa1t\xa5later\xa1x\x91\x01"])
def test_a_message_of_a_kind_that_only_a_newer_peer_knows_is_ignored(
    decode: Callable[[bytes], object], raw: bytes
) -> None:
    assert decode(raw) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 1), (3, 1), 1),
        ((3, 1), (1, 1), 1),
        ((3, 2), (4, 2), 3),
        ((3, 2), (2, 2), 2),
        ((3, 2), (1, 1), None),
        ((2, 1), (5, 3), None),
    ],
)
def test_a_session_is_in_the_newest_version_both_speak(
    monkeypatch: pytest.MonkeyPatch,
    ours: tuple[int, int],
    theirs: tuple[int, int],
    version: int | None,
) -> None:
    monkeypatch.setattr(session, "PROTOCOL", ours[0])
    monkeypatch.setattr(session, "OLDEST", ours[1])
    assert session.common(*theirs) == version

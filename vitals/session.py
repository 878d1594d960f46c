"""Messages between an edge's uplink and ingest, one msgpack map a websocket message.

Edge -> cloud: Hello, Epoch, Data, Ping, Close. Cloud -> edge: Welcome, Ack, Credit, Pong, Close.
A map's unknown keys are ignored, so that either side may be newer. Order of a session::

    edge  Hello ------------------------->  ingest   epochs with unacknowledged frames
    edge  <------------------------ Welcome  ingest   credit: how many frames may be in flight
    edge  Data, Data, ... --------------->  ingest   at most `credit` unacknowledged
    edge  <--------------------- Ack ranges  ingest   each acked frame gives its credit back
"""

from typing import Final

import msgspec

from vitals import limits
from vitals.epoch import WrappedEpoch
from vitals.errors import UNREADABLE, SessionError

PROTOCOL: Final = 1


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="t"):
    """The edge introduces itself; ingest checks ``edge`` against its certificate."""

    protocol: int
    edge: str
    build: str
    epochs: list[WrappedEpoch]


class Epoch(msgspec.Struct, frozen=True, tag="epoch", tag_field="t"):
    """A new epoch began in mid-session; precedes its first frame."""

    epoch: WrappedEpoch


class Data(msgspec.Struct, frozen=True, tag="data", tag_field="t"):
    """One frame. ``floor``: every seq below it in this epoch is acknowledged, never sent again."""

    frame: bytes
    floor: int


class Ping(msgspec.Struct, frozen=True, tag="ping", tag_field="t"):
    """Heartbeat, with the edge's time of sending (T1)."""

    sent_ms: int


class Welcome(msgspec.Struct, frozen=True, tag="welcome", tag_field="t"):
    """The session is open."""

    protocol: int
    credit: int
    server_ms: int


class Ack(msgspec.Struct, frozen=True, tag="ack", tag_field="t"):
    """These inclusive ranges of an epoch are durable downstream."""

    epoch: str
    ranges: list[tuple[int, int]]


class Credit(msgspec.Struct, frozen=True, tag="credit", tag_field="t"):
    """From now on this many frames may be unacknowledged; 0 halts the edge (back-pressure)."""

    credit: int


class Pong(msgspec.Struct, frozen=True, tag="pong", tag_field="t"):
    """Answer to Ping: T1 as it was, time of arrival (T2) and of this answer (T3)."""

    sent_ms: int
    arrived_ms: int
    answered_ms: int


class Close(msgspec.Struct, frozen=True, tag="close", tag_field="t"):
    """The session ends; ``reason`` is one of the codes below, ``detail`` for a log."""

    reason: str
    detail: str = ""


CLOSE_REASONS: Final = frozenset({"going-away", "identity", "protocol", "malformed", "overload"})

EdgeMessage = Hello | Epoch | Data | Ping | Close
CloudMessage = Welcome | Ack | Credit | Pong | Close

_encoder = msgspec.msgpack.Encoder()
_edge_decoder: msgspec.msgpack.Decoder[EdgeMessage] = msgspec.msgpack.Decoder(EdgeMessage)
_cloud_decoder: msgspec.msgpack.Decoder[CloudMessage] = msgspec.msgpack.Decoder(CloudMessage)


def encode(message: EdgeMessage | CloudMessage) -> bytes:
    """Return one message as bytes."""
    return _encoder.encode(message)


def decode_edge(data: bytes) -> EdgeMessage:
    """Return a message an edge sent; raise SessionError."""
    if len(data) > limits.SESSION_MESSAGE_BYTES_MAX:
        raise SessionError(f"a message of {len(data)} bytes is over the session's limit")
    try:
        return _edge_decoder.decode(data)
    except UNREADABLE as error:
        raise SessionError("the edge's message does not parse; is its version known?") from error


def decode_cloud(data: bytes) -> CloudMessage:
    """Return a message the cloud sent; raise SessionError."""
    if len(data) > limits.SESSION_MESSAGE_BYTES_MAX:
        raise SessionError(f"a message of {len(data)} bytes is over the session's limit")
    try:
        return _cloud_decoder.decode(data)
    except UNREADABLE as error:
        raise SessionError("the cloud's message does not parse; is its version known?") from error

"""Messages between an edge's uplink and ingest, one msgpack map a websocket message.

Edge -> cloud: Hello, Epoch, Data, Ping, Outcome, Close. Cloud -> edge: Welcome, Ack, Credit, Pong,
Settings, Close. edge/UPLINK.md has the order of a session and the states of both sides. A map's
unknown keys are ignored, and so is a message of an unknown kind, so that either side may be newer.
"""

from typing import Final

import msgspec

from vitals import limits
from vitals.epoch import WrappedEpoch
from vitals.errors import UNREADABLE, SessionError

PROTOCOL: Final = 1
"""Newest version spoken here."""
OLDEST: Final = 1
"""Oldest version still understood here."""


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """What an edge has stored of one epoch."""

    epoch: str
    lowest: int
    highest: int
    """Sequence numbers of the first and last frame that is stored."""
    frames: dict[int, int] = {}
    """`vitals.frame.Lane` -> frames stored."""


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="t"):
    """The edge introduces itself; ingest checks ``edge`` against its certificate."""

    protocol: int
    """Newest version it speaks."""
    edge: str
    build: str
    epochs: list[WrappedEpoch]
    oldest: int = 1
    """Oldest version it speaks."""
    waiting: list[Waiting] = []
    settings: int = 0
    """Version of the pushed settings in use, 0 for none."""


class Epoch(msgspec.Struct, frozen=True, tag="epoch", tag_field="t"):
    """A new epoch began in mid-session; precedes its first frame."""

    epoch: WrappedEpoch


class Data(msgspec.Struct, frozen=True, tag="data", tag_field="t", omit_defaults=True):
    """One frame. ``floor``: every seq below it in this epoch is acknowledged, never sent again."""

    frame: bytes
    floor: int
    late: bool = False
    """Read from the disk: live frames may overtake it."""


class Ping(msgspec.Struct, frozen=True, tag="ping", tag_field="t"):
    """Heartbeat, with the edge's time of sending (T1)."""

    sent_ms: int


class Outcome(msgspec.Struct, frozen=True, tag="outcome", tag_field="t"):
    """What became of pushed settings: one of OUTCOMES, with a reason in words."""

    version: int
    outcome: str
    detail: str = ""


class Welcome(msgspec.Struct, frozen=True, tag="welcome", tag_field="t"):
    """The session is open."""

    protocol: int
    """The version of this session."""
    credit: int
    server_ms: int
    resume: list[tuple[str, list[tuple[int, int]]]] = []
    """(epoch, inclusive ranges) that are known to be durable, as in Ack."""
    keys: list[str] = []
    """Ids of the cloud keys that epochs may be wrapped to; empty when ingest does not say."""


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


class Settings(msgspec.Struct, frozen=True, tag="settings", tag_field="t"):
    """Settings for this edge, signed (`vitals.settings`)."""

    version: int
    document: bytes
    """TOML, UTF-8."""
    key: str
    """Id of the signing key."""
    signature: bytes


class Close(msgspec.Struct, frozen=True, tag="close", tag_field="t"):
    """The session ends; ``reason`` is one of the codes below, ``detail`` for a log."""

    reason: str
    detail: str = ""


CLOSE_REASONS: Final = frozenset(
    {"going-away", "identity", "protocol", "malformed", "overload", "revoked", "superseded"}
)
OUTCOMES: Final = frozenset({"applied", "kept", "refused", "rolled-back"})

EdgeMessage = Hello | Epoch | Data | Ping | Outcome | Close
CloudMessage = Welcome | Ack | Credit | Pong | Settings | Close


class _Kind(msgspec.Struct, frozen=True):
    t: str


_encoder = msgspec.msgpack.Encoder()
_edge_decoder: msgspec.msgpack.Decoder[EdgeMessage] = msgspec.msgpack.Decoder(EdgeMessage)
_cloud_decoder: msgspec.msgpack.Decoder[CloudMessage] = msgspec.msgpack.Decoder(CloudMessage)
_kind_decoder = msgspec.msgpack.Decoder(_Kind)
_KINDS: Final = frozenset(
    str(kind.__struct_config__.tag)
    for kind in (Hello, Epoch, Data, Ping, Outcome, Welcome, Ack, Credit, Pong, Settings, Close)
)


def common(newest: int, oldest: int) -> int | None:
    """Return the version of a session with a peer that speaks ``oldest`` to ``newest``, or None."""
    version = min(newest, PROTOCOL)
    return version if version >= max(oldest, OLDEST) else None


def encode(message: EdgeMessage | CloudMessage) -> bytes:
    """Return one message as bytes."""
    return _encoder.encode(message)


def _is_newer(data: bytes) -> bool:
    """Tell whether this is a message of a kind that is not known here."""
    try:
        return _kind_decoder.decode(data).t not in _KINDS
    except UNREADABLE:
        return False


def decode_edge(data: bytes) -> EdgeMessage | None:
    """Return a message an edge sent, None for one of an unknown kind; raise SessionError."""
    if len(data) > limits.SESSION_MESSAGE_BYTES_MAX:
        raise SessionError(f"a message of {len(data)} bytes is over the session's limit")
    try:
        return _edge_decoder.decode(data)
    except UNREADABLE as error:
        if _is_newer(data):
            return None
        raise SessionError("the edge's message does not parse; is its version known?") from error


def decode_cloud(data: bytes) -> CloudMessage | None:
    """Return a message the cloud sent, None for one of an unknown kind; raise SessionError."""
    if len(data) > limits.SESSION_MESSAGE_BYTES_MAX:
        raise SessionError(f"a message of {len(data)} bytes is over the session's limit")
    try:
        return _cloud_decoder.decode(data)
    except UNREADABLE as error:
        if _is_newer(data):
            return None
        raise SessionError("the cloud's message does not parse; is its version known?") from error

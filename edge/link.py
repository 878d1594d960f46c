"""The gateway's half of a session with ingest, sans-IO (UPLINK.md has its states).

Law: what ingest says is checked before it is believed; whatever it says costs bounded memory; an
acknowledgement is handed on only for frames that were sent. Raises SessionError when the session
must end. No socket, clock or random here: times are arguments.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final, NamedTuple

from edge.backlog import Held, Stored
from edge.clock_filter import ClockFilter
from edge.outbox import Outbox
from vitals import limits, session
from vitals.epoch import WrappedEpoch
from vitals.errors import SessionError
from vitals.interval import IntervalSet
from vitals.session import (
    Ack,
    Close,
    Credit,
    Data,
    Epoch,
    Hello,
    Outcome,
    Ping,
    Pong,
    Settings,
    Waiting,
    Welcome,
)

RESUME_EPOCHS_MAX: Final = 4096
"""Epochs in Welcome's resume points that are looked at: as many as ingest takes."""


class State(Enum):
    """See UPLINK.md."""

    CLOSED = "closed"
    GREETING = "greeting"
    OPEN = "open"


class Opened(NamedTuple):
    """Welcome: the session is open once `Link.begin` was called with what is stored now."""

    resume: list[tuple[str, list[tuple[int, int]]]]
    """Frames that an earlier session sent and that are durable: as acknowledged."""
    withheld: frozenset[str]
    """Epochs whose cloud key ingest has not."""


class Acked(NamedTuple):
    """Frames that may leave the spool."""

    epoch: str
    ranges: list[tuple[int, int]]


class Measured(NamedTuple):
    """The cloud's clock minus this one's, filtered, and the round trip of that sample."""

    offset_ms: float
    delay_ms: float


class Offered(NamedTuple):
    """Settings, not checked yet."""

    settings: Settings


class Room(NamedTuple):
    """There may be room for another frame."""


Event = Opened | Acked | Measured | Offered | Room


class Link:
    """One session after another of one gateway; ``outbox`` decides what goes next."""

    def __init__(self, edge: str, build: str, outbox: Outbox) -> None:
        """Start closed."""
        self._edge, self._build, self._outbox = edge, build, outbox
        self.state = State.CLOSED
        self.sent: dict[str, IntervalSet] = {}
        """Epoch -> sequence numbers sent in any session of this process."""
        self._epochs: dict[str, WrappedEpoch] = {}
        self._told: set[str] = set()
        self._keys: frozenset[str] = frozenset()
        self._credit = 0
        self._filter = ClockFilter()

    # -- opening and closing --------------------------------------------------------------------

    def greet(
        self, epochs: Iterable[WrappedEpoch], waiting: list[Waiting], settings: int, now_s: float
    ) -> bytes:
        """Return Hello; call when connected, before asking for what is stored."""
        self._epochs = {epoch.epoch: epoch for epoch in epochs}
        self._told = set(self._epochs)
        self._outbox.open(now_s)
        self.state = State.GREETING
        hello = Hello(
            session.PROTOCOL,
            self._edge,
            self._build,
            list(self._epochs.values()),
            session.OLDEST,
            waiting,
            settings,
        )
        return session.encode(hello)

    def begin(self, stored: Stored, withheld: frozenset[str]) -> None:
        """Begin to send: ``stored`` is what the spool holds after `Opened` was dealt with."""
        self._outbox.connect(stored, self._credit, withheld)

    def end(self) -> None:
        """The connection is gone: what was not acknowledged goes again in the next session."""
        self.state = State.CLOSED
        self._outbox.disconnect()

    # -- what ingest says -----------------------------------------------------------------------

    def receive(self, data: bytes | str, now_ms: int, now_s: float) -> Event | None:
        """Take one message; return what is to be done about it. Raise SessionError."""
        if isinstance(data, str):
            raise SessionError("ingest sent text; every message is msgpack")
        message = session.decode_cloud(data)
        if message is None:
            return None  # of a kind that a newer ingest knows
        if isinstance(message, Close):
            raise SessionError(f"ingest closed: {_code(message)}")
        if self.state is State.GREETING:
            if not isinstance(message, Welcome):
                raise SessionError("ingest did not answer Hello with Welcome")
            return self._welcome(message)
        match message:
            case Ack():
                acked = self._outbox.acked(message.epoch, message.ranges, now_s)
                return Acked(message.epoch, acked)
            case Credit():
                self._credit = message.credit
                self._outbox.set_credit(message.credit)
                return Room()
            case Pong():
                return Measured(*self._filter.measured(message, now_ms))
            case Settings():
                return Offered(message)
            case Welcome():
                raise SessionError("ingest sent a second Welcome")

    def _welcome(self, message: Welcome) -> Opened:
        if not session.OLDEST <= message.protocol <= session.PROTOCOL:
            raise SessionError(f"ingest chose protocol {message.protocol}, not spoken here")
        self.state = State.OPEN
        self._credit = message.credit
        self._keys = frozenset(message.keys)
        resume = []
        for epoch, ranges in message.resume[:RESUME_EPOCHS_MAX]:
            # Only what was sent: no word of the cloud deletes what it never got.
            sent = self.sent.get(epoch)
            known = [part for part in ranges if sent is not None and sent.covers(*part)]
            if known:
                resume.append((epoch, known))
        withheld = {epoch.epoch for epoch in self._epochs.values() if self._is_withheld(epoch)}
        return Opened(resume, frozenset(withheld))

    def _is_withheld(self, epoch: WrappedEpoch) -> bool:
        return bool(self._keys) and epoch.key_id not in self._keys

    # -- what is said to ingest -----------------------------------------------------------------

    def offer(self, frames: list[Held], epoch: WrappedEpoch, now_s: float) -> bool:
        """Take frames just committed; return False when the cloud has not the epoch's key."""
        if epoch.epoch not in self._epochs:
            self._epochs[epoch.epoch] = epoch
        if self.state is State.OPEN and self._is_withheld(epoch):
            return False
        self._outbox.offer(frames, now_s)
        return True

    def data(self, frame: Held, since_s: float, *, late: bool) -> list[bytes]:
        """Return the messages that send a frame: its epoch first if it was not told yet."""
        out = []
        if frame.epoch not in self._told:
            self._told.add(frame.epoch)
            out.append(session.encode(Epoch(self._epochs[frame.epoch])))
        self.sent.setdefault(frame.epoch, IntervalSet()).add(frame.seq)
        floor = self._outbox.sent(frame, since_s, late=late)
        out.append(session.encode(Data(frame.data, floor, late)))
        return out

    def clock_moved(self) -> None:
        """Forget what was measured: this side's clock is another one now."""
        self._filter.reset()

    def was_sent(self, frame: Held) -> bool:
        """Tell whether a frame was sent before, in any session of this process."""
        sent = self.sent.get(frame.epoch)
        return sent is not None and frame.seq in sent

    def ping(self, now_ms: int) -> bytes:
        """Return a heartbeat."""
        return session.encode(Ping(now_ms))

    def outcome(self, version: int, outcome: str, detail: str = "") -> bytes:
        """Return the word of what became of pushed settings."""
        return session.encode(Outcome(version, outcome, detail[: limits.TEXT_CHARS_MAX]))

    def close(self, reason: str) -> bytes:
        """Return a last message."""
        return session.encode(Close(reason))

    def highest_sent(self) -> dict[str, int]:
        """Return epoch -> highest sequence number ever sent: below it nothing may be folded."""
        return {epoch: seqs.highest for epoch, seqs in self.sent.items()}


def _code(close: Close) -> str:
    return close.reason if close.reason in session.CLOSE_REASONS else "unknown"

"""One gateway's session, sans-IO: messages in, frames to unpack out, answers to send.

edge/UPLINK.md has the states of both sides.

Law: only frames reported by `delivered` are acknowledged; no more than ``credit`` frames are ever
held; whatever a gateway sends costs bounded memory.
"""

import re
from typing import Final

from cloud.ingest.delivered import Delivered
from cloud.ingest.keys import CloudKeys
from vitals import limits, session
from vitals.epoch import EPOCH_HEX, WrappedEpoch
from vitals.errors import EpochError, SessionError
from vitals.frame import FrameOpener
from vitals.interval import IntervalSet

# Epochs with frames still on one gateway: a 12-day outage makes 72, restarts some more.
EPOCHS_MAX: Final = 4096

# Ranges in one Ack: a message stays small whatever the order of delivery.
ACK_RANGES_MAX: Final = 1024

# An epoch's name becomes part of Kafka keys, whose separator it must not hold.
_EPOCH_NAME: Final = re.compile(rf"[0-9a-f]{{{EPOCH_HEX}}}")


class Refused(SessionError):
    """The session must end; ``reason`` is one of vitals.session.CLOSE_REASONS."""

    def __init__(self, reason: str, detail: str) -> None:
        """Name the reason and say in words what happened (ids and counts only)."""
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class IngestSession:
    """What ingest knows of one connected gateway."""

    def __init__(
        self, identity: str, keys: CloudKeys, credit: int, delivered: Delivered | None = None
    ) -> None:
        """``identity``: the name in the gateway's certificate, as HAProxy passed it."""
        self.identity = identity
        self.build = ""
        self.open = False
        self.held = 0
        """Frames taken and neither delivered nor given up."""
        self.version = 0
        """Of the session, once it is open."""
        self.waiting = 0
        """Frames that the gateway said it has stored."""
        self.settings = 0
        """Version of pushed settings that the gateway said it uses."""
        self._keys = keys
        self._delivered = delivered or Delivered()
        self._credit = credit
        self._told_credit = credit
        self._epochs: dict[str, WrappedEpoch] = {}
        self._openers: dict[str, FrameOpener | EpochError] = {}
        self._acks: dict[str, IntervalSet] = {}
        self._welcome = False
        self._pong: tuple[int, int] | None = None

    def receive(self, data: bytes | str, arrived_ms: int) -> session.Data | session.Outcome | None:
        """Take one message; return a frame to unpack or an outcome to note. Raise Refused."""
        if isinstance(data, str):
            raise Refused("protocol", "a text message; every message is msgpack")
        try:
            message = session.decode_edge(data)
        except SessionError as error:
            raise Refused("malformed", str(error)) from error
        if message is None:
            return None  # of a kind that a newer gateway knows
        if isinstance(message, session.Close):
            raise Refused("going-away", f"the gateway closed: {message.reason[:32]}")
        if not self.open:
            self._greet(message)
            return None
        if isinstance(message, session.Data):
            if self.held >= limits.CREDIT_FRAMES:
                raise Refused("protocol", f"more than {limits.CREDIT_FRAMES} frames in flight")
            self.held += 1
            return message
        if isinstance(message, session.Ping):
            self._pong = (message.sent_ms, arrived_ms)
        elif isinstance(message, session.Epoch):
            self._add_epoch(message.epoch)
        elif isinstance(message, session.Outcome):
            return message
        else:
            raise Refused("protocol", "a second hello")
        return None

    def _greet(self, message: session.EdgeMessage) -> None:
        if not isinstance(message, session.Hello):
            raise Refused("protocol", "the first message must be hello")
        if message.edge != self.identity:
            raise Refused("identity", "hello names another gateway than the certificate")
        version = session.common(message.protocol, message.oldest)
        if version is None:
            spoken = f"{message.oldest} to {message.protocol}"
            raise Refused("protocol", f"protocols {spoken} are not spoken here")
        for epoch in message.epochs:
            self._add_epoch(epoch)
        self.version, self.build = version, message.build[:64]
        self.settings = message.settings
        self.waiting = sum(sum(one.frames.values()) for one in message.waiting)
        self.open = self._welcome = True

    def _add_epoch(self, epoch: WrappedEpoch) -> None:
        if epoch.edge != self.identity:
            raise Refused("identity", "an epoch names another gateway than the certificate")
        if not _EPOCH_NAME.fullmatch(epoch.epoch):
            raise Refused("protocol", f"an epoch's name is not {EPOCH_HEX} hex digits")
        if self._epochs.get(epoch.epoch) == epoch:
            return
        if len(self._epochs) >= EPOCHS_MAX:
            raise Refused("protocol", f"more than {EPOCHS_MAX} epochs in one session")
        self._epochs[epoch.epoch] = epoch
        self._openers.pop(epoch.epoch, None)

    def opener(self, epoch: str) -> FrameOpener | None:
        """Return the opener of an announced epoch, None if it was not; raise EpochError.

        The key is unwrapped at the first frame, so a long list in Hello costs nothing.
        """
        found = self._openers.get(epoch)
        if found is None:
            wrapped = self._epochs.get(epoch)
            if wrapped is None:
                return None
            try:
                found = FrameOpener(self._keys.unwrap(wrapped))
            except EpochError as error:
                found = error
            self._openers[epoch] = found
        if isinstance(found, EpochError):
            raise found
        return found

    def delivered(self, epoch: str, seq: int) -> None:
        """Everything made of the frame is durable; an unnamed frame only gives its place back."""
        self.held -= 1
        if epoch:
            self._delivered.note(self.identity, epoch, seq)
            self._acks.setdefault(epoch, IntervalSet()).add(seq)

    def set_credit(self, credit: int) -> None:
        """Let the gateway have ``credit`` frames in flight from the next `drain` on."""
        self._credit = credit

    def pending(self) -> bool:
        """Return whether `drain` would give anything."""
        return self.open and bool(
            self._welcome or self._acks or self._pong or self._credit != self._told_credit
        )

    def drain(self, now_ms: int) -> list[bytes]:
        """Return the messages to send now, oldest duty first."""
        out: list[session.CloudMessage] = []
        if not self.open:
            return []
        if self._welcome:
            resume = self._delivered.of(self.identity, self._epochs)
            out.append(session.Welcome(self.version, self._credit, now_ms, resume, self._keys.ids))
            self._welcome, self._told_credit = False, self._credit
        if self._pong is not None:
            out.append(session.Pong(*self._pong, now_ms))
            self._pong = None
        for epoch, ranges in self._acks.items():
            listed = list(ranges)
            out.extend(
                session.Ack(epoch, listed[at : at + ACK_RANGES_MAX])
                for at in range(0, len(listed), ACK_RANGES_MAX)
            )
        self._acks = {}
        if self._credit != self._told_credit:
            out.append(session.Credit(self._credit))
            self._told_credit = self._credit
        return [session.encode(message) for message in out]

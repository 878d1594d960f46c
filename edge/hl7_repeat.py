"""Messages that a sender repeats because its acknowledgement was lost.

Law: sans-IO, memory only, bounded. The same control id with the same content gets the same answer
and makes no second reading; the same control id with other content is a conflict. Only what has
become durable can be repeated: until then a repeat has no answer to be given, and what the disk
refused is forgotten, so that it is taken as new when it comes again.

The content is every byte of the message, MSH-7 included. A looser rule would swallow, as repeats,
new readings of the same values from a device that gives every message one control id.
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

SENDER_MAX: Final = 64
"""Messages kept of one sender: more than it has sent without an answer, and few enough that one
which numbers anew after a restart meets only as many of its own."""

ENTRIES_MAX: Final = 16_384
"""Messages kept in all, at most 8 MB; a busy ward's HL7 of some minutes."""

AGE_MS_MAX: Final = 10 * 60_000
"""Kept this long: a sender that reconnects does so within minutes."""

_DIGEST_BYTES: Final = 16


class Sent:
    """One message: what it held, when it came, its answer's number, and whether it is durable."""

    __slots__ = ("control", "digest", "durable", "number", "received_ms", "sender")

    def __init__(
        self, sender: bytes, control: str, digest: bytes, received_ms: int, number: int
    ) -> None:
        """Begin as not durable."""
        self.sender, self.control, self.digest = sender, control, digest
        self.received_ms, self.number = received_ms, number
        self.durable = False


def digest(raw: bytes) -> bytes:
    """Return the content of a message in 16 bytes."""
    return blake2b(raw, digest_size=_DIGEST_BYTES).digest()


class Repeats:
    """What each sender sent last, by sender and control id; the least recent senders go first."""

    __slots__ = ("_count", "_senders")

    def __init__(self) -> None:
        """Start empty."""
        self._senders: OrderedDict[bytes, OrderedDict[str, Sent]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def find(self, sender: bytes, control: str, now_ms: int) -> Sent | None:
        """Return what was kept under a control id, None when nothing was or it is too old."""
        listed = self._senders.get(sender)
        sent = None if listed is None else listed.get(control)
        if sent is not None and abs(now_ms - sent.received_ms) > AGE_MS_MAX:
            self.forget(sent)
            return None
        return sent

    def begin(
        self, sender: bytes, control: str, content: bytes, received_ms: int, number: int
    ) -> Sent:
        """Keep a message that is on its way to the disk; set ``durable`` or `forget` it then."""
        listed = self._senders.setdefault(sender, OrderedDict())
        self._senders.move_to_end(sender)
        sent = Sent(sender, control, content, received_ms, number)
        if listed.pop(control, None) is None:
            self._count += 1
        listed[control] = sent
        if len(listed) > SENDER_MAX:
            self._drop(sender, listed)
        if self._count > ENTRIES_MAX:
            self._drop(*next(iter(self._senders.items())))
        return sent

    def forget(self, sent: Sent) -> None:
        """Drop a message, unless another stands in its place."""
        listed = self._senders.get(sent.sender)
        if listed is not None and listed.get(sent.control) is sent:
            del listed[sent.control]
            self._count -= 1
            if not listed:
                del self._senders[sent.sender]

    def _drop(self, sender: bytes, listed: OrderedDict[str, Sent]) -> None:
        listed.popitem(last=False)
        self._count -= 1
        if not listed:
            del self._senders[sender]


def sender(address: str, application: str, facility: str) -> bytes:
    """Return who sent a message, in 16 bytes: the caller's address, MSH-3 and MSH-4."""
    return digest(f"{address}\n{application}\n{facility}".encode("utf-8", "replace"))

"""What a bed has said and not heard back about. Sans-IO: knows no socket and no clock.

States of a line: kept (made, not sent on this connection) -> sent (awaiting its reply) -> gone
(`ok` or `rejected`). A lost connection puts every sent line back to kept, in order, so a line
whose `ok` was lost goes out twice; same device and time make it one and the same observation.

A bed without replies has no memory, like most monitors: what it makes while unconnected is lost.

Law: holds at most ``lines_max`` lines; beyond it the oldest goes, and is counted.
"""

from collections import deque
from typing import Final

# An hour of one bed at one sample a second.
LINES_MAX: Final = 3600
# Lines sent and not answered; beyond it the bed waits, as a gateway that is behind wants it to.
WINDOW_LINES: Final = 256
REPLY_BYTES_MAX: Final = 4096


class Ledger:
    """The lines of one bed. Without ``replies`` a line is gone once it was handed over."""

    def __init__(self, *, replies: bool, lines_max: int = LINES_MAX) -> None:
        """Start empty; with ``replies`` the peer answers each line."""
        if lines_max <= WINDOW_LINES:
            raise ValueError(f"lines_max must be over the window of {WINDOW_LINES} lines")
        self._replies = replies
        self._max = lines_max
        self._kept: deque[str] = deque()
        self._sent: deque[str] = deque()
        self._half = b""
        self.made = self.sent = self.acked = self.rejected = self.dropped = self.strays = 0

    def __len__(self) -> int:
        """Return how many lines are held."""
        return len(self._kept) + len(self._sent)

    def add(self, body: str) -> None:
        """Hold a new line."""
        self.made += 1
        self._kept.append(body)
        while len(self) > self._max:
            # never a sent one: its reply would be taken for its neighbour's
            self._kept.popleft()
            self.dropped += 1

    def take(self) -> str | None:
        """Return the next line to send, or None; it now awaits its reply."""
        if not self._kept or len(self._sent) >= WINDOW_LINES:
            return None
        body = self._kept.popleft()
        self.sent += 1
        if self._replies:
            self._sent.append(body)
        return body

    def heard(self, data: bytes) -> None:
        """Take bytes of replies; each whole line answers the oldest line sent."""
        *lines, self._half = (self._half + data).split(b"\n")
        self._half = self._half[:REPLY_BYTES_MAX]
        for line in lines:
            word = line.split(maxsplit=1)[:1]
            if not self._replies or word not in ([b"ok"], [b"rejected"]) or not self._sent:
                self.strays += 1
                continue
            self._sent.popleft()
            if word == [b"ok"]:
                self.acked += 1
            else:
                self.rejected += 1

    def disconnected(self) -> None:
        """Put what awaits a reply back in front, in its order."""
        self._half = b""
        self._kept.extendleft(reversed(self._sent))
        self._sent.clear()

    def connected(self) -> None:
        """Begin a connection; without replies, what was made in between is gone, and counted."""
        if not self._replies:
            self.dropped += len(self._kept)
            self._kept.clear()

"""Which frame goes next, and what the cloud still owes an answer for.

Law: sans-IO. Live frames always go before stored ones; stored ones leave a quarter of the credit
and all but a megabyte of the line to live; no frame is sent twice in one session; an
acknowledgement counts only for a frame that this session sent.

A session begins with `open` and `connect`: what is stored by then is backlog, what is committed
after is live and comes by `offer` from memory. Live frames that outgrow their
memory become backlog again.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from edge.spool import Held

LIVE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Live frames kept in memory while the line is slow; beyond it they are read back from disk."""

BACKLOG_BYTES_IN_FLIGHT: Final = 1024 * 1024
"""Stored bytes on the line at once: at 10 Mbit/s a live frame waits under a second behind them."""

BACKLOG_FRAMES_READ: Final = 32
"""Frames of one read from disk: bounds how long live waits for it."""


class Wanted(NamedTuple):
    """A read of the backlog: ids in (after, last], at most so many frames and bytes."""

    after: int
    last: int
    bytes_max: int
    count_max: int


class Outbox:
    """State of sending within one session after another."""

    def __init__(self, live_bytes_max: int = LIVE_BYTES_MAX) -> None:
        """Start without a session."""
        self._live_bytes_max = live_bytes_max
        self.connected = False
        self._reset()

    def _reset(self) -> None:
        self._credit = 0
        self._horizon = 0
        self._live: deque[Held] = deque()
        self._live_bytes = 0
        self._segments: deque[tuple[int, int]] = deque()
        self._low: dict[str, int] = {}
        self._in_flight: dict[str, dict[int, int]] = {}  # epoch -> seq -> backlog bytes
        self._in_flight_count = 0
        self._backlog_bytes = 0

    def open(self) -> None:
        """Begin to keep what is offered; call before asking the disk what it holds."""
        self._reset()
        self.connected = True

    def connect(self, last_id: int, lowest: dict[str, int], credit: int) -> None:
        """Begin to send: ``last_id`` stored, ``lowest`` sequence number of each epoch there."""
        self._horizon = last_id
        offered, self._live, self._live_bytes = self._live, deque(), 0
        self.offer(offered)
        self._credit = credit
        if last_id:
            self._segments.append((0, last_id))
            self._low = dict(lowest)

    def disconnect(self) -> None:
        """End the session; what was not acknowledged is backlog of the next."""
        self.connected = False
        self._reset()

    def offer(self, frames: Iterable[Held]) -> None:
        """Take frames just committed; outside a session they are on disk anyway."""
        if not self.connected:
            return
        for frame in frames:
            if frame.id > self._horizon:  # else it is in the backlog that `connect` saw
                self._live.append(frame)
                self._live_bytes += len(frame.data)
        if self._live_bytes > self._live_bytes_max:
            self._spill()

    def _spill(self) -> None:
        self._segments.append((self._live[0].id - 1, self._live[-1].id))
        for frame in self._live:
            self._low.setdefault(frame.epoch, frame.seq)
        self._live.clear()
        self._live_bytes = 0

    def set_credit(self, credit: int) -> None:
        """Take how many frames may be unacknowledged; 0 halts."""
        self._credit = credit

    @property
    def in_flight(self) -> int:
        """Return how many frames await their acknowledgement."""
        return self._in_flight_count

    def next_live(self) -> Held | None:
        """Return the next live frame to send now, or None."""
        if not self._live or self._in_flight_count >= self._credit:
            return None
        frame = self._live.popleft()
        self._live_bytes -= len(frame.data)
        return frame

    def wanted(self) -> Wanted | None:
        """Return what to read of the backlog now, or None when there is none or no room."""
        room = self._credit - self._credit // 4 - self._in_flight_count
        if not self._segments or self._live or room <= 0:
            return None
        room_bytes = BACKLOG_BYTES_IN_FLIGHT - self._backlog_bytes
        if room_bytes <= 0:
            return None
        after, last = self._segments[0]
        return Wanted(after, last, room_bytes, min(room, BACKLOG_FRAMES_READ))

    def read(self, wanted: Wanted, frames: list[Held]) -> None:
        """Note what a read returned; an empty one ends its part of the backlog."""
        if frames:
            self._segments[0] = (frames[-1].id, wanted.last)
        if not frames or frames[-1].id >= wanted.last:
            self._segments.popleft()

    def sent(self, frame: Held, *, backlog: bool) -> int:
        """Note a frame as in flight; return its floor (every lower seq is acknowledged)."""
        flight = self._in_flight.setdefault(frame.epoch, {})
        flight[frame.seq] = size = len(frame.data) if backlog else 0
        self._in_flight_count += 1
        self._backlog_bytes += size
        floor = min(*flight, self._low.get(frame.epoch, frame.seq))
        if backlog:
            self._low[frame.epoch] = frame.seq + 1
        return floor

    def caught_up(self) -> None:
        """Note that everything read was sent; with no backlog left floors follow flight alone."""
        if not self._segments:
            self._low.clear()

    def acked(self, epoch: str, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take an acknowledgement; return the ranges of frames that were really in flight."""
        flight = self._in_flight.get(epoch)
        if not flight:
            return []
        found: list[int] = []
        for low, high in ranges:
            if high - low < len(flight):
                found += [seq for seq in range(low, high + 1) if seq in flight]
            else:
                found += [seq for seq in flight if low <= seq <= high]
        merged: list[tuple[int, int]] = []
        for seq in sorted(set(found)):
            self._backlog_bytes -= flight.pop(seq)
            self._in_flight_count -= 1
            if merged and merged[-1][1] == seq - 1:
                merged[-1] = (merged[-1][0], seq)
            else:
                merged.append((seq, seq))
        if not flight:
            del self._in_flight[epoch]
        return merged

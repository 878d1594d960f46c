"""Which frame goes next, and what the cloud still owes an answer for.

Law: sans-IO. Live frames always go before late ones; late ones leave a quarter of the credit and
keep to the pace; no frame is sent twice in one session; an acknowledgement counts only for a frame
that this session sent; a frame of a key that the cloud has not is never sent.

A session begins with `open` and `connect`: what is stored by then is late, what is committed after
is live and comes by `offer` from memory. Live frames that outgrow their memory become late again.
Late parts are ranges of ids; ids go up with sequence numbers within an epoch.
"""

from collections import deque
from collections.abc import Collection, Iterable
from typing import Final, Literal, NamedTuple

from edge.backlog import Held, Stored
from edge.pace import Pace

LIVE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Live frames kept in memory while the line is slow; beyond it they are read back from disk."""

LATE_FRAMES_READ: Final = 32
"""Frames of one read from disk: bounds how long live waits for it."""

Order = Literal["oldest-first", "newest-first"]


class Wanted(NamedTuple):
    """A read of stored frames: ids in (after, last], at most so many frames and bytes."""

    after: int
    last: int
    bytes_max: int
    count_max: int
    newest_first: bool = False


class _Flight(NamedTuple):
    late: bool
    size: int
    since_s: float
    """When a live frame was committed, when a late one was sent."""


class _Live(NamedTuple):
    frame: Held
    since_s: float


class Outbox:
    """State of sending within one session after another."""

    def __init__(self, order: Order = "oldest-first", live_bytes_max: int = LIVE_BYTES_MAX) -> None:
        """Start without a session."""
        self.order: Order = order
        self._live_bytes_max = live_bytes_max
        self.connected = False
        self._reset(0.0)

    def _reset(self, now_s: float) -> None:
        self._credit = 0
        self._horizon = 0
        self._live: deque[_Live] = deque()
        self._live_bytes = 0
        self._segments: deque[tuple[int, int]] = deque()
        self._low: dict[str, int] = {}
        self._in_flight: dict[str, dict[int, _Flight]] = {}
        self._in_flight_count = 0
        self._late_bytes = 0
        self._withheld: Collection[str] = ()
        self._took: list[float] = []
        self.late_left = 0
        """Frames that wait to be sent late, or for the answer to that."""
        self.pace = Pace(now_s)

    def open(self, now_s: float) -> None:
        """Begin to keep what is offered; call before asking the disk what it holds."""
        self._reset(now_s)
        self.connected = True

    def connect(self, stored: Stored, credit: int, withheld: Collection[str] = ()) -> None:
        """Begin to send; ``withheld`` are epochs whose key the cloud has not."""
        self._horizon = stored.last_id
        self._withheld = withheld
        # What outgrew its memory before now is mostly among what is stored; the rest comes after.
        later = [(max(low, stored.last_id), high) for low, high in self._segments]
        later = [(low, high) for low, high in later if low < high]
        self._segments = deque([(0, stored.last_id)] if stored.last_id else [])
        self._segments.extend(later)
        self._low = {
            epoch: seq
            for epoch, seq in {**self._low, **stored.lowest}.items()
            if epoch not in withheld
        }
        self.late_left = stored.frames + sum(high - low for low, high in later)
        offered, self._live, self._live_bytes = self._live, deque(), 0
        for frame, since_s in offered:
            self.offer([frame], since_s)
        self._credit = credit

    def disconnect(self) -> None:
        """End the session; what was not acknowledged is late in the next."""
        self.connected = False
        self._reset(0.0)

    def offer(self, frames: Iterable[Held], now_s: float) -> None:
        """Take frames just committed; outside a session they are on disk anyway."""
        if not self.connected:
            return
        for frame in frames:
            # Else it is in the part that `connect` saw, or waits for another key.
            if frame.id > self._horizon and frame.epoch not in self._withheld:
                self._live.append(_Live(frame, now_s))
                self._live_bytes += len(frame.data)
        if self._live_bytes > self._live_bytes_max:
            self._spill()

    def _spill(self) -> None:
        self._segments.append((self._live[0].frame.id - 1, self._live[-1].frame.id))
        for frame, _ in self._live:
            self._low.setdefault(frame.epoch, frame.seq)
        self.late_left += len(self._live)
        self._live.clear()
        self._live_bytes = 0

    def set_credit(self, credit: int) -> None:
        """Take how many frames may be unacknowledged; 0 halts."""
        self._credit = credit

    @property
    def in_flight(self) -> int:
        """Return how many frames await their acknowledgement."""
        return self._in_flight_count

    def next_live(self) -> _Live | None:
        """Return the next live frame to send now and since when it waits, or None."""
        if not self._live or self._in_flight_count >= self._credit:
            return None
        live = self._live.popleft()
        self._live_bytes -= len(live.frame.data)
        return live

    def wanted(self) -> Wanted | None:
        """Return what to read from the disk now, or None when there is nothing or no room."""
        room = self._credit - self._credit // 4 - self._in_flight_count
        if not self._segments or self._live or room <= 0:
            return None
        room_bytes = self.pace.window - self._late_bytes
        if room_bytes <= 0:
            return None
        newest = self.order == "newest-first"
        after, last = self._segments[-1 if newest else 0]
        return Wanted(after, last, room_bytes, min(room, LATE_FRAMES_READ), newest)

    def read(self, wanted: Wanted, frames: list[Held]) -> list[Held]:
        """Note what a read returned; return what of it is to be sent. An empty one ends its part.

        New parts may have come behind the one that was read, never in front of it.
        """
        at = self._segments.index((wanted.after, wanted.last))
        after, last = wanted.after, wanted.last
        if frames:
            if wanted.newest_first:
                last = frames[-1].id - 1
            else:
                after = frames[-1].id
        if frames and after < last:
            self._segments[at] = (after, last)
        else:
            del self._segments[at]
        kept = [frame for frame in frames if frame.epoch not in self._withheld]
        self.late_left -= len(frames) - len(kept)
        return kept

    def sent(self, frame: Held, since_s: float, *, late: bool) -> int:
        """Note a frame as in flight; return its floor (every lower seq is acknowledged)."""
        size = len(frame.data) if late else 0
        flight = self._in_flight.setdefault(frame.epoch, {})
        flight[frame.seq] = _Flight(late, size, since_s)
        self._in_flight_count += 1
        self._late_bytes += size
        # Oldest first the lowest stored one moves up; newest first it is sent at the very end.
        floor = min(*flight, self._low.get(frame.epoch, frame.seq))
        if late and self.order == "oldest-first":
            self._low[frame.epoch] = frame.seq + 1
        return floor

    def caught_up(self) -> None:
        """Note that everything read was sent; with nothing late floors follow flight alone."""
        if not self._segments:
            self._low.clear()

    def acked(
        self, epoch: str, ranges: Iterable[tuple[int, int]], now_s: float
    ) -> list[tuple[int, int]]:
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
            self._answered(flight.pop(seq), now_s)
            if merged and merged[-1][1] == seq - 1:
                merged[-1] = (merged[-1][0], seq)
            else:
                merged.append((seq, seq))
        if not flight:
            del self._in_flight[epoch]
        return merged

    def _answered(self, one: _Flight, now_s: float) -> None:
        self._in_flight_count -= 1
        took_s = max(0.0, now_s - one.since_s)
        if not one.late:
            self._took.append(took_s)
        if one.late:
            self._late_bytes -= one.size
            self.late_left -= 1
            self.pace.late(took_s, one.size, now_s)
        else:
            self.pace.live(took_s, now_s)

    def took(self) -> list[float]:
        """Return how long live frames took from commit to acknowledgement, since the last call."""
        took, self._took = self._took, []
        return took

    def passed_over(self, frames: int) -> None:
        """Note stored frames that will never be handed out: they are damaged."""
        self.late_left -= frames

    def eta_s(self, now_s: float) -> float | None:
        """Return in how many seconds nothing will be late, 0.0 now, None when that is not known."""
        if self.late_left <= 0:
            return 0.0
        rate = self.pace.rate(now_s)
        return self.late_left / rate if rate > 0 else None

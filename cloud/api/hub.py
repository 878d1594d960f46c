"""The live stream: one board, many stations, none of which can hold up another.

Law: numbers are the latest state, sent at once and then at most every PACE_MS for a bed; alarms
are sent at once, each event with an id. A station that does not read is closed, not waited for:
it comes back and gets a whole snapshot, so there is nothing to resume.

Events: ``state`` (id; whole snapshot), ``beds`` (tiles that changed), ``alert`` (id; one bed's
tile), ``heartbeat`` (every HEARTBEAT_S, a real event, so that the page can see silence).
"""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import trio

from cloud.api.board import Bed, Board
from cloud.api.metrics import Metrics
from cloud.api.tokens import Principal
from cloud.records import LiveUpdate

PACE_MS: Final = 250.0
HEARTBEAT_S: Final = 2.0

# Many beds' readings arrive within a frame of the gateway: one event for all of them.
GATHER_S: Final = 0.004

# The snapshot is sent again so that whatever went wrong heals by itself.
RESTATE_S: Final = 60.0

# Events one station may be behind: some ten seconds of a busy ward.
QUEUE_MAX: Final = 64

_encoder: Final = msgspec.json.Encoder()


class Station:
    """One connected page."""

    def __init__(self, principal: Principal) -> None:
        """Take who is looking."""
        self.principal = principal
        self.send, self.receive = trio.open_memory_channel[bytes](QUEUE_MAX)


class Hub:
    """Feeds stations from the board."""

    def __init__(
        self,
        metrics: Metrics,
        now_ms: Callable[[], int],
        mono_ms: Callable[[], float],
        boot: str,
    ) -> None:
        """Take the clocks; ``boot`` makes event ids of this process its own."""
        self.board = Board()
        self._metrics = metrics
        self._now_ms = now_ms
        self._mono_ms = mono_ms
        self._boot = boot
        self._numbers = itertools.count(1)
        self._stations: set[Station] = set()
        self._dirty: set[str] = set()
        self._paced: dict[str, float] = {}
        self._moved = False
        self._wake = trio.Event()
        self.live = False
        """True while Redis's live channel is heard."""

    # from the feed

    def receive(self, updates: list[LiveUpdate]) -> None:
        """Take updates in; alarms go out before this returns."""
        now, mono = self._now_ms(), self._mono_ms()
        for update in updates:
            changed, moved = self.board.apply(update, now, mono)
            if not changed:
                continue
            self._moved |= moved
            self._dirty.add(update.subject)
            if update.alert is not None:
                self._alarm(self.board.beds[update.subject])
        self._wake.set()

    def set_live(self, *, live: bool) -> None:
        """Say whether the live channel is heard; the pages are told at once."""
        self._metrics.live_feed.set(live)
        if live != self.live:
            self.live = live
            self._heartbeat()

    def restate(self) -> None:
        """Send everybody a snapshot soon."""
        self._moved = True
        self._wake.set()

    # to the stations

    async def serve(
        self, principal: Principal, lifetime_s: float, send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Send one station its events until it is cancelled, lags or its session ends."""
        station = Station(principal)
        self._offer(station, b"retry: 1000\n\n" + self._state_event(principal))
        self._stations.add(station)
        self._metrics.sse_clients.set(len(self._stations))
        try:
            with trio.move_on_after(lifetime_s):
                async for event in station.receive:
                    await send(event)
        finally:
            self._leave(station)

    def close(self) -> None:
        """End every stream."""
        for station in list(self._stations):
            self._leave(station)

    def snapshot(self, principal: Principal) -> bytes:
        """Return the state a station may see, as JSON."""
        now, mono = self._now_ms(), self._mono_ms()
        beds = [
            self.board.tile(bed, now, mono, history=True)
            for bed in self.board.visible(mono)
            if principal.sees(bed.ward)
        ]
        return _encoder.encode(
            {"at": round(mono), "now": now, "live": self.live, "user": principal.subject,
             "beds": beds}
        )  # fmt: skip

    async def run(self) -> None:
        """Send what changed, at its pace; heartbeats and snapshots in between."""
        beat, restated = self._mono_ms(), self._mono_ms()
        while True:
            mono = self._mono_ms()
            if mono >= beat:
                beat = mono + HEARTBEAT_S * 1000
                self._heartbeat()
            if self._moved or mono >= restated + RESTATE_S * 1000:
                self._moved = False
                restated = mono
                self._dirty.clear()
                for station in list(self._stations):
                    self._offer(station, self._state_event(station.principal))
            self._flush(mono)
            due = min([beat, *(self._paced[s] for s in self._dirty)])
            with trio.move_on_after(max(0.0, due - self._mono_ms()) / 1000):
                await self._wake.wait()
                await trio.sleep(GATHER_S)
            self._wake = trio.Event()

    def _flush(self, mono: float) -> None:
        ready = {s for s in self._dirty if self._paced.get(s, 0.0) <= mono}
        if not ready:
            return
        self._dirty -= ready
        self._paced |= dict.fromkeys(ready, mono + PACE_MS)
        beds = [bed for bed in self.board.visible(mono) if bed.subject in ready]
        self._tell("beds", "", beds)

    def _alarm(self, bed: Bed) -> None:
        self._tell("alert", self._id(), [bed])

    def _tell(self, event: str, ident: str, beds: list[Bed]) -> None:
        if not self._stations or not beds:
            return
        now, mono = self._now_ms(), self._mono_ms()
        tiles = [(bed.ward, _encoder.encode(self.board.tile(bed, now, mono))) for bed in beds]
        head = b'{"at":%d,"now":%d,"beds":[' % (round(mono), now)
        made: dict[frozenset[str], bytes] = {}
        for station in list(self._stations):
            wards = station.principal.wards
            if wards not in made:
                seen = [tile for ward, tile in tiles if station.principal.sees(ward)]
                made[wards] = head + b",".join(seen) + b"]}" if seen else b""
            if made[wards]:
                self._offer(station, _event(event, ident, made[wards]))

    def _heartbeat(self) -> None:
        body = {"at": round(self._mono_ms()), "now": self._now_ms(), "live": self.live}
        event = _event("heartbeat", "", _encoder.encode(body))
        for station in list(self._stations):
            self._offer(station, event)

    def _state_event(self, principal: Principal) -> bytes:
        return _event("state", self._id(), self.snapshot(principal))

    def _id(self) -> str:
        return f"{self._boot}-{next(self._numbers)}"

    def _offer(self, station: Station, event: bytes) -> None:
        try:
            station.send.send_nowait(event)
        except trio.WouldBlock:
            self._metrics.sse_dropped.inc()
            self._leave(station)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            self._leave(station)

    def _leave(self, station: Station) -> None:
        self._stations.discard(station)
        station.send.close()
        self._metrics.sse_clients.set(len(self._stations))


def _event(name: str, ident: str, data: bytes) -> bytes:
    head = f"id: {ident}\nevent: {name}\n" if ident else f"event: {name}\n"
    return head.encode() + b"data: " + data + b"\n\n"


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON."""
    return _encoder.encode(value)

"""The session with ingest over a websocket to this gateway's own HAProxy, which adds mTLS.

Law: collection never depends on the link. Whatever goes wrong here ends one session, is logged,
and is tried again after a bounded, jittered pause; only acknowledged frames leave the spool.
The only module that imports trio_websocket. It closes the websocket and its reader of the spool
when the session ends; `run` itself returns only when cancelled. What is said is decided by
`edge.link`, what goes next by `edge.outbox`.
"""

import random
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
import trio_websocket

from edge import metrics
from edge.commit import Committer
from edge.link import Acked, Event, Link, Measured, Offered, Opened, Room
from edge.outbox import Order, Outbox, Wanted
from edge.spool import Backlog, Held, is_damage
from healthsync import __version__
from healthsync.runtime.log import Log
from vitals import limits
from vitals.epoch import WrappedEpoch
from vitals.errors import SessionError
from vitals.session import Settings

PING_S: Final = 2.0
SILENCE_S_MAX: Final = 10.0
"""No message of ingest for this long (five heartbeats): the session is dead."""

OPENING_S_MAX: Final = 10.0
"""Each for the connection, the websocket's handshake and ingest's Welcome."""

HOST: Final = "127.0.0.1"
PATH: Final = "/uplink"

BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_MAX: Final = 5.0

STEADY_S: Final = 2.0
"""A session this long was a good one: the next pause is short again. Sessions that end at once (two
gateways under one name, a defect) are tried ever less often."""

_OVER: Final = (
    OSError,
    sqlite3.Error,
    SessionError,
    trio.TooSlowError,
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
)


def backoff_s(attempt: int, jitter: float) -> float:
    """Return the pause before try ``attempt`` (from 0); ``jitter`` in 0..1 spreads it by half."""
    full = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(attempt, 16))
    return full * (0.5 + 0.5 * jitter)


def _nobody(_off_ms: float, _delay_ms: float) -> None:
    pass


async def _nothing_pushed(_settings: Settings) -> tuple[str, str]:
    return "refused", "this gateway takes no settings from the cloud"


class Uplink:
    """Sends what the committer stored; give it the committer's ``stored`` calls by `offer`."""

    def __init__(
        self,
        edge: str,
        port: int,
        spool: Path,
        committer: Committer,
        log: Log,
        now_ms: Callable[[], int],
        order: Order = "oldest-first",
    ) -> None:
        """Nothing is opened before `run`."""
        self._spool, self._committer = spool, committer
        self._port = port
        self._log, self._now_ms = log, now_ms
        self._outbox = Outbox(order)
        self._link = Link(edge, __version__, self._outbox)
        self._wake = trio.Event()
        self._heard = 0.0
        self.attempt = 0
        self.withheld = 0
        """Epochs whose frames wait: the cloud has not the key that they are wrapped to."""
        self.settings_version = 0
        """Of the pushed settings in use."""
        self.pushed: Callable[[Settings], Awaitable[tuple[str, str]]] = _nothing_pushed
        """Called with pushed settings; returns outcome and detail (`vitals.session.Outcome`)."""
        self._outcomes: list[tuple[int, str, str]] = []
        self.measured: Callable[[float, float], None] = _nobody
        """Called with the cloud's clock minus this one's, and the delay, in milliseconds."""

    def offer(self, frames: list[Held], epoch: WrappedEpoch) -> None:
        """Take frames that were just committed; they go out at once if a session is open."""
        if not self._link.offer(frames, epoch, trio.current_time()):
            self._withhold(frozenset({epoch.epoch}))
        self._wake.set()

    def set_order(self, order: Order) -> None:
        """Change which late frames go first, from the next read on."""
        self._outbox.order = order

    def clock_moved(self) -> None:
        """Forget what was measured: this gateway's clock is another one now."""
        self._link.clock_moved()

    def tell_outcome(self, version: int, outcome: str, detail: str = "") -> None:
        """Tell ingest what became of settings, in this session or the next."""
        self._outcomes.append((version, outcome, detail))
        self._wake.set()

    def progress(self) -> tuple[int, float | None]:
        """Return how many frames are late, and in how many seconds none will be (None: unknown)."""
        if not self._outbox.connected:
            return 0, None
        return self._outbox.late_left, self._outbox.eta_s(trio.current_time())

    async def run(self) -> None:
        """Hold one session after another, for ever."""
        while True:
            began = trio.current_time()
            reason = await self._try()
            metrics.LINK_UP.set(0)
            metrics.IN_FLIGHT.set(0)
            self._link.end()
            if trio.current_time() - began > STEADY_S:
                self.attempt = 0
            # The jitter keeps gateways apart after an outage; it needs no secrecy.
            pause = backoff_s(self.attempt, random.random())  # noqa: S311
            self._log.warning("uplink-down", reason=reason, retry_s=round(pause, 2))
            self.attempt += 1
            await trio.sleep(pause)

    async def _try(self) -> str:
        reasons: list[str] = []
        try:
            await self._session()
        except* _OVER as group:
            # What ingest said comes before what a sender met in the same moment.
            found = sorted(leaves(group), key=lambda error: not isinstance(error, SessionError))
            reasons += [_reason(error) for error in found]
            if any(isinstance(error, sqlite3.Error) and is_damage(error) for error in found):
                self._committer.suspect()
        except* Exception as group:  # noqa: BLE001 - the reason is in the next line
            # A defect here ends a session, never the collection.
            for error in leaves(group):
                self._log.crash("uplink-crashed", error)
            reasons.append("crashed")
        return reasons[0] if reasons else "closed"

    async def _session(self) -> None:
        with trio.fail_after(OPENING_S_MAX):
            stream = await trio.open_tcp_stream(HOST, self._port)
        try:
            await self._committer.session_opens()
            await self._with_backlog(stream)
        finally:
            self._committer.session_ended(self._link.highest_sent())
            # trio_websocket leaves its stream open when it is cancelled.
            await trio.aclose_forcefully(stream)

    async def _with_backlog(self, stream: trio.SocketStream) -> None:
        backlog = Backlog(self._spool)
        try:
            await self._over(stream, backlog)
        finally:
            backlog.close()

    async def _over(self, stream: trio.SocketStream, backlog: Backlog) -> None:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(OPENING_S_MAX):
                websocket = await trio_websocket.wrap_client_stream(
                    nursery,
                    stream,
                    f"{HOST}:{self._port}",
                    PATH,
                    max_message_size=limits.SESSION_MESSAGE_BYTES_MAX,
                )
            await self._talk(websocket, backlog)

    async def _talk(self, websocket: Any, backlog: Backlog) -> None:
        await self._committer.flush_acks()
        epochs, waiting = await trio.to_thread.run_sync(
            lambda: (backlog.epochs(), backlog.waiting())
        )
        known = {epoch.epoch: epoch for epoch in [*epochs, self._committer.epoch]}
        link = self._link
        hello = link.greet(known.values(), waiting, self.settings_version, trio.current_time())
        opened = None
        with trio.fail_after(OPENING_S_MAX):
            await websocket.send_message(hello)
            while opened is None:
                opened = self._take(await websocket.get_message())
        if not isinstance(opened, Opened):
            raise SessionError("ingest did not open the session")
        for epoch, ranges in opened.resume:
            self._committer.acked(epoch, ranges)
        await self._committer.flush_acks()
        self._withhold(opened.withheld)
        link.begin(await trio.to_thread.run_sync(backlog.stored), opened.withheld)
        self._heard = trio.current_time()
        metrics.LINK_UP.set(1)
        metrics.SESSIONS.inc()
        self._log.info("uplink-up", epochs=len(known), resumed=len(opened.resume))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, websocket)
            nursery.start_soon(self._heartbeat, websocket)
            nursery.start_soon(self._listen_for_silence)
            nursery.start_soon(self._send, websocket, backlog)

    def _withhold(self, epochs: frozenset[str]) -> None:
        self.withheld = len(epochs)
        metrics.WITHHELD.set(self.withheld)
        if epochs:
            self._log.error("frames-withheld-no-key", epochs=len(epochs))

    def _take(self, message: bytes | str) -> Event | None:
        return self._link.receive(message, self._now_ms(), trio.current_time())

    async def _receive(self, websocket: Any) -> None:
        while True:
            event = self._take(await websocket.get_message())
            self._heard = trio.current_time()
            match event:
                case Acked():
                    self._committer.acked(event.epoch, event.ranges)
                    metrics.FRAMES_ACKED.inc(sum(high - low + 1 for low, high in event.ranges))
                    for took_s in self._outbox.took():
                        metrics.LIVE_SECONDS.observe(took_s)
                    metrics.IN_FLIGHT.set(self._outbox.in_flight)
                    self._wake.set()
                case Measured():
                    self.measured(event.offset_ms, event.delay_ms)
                case Offered():
                    version = event.settings.version
                    self.tell_outcome(version, *await self.pushed(event.settings))
                case Room():
                    self._wake.set()
                case _:
                    pass

    async def _heartbeat(self, websocket: Any) -> None:
        while True:
            await websocket.send_message(self._link.ping(self._now_ms()))
            left, eta_s = self.progress()
            metrics.LATE_FRAMES.set(left)
            metrics.LATE_ETA_S.set(-1 if eta_s is None else eta_s)
            metrics.LATE_WINDOW_BYTES.set(self._outbox.pace.window)
            await trio.sleep(PING_S)

    async def _listen_for_silence(self) -> None:
        # Apart from the heartbeat, whose send blocks when the peer does not read.
        while True:
            await trio.sleep(PING_S)
            if self._committer.upkeep.salvaged:
                self._committer.upkeep.salvaged = False
                raise SessionError("salvaged frames are waiting; the session begins again")
            if trio.current_time() - self._heard > SILENCE_S_MAX:
                raise SessionError(f"no message of ingest for {SILENCE_S_MAX:.0f} s")

    async def _send(self, websocket: Any, backlog: Backlog) -> None:
        while True:
            self._wake = trio.Event()
            while self._outcomes:
                await websocket.send_message(self._link.outcome(*self._outcomes[0]))
                del self._outcomes[0]
            await self._send_live(websocket)
            wanted = self._outbox.wanted()
            if wanted is None:
                await self._wake.wait()
                continue
            frames = await trio.to_thread.run_sync(partial(_read, backlog, wanted))
            if backlog.unsound:
                self._committer.unsound(backlog.unsound)
                self._outbox.passed_over(len(backlog.unsound))
                backlog.unsound = []
            for frame in self._outbox.read(wanted, frames):
                await self._send_live(websocket)
                await self._send_frame(websocket, frame, trio.current_time(), late=True)
            self._outbox.caught_up()

    async def _send_live(self, websocket: Any) -> None:
        while (live := self._outbox.next_live()) is not None:
            await self._send_frame(websocket, live.frame, live.since_s, late=False)

    async def _send_frame(self, websocket: Any, frame: Held, since_s: float, *, late: bool) -> None:
        self._committer.sent(frame, again=self._link.was_sent(frame))
        for message in self._link.data(frame, since_s, late=late):
            await websocket.send_message(message)
        metrics.FRAMES_SENT.labels("backlog" if late else "live").inc()
        metrics.IN_FLIGHT.set(self._outbox.in_flight)


def _read(backlog: Backlog, wanted: Wanted) -> list[Held]:
    return backlog.after(
        wanted.after,
        wanted.last,
        wanted.bytes_max,
        wanted.count_max,
        newest_first=wanted.newest_first,
    )


def leaves(error: BaseException) -> list[BaseException]:
    """Return the single errors of a group, however deep; of any other error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in leaves(part)]


def _reason(error: BaseException) -> str:
    """Return what ended the session, without addresses or anything a peer wrote."""
    return str(error) if isinstance(error, SessionError) else type(error).__name__

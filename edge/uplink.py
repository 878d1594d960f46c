"""The session with ingest over a websocket to this gateway's own HAProxy, which adds mTLS.

Law: collection never depends on the link. Whatever goes wrong here ends one session, is logged,
and is tried again after a bounded, jittered pause; only acknowledged frames leave the spool.
The only module that imports trio_websocket. It closes the websocket and its reader of the spool
when the session ends; `run` itself returns only when cancelled.
"""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio
import trio_websocket

from edge import metrics
from edge.commit import Committer
from edge.outbox import Outbox
from edge.spool import Backlog, Held, is_damage
from healthsync import __version__
from healthsync.runtime.log import Log
from vitals import limits, session
from vitals.epoch import WrappedEpoch
from vitals.errors import SessionError
from vitals.session import Ack, Close, Credit, Data, Epoch, Hello, Ping, Pong, Welcome

PING_S: Final = 2.0
SILENCE_S_MAX: Final = 10.0
"""No message of ingest for this long (five heartbeats): the session is dead."""

OPENING_S_MAX: Final = 10.0
"""Each for the connection, the websocket's handshake and ingest's Welcome."""

HOST: Final = "127.0.0.1"
PATH: Final = "/uplink"

BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_MAX: Final = 5.0

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


def clock_offset_ms(pong: Pong, now_ms: int) -> float:
    """Return the cloud's clock minus this one's (RFC 5905 section 8: ((T2-T1)+(T3-T4))/2)."""
    return ((pong.arrived_ms - pong.sent_ms) + (pong.answered_ms - now_ms)) / 2


def _nobody(_off_ms: float) -> None:
    pass


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
    ) -> None:
        """Nothing is opened before `run`."""
        self._edge, self._spool, self._committer = edge, spool, committer
        self._port = port
        self._log, self._now_ms = log, now_ms
        self._outbox = Outbox()
        self._epochs: dict[str, WrappedEpoch] = {}
        self._told: set[str] = set()
        self._wake = trio.Event()
        self._heard = 0.0
        self._sent: dict[str, int] = {}
        """Epoch -> highest sequence number sent in any session: below it nothing is folded."""
        self.attempt = 0
        self.measured: Callable[[float], None] = _nobody
        """Called with the cloud's clock minus this one's, in milliseconds."""

    def offer(self, frames: list[Held], epoch: WrappedEpoch) -> None:
        """Take frames that were just committed; they go out at once if a session is open."""
        self._epochs[epoch.epoch] = epoch
        self._outbox.offer(frames)
        self._wake.set()

    async def run(self) -> None:
        """Hold one session after another, for ever."""
        while True:
            reason = await self._try()
            metrics.LINK_UP.set(0)
            metrics.IN_FLIGHT.set(0)
            self._outbox.disconnect()
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
            found = leaves(group)
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
            self._committer.session_ended(self._sent)
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
        self._outbox.open()
        last_id, lowest, epochs = await trio.to_thread.run_sync(
            lambda: (backlog.last_id(), backlog.lowest(), backlog.epochs())
        )
        known = {epoch.epoch: epoch for epoch in [*epochs, self._committer.epoch]}
        self._epochs, self._told = known, set(known)
        hello = Hello(session.PROTOCOL, self._edge, __version__, list(known.values()))
        with trio.fail_after(OPENING_S_MAX):
            await websocket.send_message(session.encode(hello))
            welcome = session.decode_cloud(await websocket.get_message())
        if isinstance(welcome, Close):
            raise SessionError(f"ingest closed: {_code(welcome)}")
        if not isinstance(welcome, Welcome):
            raise SessionError("ingest did not answer Hello with Welcome")
        self._outbox.connect(last_id, lowest, welcome.credit)
        self._heard = trio.current_time()
        self.attempt = 0
        metrics.LINK_UP.set(1)
        metrics.SESSIONS.inc()
        self._log.info("uplink-up", epochs=len(known), credit=welcome.credit)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, websocket)
            nursery.start_soon(self._heartbeat, websocket)
            nursery.start_soon(self._listen_for_silence)
            nursery.start_soon(self._send, websocket, backlog)

    async def _receive(self, websocket: Any) -> None:
        while True:
            message = session.decode_cloud(await websocket.get_message())
            self._heard = trio.current_time()
            match message:
                case Ack():
                    acked = self._outbox.acked(message.epoch, message.ranges)
                    self._committer.acked(message.epoch, acked)
                    metrics.FRAMES_ACKED.inc(sum(high - low + 1 for low, high in acked))
                    metrics.IN_FLIGHT.set(self._outbox.in_flight)
                    self._wake.set()
                case Credit():
                    self._outbox.set_credit(message.credit)
                    self._wake.set()
                case Pong():
                    off_ms = clock_offset_ms(message, self._now_ms())
                    metrics.CLOCK_OFFSET_MS.set(off_ms)
                    self.measured(off_ms)
                case Close():
                    raise SessionError(f"ingest closed: {_code(message)}")
                case Welcome():
                    raise SessionError("ingest sent a second Welcome")

    async def _heartbeat(self, websocket: Any) -> None:
        while True:
            await websocket.send_message(session.encode(Ping(self._now_ms())))
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
            await self._send_live(websocket)
            wanted = self._outbox.wanted()
            if wanted is None:
                await self._wake.wait()
                continue
            frames = await trio.to_thread.run_sync(
                backlog.after, wanted.after, wanted.last, wanted.bytes_max, wanted.count_max
            )
            if backlog.unsound:
                self._committer.unsound(backlog.unsound)
                backlog.unsound = []
            self._outbox.read(wanted, frames)
            for frame in frames:
                await self._send_live(websocket)
                await self._send_frame(websocket, frame, backlog=True)
            self._outbox.caught_up()

    async def _send_live(self, websocket: Any) -> None:
        while (frame := self._outbox.next_live()) is not None:
            await self._send_frame(websocket, frame, backlog=False)

    async def _send_frame(self, websocket: Any, frame: Held, *, backlog: bool) -> None:
        if frame.epoch not in self._told:
            self._told.add(frame.epoch)
            await websocket.send_message(session.encode(Epoch(self._epochs[frame.epoch])))
        self._sent[frame.epoch] = max(frame.seq, self._sent.get(frame.epoch, -1))
        floor = self._outbox.sent(frame, backlog=backlog)
        await websocket.send_message(session.encode(Data(frame.data, floor)))
        metrics.FRAMES_SENT.labels("backlog" if backlog else "live").inc()
        metrics.IN_FLIGHT.set(self._outbox.in_flight)


def _code(close: Close) -> str:
    return close.reason if close.reason in session.CLOSE_REASONS else "unknown"


def leaves(error: BaseException) -> list[BaseException]:
    """Return the single errors of a group, however deep; of any other error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in leaves(part)]


def _reason(error: BaseException) -> str:
    """Return what ended the session, without addresses or anything a peer wrote."""
    return str(error) if isinstance(error, SessionError) else type(error).__name__

"""One connected gateway: the shell around `IngestSession`. Four things run side by side.

* the reader takes messages and answers heartbeats even while Kafka is slow;
* the worker unpacks frames, live ones before late ones, and hands their records over;
* the writer is the only one that sends: acks as soon as they exist, coalesced;
* from its welcome to its end the session is vouched for to whoever watches over silence.

Who ends it: the gateway (closed connection), `Refused` (a Close with the reason), a frame that
Kafka did not take (Close "overload": it is not acknowledged, the gateway sends it again), the
server by `end` (another session of this gateway, a revoked certificate), or `stop` (Close
"going-away" after what is in flight was acknowledged). The server closes the websocket.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import trio

from cloud.ingest import metrics
from cloud.ingest.delivery import Parcel
from cloud.ingest.presence import FRESH_S, PRESENCE_S, presence
from cloud.ingest.session import IngestSession, Refused
from cloud.ingest.unpack import Batch, Record, Unpacker, WrongEdge
from healthsync.runtime.log import Log
from vitals import session

# Gathers the acks of one round of delivery reports into one message.
ACK_GATHER_S: Final = 0.001

# A message that the gateway does not take in this time ends its session.
SEND_S_MAX: Final = 20.0

# A connection that says nothing: the uplink pings far more often.
SILENCE_S_MAX: Final = 90.0

# How long a stopping process waits for Kafka to take what it holds of one gateway.
DRAIN_S_MAX: Final = 5.0


class _Aside(NamedTuple):
    """A frame whose records the broker will never take, made into a quarantine record."""

    batch: Batch
    frame: bytes


_Item = session.Data | _Aside


class Messages(Protocol):
    """The websocket as far as a gateway needs it."""

    async def get_message(self) -> bytes | str:
        """Return the next message."""

    async def send_message(self, message: bytes) -> None:
        """Send one."""


class Sink(Protocol):
    """Where records go (`Delivery`)."""

    async def send(self, batch: Batch, done: Callable[[Parcel], None]) -> None:
        """Hand the records of one frame over."""

    def offer(self, records: Sequence[Record], done: Callable[[bool], None]) -> None:
        """Hand records over that may be lost."""


class Gateway:
    """Serves one session; `serve` returns when it is over."""

    def __init__(
        self,
        state: IngestSession,
        messages: Messages,
        unpacker: Unpacker,
        sink: Sink,
        now_ms: Callable[[], int],
        log: Log,
    ) -> None:
        """Everything is injected; nothing here opens or closes a connection."""
        self._state = state
        self._messages = messages
        self._unpacker = unpacker
        self._sink = sink
        self._now_ms = now_ms
        self._log = log
        self._wake = trio.Event()
        self._reported = trio.Event()
        self._handed = 0
        self._closing = False
        self._scope = trio.CancelScope()
        self._refused: Refused | None = None
        # Every item is a held frame, so the session's bound is theirs too.
        self._live: deque[_Item] = deque()
        self._late: deque[_Item] = deque()
        self._work = trio.Event()
        self._settings: session.Settings | None = None
        self._welcomed = trio.Event()
        self._heard_s = 0.0
        self._vouching = False

    @property
    def edge(self) -> str:
        """Return the gateway's name."""
        return self._state.identity

    def push(self, settings: session.Settings) -> None:
        """Send settings, unless the gateway has this version or a newer one."""
        self._settings = settings
        self._wake.set()

    def set_credit(self, credit: int) -> None:
        """Halt (0) or let go on."""
        self._state.set_credit(credit)
        self._wake.set()

    def stop(self) -> None:
        """End the session with "going-away" once what Kafka was handed is acknowledged."""
        self.end("going-away", "ingest is stopping")

    def end(self, reason: str, detail: str) -> None:
        """End the session with a reason of `vitals.session.CLOSE_REASONS`."""
        if self._refused is None:
            self._refused = Refused(reason, detail)
        self._scope.cancel()

    async def serve(self) -> None:
        """Run until the session ends; raises what the connection raises when it breaks."""
        async with trio.open_nursery() as outer:
            # outside the scope: a cancelled send would leave the TLS stream unusable for Close
            outer.start_soon(self._write)
            try:
                with self._scope:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(self._read)
                        inner.start_soon(self._unpack)
                        inner.start_soon(self._vouch)
            finally:
                self._part()
            with trio.move_on_after(DRAIN_S_MAX):
                await self._settle()
            self._closing = True
            self._wake.set()
        if self._refused is not None:
            metrics.REFUSED.labels(self._refused.reason).inc()
            self._log.warning(
                "session-ended",
                edge=self._state.identity,
                reason=self._refused.reason,
                detail=self._refused.detail,
            )

    async def _settle(self) -> None:
        """When stopping, wait until Kafka has taken what it was handed."""
        while self._refused and self._refused.reason == "going-away" and self._handed:
            self._reported = trio.Event()
            await self._reported.wait()

    async def _read(self) -> None:
        while True:
            with trio.move_on_after(SILENCE_S_MAX) as silence:
                data = await self._messages.get_message()
            if silence.cancelled_caught:
                self.end("protocol", f"silent for {SILENCE_S_MAX:.0f} s")
                return
            try:
                message = self._state.receive(data, self._now_ms())
            except Refused as refused:
                self.end(refused.reason, refused.detail)
                return
            self._heard_s = trio.current_time()
            if self._state.open:
                self._welcomed.set()
            if isinstance(message, session.Outcome):
                self._note(message)
            elif message is not None:
                metrics.FRAMES.inc()
                (self._late if message.late else self._live).append(message)
                self._work.set()
            self._wake.set()

    async def _vouch(self) -> None:
        await self._welcomed.wait()
        while True:
            # Of a round that has not arrived yet another would only be a copy, and Kafka is away.
            if self._vouching:
                metrics.PRESENCE_DROPPED.inc()
            elif trio.current_time() - self._heard_s <= FRESH_S:
                self._tell_presence(connected=True)
            await trio.sleep(PRESENCE_S)

    def _part(self) -> None:
        """Say that the session is over, but for one whose gateway lives on in a newer one."""
        superseded = self._refused is not None and self._refused.reason == "superseded"
        if self._welcomed.is_set() and not superseded:
            self._tell_presence(connected=False)

    def _tell_presence(self, *, connected: bool) -> None:
        self._vouching = True
        self._sink.offer(
            presence(self.edge, self._now_ms(), connected=connected), self._presence_over
        )

    def _presence_over(self, arrived: bool) -> None:  # noqa: FBT001 - as `Delivery.offer` calls it
        self._vouching = False
        (metrics.PRESENCE if arrived else metrics.PRESENCE_DROPPED).inc()

    def _note(self, outcome: session.Outcome) -> None:
        word = outcome.outcome if outcome.outcome in session.OUTCOMES else "unknown"
        metrics.SETTINGS.labels(word).inc()
        # What a gateway says in words may be anything: not in a log.
        self._log.info("settings", edge=self.edge, version=outcome.version, outcome=word)

    async def _next(self) -> _Item:
        while not self._live and not self._late:
            self._work = trio.Event()
            await self._work.wait()
        return (self._live or self._late).popleft()

    async def _unpack(self) -> None:
        state = self._state
        while True:
            item = await self._next()
            if isinstance(item, _Aside):
                await self._hand_over(item.batch, item.frame)
                continue
            try:
                batch = self._unpacker.unpack(
                    state.identity, state.opener, item.frame, item.floor, self._now_ms()
                )
            except WrongEdge as error:
                self.end("identity", str(error))
                return
            await self._hand_over(batch, item.frame)

    async def _hand_over(self, batch: Batch, frame: bytes) -> None:
        if batch.set_aside:
            metrics.SET_ASIDE.labels(batch.set_aside).inc()
            self._log.warning(
                "frame-set-aside",
                edge=self._state.identity,
                epoch=batch.epoch[:32],
                seq=batch.seq,
                reason=batch.set_aside,
            )
        self._handed += 1
        try:
            await self._sink.send(batch, lambda parcel: self._done(parcel, frame))
        except trio.Cancelled:
            self._handed -= 1  # it will never be reported
            raise
        await trio.lowlevel.checkpoint()  # a full backlog lets other gateways have their turn

    def _done(self, parcel: Parcel, frame: bytes) -> None:
        batch = parcel.batch
        self._handed -= 1
        if not parcel.failed:
            self._state.delivered(batch.epoch, batch.seq)
            metrics.READINGS.inc(batch.readings)
            metrics.REJECTS.inc(batch.rejects)
            metrics.ACKS.inc()
        elif parcel.refused and not batch.set_aside:
            self._unpacker.forget()
            aside = self._unpacker.set_aside(
                self._state.identity, batch.epoch, batch.seq, frame, "refused", self._now_ms()
            )
            self._live.append(_Aside(aside, frame))
            self._work.set()
        else:
            self._unpacker.forget()
            self.end("overload", "Kafka did not take a frame in time; send it again")
        self._reported.set()
        self._wake.set()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            if not self._closing:
                await trio.sleep(ACK_GATHER_S)
            closing = self._closing
            self._wake = trio.Event()
            await self._send(self._state.drain(self._now_ms()))
            if self._settings is not None and self._state.open:
                settings, self._settings = self._settings, None
                if settings.version > self._state.settings:
                    self._state.settings = settings.version
                    await self._send([session.encode(settings)])
            if closing:
                if self._refused is not None:
                    close = session.Close(self._refused.reason, self._refused.detail)
                    await self._send([session.encode(close)])
                return

    async def _send(self, encoded: Sequence[bytes]) -> None:
        for message in encoded:
            with trio.fail_after(SEND_S_MAX):
                await self._messages.send_message(message)

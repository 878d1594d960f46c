"""The shell of ``healthsync simulate replay``: beds that talk to a gateway, on Trio.

Each bed is two tasks. One makes a sample when it is due and puts it into the bed's `Ledger`; it
begins with the first connection and never waits for the network. The other connects, sends what
the ledger gives and reads replies; it owns the connection and closes it. A peer that is gone,
refuses, or fails its certificate is tried again after a bounded pause, for as long as the replay
runs. On SIGTERM, SIGINT or after ``seconds``, no more samples are made and what is held has
`GRACE_S` to be sent and answered.

Law: writes no patient data anywhere but to the gateway; logs and the stats file hold counts.
"""

import json
import math
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import trio

from healthsync.runtime import clock, tls
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from simulators.bed import Bed, Episode, fraction
from simulators.ledger import Ledger

CONNECT_S_MAX: Final = 10.0
BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_MAX: Final = 5.0
# A connection that lived this long was a good one: the next pause is short again.
GOOD_CONNECTION_S: Final = 2.0
GRACE_S: Final = 3.0
REPORT_S: Final = 10.0
# Patient's facts go with the first line of a connection and with every 30th.
PATIENT_LINES: Final = 30
RECEIVE_BYTES: Final = 65_536


class Plan(msgspec.Struct, frozen=True):
    """What to replay, and where to."""

    host: str
    port: int
    beds: int = 8
    speed: float = 1.0
    """Samples a second of each bed."""
    ward: str = "W1"
    seed: int = 1
    seconds: float | None = None
    ca: Path | None = None
    """Speak TLS and trust this CA."""
    stats_file: Path | None = None
    reply: bool = False
    episodes: tuple[Episode, ...] = ()


class Counts(msgspec.Struct, frozen=True):
    """What happened so far, over all beds."""

    beds: int
    connected: int
    connects: int
    reconnects: int
    failures: int
    """Attempts to connect that failed."""
    made: int
    sent: int
    """Lines handed to the network, those sent again included."""
    acked: int
    rejected: int
    dropped: int
    """Lines lost here: not kept without replies, or over the ledger's bound."""
    waiting: int
    """Lines held: not sent yet, or without a reply."""


class _Line:
    """One bed's samples, ledger and connection."""

    def __init__(self, plan: Plan, number: int, log: Log, now_ms: Callable[[], int]) -> None:
        self._plan, self._log, self._now_ms = plan, log, now_ms
        self._bed = Bed(number, plan.ward, plan.seed, plan.episodes)
        self.ledger = Ledger(replies=plan.reply)
        self.connected, self.connects, self.failures = False, 0, 0
        self._wake, self._first, self._ending = trio.Event(), trio.Event(), False
        self._start_s = (number - 1) / plan.beds / plan.speed  # beds spread over one interval
        self._jitter = fraction(plan.seed, number, "backoff")
        self._context = None if plan.ca is None else tls.client(plan.ca)

    def _woken(self) -> None:
        self._wake.set()
        self._wake = trio.Event()

    def end(self) -> None:
        """Send what is held, then return from `talk`."""
        self._ending = True
        self._woken()

    async def measure(self) -> None:
        """Make samples when they are due, from the first connection on."""
        await self._first.wait()
        began, sample = trio.current_time(), 0
        while True:
            await trio.sleep_until(began + sample / self._plan.speed)
            # faster than life a device time would run into the future: let receipt count
            at = self._now_ms() if self._plan.speed <= 1 else None
            self.ledger.add(self._bed.body(sample, at))
            self._woken()
            sample += 1

    async def talk(self) -> None:
        """Hold a connection until `end`; returns when nothing is left to say."""
        await trio.sleep(self._start_s)
        pause = BACKOFF_S_MIN
        while len(self.ledger) or not self._ending:
            began = trio.current_time()
            try:
                stream = await self._connect()
            except (OSError, ssl.SSLError, trio.BrokenResourceError, trio.TooSlowError) as error:
                if not self.failures:
                    self._log.warning("connect", bed=self._bed.name, error=_kind(error))
                self.failures += 1
            else:
                if await self._converse(stream):
                    return
                if trio.current_time() - began >= GOOD_CONNECTION_S:
                    pause = BACKOFF_S_MIN
            with trio.move_on_after(pause * (0.5 + self._jitter)):
                while not self._ending:
                    await self._wake.wait()
            if self._ending:
                await trio.sleep(BACKOFF_S_MIN)
            pause = min(2 * pause, BACKOFF_S_MAX)

    async def _connect(self) -> trio.abc.Stream:
        with trio.fail_after(CONNECT_S_MAX):
            stream = await trio.open_tcp_stream(self._plan.host, self._plan.port)
            if self._context is None:
                return stream
            secure = trio.SSLStream(stream, self._context, server_hostname=self._plan.host)
            try:
                await secure.do_handshake()
                tls.require_suite(secure.cipher())
            except BaseException:
                await trio.aclose_forcefully(secure)
                raise
            return secure

    async def _converse(self, stream: trio.abc.Stream) -> bool:
        """Send and listen until the peer is gone (False) or everything is said (True)."""
        said = False
        self.connects, self.connected = self.connects + 1, True
        self.ledger.connected()
        self._first.set()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, stream, nursery.cancel_scope)
                said = await self._send(stream)
                nursery.cancel_scope.cancel()
        finally:
            self.connected = False
            self.ledger.disconnected()
            with trio.move_on_after(1, shield=True):
                await stream.aclose()
        return said

    async def _send(self, stream: trio.abc.Stream) -> bool:
        sent = 0
        while True:
            body = self.ledger.take()
            if body is not None:
                head = f"device={self._bed.device} "
                if sent == 0 and self._plan.reply:
                    head += "reply=yes "
                if sent % PATIENT_LINES == 0:
                    head += f"{self._bed.patient()} "
                try:
                    await stream.send_all(f"{head}{body}\n".encode())
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return False
                sent += 1
            elif self._ending and not len(self.ledger):
                return True
            else:
                await self._wake.wait()

    async def _listen(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        try:
            while data := await stream.receive_some(RECEIVE_BYTES):
                self.ledger.heard(bytes(data))
                self._woken()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # gone without a word is gone all the same
        scope.cancel()


def _kind(error: BaseException) -> str:
    """Return the name of what went wrong; Trio wraps a failed handshake or attempt."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return type(cause).__name__


def count(lines: list[_Line]) -> Counts:
    """Return the counts over all beds."""
    ledgers = [line.ledger for line in lines]
    return Counts(
        beds=len(lines),
        connected=sum(line.connected for line in lines),
        connects=sum(line.connects for line in lines),
        reconnects=sum(max(line.connects - 1, 0) for line in lines),
        failures=sum(line.failures for line in lines),
        made=sum(ledger.made for ledger in ledgers),
        sent=sum(ledger.sent for ledger in ledgers),
        acked=sum(ledger.acked for ledger in ledgers),
        rejected=sum(ledger.rejected for ledger in ledgers),
        dropped=sum(ledger.dropped for ledger in ledgers),
        waiting=sum(len(ledger) for ledger in ledgers),
    )


def _report(event: str, plan: Plan, lines: list[_Line], log: Log) -> Counts:
    counts = count(lines)
    fields = msgspec.structs.asdict(counts)
    log.info(event, **fields)
    if plan.stats_file is not None:
        new = plan.stats_file.with_name(plan.stats_file.name + ".new")
        try:
            new.write_text(json.dumps(fields) + "\n", encoding="ascii")
            new.replace(plan.stats_file)
        except OSError as error:  # the ward goes on without its stats
            log.warning("stats_file", error=type(error).__name__)
    return counts


async def ward(plan: Plan, log: Log, now_ms: Callable[[], int]) -> Counts:
    """Replay until stopped by a signal or ``plan.seconds``; return what happened."""
    lines = [_Line(plan, number, log, now_ms) for number in range(1, plan.beds + 1)]

    async def report() -> None:
        while True:
            await trio.sleep(REPORT_S)
            _report("replay", plan, lines, log)

    async def stop_on_signal(scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                scope.cancel()

    log.info("started", beds=plan.beds, speed=plan.speed, seed=plan.seed, tls=plan.ca is not None)
    async with trio.open_nursery() as all_tasks:
        talks = trio.CancelScope()

        async def talk() -> None:
            with talks:
                async with trio.open_nursery() as nursery:
                    for line in lines:
                        nursery.start_soon(line.talk)

        async with trio.open_nursery() as until_stopped:
            until_stopped.cancel_scope.deadline = trio.current_time() + (plan.seconds or math.inf)
            all_tasks.start_soon(talk)
            until_stopped.start_soon(stop_on_signal, until_stopped.cancel_scope)
            until_stopped.start_soon(report)
            for line in lines:
                until_stopped.start_soon(line.measure)
        talks.deadline = trio.current_time() + GRACE_S
        for line in lines:
            line.end()
    return _report("stopped", plan, lines, log)


def run(plan: Plan) -> int:
    """Run the replay; return the command's exit code."""
    log = Log("simulate", clock.now_ms)
    counts = trio.run(ward, plan, log, clock.now_ms)
    return Exit.OK if counts.connects else Exit.UNAVAILABLE

"""The collector: listens, accepts, reads bytes, hands entries to the committer, sends answers.

Law: one Trio task serves every socket through one epoll set (`trio.lowlevel.wait_readable` on the
set's own descriptor), so a connection costs a dictionary entry and no task. Everything a caller
may take is bounded: connections, bytes of half a line, time of half a line, time of silence,
unread answers. The collector closes every socket it opened or accepted. A socket's error ends
that connection alone.
"""

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Literal

import trio

from edge import metrics, proxy
from edge.admission import Caller
from edge.bedside import LineTalk
from edge.commit import Committer
from edge.config import Config
from edge.devices import Device, Devices
from edge.entry import Entry
from edge.hl7_talk import Hl7Talk
from edge.moment import MARKED, Moment
from edge.pushed import Counts
from edge.refusal import Reason, Refuse
from edge.setting import Setting
from healthsync.runtime.log import Log
from vitals import limits
from vitals.codes import Status
from vitals.columns import Source

RECEIVE_BYTES: Final = 2 * 1024
"""One read: a busy sender gets no more before its neighbours had their turn. A thousand of the
shortest bad lines fit, some 10 ms of work."""

STALL_S: Final = 1.0
"""A wait for the disk that is longer is made good to everybody: who spoke in vain is not idle."""

HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Unfinished lines and messages of all connections together. Beyond it whoever adds to what it
holds is ended, its half input quarantined: 10,000 connections could each hold a megabyte else."""

KEEPALIVE_S: Final = 60
KEEPALIVE_PROBE_S: Final = 10
KEEPALIVE_PROBES: Final = 3
"""A peer without power is found by TCP after 90 s, before the silence of an idle one is."""

UNACKED_MS_MAX: Final = 30_000
"""Answers that a peer's TCP does not acknowledge for this long end its connection."""

EVENTS_MAX: Final = 512
"""Sockets served before other Trio tasks get theirs."""

LOOK_LINES_MAX: Final = 1024
"""Lines taken by one look, but for those of its last read: some 10 ms of work. Whoever floods the
gateway with the shortest of lines, from however many connections, delays the others by no more."""

MANY_LINES: Final = 64
"""In one read: whoever says more comes after the others when not all can have their turn."""

UNSENT_BYTES_MAX: Final = 64 * 1024
"""Answers that a caller does not read; beyond it the connection is closed."""

BACKLOG: Final = 1024

VIA_REMEMBERED: Final = 1024
"""Connections of one address share the text that says so."""

STRANGER: Final = "this gateway does not know the caller; have it listed under [known]"
SWEEP_S: Final = 1.0
_ALERT_BYTES: Final = 256
"""Upper estimate of one device alert in a frame."""

DEVICE_HEARD_MS: Final = 5 * 60_000
_IMPLAUSIBLE: Final = int(Status.IMPLAUSIBLE)
Kind = Literal["line", "mllp"]


class _Listener:
    __slots__ = ("kind", "proxied", "sock")

    def __init__(self, sock: socket.socket, kind: Kind, *, proxied: bool) -> None:
        self.sock, self.kind, self.proxied = sock, kind, proxied


class _Connection:
    """One caller. ``waiting``: entries submitted, not answered yet.

    Ten thousand of them: a descriptor and no socket object, which takes 90 bytes.
    """

    __slots__ = (
        "device",
        "ended",
        "fd",
        "half_since",
        "head",
        "heard",
        "held",
        "kind",
        "many",
        "read_at",
        "source",
        "talk",
        "unsent",
        "via",
        "waiting",
        "writing",
    )

    def __init__(
        self, fd: int, kind: Kind, talk: LineTalk | Hl7Talk | None, heard: float, via: str
    ) -> None:
        self.fd, self.kind, self.talk = fd, kind, talk
        self.heard, self.via = heard, via
        self.half_since: float | None = None
        self.head = b""
        self.held = 0
        self.unsent = b""
        self.waiting = 0
        self.source: Source | None = None
        """Who spoke last, and what is known of it: see `Collector._speaker`."""
        self.device: Device | None = None
        self.many, self.read_at = False, 0
        """Whether its last read had MANY_LINES, and the number of that look; kept under floods."""
        self.ended = False
        self.writing = False


def _turn(connection: _Connection) -> tuple[bool, int]:
    return connection.many, connection.read_at


class Collector:
    """Made once; `listen` for each port, then `run`."""

    def __init__(
        self,
        config: Config,
        committer: Committer,
        log: Log,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """Open the epoll set; ``clock`` gives seconds for half lines and silence."""
        self.setting = Setting(config.ward, config.zone, config.admission)
        self.connections_max = config.connections_max
        self._committer, self._log, self._now_ms, self._clock = committer, log, now_ms, clock
        self._epoll = select.epoll()
        self._listeners: dict[int, _Listener] = {}
        self._connections: dict[int, _Connection] = {}
        self._resting: list[_Listener] = []
        self._stalled = self._limited = False
        self._look = 0
        self.devices = Devices()
        self._batch: list[Entry] = []
        self._held = 0
        self.skews = self.setting.skews
        self._inputs = self._refused = 0
        committer.released = self.release

    def listen(self, kind: Kind, host: str, port: int, *, proxied: bool = False) -> int:
        """Listen on host:port; return the port (useful when it was 0); raise OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Accepted sockets inherit these from the listening one (tcp(7)).
        tcp = socket.IPPROTO_TCP
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(tcp, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        sock.setsockopt(tcp, socket.TCP_KEEPINTVL, KEEPALIVE_PROBE_S)
        sock.setsockopt(tcp, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, UNACKED_MS_MAX)
        sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._listeners[sock.fileno()] = _Listener(sock, kind, proxied=proxied)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return int(sock.getsockname()[1])

    async def run(self) -> None:
        """Serve until cancelled; then close every socket, half lines quarantined."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweeping)
                heard = False
                while True:
                    if not heard:
                        await trio.lowlevel.wait_readable(self._epoll.fileno())
                    # What comes meanwhile waits in the sockets: one look, one commit for all.
                    # Every look costs 60 µs and more whatever it finds, every commit a millisecond.
                    await self._committer.window()
                    heard = await self._gather()
                    if heard:
                        await self._settle()
        finally:
            self.close_ports()

    async def _gather(self) -> bool:
        """Look at the sockets until nothing more is there, for one window; tell if one was read."""
        ends, heard = self._clock() + limits.COMMIT_WINDOW_S, False
        while True:
            reads, more = self._drain()
            heard = heard or reads > 0
            if not more or self._committer.is_full or self._clock() >= ends:
                return heard
            await trio.lowlevel.checkpoint()

    async def _settle(self) -> None:
        """Have what was handed over committed and answered; nothing is read before."""
        began = self._clock()
        self._stalled = True
        await self._committer.settle()
        self._stalled = False
        stalled_s = self._clock() - began
        if stalled_s > STALL_S:
            for connection in self._connections.values():
                connection.heard += stalled_s
                if connection.half_since is not None:
                    connection.half_since += stalled_s

    def close_ports(self) -> None:
        """Take no more input: close listeners, quarantine half lines. Answers can still go out."""
        for listener in self._listeners.values():
            self._epoll.unregister(listener.sock.fileno())
            listener.sock.close()
        self._listeners.clear()
        for connection in list(self._connections.values()):
            self._end(connection)

    def close(self) -> None:
        """Close what is left, after the last answers."""
        for connection in list(self._connections.values()):
            self._close(connection)
        self._epoll.close()

    # -- readiness ------------------------------------------------------------------------------

    def _drain(self) -> tuple[int, bool]:
        """Serve the sockets that are ready; return how many were read, and if there is more."""
        received_ms, now = self._now_ms(), self._clock()
        connections = self._connections
        found = self._epoll.poll(0, EVENTS_MAX)
        ready: list[_Connection] = []
        for fd, events in found:
            connection = connections.get(fd)
            if connection is None:
                listener = self._listeners.get(fd)
                if listener is not None:
                    self._accept(listener, now)
                continue
            if events & select.EPOLLOUT:
                self._flush(connection)
            if not connection.ended and events & ~select.EPOLLOUT:
                ready.append(connection)
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                self._close(connection)  # gone before its last answer
        if self._limited:
            ready.sort(key=_turn)
        # First all sockets, then all that they said: a call into the kernel leaves the processor's
        # caches to somebody else, and one loop at a time stays in them.
        heard, ended, more = self._read(ready)
        for connection, data in heard:
            connection.heard = now
            self._take(connection, data, received_ms, now)
        if self._batch:
            self._committer.submit(self._batch, settling=True)
            self._batch = []
        return len(heard) + ended, more or len(found) == EVENTS_MAX

    def _read(self, ready: list[_Connection]) -> tuple[list[tuple[_Connection, bytes]], int, bool]:
        """Return what was said, how many connections ended, and if there is more.

        When not all had their turn, those who say little come first the next time, then who was
        heard longest ago: nobody who speaks a line a second waits for those who flood.
        """
        heard: list[tuple[_Connection, bytes]] = []
        lines = ended = 0
        limited, more = self._limited, False
        self._look += 1
        self._limited = False
        for connection in ready:
            if lines >= LOOK_LINES_MAX:
                self._limited = more = True
                break
            if connection.ended:  # by the answers of another
                continue
            try:
                data = os.read(connection.fd, RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                self._end(connection)
                ended += 1
                continue
            heard.append((connection, data))
            count = data.count(b"\n")
            lines += count
            more = more or len(data) == RECEIVE_BYTES
            if limited or count > MANY_LINES:
                connection.many, connection.read_at = count > MANY_LINES, self._look
        return heard, ended, more

    def _accept(self, listener: _Listener, now: float) -> None:
        for _ in range(EVENTS_MAX):
            try:
                sock, address = listener.sock.accept()
            except OSError as error:  # none left, or the caller has gone
                if error.errno in {errno.EMFILE, errno.ENFILE}:
                    # Out of descriptors: ask again at the next sweep instead of spinning.
                    self._epoll.modify(listener.sock.fileno(), 0)
                    self._resting.append(listener)
                    self._log.error("out-of-descriptors", connections=len(self._connections))
                return
            if len(self._connections) >= self.connections_max:
                metrics.CONNECTIONS_REFUSED.inc()
                full = f"{self.connections_max} connections are open, the limit"
                self._turn_away(sock, listener.kind, full)
                continue
            sock.setblocking(False)
            talk = None
            if not listener.proxied:
                talk = self._talk(listener.kind, self._caller(address[0]))
                if talk is None:
                    metrics.STRANGERS_REFUSED.inc()
                    self._turn_away(sock, listener.kind, STRANGER)
                    continue
            via = _via(listener.kind, address[0])
            connection = _Connection(sock.detach(), listener.kind, talk, now, via)
            self._connections[connection.fd] = connection
            self._epoll.register(connection.fd, select.EPOLLIN | select.EPOLLRDHUP)
            metrics.CONNECTIONS.set(len(self._connections))

    def _turn_away(self, sock: socket.socket, kind: Kind, why: str) -> None:
        with contextlib.suppress(OSError), sock:
            sock.setblocking(False)
            if kind == "line":
                sock.send(f"refused: {why}\n".encode())

    def _caller(self, address: str, certificate: str = "") -> Caller:
        return self.setting.admission.caller(address.removeprefix("::ffff:"), certificate)

    def _talk(self, kind: Kind, caller: Caller) -> LineTalk | Hl7Talk | None:
        """Return the reader of a connection, None when the policy shuts the caller out."""
        if self.setting.admission.shuts_out(caller):
            return None
        return (LineTalk if kind == "line" else Hl7Talk)(caller, self.setting)

    def _take(self, connection: _Connection, data: bytes, received_ms: int, now: float) -> None:
        """Make entries of what a caller said."""
        talk = connection.talk
        if talk is None:
            data = self._identify(connection, data)
            talk = connection.talk
            if not data or talk is None:
                return
        before = len(self._batch)
        for entry in talk.receive(data, received_ms):
            entry.connection = connection
            if entry.answer is not None:
                connection.waiting += 1
            self._batch.append(entry)
        held = talk.held_bytes()
        if held or connection.held:
            self._hold(connection, held, now, ended_one=len(self._batch) > before)

    def _hold(self, connection: _Connection, held: int, now: float, *, ended_one: bool) -> None:
        """Note what a connection holds of an unfinished line or message, and since when."""
        self._held += held - connection.held
        grown, connection.held = held > connection.held, held
        if not held:
            connection.half_since = None
        elif connection.half_since is None or ended_one:
            connection.half_since = now
        if grown and self._held > HELD_BYTES_MAX:
            metrics.HELD_ENDED.inc()
            self._end(connection)

    def _identify(self, connection: _Connection, data: bytes) -> bytes:
        """Read the PROXY header; return the bytes after it, or nothing to wait or when closed."""
        connection.head += data
        try:
            header = proxy.read(connection.head)
        except Refuse as refuse:
            metrics.REJECTED.labels(refuse.refused.reason).inc()
            self._close(connection)
            return b""
        if header is None:
            connection.half_since = connection.half_since or connection.heard
            return b""
        rest, connection.head = connection.head[header.size :], b""
        connection.half_since = None
        caller = self._caller(header.address or "proxy", header.certificate)
        connection.talk = self._talk(connection.kind, caller)
        connection.via = _via(f"{connection.kind}-tls", caller.address)
        if connection.talk is None:
            metrics.STRANGERS_REFUSED.inc()
            if connection.kind == "line":
                connection.unsent = f"refused: {STRANGER}\n".encode()
            connection.ended = True
            self._flush(connection)
            return b""
        return rest

    def _submit(self, connection: _Connection, entry: Entry) -> None:
        entry.connection = connection
        if entry.answer is not None:
            connection.waiting += 1
        self._committer.submit([*self._batch, entry])
        self._batch = []

    # -- answers --------------------------------------------------------------------------------

    def release(self, entries: list[Entry], failure: Reason | None) -> None:
        """Answer entries whose fate is known (the committer calls this, in order)."""
        if failure is None:
            self._count(entries)
        answers: dict[int, list[bytes]] = {}
        for entry in entries:
            if entry.answer is None:
                continue
            connection = entry.connection
            # Made even when nobody is left to hear it: a repeat gets the same one (hl7_repeat).
            answer = entry.answer(failure)
            if isinstance(connection, _Connection):
                connection.waiting -= 1
                if self._connections.get(connection.fd) is connection:
                    answers.setdefault(connection.fd, []).append(answer)
        for fd, parts in answers.items():
            connection = self._connections[fd]
            connection.unsent += b"".join(parts)
            self._flush(connection)

    def _count(self, entries: list[Entry]) -> None:
        devices = self.devices
        messages = parts = readings = ignored = alerts = rejects = implausible = 0
        for entry in entries:
            moment, source = entry.moment, entry.source
            if moment is not None and source is not None:
                readings += len(moment.rows)
                if moment.layout & MARKED:
                    implausible += any(row[2] == _IMPLAUSIBLE for row in moment.rows)
                devices.noted(self._speaker(entry.connection, source, moment), moment)
                continue
            messages += entry.message
            parts += entry.part
            if entry.own:
                readings += len(entry.own)
                implausible += any(one.status == _IMPLAUSIBLE for one in entry.own)
                if source is not None:
                    devices.heard(source, entry.own, _via_of(entry))
            if entry.rejected or entry.alerts or entry.ignored or entry.turned_away:
                ignored += entry.ignored
                alerts += len(entry.alerts)
                rejects += bool(entry.rejected or entry.turned_away)
                via = _via_of(entry)
                for reject in entry.rejected:
                    metrics.REJECTED.labels(reject.reason).inc()
                    devices.rejected(reject.device, reject.reason, reject.received_ms, via)
        # Once a batch: a Prometheus counter costs most of a microsecond.
        self._inputs += len(entries) - parts
        self._refused += rejects + implausible
        for counter, count in (
            (metrics.LINES, len(entries) - messages - parts),
            (metrics.READINGS, readings),
            (metrics.MESSAGES, messages),
            (metrics.IGNORED, ignored),
            (metrics.ALERTS, alerts),
            (metrics.IMPLAUSIBLE, implausible),
        ):
            if count:
                counter.inc(count)

    def counts(self) -> Counts:
        """Return how many inputs came so far, and how many were refused or held the impossible."""
        return Counts(self._inputs, self._refused)

    def _speaker(self, connection: object, source: Source, moment: Moment) -> Device:
        """Return the device of a line. Who spoke last on its connection is found at once."""
        if not isinstance(connection, _Connection):
            return self.devices.speaks(source, moment.received_ms, "")
        device = connection.device
        # The same source, and nobody spoke for its device on another connection since.
        if connection.source is source and device is not None and device.speaker == connection.fd:
            return device
        device = self.devices.speaks(source, moment.received_ms, connection.via)
        device.speaker = connection.fd
        connection.source, connection.device = source, device
        return device

    def _flush(self, connection: _Connection) -> None:
        if connection.unsent:
            try:
                sent = os.write(connection.fd, connection.unsent)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(connection)
                return
            connection.unsent = connection.unsent[sent:]
        if len(connection.unsent) > UNSENT_BYTES_MAX or (
            connection.ended and not connection.waiting and not connection.unsent
        ):
            self._close(connection)
            return
        if bool(connection.unsent) != connection.writing:
            connection.writing = not connection.writing
            self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        reading = 0 if connection.ended else select.EPOLLIN | select.EPOLLRDHUP
        writing = select.EPOLLOUT if connection.writing else 0
        self._epoll.modify(connection.fd, reading | writing)

    # -- endings --------------------------------------------------------------------------------

    def _end(self, connection: _Connection) -> None:
        """No more input of this caller: quarantine a half line, close once all is answered."""
        if connection.ended:
            return
        connection.ended = True
        if connection.talk is not None:
            entry = connection.talk.leave(self._now_ms())
            if entry is not None:
                self._submit(connection, entry)
        if connection.waiting or connection.unsent:
            self._watch(connection)
        else:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        if self._connections.pop(connection.fd, None) is None:
            return
        self._held -= connection.held
        with contextlib.suppress(OSError):
            self._epoll.unregister(connection.fd)
        os.close(connection.fd)
        metrics.CONNECTIONS.set(len(self._connections))

    async def _sweeping(self) -> None:
        while True:
            await trio.sleep(SWEEP_S)
            self.sweep(self._clock())

    def sweep(self, now: float) -> None:
        """End connections that kept half a line, or nothing, for longer than the limits."""
        while self._resting:
            self._epoll.modify(self._resting.pop().sock.fileno(), select.EPOLLIN)
        for connection in () if self._stalled else list(self._connections.values()):
            half = connection.half_since
            if half is not None and now - half > limits.HALF_LINE_S_MAX:
                self._end(connection)
            elif now - connection.heard > limits.LINE_IDLE_S_MAX:
                if connection.ended:
                    self._close(connection)
                else:
                    self._end(connection)
        overdue = self.setting.watchdogs.overdue(self._now_ms())
        if overdue:
            self._committer.submit(
                [
                    Entry(who, (), (), _ALERT_BYTES, part=True, alerts=(alert,))
                    for who, alert in overdue
                ]
            )
        since = self._now_ms() - DEVICE_HEARD_MS
        metrics.DEVICES.set(self.devices.heard_since(since))
        metrics.DEVICE_SKEW_MAX_MS.set(self.skews.worst_ms(since))
        metrics.HELD_BYTES.set(self._held)


@lru_cache(maxsize=VIA_REMEMBERED)
def _via(kind: str, address: str) -> str:
    """Return how a caller is connected, for a technician."""
    return f"{kind} {address}"


def _via_of(entry: Entry) -> str:
    connection = entry.connection
    return connection.via if isinstance(connection, _Connection) else ""

"""The collector: listens, accepts, reads bytes, hands entries to the committer, sends answers.

Law: one Trio task serves every socket through one epoll set (`trio.lowlevel.wait_readable` on the
set's own descriptor), so a connection costs a dictionary entry and no task. Everything a caller
may take is bounded: connections, bytes of half a line, time of half a line, time of silence,
unread answers. The collector closes every socket it opened or accepted. A socket's error ends
that connection alone.
"""

import contextlib
import errno
import select
import socket
from collections.abc import Callable
from typing import Final, Literal

import trio

from edge import metrics, proxy
from edge.admission import Caller
from edge.bedside import LineTalk
from edge.commit import Committer
from edge.config import Config
from edge.devices import Devices
from edge.entry import Entry
from edge.hl7_talk import Hl7Talk
from edge.refusal import Reason, Refuse
from edge.setting import Setting
from healthsync.runtime.log import Log
from vitals import limits

RECEIVE_BYTES: Final = 2 * 1024
"""One read: a busy sender gets no more before its neighbours had their turn. A thousand of the
shortest bad lines fit, some 10 ms of work."""

PACE_S: Final = 0.004
"""Pause between two looks at the sockets under load: every look costs 60 µs whatever it finds, so
at 10,000 lines a second 40 lines share one. Less than half of the commit window, so the latency of
a line under load grows by no more than that; a quiet ward never waits."""

PACE_LINES: Final = 8
"""Reads within one look, or within PACE_S of the last, that count as load: 2,000 a second."""

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

UNSENT_BYTES_MAX: Final = 64 * 1024
"""Answers that a caller does not read; beyond it the connection is closed."""

BACKLOG: Final = 1024
STRANGER: Final = "this gateway does not know the caller; have it listed under [known]"
SWEEP_S: Final = 1.0
_ALERT_BYTES: Final = 256
"""Upper estimate of one device alert in a frame."""

DEVICE_HEARD_MS: Final = 5 * 60_000
Kind = Literal["line", "mllp"]


class _Listener:
    __slots__ = ("kind", "proxied", "sock")

    def __init__(self, sock: socket.socket, kind: Kind, *, proxied: bool) -> None:
        self.sock, self.kind, self.proxied = sock, kind, proxied


class _Connection:
    """One caller. ``waiting``: entries submitted, not answered yet."""

    __slots__ = (
        "ended",
        "fd",
        "half_since",
        "head",
        "heard",
        "held",
        "kind",
        "sock",
        "talk",
        "unsent",
        "via",
        "waiting",
        "writing",
    )

    def __init__(
        self, sock: socket.socket, kind: Kind, talk: LineTalk | Hl7Talk | None, heard: float
    ) -> None:
        self.sock, self.fd, self.kind, self.talk = sock, sock.fileno(), kind, talk
        self.heard = heard
        self.half_since: float | None = None
        self.head = b""
        self.held = 0
        self.unsent = b""
        self.waiting = 0
        self.via = ""
        self.ended = False
        self.writing = False


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
        self.devices = Devices()
        self._batch: list[Entry] = []
        self._held = 0
        self.skews = self.setting.skews
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
                while True:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    while self._drain() >= PACE_LINES:
                        await self._committer.room()
                        await trio.sleep(PACE_S)
                    await self._committer.room()
        finally:
            self.close_ports()

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

    def _drain(self) -> int:
        """Serve the sockets that are ready; return how many were read."""
        received_ms, now = self._now_ms(), self._clock()
        connections, reads = self._connections, 0
        for fd, events in self._epoll.poll(0, EVENTS_MAX):
            connection = connections.get(fd)
            if connection is None:
                listener = self._listeners.get(fd)
                if listener is not None:
                    self._accept(listener, now)
                continue
            if events & select.EPOLLOUT:
                self._flush(connection)
            if not connection.ended and events & ~select.EPOLLOUT:
                self._read(connection, received_ms, now)
                reads += 1
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                self._close(connection)  # gone before its last answer
        if self._batch:
            self._committer.submit(self._batch)
            self._batch = []
        return reads

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
            connection = _Connection(sock, listener.kind, talk, now)
            connection.via = f"{listener.kind} {address[0]}"
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

    def _read(self, connection: _Connection, received_ms: int, now: float) -> None:
        try:
            data = connection.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(connection)
            return
        connection.heard = now
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
        connection.via = f"{connection.kind}-tls {caller.address}"
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
        heard = self.devices.heard
        messages = parts = readings = ignored = alerts = 0
        for entry in entries:
            messages += entry.message
            parts += entry.part
            if entry.readings:
                readings += len(entry.readings)
                if entry.source is not None:
                    heard(entry.source, entry.readings, _via(entry))
            if entry.rejected or entry.alerts or entry.ignored or entry.turned_away:
                ignored += entry.ignored
                alerts += len(entry.alerts)
                for reject in entry.rejected:
                    metrics.REJECTED.labels(reject.reason).inc()
                    self.devices.rejected(
                        reject.device, reject.reason, reject.received_ms, _via(entry)
                    )
        # Once a batch: a Prometheus counter costs most of a microsecond.
        metrics.MESSAGES.inc(messages)
        metrics.LINES.inc(len(entries) - messages - parts)
        metrics.READINGS.inc(readings)
        metrics.IGNORED.inc(ignored)
        metrics.ALERTS.inc(alerts)

    def _flush(self, connection: _Connection) -> None:
        if connection.unsent:
            try:
                sent = connection.sock.send(connection.unsent)
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
        connection.sock.close()
        metrics.CONNECTIONS.set(len(self._connections))

    async def _sweeping(self) -> None:
        while True:
            await trio.sleep(SWEEP_S)
            self.sweep(self._clock())

    def sweep(self, now: float) -> None:
        """End connections that kept half a line, or nothing, for longer than the limits."""
        while self._resting:
            self._epoll.modify(self._resting.pop().sock.fileno(), select.EPOLLIN)
        for connection in list(self._connections.values()):
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


def _via(entry: Entry) -> str:
    connection = entry.connection
    return connection.via if isinstance(connection, _Connection) else ""

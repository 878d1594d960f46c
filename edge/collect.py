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
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Literal, Protocol

import trio

from edge import metrics, proxy
from edge.bedside import LineTalk
from edge.commit import Committer
from edge.config import Config
from edge.entry import Entry
from edge.hl7_talk import Hl7Talk
from edge.refusal import Reason, Refuse
from edge.setting import Setting
from healthsync.runtime.log import Log
from vitals import limits

RECEIVE_BYTES: Final = 64 * 1024
"""One read: a busy sender gets no more before its neighbours had their turn."""

EVENTS_MAX: Final = 512
"""Sockets served before other Trio tasks get theirs."""

UNSENT_BYTES_MAX: Final = 64 * 1024
"""Answers that a caller does not read; beyond it the connection is closed."""

BACKLOG: Final = 1024
SWEEP_S: Final = 1.0
DEVICE_HEARD_MS: Final = 5 * 60_000
DEVICES_MAX: Final = 20_000
"""Names kept for the count of devices; an attacker's made-up names push out the oldest."""

Kind = Literal["line", "mllp"]


class _Talk(Protocol):
    def receive(self, data: bytes, received_ms: int) -> "list[Entry]": ...
    def half(self) -> bool: ...
    def leave(self, received_ms: int) -> Entry | None: ...


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
        "kind",
        "sock",
        "talk",
        "unsent",
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
        self.unsent = b""
        self.waiting = 0
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
        self._connections_max = config.connections_max
        self._committer, self._log, self._now_ms, self._clock = committer, log, now_ms, clock
        self._epoll = select.epoll()
        self._listeners: dict[int, _Listener] = {}
        self._connections: dict[int, _Connection] = {}
        self._resting: list[_Listener] = []
        self._devices: OrderedDict[str, int] = OrderedDict()
        self.skews = self.setting.skews
        committer.released = self.release

    def listen(self, kind: Kind, host: str, port: int, *, proxied: bool = False) -> int:
        """Listen on host:port; return the port (useful when it was 0); raise OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
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
                    self._drain()
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

    def _drain(self) -> None:
        received_ms, now = self._now_ms(), self._clock()
        for fd, events in self._epoll.poll(0, EVENTS_MAX):
            connection = self._connections.get(fd)
            if connection is None:
                listener = self._listeners.get(fd)
                if listener is not None:
                    self._accept(listener, now)
                continue
            if events & select.EPOLLOUT:
                self._flush(connection)
            if not connection.ended and events & ~select.EPOLLOUT:
                self._read(connection, received_ms, now)
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                self._close(connection)  # gone before its last answer

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
            if len(self._connections) >= self._connections_max:
                metrics.CONNECTIONS_REFUSED.inc()
                self._turn_away(sock, listener.kind)
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            talk = None if listener.proxied else self._talk(listener.kind, address[0])
            connection = _Connection(sock, listener.kind, talk, now)
            self._connections[connection.fd] = connection
            self._epoll.register(connection.fd, select.EPOLLIN | select.EPOLLRDHUP)
            metrics.CONNECTIONS.set(len(self._connections))

    def _turn_away(self, sock: socket.socket, kind: Kind) -> None:
        with contextlib.suppress(OSError), sock:
            sock.setblocking(False)
            if kind == "line":
                limit = self._connections_max
                sock.send(f"refused: {limit} connections are open, the limit\n".encode())

    def _talk(self, kind: Kind, address: str) -> LineTalk | Hl7Talk:
        make = LineTalk if kind == "line" else Hl7Talk
        return make(self.setting.admission.caller(address.removeprefix("::ffff:")), self.setting)

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
        if connection.talk is None:
            data = self._identify(connection, data)
            if not data or connection.talk is None:
                return
        for entry in connection.talk.receive(data, received_ms):
            self._submit(connection, entry)
        if not connection.talk.half():
            connection.half_since = None
        elif connection.half_since is None or b"\n" in data or b"\x1c" in data:
            connection.half_since = now

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
        connection.talk = self._talk(connection.kind, header.address or "proxy")
        return rest

    def _submit(self, connection: _Connection, entry: Entry) -> None:
        if entry.answer is not None:
            entry.connection = connection
            connection.waiting += 1
        self._committer.submit(entry)

    # -- answers --------------------------------------------------------------------------------

    def release(self, entries: list[Entry], failure: Reason | None) -> None:
        """Answer entries whose fate is known (the committer calls this, in order)."""
        answers: dict[int, list[bytes]] = {}
        heard = self._devices
        for entry in entries:
            if failure is None:
                _count(entry)
                if entry.source is not None and entry.readings:
                    device = entry.source.device
                    heard[device] = entry.readings[0].received_ms
                    heard.move_to_end(device)
            connection = entry.connection
            if isinstance(connection, _Connection) and entry.answer is not None:
                connection.waiting -= 1
                if self._connections.get(connection.fd) is connection:
                    answers.setdefault(connection.fd, []).append(entry.answer(failure))
        while len(heard) > DEVICES_MAX:
            heard.popitem(last=False)
        for fd, parts in answers.items():
            connection = self._connections[fd]
            connection.unsent += b"".join(parts)
            self._flush(connection)

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
        since = self._now_ms() - DEVICE_HEARD_MS
        while self._devices and next(iter(self._devices.values())) < since:
            self._devices.popitem(last=False)
        metrics.DEVICES.set(len(self._devices))
        metrics.DEVICE_SKEW_MAX_MS.set(self.skews.worst_ms(since))


def _count(entry: Entry) -> None:
    (metrics.MESSAGES if entry.message else metrics.LINES).inc()
    metrics.READINGS.inc(len(entry.readings))
    metrics.IGNORED.inc(entry.ignored)
    for reject in entry.rejected:
        metrics.REJECTED.labels(reject.reason).inc()

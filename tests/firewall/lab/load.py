"""Flows that stay, and many that come: what a firewall must neither cut nor let by."""

import itertools
import socket
import threading
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from types import TracebackType
from typing import Literal, Self

from tests.firewall.lab.errors import LabError
from tests.firewall.lab.links import Ports
from tests.firewall.lab.packets import Family
from tests.firewall.lab.probing import Way
from tests.firewall.lab.watching import Listener, Listeners, Peer, cut, inet

_SETTLE = 0.1  # seconds for the last packets to arrive
_ATTEMPT = 0.3  # seconds for a connection to be accepted; below the 1 s of a repeated SYN
_UNDERWAY = 256  # attempts whose descriptor is kept: the others were answered by silence
_LOOK = 0.0005  # seconds
_serial = itertools.count()


class Flow:
    """An established TCP connection, from one side of a link to the other; a context manager."""

    def __init__(self, way: Way, family: Family, port: int, ports: Ports, on: Listeners) -> None:
        self._next = 0
        with on.on(way.target, "tcp", family, port) as listener, ExitStack() as undo:
            self._near = ports.bound(way.origin, family, socket.SOCK_STREAM, way.source)
            undo.callback(cut, self._near)
            self._near.connect_ex((way.to, port))
            source = self._near.getsockname()
            until = time.monotonic() + _ATTEMPT
            while (far := listener.connection((source[0], source[1]))) is None:
                if time.monotonic() > until:
                    raise LabError(f"no connection from {source[0]} to {way.to} port {port}")
                time.sleep(_LOOK)
            self._far = far
            undo.pop_all()

    def exchange(self, seconds: float = _ATTEMPT) -> bool:
        """Send one byte each way; False if either did not arrive in time.

        One lost packet is sent again after 200 ms at the earliest: ask with less to notice it.
        A connection that was reset gives False too.
        """
        self._next = (self._next + 1) % 256
        byte = bytes([self._next])
        until = time.monotonic() + seconds
        ends = (self._near, self._far), (self._far, self._near)
        try:
            return all(self._carry(sender, receiver, byte, until) for sender, receiver in ends)
        except OSError:
            return False

    @staticmethod
    def _carry(sender: socket.socket, receiver: socket.socket, byte: bytes, until: float) -> bool:
        sender.send(byte)
        while time.monotonic() < until:
            try:
                got = receiver.recv(4096)
            except BlockingIOError:
                time.sleep(_LOOK)
                continue
            if not got:
                return False
            if byte in got:
                return True
        return False

    def close(self) -> None:
        """End the connection with resets."""
        cut(self._far)
        cut(self._near)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Load(ABC):
    """A thread in the namespace of the sender, for the time of a `with` block at most.

    What went wrong in it is raised at the end of the block.
    """

    def __init__(self, way: Way, seconds: float) -> None:
        self._way = way
        self._seconds = seconds
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded, name=type(self).__name__)

    def _guarded(self) -> None:
        try:
            with ExitStack() as stack:
                stack.enter_context(self._way.origin.entered())
                self._run(stack)
        except BaseException as error:
            self._error = error

    @abstractmethod
    def _run(self, stack: ExitStack) -> None:
        """Send, and look at what arrives, until stopped."""

    @abstractmethod
    def _open(self) -> None:
        """Open what must be there before the first packet."""

    @abstractmethod
    def _close(self) -> None:
        """Close it."""

    def wait(self) -> None:
        """Wait until it has ended by itself: all sent, or its time is over."""
        self._thread.join(self._seconds + 5)
        if self._thread.is_alive():
            raise LabError(f"{self._thread.name} does not end")

    def __enter__(self) -> Self:
        self._open()
        try:
            self._thread.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        try:
            self.wait()
        finally:
            self._close()
        if self._error is not None and value is None:
            raise self._error


class Flood(_Load):
    """New flows from one source, without waiting for what becomes of them.

    `sent` and `arrived` count while it runs and are final after the block (or after `wait`).
    Each datagram or SYN has a source port of its own. With `hold`, accepted TCP connections
    stay open until the block ends (for limits of connections; two descriptors each), else
    they are closed at once. `rate` is in flows per second, None as fast as it goes. It ends
    after `count` flows or `seconds`.
    """

    def __init__(
        self,
        way: Way,
        proto: Literal["tcp", "udp"],
        family: Family,
        port: int,
        *,
        ports: Ports,
        on: Listeners,
        count: int,
        rate: float | None,
        seconds: float,
        hold: bool,
    ) -> None:
        super().__init__(way, seconds)
        self.sent = 0
        self.arrived = 0
        self._family: Family = family
        self._port = port
        self._ports = ports
        self._count = count
        self._rate = rate
        self._hold = hold
        self._opened = on.on(way.target, proto, family, port)
        self._tcp = proto == "tcp"
        self._payload = f"flood {next(_serial)}".encode()
        self._tried: dict[Peer, tuple[socket.socket, float]] = {}  # the oldest first
        self._held: list[socket.socket] = []
        self._listener: Listener

    def _open(self) -> None:
        self._listener = self._opened.__enter__()

    def _close(self) -> None:
        for connection in self._held:
            cut(connection)
        self._held.clear()
        self._opened.__exit__(None, None, None)

    def _run(self, stack: ExitStack) -> None:
        stack.callback(self._give_up, 0)
        begun = time.monotonic()
        while not self._stopped.is_set() and self.sent < self._count:
            now = time.monotonic() - begun
            if now > self._seconds:
                break
            if self._rate is None or self.sent <= now * self._rate:
                self._send()
                self._look()
            else:
                self._look()
                self._stopped.wait(min(self.sent / self._rate - now, 0.01))
        until = time.monotonic() + _SETTLE
        while time.monotonic() < until and (self._tried or not self._tcp):
            self._look()
            if self.arrived == self.sent:
                break
            time.sleep(_LOOK)

    def _send(self) -> None:
        kind = socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM
        client = socket.socket(inet(self._family), kind)
        client.setblocking(False)
        try:
            port = self._ports.bind(client, self._way.source)
            if self._tcp:
                client.connect_ex((self._way.to, self._port))
                self._tried[self._way.source, port] = client, time.monotonic()
            else:
                client.sendto(self._payload, (self._way.to, self._port))
        finally:
            if not self._tcp:
                client.close()
        self.sent += 1

    def _look(self) -> None:
        if not self._tcp:
            self.arrived += self._listener.datagrams(self._payload)
            return
        for peer, connection in self._listener.connections(self._tried.keys()).items():
            client, _ = self._tried.pop(peer)
            self.arrived += 1
            if self._hold:
                self._held += (connection, client)
            else:
                cut(connection)
                cut(client)
        self._give_up(_ATTEMPT)

    def _give_up(self, age: float) -> None:
        oldest = time.monotonic() - age
        while self._tried:
            peer, (client, when) = next(iter(self._tried.items()))
            if when > oldest and len(self._tried) <= _UNDERWAY:
                return
            del self._tried[peer]
            client.close()


class Hammer(_Load):
    """New UDP flows to an open and to a closed port, one after the other, without a pause.

    For as long as its block runs, at most `seconds`; the four counts are final after it. What
    got through to the port that should be closed is `leaked_closed`; `got_open` less than
    `sent_open` is what was lost on the open one.
    """

    def __init__(
        self,
        way: Way,
        family: Family,
        open_port: int,
        closed_port: int,
        *,
        ports: Ports,
        on: Listeners,
        seconds: float,
    ) -> None:
        super().__init__(way, seconds)
        self.sent_open = 0
        self.got_open = 0
        self.sent_closed = 0
        self.leaked_closed = 0
        self._family: Family = family
        self._ports = ports
        self._targets = (way.to, open_port), (way.to, closed_port)
        self._on = on
        self._opened = ExitStack()
        self._payload = f"hammer {next(_serial)}".encode()
        self._listeners: tuple[Listener, Listener]

    def _open(self) -> None:
        with ExitStack() as stack:
            first, second = (
                stack.enter_context(self._on.on(self._way.target, "udp", self._family, port))
                for _, port in self._targets
            )
            self._listeners = first, second
            self._opened = stack.pop_all()

    def _close(self) -> None:
        self._opened.close()

    def _run(self, stack: ExitStack) -> None:
        until = time.monotonic() + self._seconds
        while not self._stopped.is_set() and time.monotonic() < until:
            self._send()
            self._look()
        until = time.monotonic() + _SETTLE
        while time.monotonic() < until:
            self._look()
            time.sleep(_LOOK)

    def _send(self) -> None:
        with socket.socket(inet(self._family), socket.SOCK_DGRAM) as client:
            self._ports.bind(client, self._way.source)
            client.sendto(self._payload, self._targets[0])
            self.sent_open += 1
            client.sendto(self._payload, self._targets[1])
            self.sent_closed += 1

    def _look(self) -> None:
        self.got_open += self._listeners[0].datagrams(self._payload)
        self.leaked_closed += self._listeners[1].datagrams(self._payload)

"""What tells where a packet came to: packet sockets, raw sockets, and listeners."""

import errno
import fcntl
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress

from tests.firewall.lab import packets
from tests.firewall.lab.errors import LabError
from tests.firewall.lab.netns import Namespace
from tests.firewall.lab.packets import Family, Mark, Proto, Solicited

Peer = tuple[str, int]

_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_SIOCGIFFLAGS = 0x8913
_UP_AND_RUNNING = 0x1 | 0x40
_QUEUE = 4 << 20  # bytes a socket may hold before it loses what comes
_ENDED_AT_ONCE = struct.pack("ii", 1, 0)


def inet(family: Family) -> int:
    """Return the address family of a socket."""
    return socket.AF_INET if family == 4 else socket.AF_INET6


def cut(connection: socket.socket) -> None:
    """Close a TCP socket with a reset: nothing of it stays in TIME_WAIT."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ENDED_AT_ONCE)
    connection.close()


class Tap:
    """A packet socket on one interface: what arrived at it, and what left by it.

    It sees arrivals before every hook of netfilter, and departures after them.
    """

    def __init__(self, namespace: Namespace, interface: str) -> None:
        self._interface = interface
        self._socket = namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE)
        self._socket.bind((interface, _ETH_P_ALL))
        self.arrived: set[Mark | Solicited] = set()
        self.left: set[Mark | Solicited] = set()

    def fileno(self) -> int:
        """Readable when there is something to drain."""
        return self._socket.fileno()

    def restart(self) -> None:
        """Forget everything seen so far."""
        self.drain()
        self.arrived.clear()
        self.left.clear()

    def drain(self) -> None:
        """Take in what was seen since."""
        while True:
            try:
                data, (_, ethertype, kind, _, _) = self._socket.recvfrom(128)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                continue  # told once when the interface goes down; it goes on when it is up
            seen = packets.on_the_wire(ethertype, data)
            if seen is not None:
                (self.left if kind == socket.PACKET_OUTGOING else self.arrived).add(seen)

    def running(self) -> bool:
        """Tell whether the interface is up and has its other end."""
        asked = self._interface.encode().ljust(40, b"\0")
        flags: int
        (flags,) = struct.unpack_from("=H", fcntl.ioctl(self._socket, _SIOCGIFFLAGS, asked), 16)
        return flags & _UP_AND_RUNNING == _UP_AND_RUNNING

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Answers:
    """Raw sockets where a flow begins: resets, ICMP errors and echoes that got back to it.

    They get what passed the input filter of their namespace, as an ordinary socket does, but
    unlike an ordinary socket's errno they tell a reset from port unreachable, and lose none.
    """

    def __init__(self, namespace: Namespace, family: Family) -> None:
        self._namespace = namespace
        self._family: Family = family
        raw = socket.SOCK_RAW
        self._tcp = namespace.socket(inet(family), raw, packets.TCP)
        self._icmp = namespace.socket(inet(family), raw, packets.number(family, "icmp"))
        for each in self.sockets():
            each.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE)
        self.refused: set[Mark] = set()
        self.echoed: set[Mark] = set()

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """Return both, to wait for."""
        return self._tcp, self._icmp

    def ping(self, mark: Mark, source: str, to: str) -> None:
        """Send an echo request; raises `OSError` where the kernel will not send it."""
        proto = packets.number(self._family, "icmp")
        with self._namespace.socket(inet(self._family), socket.SOCK_RAW, proto) as sender:
            sender.bind((source, 0))
            sender.sendto(packets.echo(self._family, mark.ident), (to, 0))

    def drain(self) -> None:
        """Take in what came since."""
        with suppress(BlockingIOError):
            while True:
                self._note(self.refused, packets.reset(self._family, self._tcp.recv(128)))
        with suppress(BlockingIOError):
            while True:
                data = self._icmp.recv(256)
                self._note(self.refused, packets.unreachable(self._family, data))
                self._note(self.echoed, packets.echoed(self._family, data))

    @staticmethod
    def _note(into: set[Mark], mark: Mark | None) -> None:
        if mark is not None:
            into.add(mark)

    def close(self) -> None:
        """Close both sockets."""
        for each in self.sockets():
            each.close()


class Listener:
    """A TCP or UDP port that takes in all that comes, for any number of askers and threads."""

    def __init__(self, namespace: Namespace, proto: Proto, family: Family, port: int) -> None:
        self._lock = threading.Lock()
        self._tcp = proto == "tcp"
        self._connections: dict[Peer, socket.socket] = {}
        self._datagrams: Counter[bytes] = Counter()
        kind = socket.SOCK_STREAM if self._tcp else socket.SOCK_DGRAM
        self._socket = namespace.socket(inet(family), kind)
        try:
            if family == 6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if self._tcp:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE)
            self._socket.bind(("", port))
            if self._tcp:
                self._socket.listen(4096)
        except OSError as error:
            self._socket.close()
            raise LabError(f"{namespace.name} cannot listen on {proto}/{port}: {error}") from error

    def fileno(self) -> int:
        """Readable when something waits; another thread may take it in first."""
        return self._socket.fileno()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while True:
                if self._tcp:
                    connection, peer = self._socket.accept()
                    connection.setblocking(False)
                    self._connections[peer[0], peer[1]] = connection
                else:
                    self._datagrams[self._socket.recv(64)] += 1

    def connection(self, peer: Peer) -> socket.socket | None:
        """Hand over the accepted connection of `peer`, which the caller closes."""
        return self.connections({peer}).get(peer)

    def connections(self, peers: Set[Peer]) -> dict[Peer, socket.socket]:
        """Hand over the accepted connections of `peers`, which the caller closes."""
        with self._lock:
            self._drain()
            return {peer: self._connections.pop(peer) for peer in self._connections.keys() & peers}

    def datagrams(self, payload: bytes) -> int:
        """Tell how many datagrams with this payload came since it was last asked."""
        with self._lock:
            self._drain()
            return self._datagrams.pop(payload, 0)

    def close(self) -> None:
        """Close the port and what nobody asked for."""
        with self._lock:
            for connection in self._connections.values():
                cut(connection)
            self._connections.clear()
            self._socket.close()


class Listeners:
    """The open ports of a lab: two who listen on one port share its socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[int, Proto, Family, int], tuple[Listener, int]] = {}

    @contextmanager
    def on(
        self, namespace: Namespace, proto: Proto, family: Family, port: int
    ) -> Iterator[Listener]:
        """Keep the port open; raises `LabError` if something else has it."""
        key = namespace.fd, proto, family, port
        with self._lock:
            listener, users = self._open.get(key) or (Listener(namespace, proto, family, port), 0)
            self._open[key] = listener, users + 1
        try:
            yield listener
        finally:
            with self._lock:
                listener, users = self._open.pop(key)
                if users > 1:
                    self._open[key] = listener, users - 1
                else:
                    listener.close()

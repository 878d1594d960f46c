"""The wire between the host and one neighbour, with a tap at each end."""

import errno
import itertools
import socket
import threading
from dataclasses import dataclass

from tests.firewall.lab.errors import LabError
from tests.firewall.lab.netns import Namespace
from tests.firewall.lab.packets import Family
from tests.firewall.lab.plan import Neighbour
from tests.firewall.lab.rtnl import Netlink
from tests.firewall.lab.watching import Tap, inet

FAR_IF = "lan0"


class Ports:
    """Source ports and echo identifiers: a new one each time, until the range is through."""

    def __init__(self, low: int, high: int) -> None:
        self._lock = threading.Lock()
        self._low, self._span = low, high - low
        self._next = itertools.count()

    def new(self) -> int:
        """Return the next number."""
        with self._lock:
            return self._low + next(self._next) % self._span

    def bound(self, namespace: Namespace, family: Family, kind: int, source: str) -> socket.socket:
        """Return a socket of the namespace with a source port of its own."""
        made = namespace.socket(inet(family), kind)
        try:
            self.bind(made, source)
        except OSError as error:
            made.close()
            raise LabError(f"{namespace.name} has no source address {source!r}") from error
        return made

    def bind(self, unbound: socket.socket, source: str) -> int:
        """Give a socket the next source port that is free, and return it."""
        for _ in range(100):
            port = self.new()
            try:
                unbound.bind((source, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # a listener's, or still in use here
                    raise
            else:
                return port
        raise LabError("100 source ports in a row are in use")


@dataclass(frozen=True, slots=True)
class Link:
    """A neighbour with its namespace, and both ends of its veth pair."""

    plan: Neighbour
    host: Namespace
    far: Namespace
    host_netlink: Netlink
    far_netlink: Netlink
    host_index: int
    far_index: int
    host_tap: Tap
    far_tap: Tap

    def forget(self, family: Family) -> None:
        """Make both ends resolve each other anew (ARP, neighbour discovery)."""
        self.far_netlink.forget(self.far_index, self.plan.host_address(family))
        for address in (*self.plan.addresses(family), *self.plan.strangers(family)):
            self.host_netlink.forget(self.host_index, address)

    def running(self) -> bool:
        """Tell whether both ends are up."""
        return self.host_tap.running() and self.far_tap.running()

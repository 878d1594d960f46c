"""The wire between the host and one neighbour, with a tap at each end."""

import errno
import ipaddress
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

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


def _hears(namespace: Namespace, interface: str, addresses: Iterable[str]) -> bool:
    """Tell whether the interface has joined the addresses' solicited-node groups.

    A worker of the kernel does that some time after the address is there.
    """
    with namespace.entered():
        lines = Path("/proc/thread-self/net/igmp6").read_text("ascii").splitlines()
    joined = {words[2] for line in lines if (words := line.split())[1] == interface}
    return joined.issuperset(
        f"ff0200000000000000000001ff{ipaddress.IPv6Address(address).packed[-3:].hex()}"
        for address in addresses
    )


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

    def settle(self) -> None:
        """Wait until both ends carry packets and hear solicitations; the kernel does so later.

        Raises `LabError` after 3 s.
        """
        ends = (self.host_netlink, self.host_index), (self.far_netlink, self.far_index)
        self._until(lambda: all(netlink.operational(index) for netlink, index in ends))
        # It says so a little before it sends, but both under the lock this request takes.
        for netlink, index in ends:
            netlink.up(index)
        if 6 in self.plan.families():
            here = [self.plan.host_address(6)]
            there = [*self.plan.addresses(6), *self.plan.strangers(6)]
            self._until(lambda: _hears(self.host, self.plan.host_if, here))
            self._until(lambda: _hears(self.far, FAR_IF, there))

    def _until(self, done: Callable[[], bool]) -> None:
        until = time.monotonic() + 3
        while not done():
            if time.monotonic() > until:
                raise LabError(f"{self.plan.host_if} and its other end do not come up")
            time.sleep(0.0005)

    def running(self) -> bool:
        """Tell whether both ends are up."""
        return self.host_tap.running() and self.far_tap.running()

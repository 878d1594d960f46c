"""Who is next to the host, by which interface and with which addresses."""

import ipaddress
from dataclasses import dataclass

from tests.firewall.lab.errors import LabError
from tests.firewall.lab.packets import Family


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A namespace on a veth of its own.

    The host has the first address of each network on `host_if`, the neighbour has the next
    `sources` ones and any in `foreign`. The foreign ones are for forged sources: the host has
    no route back, so send them as UDP (a TCP handshake could not end, whatever the firewall
    says). Those `beyond` the link are the neighbour's too, and the host has a route to each.
    """

    name: str
    host_if: str
    v4: str | None = None
    v6: str | None = None
    sources: int = 1
    foreign: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()

    def network(self, family: Family) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """Return the network between host and neighbour, or raise `LabError` without one."""
        text = self.v4 if family == 4 else self.v6
        if text is None:
            raise LabError(f"neighbour {self.name} has no IPv{family} network")
        return ipaddress.ip_network(text)

    def families(self) -> tuple[Family, ...]:
        """Return the families it has a network of."""
        pairs: tuple[tuple[Family, str | None], ...] = ((4, self.v4), (6, self.v6))
        return tuple(family for family, text in pairs if text is not None)

    def host_address(self, family: Family) -> str:
        """Return the host's address on this link."""
        return str(self.network(family)[1])

    def addresses(self, family: Family) -> tuple[str, ...]:
        """Return the neighbour's own addresses, the foreign ones left out."""
        network = self.network(family)
        return tuple(str(network[2 + n]) for n in range(self.sources))

    def strangers(self, family: Family) -> tuple[str, ...]:
        """Return the addresses of a family outside of its network, foreign ones first."""
        outside = (*self.foreign, *self.beyond)
        return tuple(a for a in outside if ipaddress.ip_address(a).version == family)

    def routed(self, family: Family) -> tuple[str, ...]:
        """Return those outside of its network that the host has a route to."""
        return tuple(a for a in self.beyond if ipaddress.ip_address(a).version == family)

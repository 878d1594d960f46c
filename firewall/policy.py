"""What a policy can say, and what its words mean; `firewall.policy_file` reads and checks one.

Law: pure data; whatever is asked of a text here was checked before, or raises ValueError.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, Literal

import msgspec

from firewall.ruleset import UNITS, Network, Rate
from vitals.ports import PORTS

ALLOWS_MAX: Final = 500
ZONES_MAX: Final = 32
SET_ADDRESSES_MAX: Final = 100_000
INTERFACE_BYTES_MAX: Final = 15
"""IFNAMSIZ without its NUL (linux/if.h)."""
RATE_MAX: Final = 1_000_000
CONNECTIONS_MAX: Final = 65_535
PORT_MAX: Final = 65_535
BLOCK_S_MAX: Final = 7 * 86_400
BURST: Final = 5
"""What comes at once beside a rate, unless it is said; nft(8) has the same."""

_RATE: Final = re.compile(r"([1-9][0-9]{0,6})/(second|minute|hour)")
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS_S: Final = {name: seconds for seconds, name in UNITS.items()}
_DURATION_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ports of a service: numbers, or ranges as ``"5000-5010"``."""

    tcp: tuple[int | str, ...] = ()
    udp: tuple[int | str, ...] = ()


KNOWN: Final[Mapping[str, Service]] = {
    **{port.name: Service(tcp=(port.number,)) for port in PORTS},
    "ssh": Service(tcp=(22,)),
    "dns": Service(tcp=(53,), udp=(53,)),
    "ntp": Service(udp=(123,)),
    "nts": Service(tcp=(4460,)),
    "http": Service(tcp=(80,)),
    "https": Service(tcp=(443,)),
    "node-exporter": Service(tcp=(9100,)),
}
"""Our own from the one table of ports, and what every host has; the numbers are IANA's."""


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where packets come from or go to: interfaces, and of those certain addresses if given."""

    interfaces: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    dhcp: bool = False
    """This host is a DHCP client there."""


class Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may reach which services."""

    services: tuple[str, ...]
    zones: tuple[str, ...] = ()
    """Empty: every zone, and interfaces of none."""
    addresses: tuple[str, ...] = ()
    """Networks, or sets as ``"@name"``: sources of what comes in, destinations of what leaves."""
    rate: str = ""
    """New connections of one source, as ``"20/second"``; UDP: new flows."""
    burst: int = BURST
    total: str = ""
    """New connections of all sources together."""
    connections: int = 0
    """Of one source at one time; TCP alone."""
    block: str = ""
    """A source over its rate is blocked for so long, as ``"10m"``."""


class Inbound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may come in."""

    default: Literal["drop", "reject"] = "drop"
    allow: tuple[Allow, ...] = ()


class Outbound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may leave."""

    default: Literal["accept", "drop", "reject"] = "accept"
    allow: tuple[Allow, ...] = ()


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines of the kernel's log about what was refused."""

    rate: str = "10/minute"
    prefix: str = "healthsync"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole policy."""

    name: str
    table: str = "healthsync"
    ping: str = "10/second"
    """Echo requests answered, of all of a family; empty: none."""
    log: Log = Log()
    zones: dict[str, Zone] = {}
    sets: dict[str, tuple[str, ...]] = {}
    services: dict[str, Service] = {}
    inbound: Inbound = Inbound()
    outbound: Outbound = Outbound()


# -- what each value means -------------------------------------------------------------------------


def rate(text: str, burst: int) -> Rate:
    """Return a rate of a checked policy."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return Rate(int(found[1]), _UNITS_S[found[2]], burst)


def seconds(text: str) -> int:
    """Return a duration as ``"10m"`` in seconds; raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return int(found[1]) * _DURATION_S[found[2]]


def ports(given: Iterable[int | str]) -> list[tuple[int, int]]:
    """Return ranges of ports (first, last), apart from each other and in order; ValueError."""
    ranges = []
    for one in given:
        low, _, high = str(one).partition("-")
        first, last = int(low), int(high or low)
        if not 1 <= first <= last <= PORT_MAX:
            raise ValueError(one)
        ranges.append((first, last))
    out: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return out


def services(policy: Policy) -> dict[str, Service]:
    """Return every service that the policy can name."""
    return {**KNOWN, **policy.services}


def networks(policy: Policy, given: Iterable[str]) -> list[Network]:
    """Return the networks of addresses and of sets named among them."""
    out: list[Network] = []
    for one in given:
        if one.startswith("@"):
            out += networks(policy, policy.sets[one[1:]])
        else:
            out.append(network(one))
    return out


@lru_cache(maxsize=SET_ADDRESSES_MAX)
def network(text: str) -> Network:
    """Return one network, read once for checking and for compiling; raises ValueError."""
    return ipaddress.ip_network(text)

"""What a firewall is made of, before anybody writes it down: sets, chains, rules of typed terms.

Law: pure data; each term says one thing about a packet or does one thing with it, and is written
in every language (`firewall.text`, `firewall.messages`, `firewall.iptables`) or refused there.
Terms are tried from left to right; the first that does not match ends its rule.
"""

from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Final

import msgspec

Network = IPv4Network | IPv6Network

ACCEPT: Final = "accept"
DROP: Final = "drop"

TCP: Final = 6
UDP: Final = 17
ICMP: Final = 1
ICMP6: Final = 58
PROTOCOLS: Final = {TCP: "tcp", UDP: "udp"}
"""As nft and iptables call them."""

UNITS: Final = {1: "second", 60: "minute", 3600: "hour"}
"""Of a rate, by their seconds, as policies, nft and iptables call them."""

COMMENT_BYTES_MAX: Final = 120
"""A rule's name; nft(8) 1.0 reads back up to 127 bytes, the kernel takes more."""


class Family(IntEnum):
    """NFPROTO_* of the kernel's nf_tables."""

    V4 = 2
    V6 = 10

    @property
    def bits(self) -> int:
        """Bits of an address."""
        return 32 if self is Family.V4 else 128

    @property
    def number(self) -> int:
        """4 or 6."""
        return 4 if self is Family.V4 else 6


FAMILIES: Final = (Family.V4, Family.V6)


class Rate(msgspec.Struct, frozen=True):
    """So many packets a unit of ``unit_s`` seconds, and ``burst`` more at once."""

    count: int
    unit_s: int
    burst: int


class Interface(msgspec.Struct, frozen=True):
    """The packet comes in by ``name``, or leaves by it; a last ``*`` stands for any rest."""

    name: str
    out: bool = False


class State(msgspec.Struct, frozen=True):
    """Connection tracking knows the packet's flow in one of these states."""

    states: tuple[str, ...]


class Protocol(msgspec.Struct, frozen=True):
    """The packet carries a protocol, whatever its ports."""

    number: int


class Port(msgspec.Struct, frozen=True):
    """Protocol and destination port from ``low`` to ``high``."""

    protocol: int
    low: int
    high: int


class PortPair(msgspec.Struct, frozen=True):
    """Protocol, source port and destination port."""

    protocol: int
    source: int
    destination: int


class PortIn(msgspec.Struct, frozen=True):
    """Protocol and destination port in a set."""

    protocol: int
    set: str


class AddressIn(msgspec.Struct, frozen=True):
    """Source address, or destination if ``destination``, in a set of one family."""

    family: Family
    set: str
    destination: bool = False


class LinkLocal(msgspec.Struct, frozen=True):
    """The source is an IPv6 link-local address (fe80::/10, RFC 4291 section 2.5.6)."""


class Icmp(msgspec.Struct, frozen=True):
    """ICMP or ICMPv6 of a type."""

    family: Family
    type: int


class HopLimit(msgspec.Struct, frozen=True):
    """IPv6 hop limit of 255: nobody but a neighbour sent it (RFC 4861 section 6.1)."""


class Within(msgspec.Struct, frozen=True):
    """Matches while all packets that come here stay within a rate; ``over``: while they do not."""

    rate: Rate
    over: bool = False


class SourceOver(msgspec.Struct, frozen=True):
    """Matches while this source's packets are over a rate; sources are counted in a set."""

    family: Family
    set: str
    rate: Rate


class ConnectionsOver(msgspec.Struct, frozen=True):
    """Matches while this source has more than ``count`` connections; counted in a set."""

    family: Family
    set: str
    count: int


class Block(msgspec.Struct, frozen=True):
    """Puts the source into a set for so long; always matches."""

    family: Family
    set: str
    seconds: int


class Counter(msgspec.Struct, frozen=True):
    """Counts packets and bytes; always matches."""


class Log(msgspec.Struct, frozen=True):
    """Writes a line to the kernel's log; always matches."""

    prefix: str


class Verdict(msgspec.Struct, frozen=True):
    """Ends the packet's way: ACCEPT or DROP."""

    what: str


class Reject(msgspec.Struct, frozen=True):
    """Ends the packet's way and says so: a TCP reset, or else administratively prohibited."""

    reset: bool = False


class Jump(msgspec.Struct, frozen=True):
    """Goes on in another chain and comes back."""

    chain: str


Term = (
    Interface
    | State
    | Protocol
    | Port
    | PortPair
    | PortIn
    | AddressIn
    | LinkLocal
    | Icmp
    | HopLimit
    | Within
    | SourceOver
    | ConnectionsOver
    | Block
    | Counter
    | Log
    | Verdict
    | Reject
    | Jump
)


class Rule(msgspec.Struct, frozen=True):
    """Terms, and a name by which people and `firewall.kernel` find the rule again."""

    name: str
    terms: tuple[Term, ...]


class Chain(msgspec.Struct, frozen=True):
    """Rules in order. With a ``hook`` packets begin here, and ``policy`` is for the rest."""

    name: str
    rules: tuple[Rule, ...]
    hook: str = ""
    policy: str = ""


class AddressSet(msgspec.Struct, frozen=True):
    """Networks of one family, collapsed and in order."""

    name: str
    family: Family
    networks: tuple[Network, ...]


class PortSet(msgspec.Struct, frozen=True):
    """Ranges of ports, first and last, apart from each other and in order."""

    name: str
    ranges: tuple[tuple[int, int], ...]


class SourceSet(msgspec.Struct, frozen=True):
    """Sources of one family that packets put there: at most ``size``, for ``timeout_s`` each.

    A timeout of 0: until the last connection of the source ends.
    """

    name: str
    family: Family
    size: int
    timeout_s: int = 0


Set = AddressSet | PortSet | SourceSet


class Ruleset(msgspec.Struct, frozen=True):
    """One table of family inet."""

    table: str
    sets: tuple[Set, ...]
    chains: tuple[Chain, ...]

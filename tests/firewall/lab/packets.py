"""The little of IPv4, IPv6, ARP, TCP, UDP and ICMP the lab reads and writes."""

import struct
from typing import Final, Literal, NamedTuple

Family = Literal[4, 6]
Proto = Literal["tcp", "udp", "icmp"]

ICMP4, TCP, UDP, ICMP6 = 1, 6, 17, 58
_ETH_IP4, _ETH_ARP, _ETH_IP6 = 0x0800, 0x0806, 0x86DD
_UNREACHABLE: Final[dict[Family, int]] = {4: 3, 6: 1}
_ECHO: Final[dict[Family, int]] = {4: 8, 6: 128}
_ECHO_REPLY: Final[dict[Family, int]] = {4: 0, 6: 129}
_SOLICITATION = 135
_RST = 0x04


class Mark(NamedTuple):
    """Tells one flow from every other of the lab: its source port, or an echo's identifier."""

    family: Family
    proto: Proto
    ident: int


class Solicited(NamedTuple):
    """Somebody asked for a neighbour's link-layer address (ARP, or neighbour solicitation)."""

    family: Family


def number(family: Family, proto: Proto) -> int:
    """Return the protocol number in an IP header."""
    if proto == "icmp":
        return ICMP4 if family == 4 else ICMP6
    return TCP if proto == "tcp" else UDP


def _opened(data: bytes) -> tuple[Family, int, bytes] | None:
    """Family, protocol and payload of an IP packet; later fragments have none."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        if struct.unpack_from("!H", data, 6)[0] & 0x1FFF:
            return None
        return 4, data[9], data[(data[0] & 15) * 4 :]
    if len(data) >= 40 and data[0] >> 4 == 6:
        return 6, data[6], data[40:]
    return None


def _sent(data: bytes) -> Mark | Solicited | None:
    """What an IP packet is, seen as the first of a flow."""
    opened = _opened(data)
    if opened is None or len(opened[2]) < 8:
        return None
    family, proto, inner = opened
    if proto == TCP:
        return Mark(family, "tcp", struct.unpack_from("!H", inner)[0])
    if proto == UDP:
        return Mark(family, "udp", struct.unpack_from("!H", inner)[0])
    if proto == number(family, "icmp"):
        if inner[0] == _ECHO[family]:
            return Mark(family, "icmp", struct.unpack_from("!H", inner, 4)[0])
        if family == 6 and inner[0] == _SOLICITATION:
            return Solicited(6)
    return None


def on_the_wire(ethertype: int, data: bytes) -> Mark | Solicited | None:
    """Read a frame's payload: the flow it belongs to as its sender's, or a solicitation."""
    if ethertype == _ETH_ARP and len(data) >= 8 and data[6:8] == b"\0\1":
        return Solicited(4)
    return _sent(data) if ethertype in {_ETH_IP4, _ETH_IP6} else None


def reset(family: Family, data: bytes) -> Mark | None:
    """Read what a raw TCP socket gave: the flow that was reset, if it is a reset."""
    inner = data[(data[0] & 15) * 4 :] if family == 4 else data
    if len(inner) >= 20 and inner[13] & _RST:
        return Mark(family, "tcp", struct.unpack_from("!H", inner, 2)[0])
    return None


def unreachable(family: Family, data: bytes) -> Mark | None:
    """Read what a raw ICMP socket gave: the flow that was called unreachable, if one was."""
    inner = data[(data[0] & 15) * 4 :] if family == 4 else data
    if len(inner) < 8 or inner[0] != _UNREACHABLE[family]:
        return None
    sent = _sent(inner[8:])
    return sent if isinstance(sent, Mark) else None


def echoed(family: Family, data: bytes) -> Mark | None:
    """Read what a raw ICMP socket gave: the echo that was answered, if one was."""
    inner = data[(data[0] & 15) * 4 :] if family == 4 else data
    if len(inner) < 8 or inner[0] != _ECHO_REPLY[family]:
        return None
    return Mark(family, "icmp", struct.unpack_from("!H", inner, 4)[0])


def echo(family: Family, ident: int) -> bytes:
    """Write an echo request for a raw socket, which fills the checksum in by itself for IPv6."""
    head = struct.pack("!BBHHH", _ECHO[family], 0, 0, ident, 1)
    if family == 6:
        return head
    total = sum(struct.unpack("!4H", head))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!BBHHH", _ECHO[4], 0, ~(total + (total >> 16)) & 0xFFFF, ident, 1)

"""The few requests of rtnetlink the lab makes: links, addresses, routes, forgotten neighbours."""

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Collection

from tests.firewall.lab.errors import LabUnavailable
from tests.firewall.lab.netns import Namespace

_NEWLINK, _GETLINK, _NEWADDR, _NEWROUTE, _DELNEIGH = 16, 18, 20, 24, 29
_REQUEST_ACK, _CREATE_EXCL = 0x1 | 0x4, 0x400 | 0x200
_IFLA_IFNAME, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 16, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_TABLE_MAIN, _STATIC, _UNIVERSE, _LINK, _UNICAST = 254, 4, 0, 253, 1
_NDA_DST = 1
_IFF_UP = 1
_OPER_UP = 6
_FAR_INDEX = 1000


def _attr(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _name(text: str) -> bytes:
    return _attr(_IFLA_IFNAME, text.encode() + b"\0")


def _link(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, flags)


def _af(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _route(to: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int, scope: int) -> bytes:
    head = _af(to), prefix, 0, 0, _TABLE_MAIN, _STATIC, scope, _UNICAST
    return struct.pack("=BBBBBBBBI", *head, 0)


class Netlink:
    """An rtnetlink socket in one namespace. A refusal is raised as `OSError`."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._socket = namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(2)
        self._seq = 0

    def _ask(self, kind: int, flags: int, body: bytes, *, fine: Collection[int] = ()) -> None:
        self._seq += 1
        head = struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST_ACK, self._seq, 0)
        self._socket.send(head + body)
        code = -struct.unpack_from("=i", self._socket.recv(65536), 16)[0]
        if code == errno.EPERM:
            raise LabUnavailable(f"rtnetlink {kind}: the packet lab needs root with CAP_NET_ADMIN")
        if code and code not in fine:
            raise OSError(code, f"rtnetlink {kind}: {os.strerror(code)}")

    def veth(self, name: str, peer: str, peer_in: Namespace) -> None:
        """Make a pair: `name` here and `peer` in the other namespace, both down.

        The kernel looks at changes of a carrier once a second, but at once on an interface
        whose index is not that of its other end. Namespaces each count from 1, so give one.
        """
        far = _link() + _name(peer) + _attr(_IFLA_NET_NS_FD, struct.pack("=I", peer_in.fd))
        info = _attr(_INFO_KIND, b"veth") + _attr(_INFO_DATA, _attr(_VETH_PEER, far))
        try:
            body = _link(_FAR_INDEX) + _name(name) + _attr(_IFLA_LINKINFO, info)
            self._ask(_NEWLINK, _CREATE_EXCL, body)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise LabUnavailable("this kernel has no veth (CONFIG_VETH)") from error
            raise

    def index(self, name: str) -> int:
        """Return the interface's index in this namespace."""
        with self._namespace.entered():
            return socket.if_nametoindex(name)

    def up(self, index: int) -> None:
        """Set the interface up."""
        self._ask(_NEWLINK, 0, _link(index, _IFF_UP))

    def down(self, index: int) -> None:
        """Set the interface down."""
        self._ask(_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, _IFF_UP))

    def operational(self, index: int) -> bool:
        """Tell whether the kernel has taken note of the interface's carrier (RFC 2863 "up").

        Until then it may throw away what is sent, though the flags say "running" already.
        """
        self._socket.send(struct.pack("=IHHII", 32, _GETLINK, 0x1, 0, 0) + _link(index))
        answer = self._socket.recv(65536)
        at = 32
        while at + 4 <= len(answer):
            length, kind = struct.unpack_from("=HH", answer, at)
            if kind == _IFLA_OPERSTATE:
                return answer[at + 4] == _OPER_UP
            at += (length + 3) & ~3
        raise LabUnavailable(f"rtnetlink: no state of interface {index}")

    def address(self, index: int, address: str, prefix: int) -> None:
        """Give the interface an address, valid at once (no duplicate address detection)."""
        ip = ipaddress.ip_address(address)
        head = struct.pack("=BBBBi", _af(ip), prefix, _IFA_F_NODAD, 0, index)
        body = head + _attr(_IFA_LOCAL, ip.packed) + _attr(_IFA_ADDRESS, ip.packed)
        self._ask(_NEWADDR, _CREATE_EXCL, body)

    def default_route(self, gateway: str) -> None:
        """Send what is not on the link to `gateway`."""
        ip = ipaddress.ip_address(gateway)
        head = _route(ip, 0, _UNIVERSE)
        self._ask(_NEWROUTE, _CREATE_EXCL, head + _attr(_RTA_GATEWAY, ip.packed))

    def route(self, index: int, address: str) -> None:
        """Look for an address on the interface's link, whatever network it is of."""
        ip = ipaddress.ip_address(address)
        head = _route(ip, ip.max_prefixlen, _LINK)
        to = _attr(_RTA_DST, ip.packed) + _attr(_RTA_OIF, struct.pack("=i", index))
        self._ask(_NEWROUTE, _CREATE_EXCL, head + to)

    def forget(self, index: int, address: str) -> None:
        """Drop what is known of a neighbour, with the packets waiting for it, if anything is."""
        ip = ipaddress.ip_address(address)
        head = struct.pack("=BxxxiHBB", _af(ip), index, 0, 0, 0)
        self._ask(_DELNEIGH, 0, head + _attr(_NDA_DST, ip.packed), fine={errno.ENOENT})

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

"""PROXY protocol version 2, the receiving half: who really called, before the first byte of data.

Law: sans-IO, bounded; only for ports where HAProxy alone can call. Source: HAProxy's
``doc/proxy-protocol.txt``, section 2.2 (binary header).
"""

import ipaddress
from typing import Final, NamedTuple

from edge.refusal import Reason, Refuse

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16
HEADER_BYTES_MAX: Final = 4096
"""Addresses and the TLVs of a client certificate; the protocol would allow 64 KiB."""


class Header(NamedTuple):
    """The caller's address (empty for the proxy's own health checks) and the header's length."""

    address: str
    size: int


def read(data: bytes) -> Header | None:
    """Return the header that ``data`` starts with, None to wait for more; raise Refuse."""
    if not SIGNATURE.startswith(data[:12]) or (len(data) > 12 and data[12] >> 4 != 2):
        raise Refuse(Reason.BAD_PROXY, "", "this port takes PROXY protocol v2 from HAProxy only")
    if len(data) < _FIXED:
        return None
    size = _FIXED + int.from_bytes(data[14:16], "big")
    if size > HEADER_BYTES_MAX:
        raise Refuse(Reason.BAD_PROXY, "", f"PROXY header over {HEADER_BYTES_MAX} bytes")
    if len(data) < size:
        return None
    command, family, body = data[12] & 0xF, data[13] >> 4, data[_FIXED:size]
    if command == 0:
        return Header("", size)
    for kind, length in ((1, 4), (2, 16)):
        if family == kind and len(body) >= 2 * length + 4:
            return Header(str(ipaddress.ip_address(body[:length])), size)
    raise Refuse(Reason.BAD_PROXY, "", "the PROXY header names no TCP address")

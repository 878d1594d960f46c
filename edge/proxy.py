"""PROXY protocol version 2, the receiving half: who really called, before the first byte of data.

Law: sans-IO, bounded; only for ports where HAProxy alone can call. Source: HAProxy's
``doc/proxy-protocol.txt``, section 2.2 (binary header).
"""

import ipaddress
from collections.abc import Iterator
from typing import Final, NamedTuple

from edge.refusal import Reason, Refuse

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16
HEADER_BYTES_MAX: Final = 4096
"""Addresses and the TLVs of a client certificate; the protocol would allow 64 KiB."""


class Header(NamedTuple):
    """Who calls. ``address`` is empty for the proxy's own health checks.

    ``certificate`` is the common name of a client certificate that the proxy has verified, else
    empty; ``size`` the header's length.
    """

    address: str
    size: int
    certificate: str = ""


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
            address = str(ipaddress.ip_address(body[:length]))
            return Header(address, size, _certificate(body[2 * length + 4 :]))
    raise Refuse(Reason.BAD_PROXY, "", "the PROXY header names no TCP address")


_TLV_SSL: Final = 0x20
_SSL_CN: Final = 0x22
_CLIENT_CERT: Final = 0x02 | 0x04
"""PP2_CLIENT_CERT_CONN or _SESS: the client gave a certificate, on this connection or session."""


def _certificate(tlvs: bytes) -> str:
    """Return the verified client certificate's common name (section 2.2.6), or empty."""
    for kind, value in _tlvs(tlvs):
        # 1 byte of flags, 4 bytes of verification result (0 is verified), then TLVs again
        if kind == _TLV_SSL and len(value) >= 5 and value[0] & _CLIENT_CERT and not any(value[1:5]):
            for sub, text in _tlvs(value[5:]):
                if sub == _SSL_CN:
                    return text.decode("utf-8", "replace")
    return ""


def _tlvs(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 3:
        end = 3 + int.from_bytes(data[1:3], "big")
        if end > len(data):
            return
        yield data[0], data[3:end]
        data = data[end:]

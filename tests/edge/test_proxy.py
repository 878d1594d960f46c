"""The PROXY header is read whole or waited for, and nothing else gets past the port."""

import socket

import pytest

from edge import proxy
from edge.refusal import Refuse

V4 = (
    proxy.SIGNATURE
    + b"\x21\x11\x00\x0c"
    + socket.inet_aton("10.1.2.3")
    + socket.inet_aton("10.0.0.1")
    + b"\x12\x34\x1b\x63"
)


def test_the_callers_address_is_the_headers() -> None:
    assert proxy.read(V4 + b"heart_rate=78\n") == proxy.Header("10.1.2.3", len(V4))


def test_every_shorter_beginning_waits_for_more() -> None:
    for end in range(len(V4)):
        assert proxy.read(V4[:end]) is None


def test_ipv6_and_the_proxys_own_checks_are_known() -> None:
    body = socket.inet_pton(socket.AF_INET6, "fd00::7") * 2 + b"\x00\x01\x00\x02"
    header = proxy.SIGNATURE + b"\x21\x21" + len(body).to_bytes(2, "big") + body
    assert proxy.read(header) == proxy.Header("fd00::7", len(header))
    local = proxy.SIGNATURE + b"\x20\x00\x00\x00"
    assert proxy.read(local) == proxy.Header("", 16)


@pytest.mark.parametrize(
    "data",
    [
        b"heart_rate=78\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        proxy.SIGNATURE + b"\x11\x11\x00\x0c",
        proxy.SIGNATURE + b"\x21\x11\xff\xff",
        proxy.SIGNATURE + b"\x21\x31\x00\x00",
        proxy.SIGNATURE + b"\x21\x11\x00\x02ab",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(Refuse):
        proxy.read(data)


def _tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def _with(tlvs: bytes) -> bytes:
    body = V4[16:] + tlvs
    return V4[:14] + len(body).to_bytes(2, "big") + body


NAME = _tlv(0x22, b"monitor-7")
OTHERS = _tlv(4, b"pad") + _tlv(0x20, b"\x03\0\0\0\0" + _tlv(0x21, b"TLSv1.3") + NAME)


@pytest.mark.parametrize(
    ("tlvs", "name"),
    [
        (_tlv(0x20, b"\x05\0\0\0\0" + NAME), "monitor-7"),
        (
            _tlv(0x04, b"pad") + _tlv(0x20, b"\x03\0\0\0\0" + _tlv(0x21, b"TLSv1.3") + NAME),
            "monitor-7",
        ),
        (_tlv(0x20, b"\x05\0\0\0\x01" + NAME), ""),
        (_tlv(0x20, b"\x01\0\0\0\0" + NAME), ""),
        (_tlv(0x20, b"\x05\0\0\0\0"), ""),
        (_tlv(0x20, b"\x05\0\0"), ""),
        (_tlv(0x20, b"\x05\0\0\0\0" + NAME)[:-2], ""),
        (NAME, ""),
    ],
    ids=[
        "good",
        "among-others",
        "not-verified",
        "none-given",
        "no-name",
        "short",
        "cut",
        "outside",
    ],
)
def test_only_a_verified_client_certificate_has_a_name(tlvs: bytes, name: str) -> None:
    data = _with(tlvs)
    assert proxy.read(data + b"hr=78\n") == proxy.Header("10.1.2.3", len(data), name)

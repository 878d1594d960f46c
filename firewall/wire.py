"""Netlink messages as bytes: what is the same for every one of nf_tables.

Law: pure. pyroute2's classes encode what has names (`firewall.messages`); batches, attributes and
elements are laid out here, because pyroute2 0.9.7 cannot say for which generation a batch was
made, encodes flags of elements by name as 0, and needs 65 µs for an element.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

INET: Final = 1
"""NFPROTO_INET; pyroute2's own default is IPv4 alone."""

SUBSYSTEM: Final = 10
"""NFNL_SUBSYS_NFTABLES."""

BEGIN: Final = 0x10
END: Final = 0x11
ERROR: Final = 2
DONE: Final = 3

REQUEST: Final = 0x1
ACK: Final = 0x4
DUMP: Final = 0x300
CREATE: Final = 0x400
APPEND: Final = 0x800
INTERRUPTED: Final = 0x10
"""NLM_F_DUMP_INTR: what was being read changed meanwhile."""
TLVS: Final = 0x200
"""NLM_F_ACK_TLVS: an error's text and place follow it."""

_NESTED: Final = 0x8000
_KIND: Final = 0x3FFF
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct("!BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_GENERATION: Final = 1

HEAD_BYTES: Final = _HEADER.size + _GENERIC.size

Encoded = tuple[int, int, bytes]
"""Type within the subsystem, flags, attributes."""

Message = Any
"""An `Encoded`, or a message of pyroute2's."""


class Part(NamedTuple):
    """One attribute: its type, its bytes with head and padding, and its value."""

    kind: int
    raw: bytes
    value: bytes


def message(kind: Any, number: int, flags: int, attributes: Sequence[tuple[str, Any]]) -> Message:
    """Return a message of one of pyroute2's classes, for family inet."""
    made = kind()
    made["nfgen_family"] = INET
    made["attrs"] = [list(one) for one in attributes]
    made["header"]["type"] = SUBSYSTEM << 8 | number
    made["header"]["flags"] = REQUEST | flags
    return made


def attribute(kind: int, body: bytes, *, nested: bool = False) -> bytes:
    """Return one attribute: length, type, body, padded to four bytes."""
    head = _ATTRIBUTE.pack(len(body) + 4, kind | (_NESTED if nested else 0))
    return head + body + bytes(-len(body) % 4)


def parts(raw: bytes) -> Iterator[Part]:
    """Yield the attributes of a body."""
    at = 0
    while at + 4 <= len(raw):
        length, kind = _ATTRIBUTE.unpack_from(raw, at)
        padded = (length + 3) & ~3
        yield Part(kind & _KIND, raw[at : at + padded], raw[at + 4 : at + length])
        at += max(padded, 4)


def encode(given: Message, sequence: int) -> bytes:
    """Return a message's bytes with a sequence number."""
    if isinstance(given, tuple):
        encoded: Encoded = given
        number, flags, body = encoded
        kind = SUBSYSTEM << 8 | number
        head = _HEADER.pack(HEAD_BYTES + len(body), kind, REQUEST | flags, sequence, 0)
        return head + _GENERIC.pack(INET, 0, 0) + body
    given["header"]["sequence_number"] = sequence
    given["header"]["pid"] = 0
    given.reset()
    given.encode()
    raw: bytearray = given.data
    return bytes(raw)


def batch(messages: Sequence[Message], generation: int | None = None) -> bytes:
    """Return a batch: the kernel takes all of it or nothing.

    Sequence numbers are 1 for its begin, 2 for the first message, and so on to its end, which
    alone is acknowledged. With a ``generation`` the kernel refuses it (ERESTART) when anybody
    changed anything since.
    """
    body = b"" if generation is None else attribute(_GENERATION, struct.pack("!I", generation))
    out = [_bound(BEGIN, REQUEST, 1, body)]
    out += [encode(one, at) for at, one in enumerate(messages, 2)]
    out.append(_bound(END, REQUEST | ACK, len(messages) + 2, b""))
    return b"".join(out)


def _bound(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    head = _HEADER.pack(HEAD_BYTES + len(body), kind, flags, sequence, 0)
    return head + _GENERIC.pack(0, 0, SUBSYSTEM) + body


class Received(NamedTuple):
    """One message of an answer."""

    kind: int
    flags: int
    sequence: int
    body: bytes
    """After the netlink header."""


def received(raw: bytes) -> Iterator[Received]:
    """Yield the messages of what a socket gave."""
    at = 0
    while at + _HEADER.size <= len(raw):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(raw, at)
        yield Received(kind, flags, sequence, raw[at + _HEADER.size : at + length])
        at += max((length + 3) & ~3, _HEADER.size)

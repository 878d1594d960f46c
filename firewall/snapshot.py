"""A table as the kernel tells it: which of its raw attributes make it what it is.

Law: pure. Nothing is decoded that need not be: what is compared is bytes, without handles, counts
and whatever packets left behind, so that equal tables are equal here.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from firewall import wire
from firewall.wire import Part

SET_ANONYMOUS: Final = 0x1
SET_INTERVAL: Final = 0x4
SET_TIMEOUT: Final = 0x10
SET_DYNAMIC: Final = 0x20
CHAIN_HOOK: Final = 4
CHAIN_OWN: Final = {2, 6, 8, 9, 11}
"""Attributes that are the kernel's own: handles, use counts, counters, numbers of a batch."""
SET_OWN: Final = {10, 14, 16, 19, 20}
ELEMENT_FLAGS: Final = 3


class Snapshot(NamedTuple):
    """A table as the kernel holds it: equal tables have equal ones.

    Without handles, counters and whatever packets put into sets.
    """

    chains: dict[str, bytes]
    rules: dict[str, list[bytes]]
    """By chain, in their order."""
    sets: dict[str, bytes]
    elements: dict[str, list[bytes]]
    others: dict[str, bytes]
    """Named objects: none of ours."""


def same_sets(wanted: Snapshot, found: Snapshot) -> set[str]:
    """Return the sets that are there as they should be."""
    return {
        name
        for name, raw in wanted.sets.items()
        if found.sets.get(name) == raw and found.elements.get(name) == wanted.elements.get(name)
    }


def string(parts: Iterable[Part], kind: int) -> str:
    """Return the text of an attribute."""
    return next(part.value for part in parts if part.kind == kind)[:-1].decode()


def number(parts: Iterable[Part], kind: int) -> int:
    """Return the number of an attribute; 0 when it is not there."""
    return next((struct.unpack("!I", part.value)[0] for part in parts if part.kind == kind), 0)


def text_of(body: bytes, kind: int) -> str:
    """Return the text of an attribute of a message."""
    return string(wire.parts(body), kind)


def without(parts: Iterable[Part], dropped: set[int]) -> bytes:
    """Return the attributes but for some."""
    return b"".join(part.raw for part in parts if part.kind not in dropped)


def begins(parts: Iterable[Part]) -> bool:
    """Tell whether packets begin in a chain: it has a hook."""
    return any(part.kind == CHAIN_HOOK for part in parts)


def hooked(raw: bytes) -> bool:
    """Tell the same of a chain of a `Snapshot`."""
    return begins(wire.parts(raw))


def anonymous(raw: bytes) -> bool:
    """Tell whether a set has no name of its own: it goes with its rule."""
    return bool(number(wire.parts(raw), 3) & SET_ANONYMOUS)


def plain(element: bytes) -> bytes:
    """Return an element without its own clock, counters and nft(8)'s hints."""
    length = struct.unpack_from("=H", element)[0]
    rest = element[(length + 3) & ~3 :]
    # A key, or a key and flags, is all there is of nearly every one of ten thousand.
    if not rest or (len(rest) == 8 and rest[2] == ELEMENT_FLAGS):
        return element
    return b"".join(
        part.raw
        for part in wire.parts(element)
        if part.kind not in {5, 7, 8, 11} and not (part.kind == 6 and part.value[:1] == b"\1")
    )


def without_lead(elements: list[bytes]) -> list[bytes]:
    """Leave out the end at 0 that nft(8) puts before the first interval; they are in order."""

    def zero_end(element: bytes) -> bool:
        inner = {part.kind: part.value for part in wire.parts(element)}
        ended = struct.unpack("!I", inner.get(ELEMENT_FLAGS, bytes(4)))[0] & 1
        key = next(part.value for part in wire.parts(inner[1]))
        return bool(ended) and not any(key)

    # A start at 0 sorts before an end there.
    return [one for one in elements[:2] if not zero_end(one)] + elements[2:]


def uncounted(expressions: bytes) -> bytes:
    """Return a rule's expressions without what packets have counted."""
    return _rewritten(expressions, lambda name, _: name == b"counter\0")


def acceptable(expressions: bytes) -> bytes:
    """Return a rule's expressions as the kernel takes back what it told."""
    return _rewritten(expressions, lambda _name, _part: False)


def _rewritten(expressions: bytes, dropped: Callable[[bytes, Part], bool]) -> bytes:
    out = b""
    for one in wire.parts(expressions):
        inner = {part.kind: part.value for part in wire.parts(one.value)}
        name, data = inner[1], inner.get(2)
        body = wire.attribute(1, name)
        if data is not None:
            kept = b"".join(
                part.raw
                for part in wire.parts(data)
                # A timeout of 0 is told, and refused.
                if not (name == b"dynset\0" and part.kind == 6 and not any(part.value))
                and not dropped(name, part)
            )
            body += wire.attribute(2, kept, nested=True)
        out += wire.attribute(1, body, nested=True)
    return out


def rule_name(raw: bytes) -> str:
    """Return the comment of a rule of a snapshot, or nothing."""
    for part in wire.parts(raw):
        if part.kind == 7:
            return part.value[2 : 1 + part.value[1]].decode(errors="replace")
    return ""

"""The terms of a rule as expressions of nf_tables: loads, comparisons, verdicts, for pyroute2.

Law: pure. What an earlier term made sure of is not asked again, as nft(8) does: so both make the
same rule of the same text.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, assert_never

from pyroute2.netlink.nfnetlink import nftsocket

from firewall.ruleset import (
    ICMP,
    ICMP6,
    AddressIn,
    Block,
    ConnectionsOver,
    Counter,
    Family,
    HopLimit,
    Icmp,
    Interface,
    Jump,
    LinkLocal,
    Log,
    Port,
    PortIn,
    PortPair,
    Protocol,
    Rate,
    Reject,
    SourceOver,
    State,
    Term,
    Verdict,
    Within,
)

# linux/netfilter.h and nf_tables.h
_VERDICTS: Final = {"drop": 0, "accept": 1}
_JUMP: Final = -3
_STATES: Final = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_CT_STATE: Final = 0
_OVER: Final = 1
_IFNAME_BYTES: Final = 16

# offset and length of addresses in their headers (RFC 791, RFC 8200)
_SOURCE: Final = {Family.V4: (12, 4), Family.V6: (8, 16)}
_DESTINATION: Final = {Family.V4: (16, 4), Family.V6: (24, 16)}
_HOP_LIMIT_AT: Final = 7

Expression = dict[str, Any]
"""What pyroute2 encodes."""


def of_terms(terms: Sequence[Term], numbers: dict[str, int]) -> list[Expression]:
    """Return the expressions of a rule; ``numbers``: of sets within the batch."""
    known = _Known()
    return [found for term in terms for found in _term(term, known, numbers)]


class _Known:
    """What earlier terms of a rule have made sure of: it is not asked again, as nft does."""

    def __init__(self) -> None:
        self.family: Family | None = None
        self.protocol: int | None = None

    def of(self, family: Family) -> list[Expression]:
        """Return the guard of a family, or nothing."""
        if self.family is family:
            return []
        self.family = family
        return [_meta("NFT_META_NFPROTO"), _equal(bytes([family]))]

    def carrying(self, protocol: int) -> list[Expression]:
        """Return the guard of a transport protocol, or nothing."""
        if self.protocol == protocol:
            return []
        self.protocol = protocol
        return [_meta("NFT_META_L4PROTO"), _equal(bytes([protocol]))]


def _term(term: Term, known: _Known, numbers: dict[str, int]) -> list[Expression]:
    match term:
        case Interface(name, out):
            raw = name.encode()
            raw = raw[:-1] if raw.endswith(b"*") else raw.ljust(_IFNAME_BYTES, b"\0")
            return [_meta("NFT_META_OIFNAME" if out else "NFT_META_IIFNAME"), _equal(raw)]
        case State(states):
            bits = sum(_STATES[state] for state in states)
            load = _expression("ct", ("NFTA_CT_DREG", 1), ("NFTA_CT_KEY", _CT_STATE))
            mask = struct.pack("=I", bits)  # the one number in the host's order
            return [load, _masked(mask), _compare(bytes(4), "NEQ")]
        case Protocol(number):
            return known.carrying(number)
        case Port(protocol, low, high):
            load = _payload(_TRANSPORT_HEADER, 2, 2)
            first, last = struct.pack("!H", low), struct.pack("!H", high)
            one = low == high
            asked = [_equal(first)] if one else [_compare(first, "GTE"), _compare(last, "LTE")]
            return [*known.carrying(protocol), load, *asked]
        case PortPair(protocol, source, port):
            # Both at once: they lie side by side.
            load = _payload(_TRANSPORT_HEADER, 0, 4)
            return [*known.carrying(protocol), load, _equal(struct.pack("!HH", source, port))]
        case PortIn(protocol, name):
            load = _payload(_TRANSPORT_HEADER, 2, 2)
            return [*known.carrying(protocol), load, _in(name, numbers)]
        case AddressIn(family, name, destination):
            at = (_DESTINATION if destination else _SOURCE)[family]
            return [*known.of(family), _payload(_NETWORK_HEADER, *at), _in(name, numbers)]
        case LinkLocal():
            mask = (0xFFC0 << 112).to_bytes(16, "big")
            prefix = (0xFE80 << 112).to_bytes(16, "big")
            load = _payload(_NETWORK_HEADER, *_SOURCE[Family.V6])
            return [*known.of(Family.V6), load, _masked(mask), _equal(prefix)]
        case Icmp(family, kind):
            protocol = ICMP if family is Family.V4 else ICMP6
            load = _payload(_TRANSPORT_HEADER, 0, 1)
            return [
                *known.of(family),
                *known.carrying(protocol),
                load,
                _equal(bytes([kind])),
            ]
        case HopLimit():
            load = _payload(_NETWORK_HEADER, _HOP_LIMIT_AT, 1)
            return [*known.of(Family.V6), load, _equal(b"\xff")]
        case Within(rate, over):
            return [_limit(rate, over=over)]
        case SourceOver(family, name, rate):
            return _counted(known, family, name, numbers, "update", _limit(rate, over=True))
        case ConnectionsOver(family, name, count):
            limit = _expression(
                "connlimit",
                ("NFTA_CONNLIMIT_COUNT", count),
                ("NFTA_CONNLIMIT_FLAGS", {"NFT_LIMIT_F_INV"}),
            )
            return _counted(known, family, name, numbers, "add", limit)
        case Block(family, name, seconds):
            return _counted(known, family, name, numbers, "add", None, seconds * 1000)
        case Counter():
            return [_expression("counter")]
        case Log(prefix):
            return [_expression("log", ("NFTA_LOG_PREFIX", prefix))]
        case Verdict(what):
            return [_verdict(_VERDICTS[what])]
        case Reject(reset):
            kind, code = (1, 0) if reset else (2, 3)
            reject = ("NFTA_REJECT_TYPE", kind), ("NFTA_REJECT_ICMP_CODE", code)
            return [_expression("reject", *reject)]
        case Jump(chain):
            return [_verdict(_JUMP, chain)]
        case _:
            assert_never(term)


def _counted(
    known: _Known,
    family: Family,
    name: str,
    numbers: dict[str, int],
    operation: str,
    inner: Expression | None,
    timeout_ms: int = 0,
) -> list[Expression]:
    """Return what puts the source into a set, and asks ``inner`` of its element."""
    attributes: list[tuple[str, Any]] = [
        ("NFTA_DYNSET_SET_NAME", name),
        ("NFTA_DYNSET_SET_ID", numbers[name]),
        ("NFTA_DYNSET_OP", {"add": 0, "update": 1}[operation]),
        ("NFTA_DYNSET_SREG_KEY", 1),
    ]
    if timeout_ms:
        attributes.append(("NFTA_DYNSET_TIMEOUT", timeout_ms))
    if inner is not None:
        attributes.append(("NFTA_DYNSET_EXPR", inner))
    load = _payload(_NETWORK_HEADER, *_SOURCE[family])
    return [*known.of(family), load, _expression("dynset", *attributes)]


# -- expressions -----------------------------------------------------------------------------------


def _expression(name: str, *attributes: tuple[str, Any]) -> Expression:
    body = {"attrs": [list(one) for one in attributes]}
    return {"attrs": [["NFTA_EXPR_NAME", name], ["NFTA_EXPR_DATA", body]]}


def _data(raw: bytes) -> Expression:
    return {"attrs": [["NFTA_DATA_VALUE", raw]]}


def _meta(key: str) -> Expression:
    number = int(nftsocket.Meta[key])
    return _expression("meta", ("NFTA_META_DREG", 1), ("NFTA_META_KEY", number))


def _compare(raw: bytes, operation: str) -> Expression:
    number = int(nftsocket.Cmp[f"NFT_CMP_{operation}"])
    return _expression(
        "cmp", ("NFTA_CMP_SREG", 1), ("NFTA_CMP_OP", number), ("NFTA_CMP_DATA", _data(raw))
    )


def _equal(raw: bytes) -> Expression:
    return _compare(raw, "EQ")


def _payload(base: int, offset: int, length: int) -> Expression:
    return _expression(
        "payload",
        ("NFTA_PAYLOAD_DREG", 1),
        ("NFTA_PAYLOAD_BASE", base),
        ("NFTA_PAYLOAD_OFFSET", offset),
        ("NFTA_PAYLOAD_LEN", length),
    )


def _masked(mask: bytes) -> Expression:
    return _expression(
        "bitwise",
        ("NFTA_BITWISE_SREG", 1),
        ("NFTA_BITWISE_DREG", 1),
        ("NFTA_BITWISE_LEN", len(mask)),
        ("NFTA_BITWISE_MASK", _data(mask)),
        ("NFTA_BITWISE_XOR", _data(bytes(len(mask)))),
    )


def _in(name: str, numbers: dict[str, int]) -> Expression:
    return _expression(
        "lookup",
        ("NFTA_LOOKUP_SET", name),
        ("NFTA_LOOKUP_SREG", 1),
        ("NFTA_LOOKUP_SET_ID", numbers[name]),
    )


def _limit(rate: Rate, *, over: bool) -> Expression:
    return _expression(
        "limit",
        ("NFTA_LIMIT_RATE", rate.count),
        ("NFTA_LIMIT_UNIT", rate.unit_s),
        ("NFTA_LIMIT_BURST", rate.burst),
        ("NFTA_LIMIT_TYPE", 0),
        ("NFTA_LIMIT_FLAGS", _OVER if over else 0),
    )


def _verdict(code: int, chain: str = "") -> Expression:
    said: list[list[Any]] = [["NFTA_VERDICT_CODE", code]]
    if chain:
        said.append(["NFTA_VERDICT_CHAIN", chain])
    body = {"attrs": [["NFTA_DATA_VERDICT", {"attrs": said}]]}
    return _expression("immediate", ("NFTA_IMMEDIATE_DREG", 0), ("NFTA_IMMEDIATE_DATA", body))

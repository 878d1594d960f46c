"""A ruleset as netlink messages of the kernel's nf_tables, encoded by pyroute2's classes.

Law: pure: bytes out, no socket. pyroute2 knows names and layouts; what it lacks or gets wrong in
0.9.7 is done by hand here and in `firewall.wire`.
Elements are packed by hand: pyroute2 takes 65 µs for one, 10,000 addresses would be 0.7 s.
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, assert_never

from pyroute2.netlink.nfnetlink import nftsocket

from firewall.ruleset import (
    ACCEPT,
    FAMILIES,
    ICMP,
    ICMP6,
    AddressIn,
    AddressSet,
    Block,
    Chain,
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
    PortSet,
    Protocol,
    Rate,
    Reject,
    Rule,
    Ruleset,
    Set,
    SourceOver,
    SourceSet,
    State,
    Term,
    Verdict,
    Within,
)
from firewall.wire import APPEND, CREATE, Message, attribute, message

# linux/netfilter.h and nf_tables.h
_HOOKS: Final = {"input": 1, "forward": 2, "output": 3}
_VERDICTS: Final = {"drop": 0, "accept": 1}
_JUMP: Final = -3
_STATES: Final = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_CT_STATE: Final = 0
_OVER: Final = 1
_IFNAME_BYTES: Final = 16
_LOG_WARNING: Final = 4

# nft's numbers of data types, and their bytes (nftables: include/datatype.h)
_ADDRESS: Final = {Family.V4: (7, 4), Family.V6: (8, 16)}
_SERVICE: Final = (13, 2)

# offset and length of addresses in their headers (RFC 791, RFC 8200)
_SOURCE: Final = {Family.V4: (12, 4), Family.V6: (8, 16)}
_DESTINATION: Final = {Family.V4: (16, 4), Family.V6: (24, 16)}
_HOP_LIMIT_AT: Final = 7

ELEMENTS_BYTES_MAX: Final = 60_000
"""Of one message: an attribute's length has 16 bits."""

Expression = dict[str, Any]


def create(ruleset: Ruleset) -> list[Message]:
    """Return what makes a table that is not there."""
    return [table(ruleset.table), *contents(ruleset)]


def remove(name: str) -> list[Message]:
    """Return what removes a table, there or not."""
    gone = message(
        nftsocket.nft_table_msg, nftsocket.NFT_MSG_DELTABLE, 0, [("NFTA_TABLE_NAME", name)]
    )
    return [table(name), gone]


def table(name: str) -> Message:
    """Return what makes a table if there is none."""
    return message(
        nftsocket.nft_table_msg, nftsocket.NFT_MSG_NEWTABLE, CREATE, [("NFTA_TABLE_NAME", name)]
    )


def contents(ruleset: Ruleset, there: Collection[str] = ()) -> list[Message]:
    """Return what fills a table: sets, chains, elements, rules.

    ``there``: sets that are there already, with what is in them.
    """
    numbers = set_ids(ruleset)
    sets = [one for one in ruleset.sets if one.name not in there]
    out = [_set(ruleset.table, one, numbers[one.name]) for one in sets]
    # Plain chains first: a rule that jumps needs its chain. Hooked ones when all is there.
    chains = sorted(ruleset.chains, key=lambda chain: bool(chain.hook))
    out += [_chain(ruleset.table, chain) for chain in chains]
    for one in sets:
        if isinstance(one, AddressSet):
            out += elements(ruleset.table, one.name, _intervals(_bounds(one)))
        elif isinstance(one, PortSet):
            ranges = [(struct.pack("!H", a), struct.pack("!H", b)) for a, b in one.ranges]
            out += elements(ruleset.table, one.name, _intervals(ranges))
    for chain in ruleset.chains:
        out += [_rule(ruleset.table, chain.name, rule, numbers) for rule in chain.rules]
    return out


def set_ids(ruleset: Ruleset) -> dict[str, int]:
    """Return the number that each set has within a batch."""
    return {one.name: at for at, one in enumerate(ruleset.sets, 1)}


def base_chains(ruleset: Ruleset) -> set[str]:
    """Return the names of chains that packets begin in."""
    return {chain.name for chain in ruleset.chains if chain.hook}


# -- sets and elements -----------------------------------------------------------------------------


def _set(table_name: str, one: Set, number: int) -> Message:
    flags: set[str] = set()
    more: list[tuple[str, Any]] = []
    match one:
        case AddressSet():
            kind, length = _ADDRESS[one.family]
            flags = {"NFT_SET_INTERVAL"}
        case PortSet():
            kind, length = _SERVICE
            flags = {"NFT_SET_INTERVAL"}
        case SourceSet():
            kind, length = _ADDRESS[one.family]
            flags = {"NFT_SET_EVAL"}
            more.append(("NFTA_SET_DESC", {"attrs": [["NFTA_SET_DESC_SIZE", one.size]]}))
            if one.timeout_s:
                flags.add("NFT_SET_TIMEOUT")
                more.append(("NFTA_SET_TIMEOUT", one.timeout_s * 1000))
        case _:
            assert_never(one)
    attributes = [
        ("NFTA_SET_TABLE", table_name),
        ("NFTA_SET_NAME", one.name),
        ("NFTA_SET_KEY_TYPE", kind),
        ("NFTA_SET_KEY_LEN", length),
        ("NFTA_SET_ID", number),
        *more,
        ("NFTA_SET_FLAGS", flags),
        # nft(8) prints keys by this: 2 is network order.
        ("NFTA_SET_USERDATA", [("NFTNL_UDATA_SET_KEYBYTEORDER", struct.pack("=I", 2))]),
    ]
    return message(nftsocket.nft_set_msg, nftsocket.NFT_MSG_NEWSET, CREATE, attributes)


def _bounds(one: AddressSet) -> Iterator[tuple[bytes, bytes]]:
    for network in one.networks:
        yield network.network_address.packed, network.broadcast_address.packed


def _intervals(ranges: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Yield elements of ranges (first, last): where each begins, and where it has ended."""
    for first, last in ranges:
        yield _element(first, ended=False)
        after = int.from_bytes(last, "big") + 1
        if after < 1 << 8 * len(last):  # up to the top there is no end
            yield _element(after.to_bytes(len(last), "big"), ended=True)


def _element(key: bytes, *, ended: bool = False, timeout_ms: int = 0) -> bytes:
    body = attribute(1, attribute(1, key), nested=True)
    if ended:
        body += attribute(3, struct.pack("!I", 1))
    if timeout_ms:
        body += attribute(4, struct.pack("!Q", timeout_ms))
    return attribute(1, body, nested=True)


def timed(table_name: str, name: str, sources: Iterable[tuple[bytes, int]]) -> list[Message]:
    """Return what puts addresses (packed, for so many milliseconds) into a set."""
    return elements(
        table_name, name, (_element(key, timeout_ms=timeout_ms) for key, timeout_ms in sources)
    )


def elements(table_name: str, name: str, given: Iterable[bytes]) -> list[Message]:
    """Return the messages that put encoded elements into a set."""
    head = attribute(1, table_name.encode() + b"\0") + attribute(2, name.encode() + b"\0")
    out: list[Message] = []
    held: list[bytes] = []
    size = 0
    for one in given:
        if size + len(one) > ELEMENTS_BYTES_MAX:
            out.append(_elements(head, held))
            held, size = [], 0
        held.append(one)
        size += len(one)
    if held:
        out.append(_elements(head, held))
    return out


def _elements(head: bytes, held: Sequence[bytes]) -> Message:
    body = head + attribute(3, b"".join(held), nested=True)
    return nftsocket.NFT_MSG_NEWSETELEM, CREATE, body


# -- chains and rules ------------------------------------------------------------------------------


def _chain(table_name: str, chain: Chain) -> Message:
    attributes: list[tuple[str, Any]] = [
        ("NFTA_CHAIN_TABLE", table_name),
        ("NFTA_CHAIN_NAME", chain.name),
    ]
    if chain.hook:
        hook = [["NFTA_HOOK_HOOKNUM", _HOOKS[chain.hook]], ["NFTA_HOOK_PRIORITY", 0]]
        attributes += [
            ("NFTA_CHAIN_HOOK", {"attrs": hook}),
            ("NFTA_CHAIN_POLICY", int(chain.policy == ACCEPT)),
            ("NFTA_CHAIN_TYPE", "filter"),
        ]
    return message(nftsocket.nft_chain_msg, nftsocket.NFT_MSG_NEWCHAIN, CREATE, attributes)


def _rule(table_name: str, chain: str, rule: Rule, numbers: dict[str, int]) -> Message:
    known = _Known()
    expressions = [found for term in rule.terms for found in _term(term, known, numbers)]
    attributes = [
        ("NFTA_RULE_TABLE", table_name),
        ("NFTA_RULE_CHAIN", chain),
        ("NFTA_RULE_EXPRESSIONS", expressions),
        ("NFTA_RULE_USERDATA", {"value": rule.name}),
    ]
    flags = CREATE | APPEND
    return message(nftsocket.nft_rule_msg, nftsocket.NFT_MSG_NEWRULE, flags, attributes)


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


assert set(_ADDRESS) == set(FAMILIES)  # noqa: S101

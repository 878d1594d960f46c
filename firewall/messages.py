"""A ruleset as netlink messages of the kernel's nf_tables, encoded by pyroute2's classes.

Law: pure: bytes out, no socket. pyroute2 knows names and layouts; what it lacks or gets wrong in
0.9.7 is done by hand here and in `firewall.wire`.
Elements are packed by hand: pyroute2 takes 65 µs for one, 10,000 addresses would be 0.7 s.
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, assert_never

from pyroute2.netlink.nfnetlink import nftsocket

from firewall.expressions import of_terms
from firewall.ruleset import (
    ACCEPT,
    FAMILIES,
    AddressSet,
    Chain,
    Family,
    PortSet,
    Rule,
    Ruleset,
    Set,
    SourceSet,
)
from firewall.wire import APPEND, CREATE, Message, attribute, message

# linux/netfilter.h and nf_tables.h
_HOOKS: Final = {"input": 1, "forward": 2, "output": 3}

# nft's numbers of data types, and their bytes (nftables: include/datatype.h)
_ADDRESS: Final = {Family.V4: (7, 4), Family.V6: (8, 16)}
_SERVICE: Final = (13, 2)


ELEMENTS_BYTES_MAX: Final = 60_000
"""Of one message: an attribute's length has 16 bits."""


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
    attributes = [
        ("NFTA_RULE_TABLE", table_name),
        ("NFTA_RULE_CHAIN", chain),
        ("NFTA_RULE_EXPRESSIONS", of_terms(rule.terms, numbers)),
        ("NFTA_RULE_USERDATA", {"value": rule.name}),
    ]
    flags = CREATE | APPEND
    return message(nftsocket.nft_rule_msg, nftsocket.NFT_MSG_NEWRULE, flags, attributes)


assert set(_ADDRESS) == set(FAMILIES)  # noqa: S101

"""A ruleset as nft(8) text: for people, and for `nft -f` where somebody wants it so.

Law: loaded, it is the same table that `firewall.messages` makes; a test holds them together.
"""

from collections.abc import Iterator
from typing import Final, assert_never

from firewall.ruleset import (
    PROTOCOLS,
    UNITS,
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

_IP: Final = {Family.V4: "ip", Family.V6: "ip6"}
_TYPE: Final = {Family.V4: "ipv4_addr", Family.V6: "ipv6_addr"}
_ICMP: Final = {Family.V4: "icmp", Family.V6: "icmpv6"}
PRIORITY: Final = 0


def render(ruleset: Ruleset) -> str:
    """Return the table as text that replaces what is there of it."""
    lines = [
        f"table inet {ruleset.table}",
        f"delete table inet {ruleset.table}",
        *body(ruleset),
    ]
    return "\n".join(lines) + "\n"


def body(ruleset: Ruleset) -> Iterator[str]:
    """Yield the lines of the table alone."""
    yield f"table inet {ruleset.table} {{"
    for one in ruleset.sets:
        yield from _set(one)
    for chain in ruleset.chains:
        yield from _chain(chain)
    yield "}"


def _set(one: Set) -> Iterator[str]:
    yield f"  set {one.name} {{"
    match one:
        case AddressSet():
            yield f"    type {_TYPE[one.family]}"
            yield "    flags interval"
            elements = [str(network) for network in one.networks]
        case PortSet():
            yield "    type inet_service"
            yield "    flags interval"
            elements = [str(a) if a == b else f"{a}-{b}" for a, b in one.ranges]
        case SourceSet():
            yield f"    type {_TYPE[one.family]}"
            yield f"    size {one.size}"
            yield "    flags dynamic" + (",timeout" if one.timeout_s else "")
            if one.timeout_s:
                yield f"    timeout {one.timeout_s}s"
            elements = []
    if elements:
        yield "    elements = { " + ",\n      ".join(elements) + " }"
    yield "  }"


def _chain(chain: Chain) -> Iterator[str]:
    yield f"  chain {chain.name} {{"
    if chain.hook:
        hook = f"type filter hook {chain.hook} priority {PRIORITY}"
        yield f"    {hook}; policy {chain.policy};"
    for one in chain.rules:
        yield f"    {rule(one)}"
    yield "  }"


def rule(one: Rule) -> str:
    """Return one rule as text."""
    return " ".join([*map(term, one.terms), f'comment "{one.name}"'])


def rate(given: Rate, *, over: bool) -> str:
    """Return a limit as text."""
    unit = UNITS[given.unit_s]
    return f"limit rate {'over ' if over else ''}{given.count}/{unit} burst {given.burst} packets"


def term(one: Term) -> str:
    """Return one term as text."""
    match one:
        case Interface(name, out):
            return f'{"oifname" if out else "iifname"} "{name}"'
        case State(states):
            return "ct state " + ",".join(states)
        case Protocol(number):
            return f"meta l4proto {PROTOCOLS[number]}"
        case Port(protocol, low, high):
            ports = str(low) if low == high else f"{low}-{high}"
            return f"{PROTOCOLS[protocol]} dport {ports}"
        case PortPair(protocol, source, port):
            word = PROTOCOLS[protocol]
            return f"{word} sport {source} {word} dport {port}"
        case PortIn(protocol, name):
            return f"{PROTOCOLS[protocol]} dport @{name}"
        case AddressIn(family, name, destination):
            return f"{_IP[family]} {'daddr' if destination else 'saddr'} @{name}"
        case LinkLocal():
            return "ip6 saddr fe80::/10"
        case Icmp(family, kind):
            return f"{_ICMP[family]} type {kind}"
        case HopLimit():
            return "ip6 hoplimit 255"
        case Within(given, over):
            return rate(given, over=over)
        case SourceOver(family, name, given):
            return f"update @{name} {{ {_IP[family]} saddr {rate(given, over=True)} }}"
        case ConnectionsOver(family, name, count):
            return f"add @{name} {{ {_IP[family]} saddr ct count over {count} }}"
        case Block(family, name, seconds):
            return f"add @{name} {{ {_IP[family]} saddr timeout {seconds}s }}"
        case Counter():
            return "counter"
        case Log(prefix):
            return f'log prefix "{prefix}"'
        case Verdict(what):
            return what
        case Reject(reset):
            return "reject with tcp reset" if reset else "reject with icmpx admin-prohibited"
        case Jump(chain):
            return f"jump {chain}"
        case _:
            assert_never(one)

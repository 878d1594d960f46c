"""A ruleset as iptables-save and ip6tables-save text, for sites that still run these.

Law: what a term means there is said with the extension that means it; nothing is left out in
silence. Sets become one rule an address, ports of a set `multiport`, meters `hashlimit` and
`connlimit`, blocked sources the list of `recent`.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, assert_never

from firewall.ruleset import (
    FAMILIES,
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

MULTIPORT_MAX: Final = 15
"""Ports in one match of the extension; a range counts as two."""

_BUILT_IN: Final = {"input": "INPUT", "forward": "FORWARD", "output": "OUTPUT"}

Words = tuple[str, ...]


def render(ruleset: Ruleset) -> dict[Family, str]:
    """Return the text for each family."""
    return {family: _Family(ruleset, family).text() for family in FAMILIES}


class _Family:
    """One family's half of a ruleset."""

    def __init__(self, ruleset: Ruleset, family: Family) -> None:
        self._ruleset = ruleset
        self._family = family
        self._sets: Mapping[str, Set] = {one.name: one for one in ruleset.sets}

    def text(self) -> str:
        chains = self._ruleset.chains
        hooked = {chain.hook: chain for chain in chains if chain.hook}
        lines = ["*filter"]
        for hook, name in _BUILT_IN.items():
            policy = hooked[hook].policy.upper() if hook in hooked else "ACCEPT"
            lines.append(f":{name} {policy} [0:0]")
        lines += [f":{chain.name} - [0:0]" for chain in chains if not chain.hook]
        for chain in chains:
            for rule in chain.rules:
                lines += self._rule(chain, rule)
        lines.append("COMMIT")
        return "\n".join(lines) + "\n"

    def _rule(self, chain: Chain, rule: Rule) -> Iterator[str]:
        families = [family for term in rule.terms if (family := _family_of(term)) is not None]
        if any(family is not self._family for family in families):
            return
        name = _BUILT_IN[chain.hook] if chain.hook else chain.name
        for words in itertools.product(*(self._term(term) for term in rule.terms)):
            said = [word for part in words for word in part]
            comment = ["-m", "comment", "--comment", f'"{rule.name}"']
            # A target ends the rule's line; what matches stands before it.
            at = said.index("-j") if "-j" in said else len(said)
            yield " ".join(["-A", name, *said[:at], *comment, *said[at:]])

    def _term(self, term: Term) -> Sequence[Words]:
        """Return the ways to match a term: one rule each."""
        match term:
            case Interface(name, out):
                said = name[:-1] + "+" if name.endswith("*") else name
                return [("-o" if out else "-i", said)]
            case State(states):
                names = ",".join(state.upper() for state in states)
                return [("-m", "conntrack", "--ctstate", names)]
            case Protocol(number):
                return [("-p", PROTOCOLS[number])]
            case Port(protocol, low, high):
                word = PROTOCOLS[protocol]
                ports = str(low) if low == high else f"{low}:{high}"
                return [("-p", word, "-m", word, "--dport", ports)]
            case PortPair(protocol, source, port):
                word = PROTOCOLS[protocol]
                return [("-p", word, "-m", word, "--sport", str(source), "--dport", str(port))]
            case PortIn(protocol, name):
                word = PROTOCOLS[protocol]
                return [
                    ("-p", word, "-m", "multiport", "--dports", ports)
                    for ports in _multiports(self._sets[name])
                ]
            case AddressIn(_, name, destination):
                return self._addresses(self._sets[name], "-d" if destination else "-s")
            case LinkLocal():
                return [("-s", "fe80::/10")]
            case Icmp(family, kind):
                if family is Family.V4:
                    return [("-p", "icmp", "-m", "icmp", "--icmp-type", str(kind))]
                return [("-p", "ipv6-icmp", "-m", "icmp6", "--icmpv6-type", str(kind))]
            case HopLimit():
                return [("-m", "hl", "--hl-eq", "255")]
            case Within(rate, over):
                if over:
                    return [_hashlimit(rate, f"all_{rate.count}_{rate.unit_s}", ())]
                return [("-m", "limit", "--limit", _rate(rate), "--limit-burst", str(rate.burst))]
            case SourceOver(_, name, rate):
                return [_hashlimit(rate, name, ("--hashlimit-mode", "srcip"))]
            case ConnectionsOver(_, _, count):
                mask = str(self._family.bits)
                return [
                    (
                        "-m", "connlimit", "--connlimit-above", str(count),
                        "--connlimit-mask", mask, "--connlimit-saddr",
                    )
                ]  # fmt: skip
            case Block(_, name, _):
                return [("-m", "recent", "--name", name, "--set", "--rsource")]
            case Counter():
                return [()]  # every rule counts there
            case Log(prefix):
                return [("-j", "LOG", "--log-prefix", f'"{prefix}"')]
            case Verdict(what):
                return [("-j", what.upper())]
            case Reject(reset):
                four = self._family is Family.V4
                prohibited = "icmp-admin-prohibited" if four else "icmp6-adm-prohibited"
                return [("-j", "REJECT", "--reject-with", "tcp-reset" if reset else prohibited)]
            case Jump(chain):
                return [("-j", chain)]
            case _:
                assert_never(term)

    def _addresses(self, one: Set, side: str) -> Sequence[Words]:
        if isinstance(one, SourceSet):
            return [
                (
                    "-m", "recent", "--name", one.name, "--rcheck",
                    "--seconds", str(one.timeout_s), "--rsource",
                )
            ]  # fmt: skip
        if not isinstance(one, AddressSet):
            raise TypeError(one.name)
        return [(side, str(network)) for network in one.networks]


def _family_of(term: Term) -> Family | None:
    match term:
        case (
            AddressIn(family)
            | Icmp(family)
            | SourceOver(family)
            | ConnectionsOver(family)
            | Block(family)
        ):
            return family
        case LinkLocal() | HopLimit():
            return Family.V6
        case _:
            return None


def _rate(rate: Rate) -> str:
    return f"{rate.count}/{UNITS[rate.unit_s]}"


def _hashlimit(rate: Rate, name: str, mode: Words) -> Words:
    return (
        "-m", "hashlimit", "--hashlimit-above", _rate(rate), "--hashlimit-burst", str(rate.burst),
        *mode, "--hashlimit-name", name,
    )  # fmt: skip


def _multiports(one: Set) -> Iterator[str]:
    """Yield lists of ports that one match of the extension takes."""
    if not isinstance(one, PortSet):
        raise TypeError(one.name)
    held: list[str] = []
    room = MULTIPORT_MAX
    for low, high in one.ranges:
        size = 1 if low == high else 2
        if size > room:
            yield ",".join(held)
            held, room = [], MULTIPORT_MAX
        held.append(str(low) if size == 1 else f"{low}:{high}")
        room -= size
    if held:
        yield ",".join(held)

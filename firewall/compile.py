"""A policy as a ruleset: which chains and rules it comes to, and in which order.

Law: pure; the same policy gives the same ruleset. Every base chain that drops ends with a rule that
does so, because a chain's own policy is not in force while it is being made (`firewall.kernel`).

Order of what comes in: own loopback; blocked sources, before their open flows; flows that are
known; packets of no flow; neighbours and DHCP; each zone's services; the rest is refused.
"""

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

from firewall import policy as policies
from firewall.policy import Allow, Policy, Zone
from firewall.ruleset import (
    ACCEPT,
    COMMENT_BYTES_MAX,
    DROP,
    FAMILIES,
    TCP,
    UDP,
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
    Network,
    Port,
    PortIn,
    PortPair,
    PortSet,
    Protocol,
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

BLOCKED: Final = {Family.V4: "blocked_4", Family.V6: "blocked_6"}
BLOCKED_S: Final = 3600
"""How long a source stays blocked unless it is said."""

SOURCES_MAX: Final = 65_535
"""Sources remembered by one limit; whoever comes when it is full is not limited, nor refused."""
SOURCE_S: Final = 60
"""How long a source is remembered after its last packet."""

ECHO_REQUEST: Final = {Family.V4: 8, Family.V6: 128}
"""RFC 792, RFC 4443 section 4.1."""
ERRORS: Final = {Family.V4: (3, 11, 12), Family.V6: (1, 2, 3, 4)}
"""Unreachable, too big, time exceeded, parameter problem: RFC 792, RFC 4443 section 3."""
NEIGHBOURS: Final = (133, 134, 135, 136)
"""Router and neighbour solicitation and advertisement: RFC 4861; only with hop limit 255."""
LISTENERS: Final = (130, 131, 132, 143)
"""Multicast listener discovery, by link-local sources: RFC 2710, RFC 3810."""

_PROTOCOLS: Final = ((TCP, "tcp"), (UDP, "udp"))
_DROP: Final = (Counter(), Verdict(DROP))


def compile_policy(policy: Policy) -> Ruleset:
    """Return the ruleset of a checked policy."""
    work = _Work(policy)
    chains = work.chains()
    return Ruleset(policy.table, tuple(work.sets), chains)


class _Work:
    """One compilation: sets are collected on the way."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._services = policies.services(policy)
        self.sets: list[Set] = [
            SourceSet(BLOCKED[family], family, SOURCES_MAX, BLOCKED_S) for family in FAMILIES
        ]

    def chains(self) -> tuple[Chain, ...]:
        """Return every chain, those that others jump to first."""
        policy = self._policy
        limits = [
            Chain(f"limits_in_{at}", tuple(self._limits(f"in_{at}", allow)))
            for at, allow in enumerate(policy.inbound.allow)
            if _limited(allow)
        ]
        inbound = [self._zone_chain("in", name) for name in ("", *policy.zones)]
        inbound = [chain for chain in inbound if chain.rules]
        out = [
            *limits,
            *inbound,
            Chain("input", tuple(self._input(inbound)), "input", DROP),
            Chain(
                "forward", (*self._logged("forward"), Rule("forward: drop", _DROP)), "forward", DROP
            ),
        ]
        if policy.outbound.default != "accept":
            outbound = [self._zone_chain("out", name) for name in ("", *policy.zones)]
            outbound = [chain for chain in outbound if chain.rules]
            out += [*outbound, Chain("output", tuple(self._output(outbound)), "output", DROP)]
        return tuple(out)

    # -- base chains -----------------------------------------------------------------------------

    def _input(self, zones: Sequence[Chain]) -> Iterator[Rule]:
        yield Rule("loopback", (Interface("lo"), Verdict(ACCEPT)))
        for family in FAMILIES:
            blocked = AddressIn(family, BLOCKED[family])
            yield Rule(f"blocked {family.number}", (blocked, *_DROP))
        yield Rule("known flows", (State(("established", "related")), Verdict(ACCEPT)))
        yield Rule("no flow", (State(("invalid",)), *_DROP))
        yield from _neighbours()
        if self._policy.ping:
            rate = policies.rate(self._policy.ping, policies.BURST)
            for family in FAMILIES:
                echo = Icmp(family, ECHO_REQUEST[family])
                yield Rule(f"ping {family.number}", (echo, Within(rate), Verdict(ACCEPT)))
        for name, zone in self._policy.zones.items():
            if zone.dhcp:
                yield from _dhcp_client(name, zone)
        yield from self._dispatch("in", zones)
        yield from self._logged("in")
        yield from self._default("in", self._policy.inbound.default)

    def _output(self, zones: Sequence[Chain]) -> Iterator[Rule]:
        yield Rule("out: loopback", (Interface("lo", out=True), Verdict(ACCEPT)))
        yield Rule("out: known flows", (State(("established", "related")), Verdict(ACCEPT)))
        for rule in _neighbours():
            yield Rule(f"out: {rule.name}", rule.terms)
        for family in FAMILIES:
            for kind in (ECHO_REQUEST[family], *ERRORS[family]):
                yield Rule(
                    f"out: icmp {family.number} {kind}", (Icmp(family, kind), Verdict(ACCEPT))
                )
        for name, zone in self._policy.zones.items():
            if zone.dhcp:
                yield from _dhcp_request(name, zone)
        yield from self._dispatch("out", zones)
        yield from self._logged("out")
        yield from self._default("out", self._policy.outbound.default)

    def _default(self, side: str, what: str) -> Iterator[Rule]:
        if what == "reject":
            # A TCP that waits for its connection hears a reset, and over IPv6 nothing else.
            yield Rule(f"{side}: default tcp", (Protocol(TCP), Counter(), Reject(reset=True)))
            yield Rule(f"{side}: default", (Counter(), Reject()))
        else:
            yield Rule(f"{side}: default", _DROP)

    def _logged(self, side: str) -> tuple[Rule, ...]:
        log = self._policy.log
        if not log.rate:
            return ()
        terms = (Within(policies.rate(log.rate, policies.BURST)), Log(f"{log.prefix} {side}: "))
        return (Rule(f"{side}: log", terms),)

    # -- zones -----------------------------------------------------------------------------------

    def _dispatch(self, side: str, chains: Sequence[Chain]) -> Iterator[Rule]:
        """Yield what leads packets of each zone to its chain; that of nobody's zone comes last."""
        there = {chain.name for chain in chains}
        for name, zone in self._policy.zones.items():
            chain = _chain_name(side, name)
            if chain not in there:
                continue
            wheres = self._where(f"zone_{name}", zone.addresses, destination=side == "out")
            for interface in zone.interfaces:
                for where in wheres:
                    terms = (Interface(interface, out=side == "out"), *where, Jump(chain))
                    yield Rule(_short(f"{side}: {name} {interface}"), terms)
        if _chain_name(side, "") in there:
            yield Rule(f"{side}: any", (Jump(_chain_name(side, "")),))

    def _zone_chain(self, side: str, zone: str) -> Chain:
        """Return the chain of a zone, or of entries for every zone."""
        section = self._policy.inbound if side == "in" else self._policy.outbound
        allows = [
            (at, allow)
            for at, allow in enumerate(section.allow)
            if (zone in allow.zones if zone else not allow.zones)
        ]
        name = _chain_name(side, zone)
        plain = [allow for _, allow in allows if not _particular(allow)]
        rules: list[Rule] = []
        for protocol, word in _PROTOCOLS:
            ranges = self._ports([s for allow in plain for s in allow.services], word)
            rules += self._open(name, protocol, word, ranges)
        for at, allow in allows:
            if _particular(allow):
                rules += self._entry(side, at, allow)
        return Chain(name, tuple(rules))

    def _open(
        self, name: str, protocol: int, word: str, ranges: Sequence[tuple[int, int]]
    ) -> Iterator[Rule]:
        """Yield what opens ports without a condition: one rule, whatever their number."""
        if not ranges:
            return
        if len(ranges) == 1:
            ports: Term = Port(protocol, *ranges[0])
        else:
            ports = self._port_set(f"{name}_{word}", protocol, ranges)
        yield Rule(f"{name}: {word}", (ports, Verdict(ACCEPT)))

    def _entry(self, side: str, at: int, allow: Allow) -> Iterator[Rule]:
        """Yield the rules of an entry with conditions; its sets are shared by its zones."""
        called = f"{side}_{at}"
        wheres = self._where(called, allow.addresses, destination=side == "out")
        for protocol, word in _PROTOCOLS:
            ranges = self._ports(allow.services, word)
            if not ranges:
                continue
            if len(ranges) == 1:
                ports: Term = Port(protocol, *ranges[0])
            else:
                ports = self._port_set(f"{called}_{word}", protocol, ranges)
            title = _short(f"{called}: {word} {' '.join(allow.services)}")
            end: Term = Jump(f"limits_{called}") if _limited(allow) else Verdict(ACCEPT)
            for where in wheres:
                yield Rule(title, (ports, *where, end))

    def _limits(self, called: str, allow: Allow) -> Iterator[Rule]:
        """Yield what refuses too much of an entry, wherever it comes from, and then accepts.

        One chain an entry: its total is that of all its zones, families and services.
        """
        title = _short(f"{called}: {' '.join(allow.services)}")
        for family in FAMILIES:
            if allow.rate:
                name = self._sources(f"rate_{called}", family, SOURCE_S)
                over = SourceOver(family, name, policies.rate(allow.rate, allow.burst))
                block: tuple[Term, ...] = ()
                if allow.block:
                    block = (Block(family, BLOCKED[family], policies.seconds(allow.block)),)
                yield Rule(f"{title}: over {allow.rate} {family.number}", (over, *block, *_DROP))
            if allow.connections:
                name = self._sources(f"open_{called}", family, 0)
                many = ConnectionsOver(family, name, allow.connections)
                terms = (Protocol(TCP), many, Counter(), Reject(reset=True))
                yield Rule(f"{title}: over {allow.connections} open {family.number}", terms)
        if allow.total:
            all_over = Within(policies.rate(allow.total, allow.burst), over=True)
            yield Rule(f"{title}: over {allow.total} in all", (all_over, *_DROP))
        yield Rule(title, (Verdict(ACCEPT),))

    # -- sets ------------------------------------------------------------------------------------

    def _ports(self, names: Sequence[str], protocol: str) -> list[tuple[int, int]]:
        given = [port for name in names for port in getattr(self._services[name], protocol)]
        return policies.ports(given)

    def _port_set(self, name: str, protocol: int, ranges: Sequence[tuple[int, int]]) -> PortIn:
        self._add(PortSet(name, tuple(ranges)))
        return PortIn(protocol, name)

    def _where(
        self, called: str, given: Sequence[str], *, destination: bool
    ) -> list[tuple[Term, ...]]:
        """Return what each family's addresses match; one empty condition when all do."""
        if not given:
            return [()]
        if len(given) == 1 and given[0].startswith("@"):
            called = f"set_{given[0][1:].replace('-', '_')}"
        found = policies.networks(self._policy, given)
        out: list[tuple[Term, ...]] = []
        for family in FAMILIES:
            of_family = _collapsed(found, family)
            if of_family:
                name = f"{called.replace('-', '_')}_{family.number}"
                self._add(AddressSet(name, family, of_family))
                out.append((AddressIn(family, name, destination),))
        return out

    def _sources(self, called: str, family: Family, timeout_s: int) -> str:
        name = f"{called}_{family.number}"
        self._add(SourceSet(name, family, SOURCES_MAX, timeout_s))
        return name

    def _add(self, one: Set) -> None:
        if one not in self.sets:
            self.sets.append(one)


def _chain_name(side: str, zone: str) -> str:
    return f"{side}_zone_{zone.replace('-', '_')}" if zone else f"{side}_any"


def _particular(allow: Allow) -> bool:
    return bool(allow.addresses) or _limited(allow)


def _limited(allow: Allow) -> bool:
    return bool(allow.rate or allow.total or allow.connections)


def _collapsed(given: Sequence[Network], family: Family) -> tuple[Network, ...]:
    four = [one for one in given if isinstance(one, ipaddress.IPv4Network)]
    six = [one for one in given if isinstance(one, ipaddress.IPv6Network)]
    if family is Family.V4:
        return tuple(ipaddress.collapse_addresses(four))
    return tuple(ipaddress.collapse_addresses(six))


def _neighbours() -> Iterator[Rule]:
    for kind in NEIGHBOURS:
        yield Rule(f"neighbours {kind}", (HopLimit(), Icmp(Family.V6, kind), Verdict(ACCEPT)))
    for kind in LISTENERS:
        yield Rule(f"listeners {kind}", (LinkLocal(), Icmp(Family.V6, kind), Verdict(ACCEPT)))


def _dhcp_client(name: str, zone: Zone) -> Iterator[Rule]:
    """Yield what a DHCP client hears: RFC 2131 section 4.1, RFC 8415 section 7.2."""
    for interface in zone.interfaces:
        into = Interface(interface)
        four = (into, PortPair(UDP, 67, 68), Verdict(ACCEPT))
        yield Rule(_short(f"in: dhcp 4 {name} {interface}"), four)
        # RFC 8415: a server may answer from any port
        six = (into, LinkLocal(), Port(UDP, 546, 546), Verdict(ACCEPT))
        yield Rule(_short(f"in: dhcp 6 {name} {interface}"), six)


def _dhcp_request(name: str, zone: Zone) -> Iterator[Rule]:
    for interface in zone.interfaces:
        out = Interface(interface, out=True)
        four = (out, PortPair(UDP, 68, 67), Verdict(ACCEPT))
        yield Rule(_short(f"out: dhcp 4 {name} {interface}"), four)
        six = (out, LinkLocal(), Port(UDP, 547, 547), Verdict(ACCEPT))
        yield Rule(_short(f"out: dhcp 6 {name} {interface}"), six)


def _short(text: str) -> str:
    """Return a title that leaves room for what limits add to it."""
    room = COMMENT_BYTES_MAX - 40
    return text if len(text) <= room else text[: room - 1] + "~"

"""What our policies do to real packets: who reaches what, who is limited, what stays open.

The tables below were written by hand from the policies' intent; nothing of the compiler is in
them. Rates are so slow that a slow machine changes no verdict.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import firewall
from firewall import policy
from firewall.compile import compile_policy
from firewall.kernel import Kernel
from firewall.policy import Policy
from tests.firewall.lab import Case, Family, Lab, Neighbour, Proto, Verdict, matrix
from vitals.ports import PORTS

ACCEPTED, REFUSED, DROPPED = Verdict.ACCEPTED, Verdict.REFUSED, Verdict.DROPPED
FAMILIES: tuple[Family, Family] = (4, 6)
OURS = Path(firewall.__file__).parent / "policies"
EDGE = policy.load(OURS / "edge.toml")
CLOUD = policy.load(OURS / "cloud.toml")

# -- who is there ----------------------------------------------------------------------------------

DEVICE = Neighbour(
    "device",
    host_if="dev0",
    v4="10.77.1.0/24",
    v6="fd77:1::/64",
    sources=3,
    beyond=("192.0.2.7", "2001:db8:ad::7"),
)
UPLINK = Neighbour(
    "uplink",
    host_if="up0",
    v4="10.77.2.0/24",
    v6="fd77:2::/64",
    sources=3,
    # The last administrator, the next address after them, and a broker's.
    beyond=(
        "192.0.2.255",
        "2001:db8:ad:ffff:ffff:ffff:ffff:ffff",
        "192.0.3.0",
        "2001:db8:ae::",
        "10.78.0.77",
        "fd78::77",
    ),
)
CLUSTER = Neighbour(
    "cluster",
    host_if="clu0",
    v4="10.78.0.0/24",
    v6="fd78::/64",
    beyond=("10.78.1.0", "fd78:0:0:1::", "192.0.2.8", "2001:db8:ad::8"),
)
NOBODY = Neighbour(
    "nobody",  # on an interface of no zone
    host_if="eth9",
    v4="10.77.9.0/24",
    v6="fd77:9::/64",
    beyond=("192.0.2.9", "2001:db8:ad::9", "10.78.0.99", "fd78::99"),
)


class Who(NamedTuple):
    """A neighbour, and one of its addresses of each family; none: its first."""

    neighbour: str
    v4: str | None = None
    v6: str | None = None

    def source(self, family: Family) -> str | None:
        return self.v4 if family == 4 else self.v6


# -- who reaches what: TCP ports that are open, everything else is not -----------------------------

LINES = {7010, 7011, 2575, 2576}
REACHED_ON_EDGE = {
    Who("device"): LINES,
    Who("device", "192.0.2.7", "2001:db8:ad::7"): LINES,  # an administrator's address: no ssh
    Who("uplink"): set(),
    Who("uplink", "192.0.2.255", "2001:db8:ad:ffff:ffff:ffff:ffff:ffff"): {22},
    Who("uplink", "192.0.3.0", "2001:db8:ae::"): set(),
    Who("nobody"): set(),
    Who("nobody", "192.0.2.9", "2001:db8:ad::9"): set(),
}
BROKERS = {9093, 9094, 6379, 7070, 9100}
REACHED_ON_CLOUD = {
    Who("uplink"): {8443, 8445, 443},
    Who("uplink", "192.0.2.255", "2001:db8:ad:ffff:ffff:ffff:ffff:ffff"): {8443, 8445, 443, 22},
    Who("uplink", "192.0.3.0", "2001:db8:ae::"): {8443, 8445, 443},
    Who("uplink", "10.78.0.77", "fd78::77"): {8443, 8445, 443},  # a broker's address outside
    Who("cluster"): BROKERS,
    Who("cluster", "10.78.1.0", "fd78:0:0:1::"): {9100},
    Who("cluster", "192.0.2.8", "2001:db8:ad::8"): {9100},
    Who("nobody"): set(),
    Who("nobody", "192.0.2.9", "2001:db8:ad::9"): set(),
    Who("nobody", "10.78.0.99", "fd78::99"): set(),
}
LEAVES_EDGE: dict[str, tuple[set[int], set[int]]] = {  # TCP, UDP
    "uplink": ({8443, 8445, 53, 4460}, {53, 123}),
    "device": (set(), set()),
    "nobody": (set(), set()),
}
CLOSED = {1, 21, 23, 53, 80, 111, 123, 2574, 2577, 7009, 8080, 8442, 8444, 8446, 9092, 65535}
TCP_PORTS = sorted({port.number for port in PORTS} | {22, 4460, 9100} | CLOSED)
UDP_PORTS = sorted(LINES | BROKERS | {8443, 8445, 443, 22, 53, 67, 68, 123, 546, 547, 5353})


@pytest.fixture(scope="module")
def edge() -> Iterator[Lab]:
    with Lab(DEVICE, UPLINK, NOBODY) as made:
        apply(made, EDGE)
        yield made


@pytest.fixture(scope="module")
def cloud() -> Iterator[Lab]:
    with Lab(UPLINK, CLUSTER, NOBODY) as made:
        apply(made, CLOUD)
        yield made


def apply(lab: Lab, *policies: Policy) -> None:
    """Put policies in force on the lab's host, one after the other."""
    with lab.host.entered(), Kernel() as kernel:
        for one in policies:
            kernel.replace(compile_policy(one))


def wrong(lab: Lab, expected: dict[Case, Verdict]) -> dict[Case, tuple[Verdict, Verdict]]:
    """Return what did not happen as expected: expected, found."""
    found = matrix(lab, expected)
    return {
        case: (expected[case], found[case]) for case in expected if found[case] != expected[case]
    }


def coming(who: Who, tcp: Iterable[int], closed: Verdict = DROPPED) -> dict[Case, Verdict]:
    """Return what becomes of all that somebody may try, with these TCP ports open alone."""
    reached = set(tcp)
    out: dict[Case, Verdict] = {}
    for family in FAMILIES:
        name, source = who.neighbour, who.source(family)
        for port in TCP_PORTS:
            case = Case(neighbour=name, proto="tcp", port=port, family=family, source=source)
            out[case] = ACCEPTED if port in reached else closed
        for port in UDP_PORTS:
            out[Case(neighbour=name, proto="udp", port=port, family=family, source=source)] = closed
        out[Case(neighbour=name, proto="icmp", family=family, source=source)] = ACCEPTED
    return out


def named(who: Who) -> str:
    return f"{who.neighbour}-{who.v4 or 'own'}"


@pytest.mark.parametrize("who", REACHED_ON_EDGE, ids=named)
def test_who_reaches_what_on_the_gateway(edge: Lab, who: Who) -> None:
    assert wrong(edge, coming(who, REACHED_ON_EDGE[who])) == {}


@pytest.mark.parametrize("who", REACHED_ON_CLOUD, ids=named)
def test_who_reaches_what_in_the_cloud(cloud: Lab, who: Who) -> None:
    assert wrong(cloud, coming(who, REACHED_ON_CLOUD[who])) == {}


@pytest.mark.parametrize("neighbour", LEAVES_EDGE)
def test_what_leaves_the_gateway(edge: Lab, neighbour: str) -> None:
    tcp, udp = LEAVES_EDGE[neighbour]
    expected: dict[Case, Verdict] = {}
    for family in FAMILIES:
        for port in TCP_PORTS:
            case = Case(neighbour=neighbour, proto="tcp", port=port, family=family, out=True)
            expected[case] = ACCEPTED if port in tcp else REFUSED
        for port in UDP_PORTS:
            case = Case(neighbour=neighbour, proto="udp", port=port, family=family, out=True)
            expected[case] = ACCEPTED if port in udp else REFUSED
        expected[Case(neighbour=neighbour, proto="icmp", family=family, out=True)] = ACCEPTED
    assert wrong(edge, expected) == {}


def test_everything_leaves_the_cloud(cloud: Lab) -> None:
    some: list[tuple[Proto, int]] = [("tcp", 25), ("tcp", 443), ("udp", 53), ("icmp", 0)]
    expected = {
        Case(neighbour=name, proto=proto, port=port, family=family, out=True): ACCEPTED
        for name in ("uplink", "cluster", "nobody")
        for proto, port in some
        for family in FAMILIES
    }
    assert wrong(cloud, expected) == {}

"""What our policies do to real packets: who reaches what, who is limited, what stays open.

The tables below were written by hand from the policies' intent; nothing of the compiler is in
them. Rates are so slow that a slow machine changes no verdict.
"""

import errno
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

import firewall
from firewall import policy_file
from firewall.compile import compile_policy
from firewall.kernel import Kernel
from firewall.policy import Policy
from tests.firewall.lab import Case, Family, Lab, Namespace, Neighbour, Proto, Verdict, matrix
from tests.firewall.lab.packets import Mark
from vitals.ports import PORTS

ACCEPTED, REFUSED, DROPPED = Verdict.ACCEPTED, Verdict.REFUSED, Verdict.DROPPED
FAMILIES: tuple[Family, Family] = (4, 6)
OURS = Path(firewall.__file__).parent / "policies"
EDGE = policy_file.load(OURS / "edge.toml")
CLOUD = policy_file.load(OURS / "cloud.toml")

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
# Those beside an open one, and what else is tried.
BESIDE_OPEN = {2574, 2577, 7009, 7012, 21, 23, 442, 444, 8442, 8444, 8446, 9092, 9095}
BESIDE_OPEN |= {6378, 6380, 7069, 7071, 9099, 9101}
CLOSED = BESIDE_OPEN | {1, 53, 80, 111, 123, 8080, 65535}
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


def coming(
    who: Who, tcp: Iterable[int], closed: Verdict = DROPPED, ping: Verdict = ACCEPTED
) -> dict[Case, Verdict]:
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
        out[Case(neighbour=name, proto="icmp", family=family, source=source)] = ping
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


# -- policies of the tests' own: rates so slow that nothing comes back while a test runs -----------

HEAD = """
name = "own"
ping = ""

[log]
rate = ""

[zones.device]
interfaces = ["dev0"]

[zones.uplink]
interfaces = ["up0"]

[services.both]
tcp = [9000]
udp = [9000]
"""


def own(*entries: str, before: str = "", outbound: str = "accept") -> Policy:
    """Return a policy of these entries; `before` are lines of [inbound]."""
    allows = "".join(f"[[inbound.allow]]\n{entry}\n" for entry in entries)
    text = f'{HEAD}\n[outbound]\ndefault = "{outbound}"\n[inbound]\n{before}\n{allows}'
    return policy_file.parse(text, "test_packets.py")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(DEVICE, UPLINK) as made:
        yield made


def connecting(space: Namespace, family: Family, to: str, port: int, source: str = "") -> int:
    """Return the error number that a program gets which connects, or 0."""
    with space.socket(inet(family), socket.SOCK_STREAM) as made:
        made.bind((source, 0))
        number = made.connect_ex((to, port))
        if number == errno.EINPROGRESS:
            poll = select.poll()
            poll.register(made, select.POLLOUT)
            assert poll.poll(5000), "nothing was heard for 5 s"
            number = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return number


def inet(family: Family) -> int:
    return socket.AF_INET if family == 4 else socket.AF_INET6


# -- what is refused, and how ----------------------------------------------------------------------


def test_a_default_of_reject_answers_even_where_nothing_may_leave(lab: Lab) -> None:
    entry = 'services = ["http"]\nzones = ["device"]'
    apply(lab, own(entry, before='default = "reject"', outbound="drop"))
    for who, tcp in ((Who("device"), {80}), (Who("uplink"), set())):
        assert wrong(lab, coming(who, tcp, closed=REFUSED, ping=REFUSED)) == {}
    for family in FAMILIES:
        to = lab.host_address("device", family)
        number = connecting(lab.neighbour("device"), family, to, 81)
        assert number == errno.ECONNREFUSED, errno.errorcode.get(number)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_of_the_gateway_is_told_at_once(edge: Lab, family: Family) -> None:
    """By a reset: over IPv6 a socket in connect() hears no ICMP before its second SYN."""
    begun = time.monotonic()
    assert connecting(edge.host, family, edge.addresses("uplink", family)[0], 81)
    assert time.monotonic() - begun < 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_a_program_of_the_gateway_is_told_that_it_may_not(edge: Lab, family: Family) -> None:
    """Nothing of it reaches the wire."""
    to = edge.addresses("uplink", family)[0]
    tap = edge.link("uplink").far_tap
    tap.restart()
    number = connecting(edge.host, family, to, 81)
    assert number in {errno.EHOSTUNREACH, errno.EACCES, errno.ECONNREFUSED}
    with edge.host.socket(inet(family), socket.SOCK_DGRAM) as sender:
        with pytest.raises(PermissionError):
            sender.sendto(b"x", (to, 81))
        assert sender.sendto(b"x", (to, 123)) == 1
        port = sender.getsockname()[1]
    until = time.monotonic() + 2
    while Mark(family, "udp", port) not in tap.arrived and time.monotonic() < until:
        tap.drain()
    assert {seen for seen in tap.arrived if isinstance(seen, Mark)} == {Mark(family, "udp", port)}


@pytest.mark.parametrize("family", FAMILIES)
def test_pings_over_the_limit_are_dropped(lab: Lab, family: Family) -> None:
    apply(lab, policy_file.parse('name = "own"\nping = "6/hour"', "test_packets.py"))
    pings = [
        Case(neighbour="device", proto="icmp", family=family, source=source)
        for source in lab.addresses("device", family)
        for _ in range(3)
    ]
    assert lab.run(pings) == [ACCEPTED] * 5 + [DROPPED] * 4
    assert lab.ping("uplink", family) is DROPPED
    assert lab.ping_out("uplink", family) is ACCEPTED
    apply(lab, policy_file.parse('name = "own"\nping = ""', "test_packets.py"))
    assert lab.ping("device", family) is DROPPED


def test_neighbours_are_discovered_under_the_policy() -> None:
    """The policy is there before the first packet, and lets out what it must."""
    with Lab(DEVICE, UPLINK, NOBODY) as fresh:
        apply(fresh, EDGE)
        assert fresh.probe("device", "tcp", 7010, 6) is ACCEPTED
        assert fresh.probe_out("uplink", "tcp", 8443, 6) is ACCEPTED
        assert fresh.ping("nobody", 6) is ACCEPTED
    with Lab(DEVICE, UPLINK) as fresh:
        apply(fresh, own('services = ["http"]', outbound="drop"))
        assert fresh.probe("device", "tcp", 80, 6) is ACCEPTED
        assert fresh.probe_out("uplink", "tcp", 80, 6) is DROPPED


def heard(
    sender: tuple[Namespace, str, int], receiver: tuple[Namespace, str, int], scope: str = ""
) -> bool:
    """Tell whether a datagram gets from one address and port to another; False if not sent."""
    family: Family = 6 if ":" in receiver[1] else 4
    with (
        receiver[0].socket(inet(family), socket.SOCK_DGRAM) as far,
        sender[0].socket(inet(family), socket.SOCK_DGRAM) as near,
    ):
        far.bind(("::" if family == 6 else "", receiver[2]))
        zone: tuple[int, ...] = ()
        if scope:
            with sender[0].entered():
                zone = (0, socket.if_nametoindex(scope))
        near.bind((sender[1], sender[2], *zone))
        try:
            near.sendto(b"x", (receiver[1], receiver[2], *zone))
        except PermissionError:
            return False
        return bool(select.select([far], [], [], 0.3)[0])


def link_local(space: Namespace, interface: str) -> str:
    with space.entered():
        lines = Path("/proc/thread-self/net/if_inet6").read_text("ascii").splitlines()
    (found,) = [
        words[0] for line in lines if (words := line.split())[5] == interface and words[3] == "20"
    ]
    return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(found))


def test_leases_are_heard_and_asked_for_on_the_uplink_alone(lab: Lab) -> None:
    def tried() -> dict[str, bool]:
        out = {}
        for name, interface in (("uplink", "up0"), ("device", "dev0")):
            far, host = lab.neighbour(name), lab.host
            four, own_four = lab.addresses(name, 4)[0], lab.host_address(name, 4)
            six, own_six = link_local(far, "lan0"), link_local(host, interface)
            out[f"{name} answers 4"] = heard((far, four, 67), (host, own_four, 68))
            out[f"{name} answers 4 from elsewhere"] = heard((far, four, 1067), (host, own_four, 68))
            out[f"{name} answers 6"] = heard((far, six, 547), (host, own_six, 546), "lan0")
            out[f"{name} is asked 4"] = heard((host, own_four, 68), (far, four, 67))
            out[f"{name} is asked 6"] = heard((host, own_six, 546), (far, six, 547), interface)
        return out

    assert [case for case, got in tried().items() if not got] == []
    with Lab(DEVICE, UPLINK) as fresh:  # no flow of the first round is known there
        lab = fresh
        apply(lab, EDGE)
        assert [case for case, got in tried().items() if got] == [
            "uplink answers 4",
            "uplink answers 6",
            "uplink is asked 4",
            "uplink is asked 6",
        ]


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_goes_through_the_host(lab: Lab, family: Family) -> None:
    lab.host.sysctls({"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"})
    far, beyond = lab.neighbour("device"), lab.neighbour("uplink")
    source, to = lab.addresses("device", family)[0], lab.addresses("uplink", family)[0]
    assert heard((far, source, 5000), (beyond, to, 8443))
    apply(lab, EDGE)
    assert not heard((far, source, 5001), (beyond, to, 8443))
    assert not heard((far, source, 5002), (beyond, to, 53))


def test_the_host_reaches_itself(edge: Lab) -> None:
    for address in ("127.0.0.1", "::1", edge.host_address("device", 4)):
        assert heard((edge.host, address, 5000), (edge.host, address, 9126))


def segment(source: str, to: str, ports: tuple[int, int], flags: int) -> bytes:
    """Return a TCP segment without data, for a raw IPv4 socket."""
    head = struct.pack("!HHIIBBHHH", *ports, 1, 0, 5 << 4, flags, 1024, 0, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton(to)
    summed = addresses + struct.pack("!HH", socket.IPPROTO_TCP, len(head)) + head
    total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    total = (total >> 16) + (total & 0xFFFF)
    total += total >> 16
    return head[:16] + struct.pack("!H", ~total & 0xFFFF) + head[18:]


def test_what_belongs_to_no_flow_is_dropped_even_at_an_open_port(lab: Lab) -> None:
    source, to = lab.addresses("device", 4)[0], lab.host_address("device", 4)
    syn, reset, syn_fin = 0x02, 0x04, 0x03

    def came(flags: int, port: int) -> bool:
        far, raw = lab.neighbour("device"), (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        with lab.host.socket(*raw) as receiver, far.socket(*raw) as sender:
            sender.bind((source, 0))
            sender.sendto(segment(source, to, (port, 7010), flags), (to, 0))
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                if select.select([receiver], [], [], 0.05)[0]:
                    got = receiver.recv(256)[20:]
                    if (got[:4], got[13]) == (struct.pack("!HH", port, 7010), flags):
                        return True
        return False

    assert [came(flags, 5000 + flags) for flags in (syn, reset, syn_fin)] == [True] * 3
    apply(lab, EDGE)
    assert [came(flags, 6000 + flags) for flags in (syn, reset, syn_fin)] == [True, False, False]


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_source_over_its_rate_starves_nobody_else(
    lab: Lab, proto: Literal["tcp", "udp"], family: Family
) -> None:
    apply(
        lab, own('services = ["both"]\nzones = ["device", "uplink"]\nrate = "6/hour"\nburst = 10')
    )
    first, *others = lab.addresses("device", family)
    with lab.flood("device", proto, 9000, family, first, count=10**6, rate=300) as flood:
        for other in others * 3:
            assert lab.probe("device", proto, 9000, family, other) is ACCEPTED
            assert lab.probe("uplink", proto, 9000, family) is ACCEPTED
        while flood.sent < 60:
            time.sleep(0.01)
    assert flood.sent >= 60
    assert flood.arrived == 10
    assert lab.probe("device", proto, 9000, family, first) is DROPPED
    assert lab.probe("device", proto, 9000, family, others[0]) is ACCEPTED


@pytest.mark.parametrize("family", FAMILIES)
def test_connections_over_the_limit_are_reset_and_open_ones_go_on(lab: Lab, family: Family) -> None:
    entry = 'services = ["http"]\nzones = ["device"]\nconnections = 4'
    apply(lab, own(entry, 'services = ["https"]\nzones = ["device"]', outbound="drop"))
    first, second, _ = lab.addresses("device", family)
    far, to = lab.neighbour("device"), lab.host_address("device", family)
    with (
        lab.flow("device", 80, family, first) as flow,
        lab.flood("device", "tcp", 80, family, first, count=8, hold=True) as flood,
    ):
        flood.wait()
        assert (flood.sent, flood.arrived) == (8, 3)
        assert lab.probe("device", "tcp", 80, family, first) is REFUSED
        assert connecting(far, family, to, 80, first) == errno.ECONNREFUSED  # a reset
        assert lab.probe("device", "tcp", 443, family, first) is ACCEPTED
        assert lab.probe("device", "tcp", 80, family, second) is ACCEPTED
        assert flow.exchange()
    # The kernel takes note of what was closed some ticks later.
    until = time.monotonic() + 5
    while lab.probe("device", "tcp", 80, family, first) is not ACCEPTED:
        assert time.monotonic() < until


def overdone(lab: Lab, port: int, family: Family, source: str, neighbour: str = "device") -> int:
    """Connect one after the other until one is dropped; return how many were not."""
    for done in range(60):
        if lab.probe(neighbour, "tcp", port, family, source) is DROPPED:
            return done
    raise AssertionError("60 connections, and none was dropped")


BLOCKING = 'services = ["http"]\nzones = ["device"]\nrate = "6/hour"\nburst = 3\nblock = "{}"'
BESIDE = 'services = ["https"]'


@pytest.mark.parametrize("family", FAMILIES)
def test_who_is_blocked_is_blocked_wholly_and_alone(lab: Lab, family: Family) -> None:
    apply(lab, own(BLOCKING.format("10m"), BESIDE))
    first, second, third = lab.addresses("device", family)
    with (
        lab.flow("device", 443, family, first) as cut,
        lab.flow("device", 443, family, second) as kept,
    ):
        assert overdone(lab, 80, family, first) == 3
        for _ in range(2):
            assert lab.probe("device", "tcp", 443, family, first) is DROPPED
            assert lab.probe("device", "tcp", 80, family, second) is ACCEPTED
            assert lab.probe("device", "tcp", 443, family, third) is ACCEPTED
            assert kept.exchange()
            assert not cut.exchange(0.3)
            # The block is the host's, not the policy's.
            apply(lab, own(BLOCKING.format("5m"), BESIDE, 'services = ["ssh"]'))
        assert kept.exchange()
    assert lab.probe_out("device", "tcp", 80, family, to=first) is DROPPED
    assert lab.probe_out("device", "tcp", 80, family, to=second) is ACCEPTED


def test_a_block_ends(lab: Lab) -> None:
    apply(lab, own(BLOCKING.format("3s"), BESIDE))
    sources: dict[Family, str] = {
        4: lab.addresses("device", 4)[0],
        6: lab.addresses("device", 6)[0],
    }
    with lab.flow("device", 443, 4, sources[4]) as four, lab.flow("device", 443, 6) as six:
        begun = time.monotonic()
        for family, source in sources.items():
            assert overdone(lab, 80, family, source) == 3
            assert lab.probe("device", "tcp", 443, family, source) is DROPPED
        for family, source in sources.items():
            while lab.probe("device", "tcp", 443, family, source) is DROPPED:
                assert time.monotonic() - begun < 15
            assert time.monotonic() - begun > 2.9
        assert four.exchange(5)
        assert six.exchange(5)
        # It was the block that ended: the rate is still used up.
        assert lab.probe("device", "tcp", 80, 4, sources[4]) is DROPPED


def test_the_limits_of_our_policies_are_in_force(lab: Lab) -> None:
    with Lab(UPLINK, CLUSTER) as own_cloud:
        apply(own_cloud, CLOUD)
        first, second, _ = own_cloud.addresses("uplink", 4)
        # Some are reset: the kernel may count what was closed a moment ago as open still.
        assert 20 <= overdone(own_cloud, 8445, 4, first, "uplink") < 30
        for port in (8443, 443, 8445):
            assert own_cloud.probe("uplink", "tcp", port, 4, first) is DROPPED
            assert own_cloud.probe("uplink", "tcp", port, 4, second) is ACCEPTED
    apply(lab, EDGE)
    ssh = Case(neighbour="uplink", proto="tcp", port=22, family=4, source="192.0.2.255")
    verdicts = lab.run([ssh] * 30)
    assert verdicts[:10] == [ACCEPTED] * 10
    assert verdicts.count(DROPPED) >= 10


def test_a_total_is_everybodys(lab: Lab) -> None:
    entry = 'services = ["both"]\nzones = ["device"]\ntotal = "6/hour"\nburst = 6'
    apply(lab, own(entry, 'services = ["https"]\nzones = ["device"]'))
    everybody = [
        Case(neighbour="device", proto="tcp", port=9000, family=family, source=source)
        for family in FAMILIES
        for source in lab.addresses("device", family)
    ]
    assert lab.run(everybody * 2) == [ACCEPTED] * 6 + [DROPPED] * 6
    for family in FAMILIES:
        assert lab.probe("device", "tcp", 443, family) is ACCEPTED


@pytest.mark.parametrize("apart", ["zone", "protocol", "family"])
def test_a_total_is_that_of_the_whole_entry(lab: Lab, apart: str) -> None:
    entry = 'services = ["both"]\nzones = ["device", "uplink"]\ntotal = "6/hour"\nburst = 3'
    if apart == "family":
        entry += '\naddresses = ["10.77.0.0/16", "fd77::/16"]'
    apply(lab, own(entry))
    for _ in range(3):
        assert lab.probe("device", "tcp", 9000, 4) is ACCEPTED
    assert lab.probe("device", "tcp", 9000, 4) is DROPPED
    match apart:
        case "zone":
            assert lab.probe("uplink", "tcp", 9000, 4) is DROPPED
        case "protocol":
            assert lab.probe("device", "udp", 9000, 4) is DROPPED
        case _:
            assert lab.probe("device", "tcp", 9000, 6) is DROPPED


# -- flows that are there already ------------------------------------------------------------------


def test_open_flows_live_through_every_replacement(lab: Lab) -> None:
    shut = own(outbound="drop")
    new = [
        Case(neighbour=name, proto="tcp", port=port, family=family, out=out)
        for name, port, out in (("device", 7010, False), ("uplink", 8443, True))
        for family in FAMILIES
    ]
    apply(lab, EDGE)
    with ExitStack() as stack:
        flows = [stack.enter_context(lab.flow("device", 7010, family)) for family in FAMILIES]
        flows += [stack.enter_context(lab.flow_out("uplink", 8443, family)) for family in FAMILIES]
        for following in (EDGE, CLOUD, shut, shut):
            apply(lab, following)
            assert [flow.exchange() for flow in flows] == [True] * 4
        assert lab.run(new) == [DROPPED] * 4
        assert [flow.exchange() for flow in flows] == [True] * 4
        apply(lab, EDGE)
        assert lab.run(new) == [ACCEPTED] * 4
        assert [flow.exchange() for flow in flows] == [True] * 4

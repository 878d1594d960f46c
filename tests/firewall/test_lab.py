"""The packet lab tells what a ruleset does, and tells a fault of its own from it."""

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import pytest

from tests.firewall.lab import (
    Case,
    Family,
    Lab,
    LabError,
    LabUnavailable,
    Neighbour,
    PacketLost,
    Proto,
    Verdict,
    matrix,
)

T = TypeVar("T")
ACCEPTED, REFUSED, DROPPED = Verdict.ACCEPTED, Verdict.REFUSED, Verdict.DROPPED
FAMILIES: tuple[Family, Family] = (4, 6)
PROTOS: tuple[Proto, ...] = ("tcp", "udp", "icmp")
DEVICE = Neighbour(
    "device",
    host_if="dev0",
    v4="10.77.1.0/24",
    v6="fd77:1::/64",
    sources=2,
    foreign=("192.0.2.7", "2001:db8::7"),
)
UPLINK = Neighbour("uplink", host_if="up0", v4="10.77.2.0/24", v6="fd77:2::/64")
DISCOVERY = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
OURS = "meta l4proto { tcp, udp } th dport 80"
ECHO = "icmpv6 type echo-request"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(DEVICE, UPLINK) as made:
        yield made


def ruleset(*rules: str, hook: str = "input", policy: str = "accept") -> str:
    lines = "\n".join(rules)
    chain = f"chain c {{\ntype filter hook {hook} priority 0; policy {policy};\n{lines}\n}}"
    return f"flush ruleset\ntable inet t {{\n{chain}\n}}\n"


def case(proto: Proto, family: Family, *, out: bool = False, port: int = 80) -> Case:
    port = 0 if proto == "icmp" else port
    return Case(neighbour="device", proto=proto, port=port, family=family, out=out)


def every(*, out: bool = False, port: int = 80) -> list[Case]:
    return [case(proto, family, out=out, port=port) for proto in PROTOS for family in FAMILIES]


def verdicts(lab: Lab, cases: list[Case]) -> dict[str, Verdict]:
    """By protocol and family: short enough to read in a failed assertion."""
    return {f"{c.proto}{c.family}": verdict for c, verdict in matrix(lab, cases).items()}


def all_of(verdict: Verdict, **other: Verdict) -> dict[str, Verdict]:
    return {
        f"{proto}{family}": other.get(proto, verdict) for proto in PROTOS for family in FAMILIES
    }


def targets(what: str) -> list[str]:
    return [f"{OURS} {what}", f"icmp type echo-request {what}", f"{ECHO} {what}"]


@pytest.mark.parametrize("out", [False, True])
def test_a_host_without_firewall_accepts_everything(lab: Lab, out: bool) -> None:
    assert verdicts(lab, every(out=out)) == all_of(ACCEPTED)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("accept", ACCEPTED),
        ("drop", DROPPED),
        ("reject with icmpx admin-prohibited", REFUSED),
        ("reject with icmpx port-unreachable", REFUSED),
    ],
)
@pytest.mark.parametrize(("hook", "out"), [("input", False), ("output", True)])
def test_a_rule_decides(lab: Lab, what: str, expected: Verdict, hook: str, out: bool) -> None:
    lab.nft(ruleset(*targets(what), hook=hook))
    assert verdicts(lab, every(out=out)) == all_of(expected)
    # Only what the rule names, and only that way.
    other = every(out=out, port=81)
    assert {c: v for c, v in matrix(lab, other).items() if c.port} == {
        c: ACCEPTED for c in other if c.port
    }
    assert verdicts(lab, every(out=not out)) == all_of(ACCEPTED)


@pytest.mark.parametrize(("hook", "out"), [("input", False), ("output", True)])
def test_a_reset_is_a_refusal_of_tcp(lab: Lab, hook: str, out: bool) -> None:
    lab.nft(ruleset("tcp dport 80 reject with tcp reset", hook=hook))
    assert verdicts(lab, every(out=out)) == all_of(ACCEPTED, tcp=REFUSED)


@pytest.mark.parametrize(("hook", "out"), [("input", False), ("output", True)])
def test_a_policy_drops_what_no_rule_takes(lab: Lab, hook: str, out: bool) -> None:
    rules = ["ct state established,related accept", DISCOVERY, "tcp dport 80 accept"]
    lab.nft(ruleset(*rules, hook=hook, policy="drop"))
    assert verdicts(lab, every(out=out)) == all_of(DROPPED, tcp=ACCEPTED)


def test_the_answer_may_be_what_is_dropped(lab: Lab) -> None:
    lab.nft(ruleset("tcp sport 80 drop", hook="output"))
    assert verdicts(lab, every()) == all_of(ACCEPTED, tcp=DROPPED)
    lab.nft(ruleset("tcp sport 80 drop", hook="input"))
    assert verdicts(lab, every(out=True)) == all_of(ACCEPTED, tcp=DROPPED)


def test_a_refusal_must_get_back_to_who_sent(lab: Lab) -> None:
    """A host that rejects its own flow tells itself over `lo`."""
    with lab.neighbour("device").entered():
        subprocess.run(
            ["nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }"],
            check=True,
            timeout=10,
        )
        subprocess.run(["nft", "add rule inet t c tcp dport 80 reject"], check=True, timeout=10)
    assert [lab.probe_out("device", "tcp", 80, family) for family in FAMILIES] == [REFUSED] * 2
    lab.nft(ruleset("meta l4proto { icmp, icmpv6 } iifname dev0 meta length > 60 drop"))
    assert lab.probe_out("device", "tcp", 80, 4) is DROPPED


def test_discovery_is_real_and_done_anew_for_each_probe(lab: Lab) -> None:
    assert [lab.probe("device", "udp", 80, family) for family in FAMILIES] == [ACCEPTED] * 2
    lab.nft(ruleset("udp dport 80 accept", policy="drop"))
    assert [lab.probe("device", "udp", 80, family) for family in FAMILIES] == [ACCEPTED, DROPPED]
    assert [lab.probe_out("device", "udp", 80, f) for f in FAMILIES] == [ACCEPTED, DROPPED]
    lab.nft(ruleset("udp dport 80 accept", DISCOVERY, policy="drop"))
    assert [lab.probe("device", "udp", 80, family) for family in FAMILIES] == [ACCEPTED] * 2
    assert [lab.probe_out("device", "udp", 80, f) for f in FAMILIES] == [ACCEPTED] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_no_limit_of_icmp_turns_refusals_into_silence(lab: Lab, family: Family) -> None:
    lab.nft(ruleset("udp dport 80 reject"))
    assert set(lab.run([case("udp", family)] * 300)) == {REFUSED}


@pytest.mark.parametrize("family", FAMILIES)
def test_sources_of_one_neighbour_are_told_apart(lab: Lab, family: Family) -> None:
    first, second = lab.addresses("device", family)
    foreign = DEVICE.strangers(family)[0]
    ip = "ip" if family == 4 else "ip6"
    lab.nft(ruleset(f"{ip} saddr {{ {second}, {foreign} }} meta l4proto {{ tcp, udp }} drop"))
    tried = [
        Case(neighbour="device", proto=proto, port=80, family=family, source=source)
        for source in (first, second)
        for proto in PROTOS[:2]
    ]
    tried.append(Case(neighbour="device", proto="udp", port=80, family=family, source=foreign))
    assert lab.run(tried) == [ACCEPTED] * 2 + [DROPPED] * 3
    lab.nft(ruleset())
    assert lab.probe("device", "udp", 80, family, foreign) is ACCEPTED
    assert lab.ping("device", family, second) is ACCEPTED


@pytest.mark.parametrize("family", FAMILIES)
def test_a_source_from_beyond_is_answered(family: Family) -> None:
    source = {4: "192.0.2.7", 6: "2001:db8::7"}[family]
    plan = Neighbour(
        "device",
        host_if="dev0",
        v4="10.77.1.0/24",
        v6="fd77:1::/64",
        beyond=("192.0.2.7", "2001:db8::7"),
    )
    with Lab(plan, UPLINK) as lab:
        assert lab.probe("device", "tcp", 80, family, source) is ACCEPTED
        assert lab.ping("device", family, source) is ACCEPTED
        lab.nft(ruleset("tcp dport 80 reject"))
        assert lab.probe("device", "tcp", 80, family, source) is REFUSED
        ip = "ip" if family == 4 else "ip6"
        lab.nft(ruleset(f"{ip} saddr {source} tcp dport 80 drop"))
        assert lab.probe("device", "tcp", 80, family, source) is DROPPED
        assert lab.probe("device", "tcp", 80, family) is ACCEPTED


@pytest.mark.parametrize("family", FAMILIES)
def test_another_address_can_be_reached_for(lab: Lab, family: Family) -> None:
    beyond = lab.host_address("uplink", family)
    assert lab.probe("device", "tcp", 80, family, to=beyond) is ACCEPTED
    assert lab.probe_out("device", "tcp", 80, family, to=lab.addresses("device", family)[1]) is (
        ACCEPTED
    )
    lab.nft(ruleset(f"iifname dev0 {'ip' if family == 4 else 'ip6'} daddr {beyond} drop"))
    assert lab.probe("device", "tcp", 80, family, to=beyond) is DROPPED
    assert lab.ping("device", family, to=beyond) is DROPPED
    assert lab.probe("uplink", "tcp", 80, family) is ACCEPTED


def test_what_never_arrives_is_no_verdict(lab: Lab) -> None:
    lab.nft(ruleset(*targets("drop")))
    lab.set_link("device", up=False)
    for lost in (
        case("udp", 4),
        case("icmp", 6),
        case("tcp", 4, out=True),
        case("udp", 6, out=True),
    ):
        with pytest.raises(PacketLost, match="device"):
            lab.run([lost])
    assert lab.probe("uplink", "udp", 81, 6) is ACCEPTED
    lab.set_link("device", up=True)
    link = lab.link("device")
    link.far_netlink.down(link.far_index)
    with pytest.raises(PacketLost, match="dev0 is down"):
        lab.probe_out("device", "udp", 80, 4)
    link.far_netlink.up(link.far_index)
    link.far_netlink.default_route(lab.host_address("device", 4))
    link.settle()
    assert verdicts(lab, every()) == all_of(DROPPED)
    assert verdicts(lab, every(out=True)) == all_of(ACCEPTED)


def test_a_question_that_makes_no_sense_is_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="no neighbour 'nobody'"):
        lab.probe("nobody", "tcp", 80, 4)
    with pytest.raises(LabError, match="to a port"):
        lab.probe("device", "tcp", 0, 4)
    with pytest.raises(LabError, match=r"source address '203\.0\.113\.1'"):
        lab.probe("device", "tcp", 80, 4, "203.0.113.1")
    with pytest.raises(LabError, match="syntax error"):
        lab.nft("table inet {")
    with lab.host.socket(socket.AF_INET, socket.SOCK_STREAM) as service:
        service.bind(("", 80))
        service.listen()
        with pytest.raises(LabError, match="cannot listen on tcp/80"):
            lab.probe("device", "tcp", 80, 4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("out", [False, True])
def test_a_flow_lives_through_a_replacement(lab: Lab, family: Family, out: bool) -> None:
    kept = ["ct state established accept", DISCOVERY]
    lab.nft(ruleset(*kept, "tcp dport 80 accept"))
    make = lab.flow_out if out else lab.flow
    with make("device", 80, family) as flow:
        assert flow.exchange()
        lab.nft(ruleset(*kept, policy="drop"))
        assert flow.exchange()
        lab.nft(ruleset(DISCOVERY, policy="drop"))
        assert not flow.exchange(0.05)
        lab.nft(ruleset(*kept, policy="drop"))
        assert flow.exchange(2)


def test_a_flow_that_may_not_begin_is_an_error(lab: Lab) -> None:
    lab.nft(ruleset(DISCOVERY, policy="drop"))
    with pytest.raises(LabError, match="no connection"):
        lab.flow("device", 80, 6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_a_flood_counts_what_gets_past_a_limit(
    lab: Lab, proto: Literal["tcp", "udp"], family: Family
) -> None:
    first, second = lab.addresses("device", family)
    ip = "ip" if family == 4 else "ip6"
    with lab.flood("device", proto, 80, family, count=200) as flood:
        flood.wait()
    assert (flood.sent, flood.arrived) == (200, 200)
    meter = f"meter m {{ {ip} saddr limit rate over 1/minute burst 20 packets }} drop"
    lab.nft(ruleset(f"ct state new {proto} dport 80 {meter}"))
    with lab.flood("device", proto, 80, family, first, count=200) as flood:
        flood.wait()
        assert lab.probe("device", proto, 80, family, second) is ACCEPTED
        assert lab.probe("device", proto, 80, family, first) is DROPPED
    assert flood.sent == 200
    assert 20 <= flood.arrived <= 21


def test_a_flood_of_what_is_dropped_needs_few_descriptors(lab: Lab) -> None:
    lab.nft(ruleset("tcp dport 80 drop"))
    with lab.flood("device", "tcp", 80, 4, count=2000) as flood:
        flood.wait()
    assert (flood.sent, flood.arrived) == (2000, 0)


def test_a_flood_keeps_its_rate_and_its_time(lab: Lab) -> None:
    begun = time.monotonic()
    with lab.flood("device", "udp", 80, 4, count=10**9, rate=1000, seconds=0.3) as flood:
        flood.wait()
    assert time.monotonic() - begun < 1
    assert flood.sent == flood.arrived
    assert 100 <= flood.sent <= 302
    begun = time.monotonic()
    with lab.flood("device", "udp", 80, 4, count=10**9, rate=1, seconds=30):
        assert lab.probe("device", "udp", 80, 4) is ACCEPTED
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("family", FAMILIES)
def test_held_connections_count_against_a_limit(lab: Lab, family: Family) -> None:
    lab.nft(ruleset("tcp dport 80 ct state new ct count over 5 drop"))
    with lab.flood("device", "tcp", 80, family, count=8, hold=True) as flood:
        flood.wait()
        assert (flood.sent, flood.arrived) == (8, 5)
        assert lab.probe("device", "tcp", 80, family) is DROPPED
        assert lab.probe("device", "tcp", 81, family) is ACCEPTED
    assert lab.probe("device", "tcp", 80, family) is ACCEPTED


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hammer_tells_what_leaks_and_what_is_lost(lab: Lab, family: Family) -> None:
    good = ruleset("udp dport 80 accept", DISCOVERY, "drop")
    lab.nft(good)
    with lab.hammer("device", 80, 81, family) as hammer:
        lab.nft("table inet other\n")
        time.sleep(0.1)
    assert hammer.sent_open == hammer.sent_closed == hammer.got_open > 10
    assert hammer.leaked_closed == 0
    with lab.hammer("device", 80, 81, family) as hammer:
        lab.nft(ruleset("udp dport 81 accept", DISCOVERY, "drop"))
        time.sleep(0.02)
        lab.nft(good)
    assert 0 < hammer.leaked_closed < hammer.sent_closed
    assert 0 < hammer.got_open < hammer.sent_open


def test_a_hammer_ends_by_itself(lab: Lab) -> None:
    with lab.hammer("device", 80, 81, 4, seconds=0.05) as hammer:
        hammer.wait()
        sent = hammer.sent_open
        time.sleep(0.02)
        assert hammer.sent_open == sent > 0


def test_a_fault_in_the_thread_is_raised_at_the_end(lab: Lab) -> None:
    stray = lab.hammer("device", 80, 81, 4, source="203.0.113.1")
    with pytest.raises(OSError, match="assign requested"), stray:
        stray.wait()


class _Around:
    """What a lab could leave behind in the process and the namespace around it."""

    def __init__(self) -> None:
        own = Path("/proc/self")
        self.descriptors = sorted(p.name for p in (own / "fd").iterdir())
        self.threads = threading.active_count()
        self.namespaces = set()
        for task in (own / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                self.namespaces.add(str((task / "ns/net").readlink()))
        self.interfaces = socket.if_nameindex()
        self.named = sorted(p.name for p in Path("/run/netns").glob("*"))
        self.tables = subprocess.run(
            ["nft", "list", "tables"], check=True, capture_output=True, timeout=10
        ).stdout


def _assert_as(before: dict[str, object]) -> None:
    """A thread that was joined is still seen for a moment, with the namespace it is in."""
    until = time.monotonic() + 1
    while vars(_Around()) != before and time.monotonic() < until:
        time.sleep(0.01)
    assert vars(_Around()) == before


def _used(lab: Lab) -> None:
    lab.nft(ruleset(*targets("drop")))
    assert verdicts(lab, every()) == all_of(DROPPED)
    with (
        lab.flow("device", 81, 6) as flow,
        lab.flood("device", "tcp", 82, 4, count=10, hold=True) as flood,
        lab.hammer("device", 83, 84, 6),
    ):
        flood.wait()
        assert flow.exchange()


def test_nothing_is_left_behind() -> None:
    before = vars(_Around())
    with Lab(DEVICE, UPLINK) as lab:
        _used(lab)
        during = vars(_Around())
        assert during["descriptors"] != before["descriptors"]
        assert [during[of] for of in ("interfaces", "named", "tables", "namespaces")] == [
            before[of] for of in ("interfaces", "named", "tables", "namespaces")
        ]
    _assert_as(before)
    with pytest.raises(ZeroDivisionError), Lab(DEVICE) as lab, lab.host.entered():
        _ = 1 / 0
    _assert_as(before)
    with pytest.raises(LabError, match="closed"):
        _ = lab.host.fd


def test_nothing_is_left_of_a_lab_that_could_not_be_made() -> None:
    before = vars(_Around())
    with pytest.raises(OSError, match="rtnetlink"):
        Lab(DEVICE, Neighbour("other", host_if="an-interface-with-too-long-a-name"))
    with pytest.raises(OSError, match="File exists"):
        Lab(DEVICE, Neighbour("other", host_if="dev0"))
    with pytest.raises(LabError, match="names of their own"):
        Lab(DEVICE, DEVICE)
    _assert_as(before)


def test_two_labs_do_not_meet() -> None:
    with Lab(DEVICE) as one, Lab(DEVICE) as two:
        one.nft(ruleset("udp dport 80 drop"))
        two.nft(ruleset("tcp dport 80 drop"))
        assert verdicts(one, every()) == all_of(ACCEPTED, udp=DROPPED)
        assert verdicts(two, every()) == all_of(ACCEPTED, tcp=DROPPED)
        one.close()
        assert two.ping("device", 6) is ACCEPTED


def test_the_host_can_be_entered(lab: Lab) -> None:
    outside = socket.if_nameindex()
    with lab.host.entered():
        assert sorted(name for _, name in socket.if_nameindex()) == ["dev0", "lo", "up0"]
        with lab.neighbour("device").entered():
            assert sorted(name for _, name in socket.if_nameindex()) == ["lan0", "lo"]
        assert lab.probe("device", "tcp", 80, 4) is ACCEPTED
        assert len(socket.if_nameindex()) == 3
        assert os.fstat(lab.host.fd).st_ino == Path("/proc/thread-self/ns/net").stat().st_ino
    assert socket.if_nameindex() == outside


def test_the_host_forwards_nothing(lab: Lab) -> None:
    beyond = [
        Case(neighbour="device", proto="udp", port=80, family=f, to=lab.addresses("uplink", f)[0])
        for f in FAMILIES
    ]
    assert lab.run(beyond) == [DROPPED] * 2
    tap = lab.link("uplink").host_tap
    tap.drain()
    assert not tap.left


def _without(capability: int, do: Callable[[], T]) -> T:
    """Run in a thread that gave up one capability (they are a thread's own)."""
    libc = ctypes.CDLL(None, use_errno=True)

    def run() -> T:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the upper 32
        assert libc.capget(header, sets) == 0
        sets[0] &= ~(1 << capability)
        assert libc.capset(header, sets) == 0
        return do()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@pytest.mark.parametrize(
    ("capability", "name"), [(21, "CAP_SYS_ADMIN"), (12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")]
)
def test_who_may_not_make_a_lab_is_told_why(capability: int, name: str) -> None:
    before = vars(_Around())
    with pytest.raises(LabUnavailable, match=f"needs root with {name}"):
        _without(capability, lambda: Lab(DEVICE))
    _assert_as(before)


def _quickest(do: Callable[[], object], times: int = 5) -> float:
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        do()
        took.append(time.perf_counter() - begun)
    return min(took)


def test_it_is_quick_enough_for_many_cases(lab: Lab) -> None:
    lab.nft(ruleset("tcp dport 81 drop", "udp dport 82 reject"))
    for family in FAMILIES:
        assert _quickest(partial(lab.probe, "device", "tcp", 80, family)) < 0.005
        assert _quickest(partial(lab.probe, "device", "udp", 82, family)) < 0.005
    assert _quickest(partial(lab.probe, "device", "tcp", 81, 4), 2) < 0.2
    assert _quickest(lambda: Lab(DEVICE, UPLINK).close(), 3) < 0.25
    dropped = [case("tcp", family, port=81) for family in FAMILIES] * 16
    assert _quickest(lambda: lab.run(dropped), 1) < 0.4

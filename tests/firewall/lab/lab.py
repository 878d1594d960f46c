"""The lab itself: namespaces and wires made, used and taken down."""

import subprocess
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Literal, Self

from tests.firewall.lab.errors import LabError, LabUnavailable
from tests.firewall.lab.links import FAR_IF, Link, Ports
from tests.firewall.lab.load import Flood, Flow, Hammer
from tests.firewall.lab.netns import Namespace
from tests.firewall.lab.packets import Family, Proto
from tests.firewall.lab.plan import Neighbour
from tests.firewall.lab.probing import Case, Verdict, Way, run
from tests.firewall.lab.rtnl import Netlink
from tests.firewall.lab.watching import Listeners, Tap

# Written into every namespace, so that nothing depends on how the machine around is set: a
# container host forwards, a distribution filters by reverse path, Docker turns IPv6 off.
_SYSCTLS = {
    "ipv4/ip_forward": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
    "ipv4/conf/all/arp_announce": "2",
    "ipv4/icmp_echo_ignore_all": "0",
    "ipv4/ip_local_port_range": "61001 65535",  # out of the way of the ports used here
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv6/conf/all/forwarding": "0",
    "ipv6/conf/all/keep_addr_on_down": "1",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/router_solicitations": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/dad_transmits": "0",
    # Every refusal is told: neither the limit per destination nor the one for all applies.
    "ipv4/icmp_ratelimit": "0",
    "ipv4/icmp_ratemask": "0",
    "ipv6/icmp/ratelimit": "0",
}
_SYSCTLS_OF_SOME = {
    "ipv6/icmp/ratemask": "255",  # a type that does not exist
}


class Lab:
    """A host under test and its neighbours; a context manager.

    The host forwards nothing: it is the end of every `probe` and the origin of every
    `probe_out`. Its firewall is empty at first. One thread probes at a time; floods and
    hammers run beside it.

    Raises `LabUnavailable` when this user or kernel cannot have one.
    """

    def __init__(self, *neighbours: Neighbour) -> None:
        names = [plan.name for plan in neighbours]
        if len(set(names)) < len(names) or not neighbours:
            raise LabError(f"neighbours need names of their own: {names}")
        self._probing = threading.Lock()
        self._ports = Ports(10_000, 30_000)
        self._load_ports = Ports(30_000, 61_000)
        self._listeners = Listeners()
        self._links: dict[str, Link] = {}
        self._taps: list[Tap] = []
        with ExitStack() as stack:
            stack.callback(self._close_taps)
            self.host = self._namespace("host", stack)
            netlink = Netlink(self.host)
            stack.callback(netlink.close)
            netlink.up(netlink.index("lo"))
            for plan in neighbours:
                self._links[plan.name] = self._link(plan, netlink, stack)
            self._stack = stack.pop_all()

    @staticmethod
    def _namespace(name: str, stack: ExitStack) -> Namespace:
        made = Namespace(name)
        stack.callback(made.close)
        made.sysctls(_SYSCTLS)
        made.sysctls(_SYSCTLS_OF_SOME, must=False)
        return made

    def _link(self, plan: Neighbour, host_netlink: Netlink, stack: ExitStack) -> Link:
        far = self._namespace(plan.name, stack)
        netlink = Netlink(far)
        stack.callback(netlink.close)
        netlink.veth(FAR_IF, plan.host_if, self.host)
        netlink.up(netlink.index("lo"))
        index, host_index = netlink.index(FAR_IF), host_netlink.index(plan.host_if)
        host_netlink.up(host_index)
        netlink.up(index)
        for family in plan.families():
            prefix = plan.network(family).prefixlen
            host_netlink.address(host_index, plan.host_address(family), prefix)
            for address in plan.addresses(family):
                netlink.address(index, address, prefix)
            for address in plan.strangers(family):
                netlink.address(index, address, 32 if family == 4 else 128)
            for address in plan.routed(family):
                host_netlink.route(host_index, address)
            netlink.default_route(plan.host_address(family))
        ends = (self.host, plan.host_if), (far, FAR_IF)
        for namespace, interface in ends:
            self._taps.append(Tap(namespace, interface))
        link = Link(
            plan, self.host, far, host_netlink, netlink, host_index, index, *self._taps[-2:]
        )
        link.settle()
        return link

    def _close_taps(self) -> None:
        # Closing one waits 13 ms for the kernel's other processors: wait once for all.
        if self._taps:
            with ThreadPoolExecutor(len(self._taps)) as pool:
                list(pool.map(Tap.close, self._taps))
            self._taps.clear()

    def link(self, neighbour: str) -> Link:
        """Return the wire to a neighbour, or raise `LabError`."""
        try:
            return self._links[neighbour]
        except KeyError:
            raise LabError(f"no neighbour {neighbour!r} among {sorted(self._links)}") from None

    def neighbour(self, neighbour: str) -> Namespace:
        """Return a neighbour's namespace."""
        return self.link(neighbour).far

    def host_address(self, neighbour: str, family: Family) -> str:
        """Return the host's address towards a neighbour."""
        return self.link(neighbour).plan.host_address(family)

    def addresses(self, neighbour: str, family: Family) -> tuple[str, ...]:
        """Return a neighbour's addresses, the foreign ones left out."""
        return self.link(neighbour).plan.addresses(family)

    def nft(self, ruleset: str) -> None:
        """Load a ruleset into the host with `nft -f -`; raises `LabError` with nft's words."""
        with self.host.entered():
            try:
                done = subprocess.run(
                    ["nft", "-f", "-"],
                    input=ruleset,
                    capture_output=True,
                    text=True,
                    timeout=10,
                    check=False,
                )
            except FileNotFoundError as error:
                raise LabUnavailable("nft is not installed") from error
        if done.returncode:
            raise LabError(f"nft: {done.stderr.strip()}")

    def set_link(self, neighbour: str, *, up: bool) -> None:
        """Set the host's interface to a neighbour up or down; its addresses stay."""
        link = self.link(neighbour)
        if up:
            link.host_netlink.up(link.host_index)
            link.settle()
        else:
            link.host_netlink.down(link.host_index)

    def run(self, cases: Iterable[Case]) -> list[Verdict]:
        """Try the cases, up to 160 at once: all that meet silence share its 150 ms.

        Packets are sent in the order of the cases. Raises `PacketLost`, and `LabError` for a
        port of the host that another program has.
        """
        with self._probing:
            listed = [(case, self.link(case.neighbour)) for case in cases]
            return run(listed, self._ports, self._listeners)

    def probe(
        self,
        neighbour: str,
        proto: Literal["tcp", "udp"],
        port: int,
        family: Family,
        source: str | None = None,
        *,
        to: str | None = None,
    ) -> Verdict:
        """Try one new flow from a neighbour to the host's listening port."""
        case = Case(
            neighbour=neighbour, proto=proto, port=port, family=family, source=source, to=to
        )
        return self.run([case])[0]

    def probe_out(
        self,
        neighbour: str,
        proto: Literal["tcp", "udp"],
        port: int,
        family: Family,
        *,
        to: str | None = None,
    ) -> Verdict:
        """Try one new flow from the host to a neighbour's listening port."""
        case = Case(neighbour=neighbour, proto=proto, port=port, family=family, to=to, out=True)
        return self.run([case])[0]

    def ping(
        self, neighbour: str, family: Family, source: str | None = None, *, to: str | None = None
    ) -> Verdict:
        """Send one echo request from a neighbour to the host."""
        case = Case(neighbour=neighbour, proto="icmp", family=family, source=source, to=to)
        return self.run([case])[0]

    def ping_out(self, neighbour: str, family: Family, *, to: str | None = None) -> Verdict:
        """Send one echo request from the host to a neighbour."""
        case = Case(neighbour=neighbour, proto="icmp", family=family, to=to, out=True)
        return self.run([case])[0]

    def _way(
        self,
        neighbour: str,
        proto: Proto,
        port: int,
        family: Family,
        source: str | None = None,
        *,
        out: bool = False,
    ) -> Way:
        case = Case(
            neighbour=neighbour, proto=proto, port=port, family=family, source=source, out=out
        )
        return Way.of(case, self.link(neighbour))

    def flow(self, neighbour: str, port: int, family: Family, source: str | None = None) -> Flow:
        """Establish a TCP connection from a neighbour to the host, or raise `LabError`."""
        way = self._way(neighbour, "tcp", port, family, source)
        return Flow(way, family, port, self._load_ports, self._listeners)

    def flow_out(self, neighbour: str, port: int, family: Family) -> Flow:
        """Establish a TCP connection from the host to a neighbour, or raise `LabError`."""
        way = self._way(neighbour, "tcp", port, family, out=True)
        return Flow(way, family, port, self._load_ports, self._listeners)

    def flood(
        self,
        neighbour: str,
        proto: Literal["tcp", "udp"],
        port: int,
        family: Family,
        source: str | None = None,
        *,
        count: int,
        rate: float | None = None,
        seconds: float = 5,
        hold: bool = False,
    ) -> Flood:
        """Make a flood from a neighbour to the host, which runs in its `with` block."""
        return Flood(
            self._way(neighbour, proto, port, family, source),
            proto,
            family,
            port,
            ports=self._load_ports,
            on=self._listeners,
            count=count,
            rate=rate,
            seconds=seconds,
            hold=hold,
        )

    def hammer(
        self,
        neighbour: str,
        open_port: int,
        closed_port: int,
        family: Family,
        source: str | None = None,
        *,
        seconds: float = 30,
    ) -> Hammer:
        """Make a hammer from a neighbour to the host, which runs in its `with` block."""
        return Hammer(
            self._way(neighbour, "udp", open_port, family, source),
            family,
            open_port,
            closed_port,
            ports=self._load_ports,
            on=self._listeners,
            seconds=seconds,
        )

    def close(self) -> None:
        """Close everything; the kernel takes the namespaces apart soon after."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def matrix(lab: Lab, cases: Iterable[Case]) -> dict[Case, Verdict]:
    """Try many cases (see `Lab.run`) and return each one's verdict, in their order."""
    listed = list(cases)
    return dict(zip(listed, lab.run(listed), strict=True))

"""One new flow through the lab, and what became of it."""

import enum
import errno
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tests.firewall.lab.errors import LabError, PacketLost
from tests.firewall.lab.links import Link, Ports
from tests.firewall.lab.netns import Namespace
from tests.firewall.lab.packets import Family, Mark, Proto, Solicited
from tests.firewall.lab.watching import Answers, Listener, Listeners, cut

_BOUND = 0.15  # seconds until silence counts: veth needs microseconds
_PATIENCE = 0.4  # seconds until a packet counts as lost; below the 1 s of a repeated SYN
_LOOK = 0.01  # seconds between looks at what another thread may have taken in
_AT_ONCE = 160  # probes under way together: three descriptors each

_UNDERWAY = {errno.EINPROGRESS, errno.EPERM, errno.ECONNREFUSED, errno.EACCES}


class Verdict(enum.Enum):
    """What became of a new flow. A packet that got lost in the lab raises `PacketLost`."""

    ACCEPTED = "accepted"
    """The listening socket got the connection or datagram, or the echo was answered."""
    REFUSED = "refused"
    """A reset or an ICMP unreachable came back to where the flow began."""
    DROPPED = "dropped"
    """Nothing came back, though it arrived; or the host did not let it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A flow to try: from the neighbour to the host, or with `out` from the host to it.

    `proto` "icmp" is an echo, and has no port. `source` is one of the neighbour's addresses
    (its first), `to` where the flow goes (the other side's first address on the link).
    """

    neighbour: str
    proto: Proto
    port: int = 0
    family: Family = 4
    source: str | None = None
    to: str | None = None
    out: bool = False

    def __post_init__(self) -> None:
        if (self.proto == "icmp") != (self.port == 0):
            raise LabError(f"{self}: TCP and UDP go to a port, ICMP does not")
        if self.out and self.source is not None:
            raise LabError(f"{self}: the host takes the source address its routes give")


@dataclass(frozen=True, slots=True)
class Way:
    """Where a case begins and ends."""

    origin: Namespace
    target: Namespace
    source: str
    to: str

    @classmethod
    def of(cls, case: Case, link: Link) -> "Way":
        """Fill in what the case leaves open."""
        plan, family = link.plan, case.family
        if case.out:
            to = case.to or plan.addresses(family)[0]
            return cls(link.host, link.far, "", to)
        source = case.source or plan.addresses(family)[0]
        return cls(link.far, link.host, source, case.to or plan.host_address(family))


class _Probe:
    def __init__(self, case: Case, link: Link, answers: Answers) -> None:
        self.case = case
        self.way = Way.of(case, link)
        self._link = link
        self._answers = answers
        self._client: socket.socket | None = None
        self.listener: Listener | None = None
        self._payload = b""
        self._mark = Mark(case.family, case.proto, 0)
        self._sent = 0.0
        self._arrived: float | None = None

    def send(self, ports: Ports, listeners: Listeners, stack: ExitStack) -> None:
        """Open the listener and send the first packet."""
        case, way = self.case, self.way
        try:
            if case.proto == "icmp":
                self._mark = Mark(case.family, "icmp", ports.new())
                self._sent = time.monotonic()
                self._answers.ping(self._mark, way.source, way.to)
                return
            self.listener = stack.enter_context(
                listeners.on(way.target, case.proto, case.family, case.port)
            )
            kind = socket.SOCK_STREAM if case.proto == "tcp" else socket.SOCK_DGRAM
            client = ports.bound(way.origin, case.family, kind, way.source)
            stack.callback(client.close)
            self._client = client
            self._mark = Mark(case.family, case.proto, client.getsockname()[1])
            self._sent = time.monotonic()
            if case.proto == "tcp":
                code = client.connect_ex((way.to, case.port))
                if code and code not in _UNDERWAY:
                    raise OSError(code, "connect")
            else:
                self._payload = f"{case.family} {self._mark.ident} {self._sent}".encode()
                client.sendto(self._payload, (way.to, case.port))
        except OSError as error:
            if not (case.out and error.errno in _UNDERWAY):
                raise PacketLost(f"{case} could not be sent: {error}") from error

    def verdict(self, now: float) -> Verdict | None:
        """Say what became of it, if that is known; raises `PacketLost`."""
        if self._accepted():
            return Verdict.ACCEPTED
        if self._mark in self._answers.refused:
            return Verdict.REFUSED
        return self._left(now) if self.case.out else self._came(now)

    def _accepted(self) -> bool:
        if self.listener is None:
            return self._mark in self._answers.echoed
        if self.case.proto == "udp":
            return self.listener.datagrams(self._payload) > 0
        peer = self._peer()
        connection = self.listener.connection(peer)
        if connection is None:
            return False
        cut(connection)
        return True

    def _peer(self) -> tuple[str, int]:
        if self.way.source:
            return self.way.source, self._mark.ident
        assert self._client is not None
        # The kernel chose the host's address when it connected.
        return self._client.getsockname()[0], self._mark.ident

    def _came(self, now: float) -> Verdict | None:
        seen = self._link.host_tap.arrived
        if self._arrived is None and (self._mark in seen or Solicited(self.case.family) in seen):
            self._arrived = now
        if self._arrived is not None:
            return Verdict.DROPPED if now - self._arrived >= _BOUND else None
        if now - self._sent >= _PATIENCE:
            raise PacketLost(f"{self.case} never arrived at {self._link.plan.host_if}")
        return None

    def _left(self, now: float) -> Verdict | None:
        if now - self._sent < _BOUND:
            return None
        if not self._link.running():
            raise PacketLost(f"{self.case}: {self._link.plan.host_if} is down")
        if self._mark in self._link.host_tap.left and self._mark not in self._link.far_tap.arrived:
            raise PacketLost(f"{self.case} left the host and never arrived at the neighbour")
        return Verdict.DROPPED


def run(cases: Sequence[tuple[Case, Link]], ports: Ports, listeners: Listeners) -> list[Verdict]:
    """Try the cases, some at once. Silence costs 150 ms for all who meet it together."""
    done: list[Verdict] = []
    for start in range(0, len(cases), _AT_ONCE):
        done += _together(cases[start : start + _AT_ONCE], ports, listeners)
    return done


def _together(
    cases: Sequence[tuple[Case, Link]], ports: Ports, listeners: Listeners
) -> list[Verdict]:
    with ExitStack() as stack:
        links = {id(link): link for _, link in cases}.values()
        taps = [tap for link in links for tap in (link.host_tap, link.far_tap)]
        answers: dict[tuple[int, Family], Answers] = {}
        probes: list[_Probe] = []
        for case, link in cases:
            key = Way.of(case, link).origin.fd, case.family
            if key not in answers:
                answers[key] = Answers(Way.of(case, link).origin, case.family)
                stack.callback(answers[key].close)
            probes.append(_Probe(case, link, answers[key]))
        for link, family in {(id(link), c.family): (link, c.family) for c, link in cases}.values():
            link.forget(family)
        for tap in taps:
            tap.restart()
        for probe in probes:
            probe.send(ports, listeners, stack)
        poll = select.poll()
        for tap in taps:
            poll.register(tap, select.POLLIN)
        for some in answers.values():
            for each in some.sockets():
                poll.register(each, select.POLLIN)
        for probe in probes:
            if probe.listener is not None:
                poll.register(probe.listener, select.POLLIN)
        verdicts: dict[int, Verdict] = {}
        while True:
            now = time.monotonic()  # before looking: silence is judged by what was there since
            for some in answers.values():
                some.drain()
            for tap in taps:
                tap.drain()
            for number, probe in enumerate(probes):
                if number not in verdicts and (verdict := probe.verdict(now)) is not None:
                    verdicts[number] = verdict
            if len(verdicts) == len(probes):
                return [verdicts[number] for number in range(len(probes))]
            poll.poll(_LOOK * 1000)

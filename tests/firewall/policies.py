"""Random policies for tests: everything that a policy can say, in any combination."""

from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from hypothesis import strategies as st

from firewall.policy import (
    KNOWN,
    Allow,
    Inbound,
    Log,
    Outbound,
    Policy,
    Service,
    Zone,
)

names = st.sampled_from(["device", "uplink", "ward-7", "lab_2"])
rates = st.builds(
    "{}/{}".format, st.integers(1, 500), st.sampled_from(["second", "minute", "hour"])
)
four = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)).map(
    lambda given: str(IPv4Network(given, strict=False))
)
six = st.tuples(st.integers(0, 2**128 - 1), st.integers(1, 128)).map(
    lambda given: str(IPv6Network(given, strict=False))
)
networks = st.lists(st.one_of(four, six), min_size=1, max_size=6).map(tuple)
ports = st.one_of(
    st.integers(1, 65_535),
    st.tuples(st.integers(1, 65_535), st.integers(0, 400)).map(
        lambda given: f"{given[0]}-{min(65_535, sum(given))}"
    ),
)
own = st.builds(
    Service,
    tcp=st.lists(ports, min_size=1, max_size=20).map(tuple),
    udp=st.lists(ports, max_size=3).map(tuple),
)
interfaces = st.lists(
    st.sampled_from(["eth0", "eth1", "wl*", "dev0", "br-lan.20"]),
    min_size=1,
    max_size=3,
    unique=True,
).map(tuple)


@st.composite
def allows(draw: st.DrawFn, zones: list[str], *, inbound: bool) -> Allow:
    """Return an entry of a policy with certain zones."""
    services = draw(st.lists(st.sampled_from([*KNOWN, "own"]), min_size=1, max_size=4, unique=True))
    chosen = draw(st.lists(st.sampled_from(zones), unique=True)) if zones else []
    addresses = draw(st.one_of(st.just(()), networks, st.just(("@admins",))))
    if not inbound:
        return Allow(tuple(services), tuple(chosen), addresses)
    rate = draw(st.one_of(st.just(""), rates))
    return Allow(
        tuple(services),
        tuple(chosen),
        addresses,
        rate,
        draw(st.integers(1, 300)),
        draw(st.one_of(st.just(""), rates)),
        draw(st.one_of(st.just(0), st.integers(1, 500))),
        draw(st.sampled_from(["", "30s", "10m"])) if rate else "",
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Return a policy that the compiler takes; what `parse` would refuse as pointless too."""
    zones = draw(
        st.dictionaries(
            names,
            st.builds(
                Zone,
                interfaces,
                st.one_of(st.just(()), networks),
                st.booleans(),
            ),
            max_size=3,
        )
    )
    listed = list(zones)
    defaults: list[Literal["accept", "drop", "reject"]] = ["accept", "drop", "reject"]
    default = draw(st.sampled_from(defaults))
    leaving = draw(st.lists(allows(listed, inbound=False), max_size=3))
    coming = draw(st.lists(allows(listed, inbound=True), max_size=5))
    return Policy(
        name="random",
        ping=draw(st.one_of(st.just(""), rates)),
        log=Log(draw(st.one_of(st.just(""), rates))),
        zones=zones,
        sets={"admins": draw(networks)},
        services={"own": draw(own)},
        inbound=Inbound(draw(st.sampled_from(["drop", "reject"])), tuple(coming)),
        outbound=Outbound(default, () if default == "accept" else tuple(leaving)),
    )

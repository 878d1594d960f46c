"""The policy file: TOML into typed structs; every error names file, line, key and remedy.

Law: pure but for `load`. What is not understood is refused, never left out: a rule that is
quietly missing is a hole or a locked door.
"""

import ipaddress
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NoReturn

import msgspec

from firewall.ruleset import Network, Rate
from vitals.errors import ConfigError
from vitals.ports import PORTS

ALLOWS_MAX: Final = 500
ZONES_MAX: Final = 32
SET_ADDRESSES_MAX: Final = 100_000
INTERFACE_BYTES_MAX: Final = 15
"""IFNAMSIZ without its NUL (linux/if.h)."""
RATE_MAX: Final = 1_000_000
CONNECTIONS_MAX: Final = 65_535
PORT_MAX: Final = 65_535
BLOCK_S_MAX: Final = 7 * 86_400
BURST: Final = 5
"""What comes at once beside a rate, unless it is said; nft(8) has the same."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,15}")
_TABLE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.:@-]+\*?|\*")
_RATE: Final = re.compile(r"([1-9][0-9]{0,6})/(second|minute|hour)")
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")
UNITS_S: Final = {"second": 1, "minute": 60, "hour": 3600}
_DURATION_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ports of a service: numbers, or ranges as ``"5000-5010"``."""

    tcp: tuple[int | str, ...] = ()
    udp: tuple[int | str, ...] = ()


KNOWN: Final[Mapping[str, Service]] = {
    **{port.name: Service(tcp=(port.number,)) for port in PORTS},
    "ssh": Service(tcp=(22,)),
    "dns": Service(tcp=(53,), udp=(53,)),
    "ntp": Service(udp=(123,)),
    "nts": Service(tcp=(4460,)),
    "http": Service(tcp=(80,)),
    "https": Service(tcp=(443,)),
    "node-exporter": Service(tcp=(9100,)),
}
"""Our own from the one table of ports, and what every host has; the numbers are IANA's."""


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where packets come from or go to: interfaces, and of those certain addresses if given."""

    interfaces: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    dhcp: bool = False
    """This host is a DHCP client there."""


class Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may reach which services."""

    services: tuple[str, ...]
    zones: tuple[str, ...] = ()
    """Empty: every zone, and interfaces of none."""
    addresses: tuple[str, ...] = ()
    """Networks, or sets as ``"@name"``: sources of what comes in, destinations of what leaves."""
    rate: str = ""
    """New connections of one source, as ``"20/second"``; UDP: new flows."""
    burst: int = BURST
    total: str = ""
    """New connections of all sources together."""
    connections: int = 0
    """Of one source at one time; TCP alone."""
    block: str = ""
    """A source over its rate is blocked for so long, as ``"10m"``."""


class Inbound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may come in."""

    default: Literal["drop", "reject"] = "drop"
    allow: tuple[Allow, ...] = ()


class Outbound(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may leave."""

    default: Literal["accept", "drop", "reject"] = "accept"
    allow: tuple[Allow, ...] = ()


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Lines of the kernel's log about what was refused."""

    rate: str = "10/minute"
    prefix: str = "healthsync"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole policy."""

    name: str
    table: str = "healthsync"
    ping: str = "10/second"
    """Echo requests answered, of all of a family; empty: none."""
    log: Log = Log()
    zones: dict[str, Zone] = {}
    sets: dict[str, tuple[str, ...]] = {}
    services: dict[str, Service] = {}
    inbound: Inbound = Inbound()
    outbound: Outbound = Outbound()


Path_ = tuple[str | int, ...]


def load(path: Path) -> Policy:
    """Return the policy of a file; raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give --policy FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    return parse(text, str(path))


def parse(text: str, where: str) -> Policy:
    """Return the policy of a text that is called ``where`` in errors; raises ConfigError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    lines = _Lines(text, where)
    try:
        policy = msgspec.convert(raw, Policy)
    except msgspec.ValidationError as error:
        said, _, at = str(error).partition(" - at `")
        unknown = re.search(r"unknown field `(.+)`", said)
        place = _place(at.rstrip("`"))
        if unknown:
            place = (*place, unknown[1])
        lines.refuse(place, said, "see firewall/README.md for the keys there are")
    _Checked(policy, lines).all()
    return policy


def _place(text: str) -> Path_:
    """Return `$.inbound.allow[0].rate` as its parts; `[...]` is a place that nobody can name."""
    parts = re.findall(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]", text)
    return tuple(int(number) if number else name for name, number in parts)


class _Lines:
    """Which line of a TOML text says what."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._at: dict[Path_, int] = {}
        counts: dict[Path_, int] = {}
        table: Path_ = ()
        for number, line in enumerate(text.splitlines(), 1):
            head = re.match(r"\s*(\[\[?)\s*([^\]#]+?)\s*\]", line)
            if head:
                named: Path_ = tuple(part.strip(" \"'") for part in head[2].split("."))
                table = named
                if head[1] == "[[":
                    counts[named] = counts.get(named, -1) + 1
                    table = (*named, counts[named])
                self._at.setdefault(table, number)
                continue
            key = re.match(r"\s*([A-Za-z0-9_\"'.-]+)\s*=", line)
            if key:
                named = tuple(part.strip("\"'") for part in key[1].split("."))
                self._at.setdefault((*table, *named), number)

    def refuse(self, place: Path_, said: str, remedy: str) -> NoReturn:
        """Raise ConfigError for what stands at a place, or for the nearest part of it."""
        line = next(
            (
                self._at[place[:size]]
                for size in range(len(place), 0, -1)
                if place[:size] in self._at
            ),
            1,
        )
        raise ConfigError(f"{self._where}: line {line}: {_written(place)}: {said}; {remedy}")


def _written(place: Path_) -> str:
    out = ""
    for part in place:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out or "the file"


# -- what each value means -------------------------------------------------------------------------


def rate(text: str, burst: int) -> Rate:
    """Return a rate of a checked policy."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return Rate(int(found[1]), UNITS_S[found[2]], burst)


def seconds(text: str) -> int:
    """Return a duration as ``"10m"`` in seconds; raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return int(found[1]) * _DURATION_S[found[2]]


def ports(given: Iterable[int | str]) -> list[tuple[int, int]]:
    """Return ranges of ports (first, last), apart from each other and in order; ValueError."""
    ranges = []
    for one in given:
        low, _, high = str(one).partition("-")
        first, last = int(low), int(high or low)
        if not 1 <= first <= last <= PORT_MAX:
            raise ValueError(one)
        ranges.append((first, last))
    out: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return out


def services(policy: Policy) -> dict[str, Service]:
    """Return every service that the policy can name."""
    return {**KNOWN, **policy.services}


def networks(policy: Policy, given: Iterable[str]) -> list[Network]:
    """Return the networks of addresses and of sets named among them."""
    out: list[Network] = []
    for one in given:
        if one.startswith("@"):
            out += networks(policy, policy.sets[one[1:]])
        else:
            out.append(network(one))
    return out


@lru_cache(maxsize=SET_ADDRESSES_MAX)
def network(text: str) -> Network:
    """Return one network, read once for checking and for compiling; raises ValueError."""
    return ipaddress.ip_network(text)


class _Checked:
    """Holds a policy to what types cannot say."""

    def __init__(self, policy: Policy, lines: _Lines) -> None:
        self._policy = policy
        self._lines = lines
        self._services = services(policy)

    def all(self) -> None:
        policy = self._policy
        self._named(("name",), policy.name, _NAME)
        self._named(("table",), policy.table, _TABLE)
        self._rate(("ping",), policy.ping, may_be_empty=True)
        self._rate(("log", "rate"), policy.log.rate, may_be_empty=True)
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,16}", policy.log.prefix):
            self._refuse(("log", "prefix"), "not a prefix", "use 1 to 16 letters, digits or _.-")
        if len(policy.zones) > ZONES_MAX:
            self._refuse(("zones",), f"more than {ZONES_MAX}", "join some")
        for name, zone in policy.zones.items():
            self._zone(("zones", name), name, zone)
        for name, addresses in policy.sets.items():
            self._named(("sets", name), name, _NAME)
            if len(addresses) > SET_ADDRESSES_MAX:
                self._refuse(("sets", name), f"more than {SET_ADDRESSES_MAX} addresses", "split it")
            self._addresses(("sets", name), addresses, sets=False)
        for name, service in policy.services.items():
            self._service(("services", name), name, service)
        for side, allows in (
            ("inbound", policy.inbound.allow),
            ("outbound", policy.outbound.allow),
        ):
            if len(allows) > ALLOWS_MAX:
                self._refuse((side, "allow"), f"more than {ALLOWS_MAX}", "join some")
            for at, allow in enumerate(allows):
                self._allow((side, "allow", at), allow)
        if policy.outbound.allow and policy.outbound.default == "accept":
            self._refuse(
                ("outbound", "allow", 0),
                "everything may leave already",
                'set outbound.default to "drop" or "reject", or leave these out',
            )
        self._twice()

    def _refuse(self, place: Path_, said: str, remedy: str) -> NoReturn:
        self._lines.refuse(place, said, remedy)

    def _named(self, place: Path_, name: str, form: re.Pattern[str]) -> None:
        if not form.fullmatch(name):
            self._refuse(
                place,
                f"{name!r} is not a name",
                "begin with a-z; then a-z, 0-9, _ (and - but in table)",
            )

    def _zone(self, place: Path_, name: str, zone: Zone) -> None:
        self._named(place, name, _NAME)
        if not zone.interfaces:
            self._refuse((*place, "interfaces"), "empty", "name one, or leave the zone out")
        for interface in zone.interfaces:
            size = len(interface.encode())
            if not _INTERFACE.fullmatch(interface) or size > INTERFACE_BYTES_MAX:
                self._refuse(
                    (*place, "interfaces"),
                    f"{interface!r} is not an interface",
                    f"use up to {INTERFACE_BYTES_MAX} of A-Z a-z 0-9 _ . : @ -; * only at its end",
                )
        self._addresses((*place, "addresses"), zone.addresses)

    def _addresses(self, place: Path_, given: Iterable[str], *, sets: bool = True) -> None:
        for one in given:
            if one.startswith("@"):
                if not sets or one[1:] not in self._policy.sets:
                    known = ", ".join(sorted(self._policy.sets)) or "none"
                    self._refuse(place, f"there is no set {one[1:]!r} here", f"known: {known}")
                continue
            try:
                network(one)
            except ValueError:
                self._refuse(place, f"{one!r} is not a network", _remedy(one))

    def _service(self, place: Path_, name: str, service: Service) -> None:
        self._named(place, name, _NAME)
        if name in KNOWN:
            self._refuse(place, f"{name} is a known service", "take another name for yours")
        if not (service.tcp or service.udp):
            self._refuse(place, "has no ports", "give tcp or udp")
        for protocol, given in (("tcp", service.tcp), ("udp", service.udp)):
            try:
                ports(given)
            except ValueError as error:
                self._refuse(
                    (*place, protocol),
                    f"{error} is not a port",
                    f'use 1 to {PORT_MAX}, or a range as "5000-5010"',
                )

    def _allow(self, place: Path_, allow: Allow) -> None:
        if not allow.services:
            self._refuse((*place, "services"), "empty", "name one, or leave the entry out")
        for service in allow.services:
            if service not in self._services:
                known = ", ".join(sorted(self._services))
                self._refuse(
                    (*place, "services"), f"there is no service {service!r}", f"known: {known}"
                )
        for zone in allow.zones:
            if zone not in self._policy.zones:
                known = ", ".join(sorted(self._policy.zones)) or "none"
                self._refuse((*place, "zones"), f"there is no zone {zone!r}", f"known: {known}")
        self._addresses((*place, "addresses"), allow.addresses)
        self._rate((*place, "rate"), allow.rate, may_be_empty=True)
        self._rate((*place, "total"), allow.total, may_be_empty=True)
        if not 1 <= allow.burst <= RATE_MAX:
            self._refuse((*place, "burst"), f"{allow.burst}", f"use 1 to {RATE_MAX}")
        if not 0 <= allow.connections <= CONNECTIONS_MAX:
            self._refuse(
                (*place, "connections"), f"{allow.connections}", f"use 1 to {CONNECTIONS_MAX}"
            )
        if allow.block:
            self._block(place, allow)
        limited = allow.rate or allow.total or allow.connections or allow.block
        if place[0] == "outbound" and limited:
            self._refuse(place, "limits are for what comes in", "leave them out here")

    def _block(self, place: Path_, allow: Allow) -> None:
        if not allow.rate:
            self._refuse(
                (*place, "block"), "needs a rate", 'say what is too much: rate = "20/second"'
            )
        try:
            good = 1 <= seconds(allow.block) <= BLOCK_S_MAX
        except ValueError:
            good = False
        if not good:
            self._refuse(
                (*place, "block"), f"{allow.block!r}", 'use "30s", "10m", "6h", up to "7d"'
            )

    def _rate(self, place: Path_, text: str, *, may_be_empty: bool) -> None:
        if not text and may_be_empty:
            return
        found = _RATE.fullmatch(text)
        if found is None or int(found[1]) > RATE_MAX:
            self._refuse(
                place,
                f"{text!r} is not a rate",
                f'use as "20/second" (minute, hour), up to {RATE_MAX}',
            )

    def _twice(self) -> None:
        """Refuse a service that is allowed without limits beside an entry with limits."""
        plain: set[tuple[str, str]] = set()
        for allow in self._policy.inbound.allow:
            if not (allow.addresses or allow.rate or allow.total or allow.connections):
                zones = allow.zones or ("",)
                plain |= {(service, zone) for service in allow.services for zone in zones}
        for at, allow in enumerate(self._policy.inbound.allow):
            if not (allow.addresses or allow.rate or allow.total or allow.connections):
                continue
            for service in allow.services:
                for zone in allow.zones or ("",):
                    if (service, zone) in plain:
                        self._refuse(
                            ("inbound", "allow", at),
                            f"{service} is open to {zone or 'everybody'} by another entry",
                            "its limits would never be asked; keep one of the two",
                        )


def _remedy(text: str) -> str:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "use as 192.0.2.0/24, 2001:db8::/32 or @set"
    return f"its bits beyond the prefix are set; did you mean {meant}?"

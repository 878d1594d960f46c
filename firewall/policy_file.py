"""A policy from its file: every error names file, line, key and remedy.

Law: pure but for `load`. What is not understood is refused, never left out: a rule that is
quietly missing is a hole or a locked door.
"""

import ipaddress
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from firewall.policy import (
    ALLOWS_MAX,
    BLOCK_S_MAX,
    CONNECTIONS_MAX,
    INTERFACE_BYTES_MAX,
    KNOWN,
    PORT_MAX,
    RATE_MAX,
    SET_ADDRESSES_MAX,
    ZONES_MAX,
    Allow,
    Policy,
    Service,
    Zone,
    network,
    ports,
    rate,
    seconds,
    services,
)
from vitals.errors import ConfigError

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,15}")
_TABLE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.:@-]+\*?|\*")

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
        try:
            good = rate(text, 1).count <= RATE_MAX
        except ValueError:
            good = False
        if not good:
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

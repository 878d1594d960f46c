"""Who may speak to this gateway: listed addresses, listed certificates, listed device names.

Law: pure. One listing is enough: a caller from a listed address, or with a listed certificate, is
welcome with every name; any other caller only under a listed device name. What the policy does to
the rest: ``accept`` takes it, ``quarantine`` keeps its input sealed and makes no reading of it,
``refuse`` keeps nothing and says so. Nobody is ever refused for the name of a patient.
"""

import ipaddress
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, Literal, NamedTuple

Policy = Literal["accept", "quarantine", "refuse"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NAMES_REMEMBERED: Final = 4096
"""Verdicts on device names kept; matching a name against the patterns costs microseconds."""

CALLERS_REMEMBERED: Final = 1024
"""Connections of one address share their caller: those through HAProxy, or of a simulator."""


class Caller(NamedTuple):
    """One connection's other end. ``address`` without port; ``certificate``: its common name."""

    address: str
    certificate: str = ""
    welcome: bool = True
    """True when nothing this caller says is to be judged by device name."""


class Admission:
    """The policy with its lists; replaced whole when the configuration is read again."""

    def __init__(
        self,
        policy: Policy = "accept",
        addresses: Sequence[Network] = (),
        devices: Sequence[str] = (),
        certificates: Sequence[str] = (),
    ) -> None:
        """``devices`` are names, ``*`` and ``?`` stand for any characters or one."""
        self.policy = policy
        self._addresses = tuple(addresses)
        self._devices = tuple(devices)
        self._certificates = frozenset(certificates)
        self.known = lru_cache(NAMES_REMEMBERED)(self._known)
        """True when a device of this name is taken from any caller."""
        self.caller = lru_cache(CALLERS_REMEMBERED)(self._caller)
        """Return the caller at an address, perhaps with a certificate, with its welcome."""

    def _known(self, device: str) -> bool:
        return any(fnmatchcase(device, pattern) for pattern in self._devices)

    def _caller(self, address: str, certificate: str = "") -> Caller:
        welcome = (
            self.policy == "accept"
            or (certificate != "" and certificate in self._certificates)
            or self._listed(address)
        )
        return Caller(address, certificate, welcome)

    def _listed(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._addresses)

    def shuts_out(self, caller: Caller) -> bool:
        """Tell whether the connection itself is refused: no device name could ever be taken."""
        return self.policy == "refuse" and not caller.welcome and not self._devices

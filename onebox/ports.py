"""Which port each service of one run gets.

The ports a person types (bedside lines, HL7, the ward page) keep their own numbers when those are
free; everything else takes free ones from below those that the kernel gives to outgoing
connections, so that no call made in between sits on a port that was found free. A run that is
started again keeps its ports, so that addresses noted down stay true.
"""

import contextlib
import json
import random
import socket
from pathlib import Path
from typing import Final

from vitals import ports

PREFERRED: Final = {"line", "line-tls", "mllp", "mllp-tls"}
REST_PREFERRED: Final = 8444
"""443 needs root and is often taken; the ward page of a demo is at this port when it is free."""

NAMES: Final = (
    *(port.name for port in ports.PORTS if port.name not in {"ingest", "ingest-metrics"}),
    "ingest-1",
    "ingest-2",
    "ingest-1-metrics",
    "ingest-2-metrics",
)


LOWEST: Final = 15_000
"""Below are the numbers that people and packages chose for their servers."""

OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
TRIES: Final = 200
_pick: Final = random.SystemRandom()
_given: Final[set[int]] = set()
"""Handed out by this process and perhaps not listened on yet: never handed out twice."""


def _bind(number: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind(("127.0.0.1", number))
    except OSError:
        sock.close()
        return None
    return sock


def _any() -> socket.socket:
    """Return a socket that holds a free port; raise OSError."""
    try:
        outgoing = int(OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        outgoing = 32_768
    if outgoing > LOWEST + TRIES:
        for _ in range(TRIES):
            number = _pick.randrange(LOWEST, outgoing)
            sock = None if number in _given else _bind(number)
            if sock is not None:
                _given.add(number)
                return sock
    sock = _bind(0)
    if sock is None:
        raise OSError("no loopback port is free; end what holds them")
    return sock


def free(count: int) -> list[int]:
    """Return loopback ports that are free now, all different; raise OSError."""
    with contextlib.ExitStack() as held:
        return [int(held.enter_context(_any()).getsockname()[1]) for _ in range(count)]


def _wish(name: str) -> int | None:
    if name == "rest":
        return REST_PREFERRED
    return ports.BY_NAME[name].number if name in PREFERRED else None


def allocate(remembered: Path) -> dict[str, int]:
    """Return a port for every name: the ones in ``remembered`` if there, else new ones, saved."""
    if remembered.exists():
        known = json.loads(remembered.read_text())
        if set(known) == set(NAMES):
            return {name: int(number) for name, number in known.items()}
    held: dict[str, socket.socket] = {}
    try:
        for name in NAMES:
            wish = _wish(name)
            held[name] = (None if wish is None else _bind(wish)) or _any()
        chosen = {name: int(sock.getsockname()[1]) for name, sock in held.items()}
    finally:
        for sock in held.values():
            sock.close()
    remembered.write_text(json.dumps(chosen, indent=1))
    return chosen


def taken(numbers: dict[str, int]) -> list[str]:
    """Return the names whose ports somebody else listens on."""
    busy = []
    for name, number in numbers.items():
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", number))
            except OSError:
                busy.append(name)
    return busy

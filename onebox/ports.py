"""Which port each service of one run gets.

The ports a person types (bedside lines, HL7, the ward page) keep their own numbers when those are
free; everything else takes what the kernel hands out. A run that is started again keeps its
ports, so that addresses noted down stay true.
"""

import json
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


def _free(number: int) -> socket.socket | None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.bind(("127.0.0.1", number))
    except OSError:
        sock.close()
        return None
    return sock


def _wish(name: str) -> int:
    if name == "rest":
        return REST_PREFERRED
    return ports.BY_NAME[name].number if name in PREFERRED else 0


def allocate(remembered: Path) -> dict[str, int]:
    """Return a port for every name: the ones in ``remembered`` if there, else new ones, saved."""
    if remembered.exists():
        known = json.loads(remembered.read_text())
        if set(known) == set(NAMES):
            return {name: int(number) for name, number in known.items()}
    held: dict[str, socket.socket] = {}
    try:
        for name in NAMES:
            sock = _free(_wish(name)) or _free(0)
            if sock is None:
                raise OSError("the kernel has no free loopback port")
            held[name] = sock
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

"""``lookup('healthsync_services', 'edge')``: the lines of /etc/services for one side.

The gateway's are the file that its runbook speaks of, edge/services. The cloud's are made from the
port table: RFC 6335 (section 5.1) gives a name 15 characters, so the long words are shortened.
"""

import importlib.util
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError

from ansible.plugins.lookup import LookupBase

ROOT = Path(__file__).resolve().parents[3]
SHORT = (("-controller", "-ctl"), ("-haproxy-stats", "-proxy"), ("-metrics", "-m"))


def name_of(port: str) -> str:
    """Return the name in /etc/services of a port of the cloud."""
    for long, short in SHORT:
        port = port.replace(long, short)
    return f"hs-{port}"


def lines(side: str) -> list[str]:
    """Return the lines for ``edge`` or ``cloud``; raise AnsibleLookupError."""
    if side == "edge":
        text = (ROOT / "edge" / "services").read_text(encoding="utf-8")
        return [line for line in text.splitlines() if line and not line.startswith("#")]
    spec = importlib.util.spec_from_file_location("healthsync_ports", ROOT / "vitals" / "ports.py")
    if side != "cloud" or spec is None or spec.loader is None:
        raise AnsibleLookupError(f"there is no side {side!r}; write edge or cloud")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [
        f"{name_of(port.name)}\t{port.number}/tcp\t# {port.text}"
        for port in module.PORTS
        if port.side == "cloud"
    ]


class LookupModule(LookupBase):
    """Ansible's entry."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return one text a side."""
        return ["\n".join(lines(side)) for side in terms]

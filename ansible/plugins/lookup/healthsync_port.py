"""``lookup('healthsync_port', 'line')``: a port's number from the one table, vitals/ports.py.

The table lies in the repository that the playbooks are run from; a name it does not know is an
error that lists what it does.
"""

import importlib.util
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError

from ansible.plugins.lookup import LookupBase

TABLE = Path(__file__).resolve().parents[3] / "vitals" / "ports.py"


def table() -> Any:
    """Return the module of the table; it needs nothing beside Python."""
    spec = importlib.util.spec_from_file_location("healthsync_ports", TABLE)
    if spec is None or spec.loader is None:
        raise AnsibleLookupError(f"{TABLE} cannot be read; run playbooks from the repository")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class LookupModule(LookupBase):
    """Ansible's entry."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[int]:
        """Return the numbers of the named ports."""
        ports = table().BY_NAME
        for name in terms:
            if name not in ports:
                raise AnsibleLookupError(f"no port is called {name}; there are {', '.join(ports)}")
        return [ports[name].number for name in terms]

"""``lookup('healthsync_sum', FILE)``: the SHA-256 of a file here, decrypted if it is a vault's.

What lies on a host is compared with it, many files by one look.
"""

import hashlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError

from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    """Ansible's entry."""

    def run(self, terms: list[str], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return hexadecimal digits for each file; raise AnsibleLookupError for one not there."""
        found = []
        for term in terms:
            path = self.find_file_in_search_path(variables, "files", term)
            if not path:
                raise AnsibleLookupError(f"{term} is not there")
            content = Path(self._loader.get_real_file(path)).read_bytes()
            found.append(hashlib.sha256(content).hexdigest())
        return found

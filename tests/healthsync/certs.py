"""A throwaway CA for tests: onebox's own, under the names the tests use."""

import datetime as dt
from pathlib import Path

from onebox import ca


class Authority:
    """One CA; its certificate is in ``ca``."""

    def __init__(self, folder: Path, common: str = "test CA") -> None:
        self._inner = ca.Authority(folder, common.replace(" ", "-"), dt.datetime.now(dt.UTC))
        self.ca = self._inner.ca_file

    def issue(self, common: str) -> tuple[Path, Path]:
        """Return certificate and key files of ``common``, good for localhost and 127.0.0.1."""
        issued = self._inner.issue(common, server=True)
        return issued.cert, issued.key

"""Where things lie: the tools that setup installed, and everything one run writes.

Law: a run writes nothing outside its run directory.
"""

from pathlib import Path
from typing import Final

from vitals.errors import ConfigError

REPOSITORY: Final = Path(__file__).resolve().parent.parent
TEMPLATES: Final = REPOSITORY / "ansible" / "roles"
TOOLS: Final = REPOSITORY / ".tools"
MARKER: Final = ".healthsync-onebox"


class RunDir:
    """The folders of one run. Made private: keys and passwords lie in it."""

    def __init__(self, root: Path) -> None:
        """Name the run directory; nothing is made yet."""
        self.root = root.resolve()
        self.lock = self.root / "lock"
        self.state = self.root / "state.json"
        self.config = self.root / "config"
        self.pki = self.root / "pki"
        self.keys = self.root / "keys"
        self.log = self.root / "log"
        self.data = self.root / "data"
        self.tmp = self.root / "tmp"

    def make(self) -> None:
        """Make the folders; refuse a directory that holds something else."""
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(f"{self.root} is not a directory; choose another --run-dir")
        if self.root.is_dir() and any(self.root.iterdir()) and not self.is_ours():
            raise ConfigError(f"{self.root} holds other files; choose an empty or a new --run-dir")
        for folder in (
            self.root,
            self.config,
            self.pki,
            self.keys,
            self.log,
            self.data,
            self.tmp,
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.root / MARKER).touch()

    def is_ours(self) -> bool:
        """Tell whether an earlier run made this directory."""
        return (self.root / MARKER).exists()

    def data_of(self, service: str) -> Path:
        """Return the data folder of a service, made private."""
        folder = self.data / service
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder


def require_tools() -> None:
    """Raise ConfigError, with the next step, unless setup has run."""
    for path in (TOOLS / "kafka", TOOLS / "bin" / "versitygw"):
        if not path.exists():
            raise ConfigError(f"{path.relative_to(REPOSITORY)} is missing; run `make setup` first")

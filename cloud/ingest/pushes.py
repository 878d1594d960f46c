"""Signed settings that wait for gateways: a folder of files, ``<edge>.json`` each.

Law: reads only, and holds no signing key: what is not signed for a gateway is refused by the
gateway itself. A file that does not parse is nobody's, and is said once.
"""

import base64
from pathlib import Path
from typing import Final

import msgspec

from healthsync.runtime.log import Log
from vitals.session import Settings
from vitals.settings import DOCUMENT_BYTES_MAX

FILE_BYTES_MAX: Final = 2 * DOCUMENT_BYTES_MAX


class SettingsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    version: int
    document: str
    key: str
    signature: str
    """Base64."""


def write(settings: Settings) -> bytes:
    """Return the file's content."""
    made = SettingsFile(
        settings.version,
        settings.document.decode(),
        settings.key,
        base64.b64encode(settings.signature).decode(),
    )
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"


def read(data: bytes) -> Settings:
    """Return the settings in a file; raise ValueError."""
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"a file of settings has at most {FILE_BYTES_MAX} bytes")
    try:
        found = msgspec.json.decode(data, type=SettingsFile)
        signature = base64.b64decode(found.signature, validate=True)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError("not a file of signed settings") from error
    return Settings(found.version, found.document.encode(), found.key, signature)


class Pushes:
    """The folder; a file is read again when it has changed."""

    def __init__(self, folder: Path | None, log: Log | None = None) -> None:
        """``folder`` None: nothing is ever pushed."""
        self._folder, self._log = folder, log
        self._read: dict[str, tuple[tuple[int, int], Settings | None]] = {}

    def of(self, edge: str) -> Settings | None:
        """Return what waits for a gateway, None when nothing does."""
        if self._folder is None:
            return None
        path = self._folder / f"{edge}.json"
        try:
            about = path.stat()
        except OSError:
            self._read.pop(edge, None)
            return None
        mark = (about.st_mtime_ns, about.st_size)
        known = self._read.get(edge)
        if known is None or known[0] != mark:
            known = self._read[edge] = (mark, self._load(path, edge))
        return known[1]

    def _load(self, path: Path, edge: str) -> Settings | None:
        try:
            with path.open("rb") as file:
                return read(file.read(FILE_BYTES_MAX + 1))
        except (OSError, ValueError) as error:
            if self._log is not None:
                self._log.error("settings-unreadable", edge=edge, error=type(error).__name__)
            return None

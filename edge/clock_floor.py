"""The time that is certainly past: where a gateway without a battery goes on from.

Law: reads and writes one small file; a value that is no time counts for nothing, and a disk that
refuses is no reason to stop. The system's clock is never set from here.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge.certificate_store import CertificateStore
from edge.config import Config
from healthsync.runtime import whole

FILE: Final = "clock"
SAVE_S: Final = 600.0
"""What a power cut may cost of the floor; a write each ten minutes wears no card."""

STAMP_BYTES_MAX: Final = 64
LATEST_MS: Final = 4_102_444_800_000
"""2100-01-01: a later one is a damaged file."""

_MILLISECONDS: Final = re.compile(r"\d{1,13}")


def read(config: Config) -> int:
    """Return the floor in milliseconds of UTC, 0 when nothing is known."""
    saved = _text(Path(config.state_dir) / FILE)
    found = [int(saved) if _MILLISECONDS.fullmatch(saved) else 0]
    if config.clock_stamp:
        found.append(_stamp(_text(Path(config.clock_stamp))))
    if config.certificate.folder:
        found.append(_begins(Path(config.certificate.folder)))
    return max(one if one < LATEST_MS else 0 for one in found)


def save(folder: Path, now_ms: int) -> bool:
    """Write the time; return False when the disk does not take it."""
    try:
        whole.write(folder / FILE, str(now_ms).encode(), mode=0o640)
    except OSError:
        return False
    return True


def written(ms: int) -> str:
    """Return a time as ``date --set`` takes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(STAMP_BYTES_MAX).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _stamp(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return 0
    return 0 if at.tzinfo is None else int(at.timestamp() * 1000)


def _begins(folder: Path) -> int:
    store = CertificateStore(folder)
    try:
        held = store.held()
    except (OSError, ValueError):
        return 0
    return 0 if held is None else held.begins_ms

"""The folder of an authority, opened."""

import sqlite3
from pathlib import Path
from typing import Final

from cloud.pki.authority import LEAF_DAYS, Issuing
from cloud.pki.desk import GRACE_DAYS, Desk
from cloud.pki.store import Store
from healthsync.runtime.clock import now_ms
from vitals.errors import ConfigError

STORE: Final = "pki.db"


def open_desk(folder: Path, leaf_days: float = LEAF_DAYS, grace_days: float = GRACE_DAYS) -> Desk:
    """Return the desk of an authority's folder; raise ConfigError."""
    issuing = Issuing.load(folder)
    try:
        store = Store(folder / STORE)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"{folder / STORE} cannot be opened ({type(error).__name__})") from error
    return Desk(issuing, store, now_ms, leaf_days, grace_days)

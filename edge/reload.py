"""Reading the configuration again (SIGHUP): what changes at once, what needs a restart.

Law: a wrong file changes nothing. What can change live changes together; what can not keeps its
old value and is named until the program is started again. The spool's content, connections and
the epoch are never touched. Pure but for reading the files; nothing here is applied, the caller
does that in its own loop.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from edge import config as config_
from edge import hl7_map
from edge.config import Config
from edge.hl7_map import NO_MAP, VendorMap

LIVE: Final = frozenset(
    {
        "ward",
        "site_zone",
        "unknown_devices",
        "known",
        "hl7_map",
        "connections_max",
        "spool_bytes_max",
        "spool_full",
        "spool_age_max_days",
        "quarantine_bytes_max",
        "link_certificate",
        "backlog_order",
    }
)
"""Keys that change at once, for open connections with their next line."""

RESTART: Final = frozenset(
    {
        "edge_id",
        "state_dir",
        "hpke_public",
        "listen_host",
        "line_port",
        "mllp_port",
        "line_proxy_port",
        "mllp_proxy_port",
        "uplink_port",
        "metrics_port",
        "control_socket",
        "settings_key",
        "clock_stamp",
        "certificate",
    }
)
"""Keys that name what was opened at the start: names, ports, folders, the cloud's key,
HAProxy's socket."""


class Loaded(NamedTuple):
    """One reading of the configuration and of the files that it names."""

    config: Config
    public: bytes
    vendor: VendorMap
    vendor_file: bytes
    """What ``vendor`` was made from."""


class Change(NamedTuple):
    """What a reading changes. ``loaded`` has the old values where a restart is needed."""

    loaded: Loaded
    applied: list[str]
    restart_needed: list[str]


def load(path: Path) -> Loaded:
    """Return the configuration with its files; raise ConfigError."""
    config = config_.load(path)
    public = config_.public_key(config).public_bytes_raw()
    config_.settings_key(config)
    if not config.hl7_map:
        return Loaded(config, public, NO_MAP, b"")
    vendor = hl7_map.load(Path(config.hl7_map))
    return Loaded(config, public, vendor, Path(config.hl7_map).read_bytes())


def compare(now: Loaded, new: Loaded) -> Change:
    """Return what becomes of ``now`` when ``new`` is read while running."""
    changed = {
        name
        for name in Config.__struct_fields__
        if getattr(now.config, name) != getattr(new.config, name)
    }
    if now.public != new.public:
        changed.add("hpke_public")
    if now.vendor_file != new.vendor_file:
        changed.add("hl7_map")  # the file of the same name says something else
    live: dict[str, Any] = {name: getattr(new.config, name) for name in changed & LIVE}
    return Change(
        new._replace(config=msgspec.structs.replace(now.config, **live), public=now.public),
        sorted(changed & LIVE),
        sorted(changed - LIVE),
    )

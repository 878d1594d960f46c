"""What `healthsync edge check-config` says of a file that is right: what it means, what is unwise.

Law: reads, changes nothing. A warning never makes a configuration wrong; each names its key and
what would be better.
"""

import resource
import shutil
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import msgspec

from edge import certificate
from edge.config import Certificate, Config, Known

_VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
_MOUNTS: Final = Path("/proc/self/mounts")

PRIVILEGED: Final = 1024
"""Ports below need CAP_NET_BIND_SERVICE (capabilities(7))."""

DESCRIPTORS_OWN: Final = 64
"""Files and sockets of the program beside its connections: spool, listeners, link, commands."""

SPOOL_HEADROOM_BYTES: Final = 64 * 1024**2
"""SQLite's journal beside the spool, and what one set-aside attempt writes."""


def understood(config: Config) -> list[str]:
    """Return one line a key: its value, and whether it is the file's or the default."""
    lines = []
    for field in msgspec.structs.fields(Config):
        value = getattr(config, field.name)
        default = not field.required and value == field.default
        note = "  (default)" if default else ""
        lines.append(f"{field.name:<21}= {_shown(value)}{note}")
    return lines


def _shown(value: object) -> str:
    if isinstance(value, Certificate):
        return f"folder {_shown(value.folder)}, haproxy_socket {_shown(value.haproxy_socket)}"
    if isinstance(value, Known):
        parts = msgspec.structs.asdict(value).items()
        return ", ".join(f"{len(listed)} {name}" for name, listed in parts)
    return "closed" if value is None else repr(value).replace("'", '"')


def unwise(config: Config) -> Iterator[str]:
    """Yield a sentence for each thing that is allowed and probably not meant."""
    yield from _unwise_guests(config)
    yield from _unwise_disk(config)
    if not config.ward:
        yield "ward is empty: a patient who names no ward will have none"
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < config.connections_max + DESCRIPTORS_OWN:
        yield (
            f"connections_max = {config.connections_max} needs more open files than the {most} that"
            " this process may have; raise LimitNOFILE"
        )
    if config.certificate.folder and not config.certificate.haproxy_socket:
        yield (
            "certificate.haproxy_socket is empty: HAProxy uses a renewed certificate only after"
            " somebody reloads it"
        )
    if config.link_certificate:
        try:
            certificate.read(Path(config.link_certificate))
        except (OSError, ValueError) as error:
            yield f"link_certificate cannot be read ({type(error).__name__}); status can not warn"


def _unwise_guests(config: Config) -> Iterator[str]:
    plain = config.line_port is not None or config.mllp_port is not None
    if plain and config.unknown_devices == "accept" and not _loopback(config.listen_host):
        yield (
            f"listen_host = {config.listen_host!r} with unknown_devices = 'accept': whoever reaches"
            " the port can write readings; list devices in [known], or listen on the device"
            " network's address alone"
        )
    if config.unknown_devices == "accept" and config.known != Known():
        yield "[known] has no effect while unknown_devices = 'accept'"
    proxied = config.line_proxy_port is not None or config.mllp_proxy_port is not None
    if config.known.certificates and not proxied:
        yield "known.certificates never match: only line_proxy_port and mllp_proxy_port see them"
    for name in ("line_port", "mllp_port", "metrics_port"):
        port = getattr(config, name)
        if port is not None and port < PRIVILEGED:
            yield f"{name} = {port} needs the right to bind a port below 1024"


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unwise_disk(config: Config) -> Iterator[str]:
    folder = Path(config.state_dir)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    wanted = config.spool_bytes_max + config.quarantine_bytes_max + SPOOL_HEADROOM_BYTES
    used = config.spool_path.stat().st_size if config.spool_path.exists() else 0
    free = shutil.disk_usage(folder).free + used
    if wanted > free:
        yield (
            f"spool_bytes_max and quarantine_bytes_max want {wanted // 10**6} MB and the disk has"
            f" {free // 10**6}: it will be full before the quota is"
        )
    if (kind := _file_system(folder)) in _VOLATILE:
        yield f"state_dir is on {kind}: nothing in it survives a power cut"
    control = config.control_path.parent
    if control.exists() and control.stat().st_mode & 0o002:
        yield f"{control}, the folder of control_socket, can be written by everybody"


def _file_system(folder: Path) -> str:
    """Return the type of the file system that ``folder`` lies on, or an empty text."""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best = ("", "")
    for line in mounts:
        fields = line.split(" ")
        point = fields[1].replace("\\040", " ")
        if folder.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, fields[2])
    return best[1]

"""The gateway's configuration: one TOML file into one typed, checked struct.

Law: configuration never touches the spool's content; a wrong file is refused whole, with the
key and the next step, before anything is opened.
"""

import ipaddress
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from edge.admission import Admission
from healthsync.runtime import config as files
from vitals import limits
from vitals.enrolment import EDGE_NAME
from vitals.errors import ConfigError
from vitals.ports import BY_NAME

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
PUBLIC_KEY_BYTES: Final = 32
BUNDLE: Final = "gateway.pem"
"""The file of the certificate's folder that HAProxy reads."""


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is no stranger; one listing is enough."""

    addresses: tuple[str, ...] = ()
    """Addresses or networks, as 10.20.0.0/16."""
    devices: tuple[str, ...] = ()
    """Device names; ``*`` and ``?`` are wildcards."""
    certificates: tuple[str, ...] = ()
    """Common names of client certificates, on the TLS ports."""


class Certificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The certificate that this gateway gets and renews by itself (edge/ENROL.md)."""

    folder: str = ""
    """Where ``gateway.pem`` lies; empty: somebody else keeps it."""
    haproxy_socket: str = ""
    """HAProxy's runtime socket, a path or ``abns@name``; empty: it is not told."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything an operator may set; ports without a default stay closed."""

    edge_id: str
    """This gateway's name; the common name of its certificate."""
    state_dir: str
    """Directory of ``spool.db``."""
    hpke_public: str
    """File with the cloud's X25519 public key, 32 raw bytes."""
    ward: str = ""
    """Ward of a patient who names none."""
    site_zone: str = "UTC"
    """IANA zone of device times that carry none."""
    listen_host: str = "127.0.0.1"
    line_port: Port | None = None
    mllp_port: Port | None = None
    line_proxy_port: Port | None = None
    """Line protocol behind HAProxy's TLS: every connection starts with a PROXY v2 header."""
    mllp_proxy_port: Port | None = None
    """MLLP behind HAProxy's TLS, likewise. Both proxy ports listen on loopback only."""
    uplink_port: Port = BY_NAME["uplink-local"].number
    metrics_port: Port = BY_NAME["edge-metrics"].number
    connections_max: Annotated[int, msgspec.Meta(ge=1, le=limits.CONNECTIONS_MAX)] = (
        limits.CONNECTIONS_MAX
    )
    spool_bytes_max: Annotated[int, msgspec.Meta(ge=limits.FRAME_BYTES_MAX)] = (
        limits.SPOOL_BYTES_MAX
    )
    spool_full: Literal["drop-oldest-backlog", "refuse"] = "drop-oldest-backlog"
    """What gives way when the quota is reached: the oldest unsent frames, or the new input."""
    spool_age_max_days: Annotated[float, msgspec.Meta(gt=0, le=3650)] = 30.0
    """Frames older than this are dropped under drop-oldest-backlog; under refuse they are kept."""
    quarantine_bytes_max: Annotated[int, msgspec.Meta(ge=limits.FRAME_BYTES_MAX)] = (
        limits.QUARANTINE_BYTES_MAX
    )
    """Quota of refused input, apart from the readings': garbage never pushes out a reading."""
    unknown_devices: Literal["accept", "quarantine", "refuse"] = "accept"
    """What happens to a caller of whom nothing is listed in ``known``."""
    known: Known = Known()
    hl7_map: str = ""
    """File with a vendor's local codes (edge/HL7.md), or empty."""
    control_socket: str = ""
    """Unix socket of the technician's commands; empty: ``control.sock`` in the state directory."""
    link_certificate: str = ""
    """PEM file of HAProxy's client certificate, for `edge status` to say when it ends."""
    backlog_order: Literal["oldest-first", "newest-first"] = "oldest-first"
    """Which of the stored frames go first when the link is back; live ones go before them all."""
    settings_key: str = ""
    """File with the Ed25519 public key, 32 raw bytes, that pushed settings are signed with."""
    clock_stamp: str = ""
    """File with the time this machine's image was made, as 2026-11-23T10:00:00Z; or empty."""
    certificate: Certificate = Certificate()

    @property
    def spool_path(self) -> Path:
        """Return where the spool lies."""
        return Path(self.state_dir) / "spool.db"

    @property
    def control_path(self) -> Path:
        """Return where the control socket lies."""
        return Path(self.control_socket or Path(self.state_dir) / "control.sock")

    @property
    def link_certificate_path(self) -> str:
        """Return the file of HAProxy's client certificate, empty when none is named."""
        if self.link_certificate or not self.certificate.folder:
            return self.link_certificate
        return str(Path(self.certificate.folder) / BUNDLE)

    @property
    def admission(self) -> Admission:
        """Return the policy for unknown devices; `load` has checked its addresses."""
        networks = [ipaddress.ip_network(one, strict=False) for one in self.known.addresses]
        return Admission(
            self.unknown_devices, networks, self.known.devices, self.known.certificates
        )

    @property
    def zone(self) -> ZoneInfo:
        """Return the site's time zone; `load` has checked that it exists."""
        return ZoneInfo(self.site_zone)


def load(path: Path) -> Config:
    """Return the checked configuration; raise ConfigError."""
    config = files.load(path, Config)
    if not EDGE_NAME.fullmatch(config.edge_id):
        raise ConfigError(f"{path}: edge_id must be letters, digits, dots and dashes, at most 63")
    if config.certificate.haproxy_socket and not config.certificate.folder:
        raise ConfigError(f"{path}: certificate.haproxy_socket without certificate.folder; name it")
    try:
        ZoneInfo(config.site_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"{path}: site_zone is no IANA zone; write one like UTC") from None
    try:
        config.admission  # noqa: B018 - reads the addresses
    except ValueError:
        raise ConfigError(
            f"{path}: known.addresses must be addresses or networks, as 10.20.0.0/16"
        ) from None
    if config.unknown_devices != "accept" and config.known == Known():
        raise ConfigError(
            f"{path}: unknown_devices = {config.unknown_devices!r} with nothing in [known] takes"
            " no device at all; list addresses, devices or certificates"
        )
    named = {
        name: getattr(config, name)
        for name in (
            "line_port",
            "mllp_port",
            "line_proxy_port",
            "mllp_proxy_port",
            "metrics_port",
            "uplink_port",
        )
    }
    used: dict[int, str] = {}
    for name, port in named.items():
        if port is None:
            continue
        if port in used:
            raise ConfigError(f"{path}: {name} and {used[port]} are both {port}; change one")
        used[port] = name
    if len(used) == len([name for name in ("metrics_port", "uplink_port") if named[name]]):
        raise ConfigError(f"{path}: no device port is set; give line_port or mllp_port")
    return config


def public_key(config: Config) -> X25519PublicKey:
    """Return the cloud's key that epochs are wrapped to; raise ConfigError."""
    return X25519PublicKey.from_public_bytes(_raw(config.hpke_public))


def settings_key(config: Config) -> Ed25519PublicKey | None:
    """Return the key of pushed settings, None when none are taken; raise ConfigError."""
    if not config.settings_key:
        return None
    try:
        return Ed25519PublicKey.from_public_bytes(_raw(config.settings_key))
    except ValueError:
        raise ConfigError(f"{config.settings_key}: is no Ed25519 public key") from None


def _raw(name: str) -> bytes:
    path = Path(name)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    if len(raw) != PUBLIC_KEY_BYTES:
        raise ConfigError(f"{path}: has {len(raw)} bytes, not {PUBLIC_KEY_BYTES}")
    return raw

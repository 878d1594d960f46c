"""What one run is made of: ports, secrets, certificates, and the templates' values.

Law: decides and writes files under the run directory; starts nothing.
"""

import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from cloud.pki import authority
from cloud.pki.folder import open_desk
from onebox import ports
from onebox.ca import Authority, Issued, write_private
from onebox.layout import RunDir
from onebox.render import template
from onebox.secrets import Secrets
from vitals.errors import ConfigError

LOOPBACK: Final = "127.0.0.1"
EDGE_ID: Final = "ward-gw-1"
REGION: Final = "eu-central-1"
BUCKET: Final = "vitals-archive"
WARD: Final = "W1"
INGESTS: Final = ("ingest-1", "ingest-2")
CLOUD: Final = (*INGESTS, "detect", "project", "archive", "api", "cloudwatch", "est", "pull-crl")
SOCKET_PATH_BYTES_MAX: Final = 95
"""sun_path holds 107 bytes; HAProxy adds a suffix of its own while it binds."""
_SERVICE_CERTIFICATES: Final = (
    "broker",
    "admin",
    "redis",
    "s3",
    "aws",
    "haproxy-server",
    "ingest",
    "detect",
    "project",
    "archive",
    "api",
    "audit",
    "operator",
    "cloudwatch",
    "est",
    "deliver",
)


class Values:
    """Everything a run's configuration files are rendered from."""

    def __init__(self, run: RunDir) -> None:
        """Make or load everything a run in ``run`` needs (its folders exist)."""
        now = datetime.now(UTC)
        self.run = run
        self.ports = ports.allocate(run.config / "ports.json")
        self.secrets = Secrets(run.keys)
        self._services_ca = Authority(run.pki, "services", now)
        self.gateways = run.pki / "gateways"
        if not (self.gateways / "issuing.key").exists():
            authority.init(self.gateways, now, self.secrets.password("pki-root").encode())
        self.certificates = {
            name: self._services_ca.issue(name, server=True) for name in _SERVICE_CERTIFICATES
        }
        self.certificates["haproxy"] = self._services_ca.issue("haproxy", server=False)
        self.gateway = self._gateway()
        self.crl = run.pki / "gateways.crl"
        if not self.crl.exists():
            write_private(self.crl, open_desk(self.gateways).lists())
        self.ca_file = self._services_ca.ca_file
        self.kms_key_id = self._kms_key_id()
        self.openssl = template(
            "common", "healthsync-openssl.cnf", {}, run.config / "healthsync-openssl.cnf"
        )

    def _gateway(self) -> Issued:
        """The demo's own gateway has its certificate without asking; others enrol."""
        issued = Issued(self.run.pki, EDGE_ID)
        if not issued.bundle.exists():
            desk, key = open_desk(self.gateways), ec.generate_private_key(ec.SECP256R1())
            leaf = desk.issue_directly(EDGE_ID, key.public_key())
            issued.write(key, leaf, desk.issuing.certificate)
        return issued

    def _kms_key_id(self) -> str:
        path = self.run.config / "kms-key-id"
        if not path.exists():
            path.write_text(str(uuid.uuid4()))
        return path.read_text()

    # Values ------------------------------------------------------------------------------

    def values(self, service: str) -> dict[str, Any]:
        """Return the template variables of a cloud service (see the roles' README)."""
        secret = self.secrets.path
        port = "est-service" if service == "est" else service
        name = "ingest" if service in INGESTS else service
        # The list is asked for by HAProxy's machine, with its certificate.
        certificate = self.certificates["haproxy" if name == "pull-crl" else name]
        return {
            "hs_kafka_bootstrap": f"{LOOPBACK}:{self.ports['kafka']}",
            "hs_kafka_ca": self.ca_file,
            "hs_kafka_cert": certificate.cert,
            "hs_kafka_key": certificate.key,
            "hs_redis_host": LOOPBACK,
            "hs_redis_port": self.ports["redis"],
            "hs_redis_ca": self.ca_file,
            "hs_redis_user": name,
            "hs_redis_password_file": secret(f"redis-{name}.password"),
            "hs_s3_endpoint": f"https://{LOOPBACK}:{self.ports['s3']}",
            "hs_s3_region": REGION,
            "hs_s3_bucket": BUCKET,
            "hs_s3_ca": self.ca_file,
            "hs_s3_credentials_file": secret("s3.credentials"),
            "hs_kms_endpoint": f"https://{LOOPBACK}:{self.ports['aws']}",
            "hs_kms_region": REGION,
            "hs_kms_key_id": self.kms_key_id,
            "hs_kms_credentials_file": secret("aws.credentials"),
            "hs_kms_ca": self.ca_file,
            "hs_cloudwatch_ca": self.ca_file,
            "hs_cloudwatch_endpoint": f"https://{LOOPBACK}:{self.ports['aws']}",
            "hs_cloudwatch_region": REGION,
            "hs_cloudwatch_credentials_file": secret("aws.credentials"),
            "hs_cloudwatch_targets": [
                {"name": target, "port": self.ports[f"{target}-metrics"]}
                for target in ("edge", *INGESTS, "detect", "project", "archive", "api")
            ],
            "hs_key_subject": secret("subject.key"),
            "hs_key_identity": secret("identity.key"),
            "hs_key_values": secret("values.key"),
            "hs_key_quarantine": secret("quarantine.key"),
            "hs_key_index": secret("index.key"),
            "hs_hpke_private": secret("hpke.private"),
            "hs_hpke_public": secret("hpke.public"),
            "hs_jwt_public": secret("jwt.public.pem"),
            "hs_jwt_private": secret("jwt.private.pem"),
            "hs_users_file": secret("users.toml"),
            "hs_listen_host": LOOPBACK,
            "hs_listen_port": self.ports.get(port, 0),
            "hs_tls_cert": certificate.cert,
            "hs_tls_key": certificate.key,
            "hs_tls_client_ca": self.ca_file,
            "hs_metrics_port": self.ports.get(f"{service}-metrics", 0),
            "hs_public_url": self.public_url,
            "hs_archive_flush_s": 5,
            "hs_detect_policy_file": "",
            "hs_pki_folder": self.gateways,
            "hs_gateway_ca": self.gateways / "ca.pem",
            "hs_gateway_crl": self.crl,
            "hs_haproxy_socket": self.haproxy_socket("cloud"),
            "hs_est_host": LOOPBACK,
            "hs_est_service_port": self.ports["est-service"],
            "hs_service_ca": self.ca_file,
            "hs_settings_folder": self.run.data_of("settings"),
            "hs_audit_spools": [{"id": EDGE_ID, "path": self.run.data / "edge" / "spool.db"}],
        }

    @property
    def public_url(self) -> str:
        """Return the address of REST and ward page."""
        return f"https://localhost:{self.ports['rest']}"

    def edge_values(self) -> dict[str, Any]:
        """Return the template variables of the gateway's program."""
        return {
            "hs_edge_id": EDGE_ID,
            "hs_edge_listen_host": LOOPBACK,
            "hs_edge_line_port": self.ports["line"],
            "hs_edge_mllp_port": self.ports["mllp"],
            "hs_edge_line_tls_port": self.ports["line-tls"],
            "hs_edge_mllp_tls_port": self.ports["mllp-tls"],
            "hs_edge_line_proxy_port": self.ports["line-proxy"],
            "hs_edge_mllp_proxy_port": self.ports["mllp-proxy"],
            "hs_edge_uplink_port": self.ports["uplink-local"],
            "hs_edge_state_dir": self.run.data_of("edge"),
            "hs_edge_site_zone": "Etc/UTC",
            "hs_edge_ward": WARD,
            "hs_edge_max_connections": 10_000,
            "hs_edge_settings_key": self.secrets.path("settings.pub"),
            "hs_hpke_public": self.secrets.path("hpke.public"),
            "hs_metrics_port": self.ports["edge-metrics"],
        }

    def haproxy_values(self, side: str) -> dict[str, Any]:
        """Return the template variables of HAProxy on the ``cloud`` or the ``edge`` side."""
        return {
            "hs_haproxy_maxconn": 4_000,
            "hs_haproxy_threads": 1,
            "hs_haproxy_user": "",
            "hs_haproxy_socket": self.haproxy_socket(side),
            "hs_haproxy_stats_port": self.ports[f"{side}-haproxy-stats"],
            "hs_haproxy_crt": self.certificates["haproxy-server"].bundle,
            "hs_haproxy_client_crt": self.certificates["haproxy"].bundle,
            "hs_service_ca": self.ca_file,
            "hs_gateway_ca": self.gateways / "ca.pem",
            "hs_gateway_crl": self.crl,
            "hs_est_port": self.ports["est"],
            "hs_est_servers": [
                {"name": "est-1", "host": LOOPBACK, "port": self.ports["est-service"]}
            ],
            "hs_s3_gateway_socket": self.s3_socket(),
            "hs_s3_port": self.ports["s3"],
            "hs_s3_crt": self.certificates["s3"].bundle,
            "hs_gateway_crt": self.gateway.bundle,
            "hs_device_crt": self.certificates["haproxy-server"].bundle,
            "hs_uplink_port": self.ports["uplink"],
            "hs_rest_port": self.ports["rest"],
            "hs_listen_host": LOOPBACK,
            "hs_ingest_servers": [
                {"name": name, "host": LOOPBACK, "port": self.ports[name]} for name in INGESTS
            ],
            "hs_api_servers": [{"name": "api-1", "host": LOOPBACK, "port": self.ports["api"]}],
            "hs_cloud_servers": [
                {
                    "name": "cloud-1",
                    "host": LOOPBACK,
                    "port": self.ports["uplink"],
                    "tls_name": "localhost",
                }
            ],
        }

    def haproxy_socket(self, side: str) -> str:
        """Return the runtime socket of a side's HAProxy."""
        return f"abns@healthsync-{os.getpid()}-{side}"

    def s3_socket(self) -> Path:
        """Return the S3 gateway's own socket; raise ConfigError when its path is too long."""
        path = self.run.data / "s3.sock"
        if len(str(path).encode()) > SOCKET_PATH_BYTES_MAX:
            raise ConfigError(
                f"{path} is too long for a Unix socket ({SOCKET_PATH_BYTES_MAX} bytes);"
                " choose a shorter --run-dir"
            )
        return path

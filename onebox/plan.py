"""What one run consists of: every process, its rendered configuration, in starting order.

Law: decides and writes files under the run directory; starts nothing.
"""

import os
import re
import shutil
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from onebox import ports
from onebox.ca import Authority, Issued
from onebox.layout import TOOLS, RunDir
from onebox.render import template
from onebox.secrets import Secrets
from onebox.supervisor import Spec
from vitals.errors import ConfigError

LOOPBACK: Final = "127.0.0.1"
EDGE_ID: Final = "ward-gw-1"
REGION: Final = "eu-central-1"
BUCKET: Final = "vitals-archive"
WARD: Final = "W1"
INGESTS: Final = ("ingest-1", "ingest-2")
CLOUD: Final = (*INGESTS, "detect", "project", "archive", "api", "cloudwatch")
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
    "cloudwatch",
)


class Plan:
    """One run: ports, secrets, certificates, configuration files and process specs."""

    def __init__(self, run: RunDir) -> None:
        """Make or load everything a run in ``run`` needs (its folders exist)."""
        now = datetime.now(UTC)
        self.run = run
        self.ports = ports.allocate(run.config / "ports.json")
        self.secrets = Secrets(run.keys)
        self._services_ca = Authority(run.pki, "services", now)
        self._gateways_ca = Authority(run.pki, "gateways", now)
        self.certificates = {
            name: self._services_ca.issue(name, server=True) for name in _SERVICE_CERTIFICATES
        }
        self.certificates["haproxy"] = self._services_ca.issue("haproxy", server=False)
        self.gateway = self._gateways_ca.issue(EDGE_ID, server=False)
        self.ca_file = self._services_ca.ca_file
        self.kms_key_id = self._kms_key_id()
        self.openssl = template(
            "common", "healthsync-openssl.cnf", {}, run.config / "healthsync-openssl.cnf"
        )

    def _kms_key_id(self) -> str:
        path = self.run.config / "kms-key-id"
        if not path.exists():
            path.write_text(str(uuid.uuid4()))
        return path.read_text()

    # Values ------------------------------------------------------------------------------

    def values(self, service: str) -> dict[str, Any]:
        """Return the template variables of a cloud service (see the roles' README)."""
        secret = self.secrets.path
        name = "ingest" if service in INGESTS else service
        certificate = self.certificates[name]
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
            "hs_listen_port": self.ports.get(service, 0),
            "hs_tls_cert": certificate.cert,
            "hs_tls_key": certificate.key,
            "hs_tls_client_ca": self.ca_file,
            "hs_metrics_port": self.ports.get(f"{service}-metrics", 0),
            "hs_public_url": self.public_url,
            "hs_archive_flush_s": 5,
            "hs_detect_policy_file": "",
            "hs_audit_spools": [{"id": EDGE_ID, "path": self.run.data / "edge" / "spool.db"}],
        }

    @property
    def public_url(self) -> str:
        """Return the address of REST and ward page."""
        return f"https://localhost:{self.ports['rest']}"

    def _edge_values(self) -> dict[str, Any]:
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
            "hs_hpke_public": self.secrets.path("hpke.public"),
            "hs_metrics_port": self.ports["edge-metrics"],
        }

    def _haproxy_values(self, side: str) -> dict[str, Any]:
        return {
            "hs_haproxy_maxconn": 4_000,
            "hs_haproxy_threads": 1,
            "hs_haproxy_user": "",
            "hs_haproxy_socket": f"abns@healthsync-{os.getpid()}-{side}",
            "hs_haproxy_stats_port": self.ports[f"{side}-haproxy-stats"],
            "hs_haproxy_crt": self.certificates["haproxy-server"].bundle,
            "hs_haproxy_client_crt": self.certificates["haproxy"].bundle,
            "hs_service_ca": self.ca_file,
            "hs_gateway_ca": self._gateways_ca.ca_file,
            "hs_s3_gateway_socket": self._s3_socket(),
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

    # Specs -------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """Return what every process starts with: nothing of the caller's but PATH."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "HOME": str(self.run.tmp),
            "TMPDIR": str(self.run.tmp),
            "OPENSSL_CONF": str(self.openssl),
            "AWS_EC2_METADATA_DISABLED": "true",
            "PYTHONUNBUFFERED": "1",
            # Everything a run writes lies under its directory: no __pycache__ elsewhere.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def _spec(
        self,
        name: str,
        argv: list[str],
        *,
        port: int = 0,
        notifies: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Spec:
        return Spec(
            name,
            argv,
            {**self.environment(), **(env or {})},
            self.run.root,
            self.run.log / f"{name}.log",
            port,
            notifies,
        )

    def servers(self) -> list[Spec]:
        """Return Kafka, Redis, S3 behind the cloud's HAProxy, and the AWS stand-in."""
        return [self._kafka(), self._redis(), self._s3(), self.proxy("cloud"), self._aws()]

    def java(self) -> list[str]:
        """Return how Kafka's classes are run."""
        return [
            "java",
            "-Xms256m",
            "-Xmx512m",
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={self.run.tmp}",
            f"-XX:ErrorFile={self.run.log}/kafka-crash.log",
            f"-Dlog4j2.configurationFile={self.run.config}/log4j2.properties",
            "-cp",
            f"{TOOLS}/kafka/*",
        ]

    def _kafka(self) -> Spec:
        broker = self.certificates["broker"]
        port, controller = self.ports["kafka"], self.ports["kafka-controller"]
        values = {
            "hs_kafka_node_id": 1,
            "hs_kafka_voters": f"1@{LOOPBACK}:{controller}",
            "hs_listen_host": LOOPBACK,
            "hs_kafka_port": port,
            "hs_kafka_controller_port": controller,
            "hs_kafka_advertised_host": LOOPBACK,
            "hs_kafka_keystore": broker.bundle,
            "hs_service_ca": self.ca_file,
            "hs_kafka_broker_principal": "broker",
            "hs_kafka_admin_principal": "admin",
            "hs_kafka_data": self.run.data_of("kafka"),
            "hs_kafka_replication": 1,
            "hs_kafka_min_isr": 1,
            "hs_kafka_internal_partitions": 8,
            "hs_kafka_segment_bytes": 268_435_456,
            "hs_kafka_log_level": "warn",
        }
        properties = template(
            "kafka", "server.properties", values, self.run.config / "server.properties"
        )
        template("kafka", "log4j2.properties", values, self.run.config / "log4j2.properties")
        return self._spec("kafka", [*self.java(), "kafka.Kafka", str(properties)], port=port)

    def kafka_format(self) -> list[str] | None:
        """Return the command that formats Kafka's storage, or None when it is formatted."""
        if (self.run.data / "kafka" / "meta.properties").exists():
            return None
        return [
            *self.java(),
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            self.secrets.path("kafka-cluster.id").read_text(),
            "--config",
            str(self.run.config / "server.properties"),
        ]

    def _redis(self) -> Spec:
        certificate = self.certificates["redis"]
        values = {
            "hs_listen_host": LOOPBACK,
            "hs_redis_port": self.ports["redis"],
            "hs_redis_cert": certificate.cert,
            "hs_redis_key": certificate.key,
            "hs_service_ca": self.ca_file,
            "hs_redis_acl": self.run.config / "users.acl",
            "hs_redis_data": self.run.data_of("redis"),
            "hs_redis_maxmemory": "2gb",
            **{
                f"hs_redis_{user}_hash": self.secrets.sha256(f"redis-{user}")
                for user in ("project", "api", "audit", "probe")
            },
        }
        template("redis", "users.acl", values, self.run.config / "users.acl")
        path = template("redis", "redis.conf", values, self.run.config / "redis.conf")
        return self._spec("redis", ["redis-server", str(path)], port=self.ports["redis"])

    def _s3(self) -> Spec:
        values = {
            "hs_s3_access_key": self.secrets.password("s3-access"),
            "hs_s3_secret_key": self.secrets.password("s3-secret"),
            "hs_s3_gateway_socket": self._s3_socket(),
            "hs_s3_region": REGION,
            "hs_s3_versions": self.run.data_of("s3-versions"),
        }
        path = template("s3", "versitygw.env", values, self.run.config / "versitygw.env")
        env = dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE))
        argv = [str(TOOLS / "bin" / "versitygw"), "posix", str(self.run.data_of("s3"))]
        return self._spec("s3", argv, port=self.ports["s3"], env=env)

    def _s3_socket(self) -> Path:
        """Return the S3 gateway's own socket; raise ConfigError when its path is too long."""
        path = self.run.data / "s3.sock"
        if len(str(path).encode()) > SOCKET_PATH_BYTES_MAX:
            raise ConfigError(
                f"{path} is too long for a Unix socket ({SOCKET_PATH_BYTES_MAX} bytes);"
                " choose a shorter --run-dir"
            )
        return path

    def _aws(self) -> Spec:
        certificate = self.certificates["aws"]
        argv = [
            sys.executable,
            "-m",
            "onebox.aws",
            "--port",
            str(self.ports["aws"]),
            "--region",
            REGION,
            "--key-id",
            self.kms_key_id,
            "--key-material",
            str(self.secrets.path("kms-material.key")),
            "--cert",
            str(certificate.cert),
            "--key",
            str(certificate.key),
        ]
        return self._spec("aws", argv, port=self.ports["aws"], notifies=True)

    def proxy(self, side: str) -> Spec:
        """Return the HAProxy of the ``cloud`` or the ``edge`` side."""
        program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") or "haproxy"
        values = {**self._haproxy_values(side), **self._edge_values()}
        path = template("haproxy", f"{side}.cfg", values, self.run.config / f"haproxy-{side}.cfg")
        port = self.ports["rest" if side == "cloud" else "uplink-local"]
        return self._spec(f"haproxy-{side}", [program, "-db", "-f", str(path)], port=port)

    def services(self) -> list[Spec]:
        """Return our own processes: the cloud's services and the gateway's program."""
        specs = []
        for name in CLOUD:
            word = "ingest" if name in INGESTS else name
            path = template(
                "healthsync_cloud",
                f"{word}.toml",
                self.values(name),
                self.run.config / f"{name}.toml",
            )
            specs.append(
                self._spec(
                    name,
                    [sys.executable, "-m", "healthsync.cli", "cloud", word, "--config", str(path)],
                    port=self.ports.get(name, 0),
                    notifies=True,
                )
            )
        path = template(
            "healthsync_edge", "edge.toml", self._edge_values(), self.run.config / "edge.toml"
        )
        specs.append(
            self._spec(
                "edge",
                [sys.executable, "-m", "healthsync.cli", "edge", "run", "--config", str(path)],
                port=self.ports["line"],
                notifies=True,
            )
        )
        return specs

    def audit_config(self) -> Path:
        """Write and return the audit's configuration."""
        return template(
            "healthsync_cloud", "audit.toml", self.values("audit"), self.run.config / "audit.toml"
        )

    def stranger(self) -> Issued:
        """Return a gateway certificate of an authority nobody here trusts, for refusal tests."""
        return Authority(self.run.pki, "stranger", datetime.now(UTC)).issue(
            "ward-gw-stranger", server=False
        )

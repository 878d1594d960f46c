"""Every process of one run with its rendered configuration, in starting order.

Law: decides and writes files under the run directory; starts nothing.
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from onebox.layout import TOOLS
from onebox.render import template
from onebox.supervisor import Spec
from onebox.values import CLOUD, INGESTS, LOOPBACK, REGION, Values


class Plan(Values):
    """One run's process specs."""

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
            "hs_s3_gateway_socket": self.s3_socket(),
            "hs_s3_region": REGION,
            "hs_s3_versions": self.run.data_of("s3-versions"),
        }
        path = template("s3", "versitygw.env", values, self.run.config / "versitygw.env")
        env = dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE))
        argv = [str(TOOLS / "bin" / "versitygw"), "posix", str(self.run.data_of("s3"))]
        return self._spec("s3", argv, port=self.ports["s3"], env=env)

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
        values = {**self.haproxy_values(side), **self.edge_values()}
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
            "healthsync_edge", "edge.toml", self.edge_values(), self.run.config / "edge.toml"
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

    def operator_config(self) -> Path:
        """Write and return what policies are pushed with."""
        return template(
            "healthsync_cloud",
            "operator.toml",
            self.values("operator"),
            self.run.config / "operator.toml",
        )

    def audit_config(self) -> Path:
        """Write and return the audit's configuration."""
        return template(
            "healthsync_cloud", "audit.toml", self.values("audit"), self.run.config / "audit.toml"
        )

"""The role's templates render to files that the services accept."""

from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cloud.archive.config import ArchiveConfig
from cloud.audit.config import AuditConfig
from cloud.cloudwatch.config import CloudWatchConfig
from cloud.ingest.config import IngestConfig
from healthsync.runtime import config as config_
from vitals.errors import ConfigError

TEMPLATES = Path(__file__).parents[3] / "ansible/roles/healthsync_cloud/templates"
FILES = (
    *("kafka_ca", "kafka_cert", "kafka_key", "redis_ca", "redis_password_file"),
    *("s3_ca", "s3_credentials_file", "kms_credentials_file", "cloudwatch_credentials_file"),
    *("key_subject", "key_identity", "key_quarantine", "hpke_private"),
    *("tls_cert", "tls_key", "tls_client_ca"),
)
VALUES = {
    **{f"hs_{name}": f"/etc/healthsync/{name}" for name in FILES},
    "hs_kafka_bootstrap": "127.0.0.1:9093",
    "hs_listen_host": "127.0.0.1",
    "hs_listen_port": 7443,
    "hs_metrics_port": 9120,
    "hs_redis_host": "127.0.0.1",
    "hs_redis_port": 6379,
    "hs_redis_user": "audit",
    "hs_s3_endpoint": "https://127.0.0.1:7070",
    "hs_s3_region": "us-east-1",
    "hs_s3_bucket": "archive",
    "hs_kms_endpoint": "http://127.0.0.1:5000",
    "hs_kms_region": "us-east-1",
    "hs_kms_key_id": "k",
    "hs_archive_flush_s": 5,
    "hs_audit_spools": [{"id": "ward-3", "path": "/a.db"}, {"id": "ward-4", "path": "/b.db"}],
    "hs_cloudwatch_endpoint": "http://127.0.0.1:5000",
    "hs_cloudwatch_region": "us-east-1",
    "hs_cloudwatch_targets": [{"name": "ingest-1", "port": 1}, {"name": "detect", "port": 2}],
}


def render(name: str, folder: Path) -> Path:
    environment = Environment(  # noqa: S701 - TOML, not HTML
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined
    )
    path = folder / f"{name}.toml"
    path.write_text(environment.get_template(f"{name}.toml.j2").render(VALUES), encoding="utf-8")
    return path


def test_ingest(tmp_path: Path) -> None:
    settings = config_.load(render("ingest", tmp_path), IngestConfig)
    assert settings.listen.client_name == "haproxy"
    assert settings.keys.subject == Path("/etc/healthsync/key_subject")


def test_archive(tmp_path: Path) -> None:
    settings = config_.load(render("archive", tmp_path), ArchiveConfig)
    assert (settings.flush_s, settings.sse_kms) == (5, False)


def test_audit(tmp_path: Path) -> None:
    settings = config_.load(render("audit", tmp_path), AuditConfig)
    assert [(e.id, str(e.spool)) for e in settings.edge] == [
        ("ward-3", "/a.db"),
        ("ward-4", "/b.db"),
    ]


def test_cloudwatch(tmp_path: Path) -> None:
    settings = config_.load(render("cloudwatch", tmp_path), CloudWatchConfig)
    assert [t.name for t in settings.target] == ["ingest-1", "detect"]


@pytest.mark.parametrize("flush", ["0", "-1", "4000"])
def test_a_flush_that_makes_no_sense_is_refused(tmp_path: Path, flush: str) -> None:
    path = render("archive", tmp_path)
    path.write_text(path.read_text().replace("flush_s = 5", f"flush_s = {flush}"))
    with pytest.raises(ConfigError):
        config_.load(path, ArchiveConfig)

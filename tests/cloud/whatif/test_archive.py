"""The command on the archive in its bucket, under KMS (moto's server), and on a copy of it."""

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import msgspec
import pytest
from moto.server import ThreadedMotoServer

from cloud.archive.chain import Chain
from cloud.archive.envelope import parquet_keys
from cloud.archive.parquet import write
from cloud.archive.store import Store
from cloud.records import SamplesRecord, encode
from cloud.settings import S3, Kms
from cloud.whatif.report import Report
from healthsync import cli
from healthsync.runtime.exits import Exit
from tests.cloud.detect.records_of import device, reading, subject_in
from tests.cloud.whatif.made import T0, policy_file
from tests.cloud.whatif.test_command import BASELINE, NEW, bed
from vitals.columns import Source, pack
from vitals.topics import partition_of

REGION = "us-east-1"
SUBJECT = subject_in(5)
FILE_S = 250
"""Seconds of a file: several of them, so that an episode lies across two."""


def client(name: str, endpoint: str) -> object:
    return boto3.client(
        name,
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def config(endpoint: str, tmp_path: Path) -> Path:
    """Fill the archive as its service does; return archive.toml."""
    bucket = f"archive-{tmp_path.name.replace('_', '-').lower()}"  # moto's memory is one
    credentials = tmp_path / "credentials"
    credentials.write_text("access\nsecret\n", encoding="ascii")
    client("s3", endpoint).create_bucket(Bucket=bucket)  # type: ignore[attr-defined]
    key = client("kms", endpoint).create_key()["KeyMetadata"]["KeyId"]  # type: ignore[attr-defined]
    store = Store(S3(endpoint, REGION, bucket, credentials))
    keys = parquet_keys(Kms(endpoint, REGION, key, credentials), os.urandom, lambda: T0)
    chain = Chain(partition_of(SUBJECT), None)
    seconds = bed()
    for begin in range(0, len(seconds), FILE_S):
        rows = [
            (0, reading(vital, value, T0 + at * 1000))
            for at in range(begin, min(begin + FILE_S, len(seconds)))
            for vital, value in seconds[at].items()
        ]
        columns = pack([Source(device(1), SUBJECT)], rows)
        record = SamplesRecord("edge-1", "ab" * 16, begin, 0, T0, columns)
        chain.take(chain.next_offset, encode(record), T0)
        closed = chain.close()
        body = write(closed.rows, closed.state, keys)
        store.put(closed.name, body)
        copy = tmp_path / "copy" / closed.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(body)
        chain.put()
    text = f"""
flush_s = 60
[kafka]
bootstrap = "127.0.0.1:1"
ca = "ca"
cert = "cert"
key = "key"
[s3]
endpoint = "{endpoint}"
region = "{REGION}"
bucket = "{bucket}"
credentials_file = "{credentials}"
[kms]
endpoint = "{endpoint}"
region = "{REGION}"
key_id = "{key}"
credentials_file = "{credentials}"
[metrics]
port = 1
"""
    path = tmp_path / "archive.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_bucket_and_copy_ring_as_the_lines_of_the_same_bed_do(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = policy_file(tmp_path / "new.toml", NEW)
    old = policy_file(tmp_path / "old.toml", BASELINE)
    base = ["whatif", "--policy", str(new), "--baseline", str(old), "--json"]
    one = min(tmp_path.glob("copy/samples/v1/p=*/*.parquet"))  # the first dip is in it
    found = []
    for source in ("archive", str(tmp_path / "copy")):
        code = cli.main([*base, "--config", str(config), "--from", source])
        assert code == Exit.DEGRADED
        found.append(msgspec.json.decode(capsys.readouterr().out, type=Report))
    assert found[0] == found[1]
    report = found[0]
    assert report.beds == [SUBJECT]
    assert report.readings == 2_400
    assert [(one.what, one.lead_s) for one in report.differences] == [
        ("earlier", 10),
        ("gained", None),
        ("lost", None),
    ]
    assert cli.main([*base, "--config", str(config), "--from", str(one)]) == Exit.DEGRADED


def test_an_archive_that_does_not_answer_or_refuses_ends_with_its_code(
    config: Path, endpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = policy_file(tmp_path / "new.toml", NEW)
    base = ["whatif", "--policy", str(new), "--config", str(config), "--from", "archive"]
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('bucket = "', 'bucket = "no-'), encoding="utf-8")
    assert cli.main(base) == Exit.USAGE
    assert "see --config" in capsys.readouterr().err
    config.write_text(text.replace(endpoint, "http://127.0.0.1:9"), encoding="utf-8")
    assert cli.main(base) == Exit.UNAVAILABLE

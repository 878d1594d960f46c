"""The archive against the S3 gateway of the one-machine system: TLS, Object Lock, write once."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import botocore.exceptions
import pytest

from cloud import provision
from cloud.archive.archiver import newest_state
from cloud.archive.chain import Chain
from cloud.archive.errors import NameTaken
from cloud.archive.parquet import file_name, write
from cloud.archive.store import Store
from cloud.settings import S3
from tests.cloud.archive.bench import NOW, keys, value
from tests.healthsync.certs import Authority

PROGRAM = Path(__file__).parents[3] / ".tools/bin/versitygw"
WAIT_S = 20.0

pytestmark = pytest.mark.system


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} is missing; `make setup` installs it")
    authority = Authority(tmp_path)
    cert, key = authority.issue("s3")
    for name in ("data", "versions"):
        (tmp_path / name).mkdir()
    credentials = tmp_path / "credentials"
    credentials.write_text("access\nsecretsecret\n", encoding="ascii")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            str(PROGRAM),
            *("--port", f"127.0.0.1:{port}", "--cert", str(cert), "--key", str(key), "--quiet"),
            *("posix", "--versioning-dir", str(tmp_path / "versions"), str(tmp_path / "data")),
        ],
        env={"ROOT_ACCESS_KEY": "access", "ROOT_SECRET_KEY": "secretsecret", "PATH": os.defpath},
        stdout=subprocess.DEVNULL,
    )
    settings = S3(f"https://127.0.0.1:{port}", "us-east-1", "archive", credentials, authority.ca)
    try:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:  # until the port is open
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        provision.bucket(settings, retain_days=1, wait_s=WAIT_S)
        yield settings
    finally:
        process.terminate()
        process.wait(timeout=10)


def test_a_file_is_written_once_found_again_and_cannot_be_deleted(s3: S3) -> None:
    store, parquet = Store(s3), keys()
    chain = Chain(0, None)
    for seq in range(3):
        chain.take(seq, value(seq), NOW)
        closed = chain.close()
        body = write(closed.rows, closed.state, parquet)
        store.put(closed.name, body)
        with pytest.raises(NameTaken):
            store.put(closed.name, body)
        chain.put()
    state = newest_state(store, parquet, 0)
    assert state is not None
    assert state.next_offset == 3
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        aws_access_key_id="access",
        aws_secret_access_key="secretsecret",
        verify=str(s3.ca),
    )
    name = file_name(0, 0)
    version = client.head_object(Bucket=s3.bucket, Key=name)["VersionId"]
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=s3.bucket, Key=name, VersionId=version)
    assert [o.key for o in store.listing("samples/v1/p=0/")] == [file_name(0, n) for n in range(3)]

"""The S3 and KMS shells against moto's server, which checks requests as AWS does."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import botocore.exceptions
import pytest
from moto.server import ThreadedMotoServer

from cloud.archive.archiver import newest_state
from cloud.archive.chain import Chain
from cloud.archive.envelope import CONTEXT, KmsMasterKey, parquet_keys
from cloud.archive.errors import ArchiveDamaged, NameTaken, StoreRefused, StoreUnavailable
from cloud.archive.parquet import write
from cloud.archive.reader import open_archive
from cloud.archive.store import Store
from cloud.settings import S3, Kms
from tests.cloud.archive.bench import ADA, NOW, value

REGION = "us-east-1"


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(aws: str, tmp_path: Path) -> S3:
    credentials = tmp_path / "credentials"
    credentials.write_text("access\nsecret\n", encoding="ascii")
    bucket = f"archive-{tmp_path.name.replace('_', '-').lower()}"
    boto3.client(
        "s3", endpoint_url=aws, region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b"
    ).create_bucket(Bucket=bucket)
    return S3(aws, REGION, bucket, credentials)


@pytest.fixture
def kms(aws: str, tmp_path: Path) -> Kms:
    credentials = tmp_path / "credentials"
    credentials.write_text("access\nsecret\n", encoding="ascii")
    client = boto3.client(
        "kms",
        endpoint_url=aws,
        region_name=REGION,
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    return Kms(aws, REGION, client.create_key()["KeyMetadata"]["KeyId"], credentials)


def test_an_object_is_written_once(s3: S3) -> None:
    store = Store(s3)
    store.put("samples/v1/p=0/a", b"first")
    with pytest.raises(NameTaken):
        store.put("samples/v1/p=0/a", b"second")
    assert store.read("samples/v1/p=0/a", 1, 3) == b"irs"


@pytest.mark.parametrize("there", [True, False])
def test_a_put_whose_connection_broke_is_looked_up(
    s3: S3, monkeypatch: pytest.MonkeyPatch, *, there: bool
) -> None:
    store = Store(s3)
    if there:
        store.put("a", b"first")
    store.put("ab", b"another name that begins alike")

    def broken(**_more: object) -> None:
        raise botocore.exceptions.ConnectionClosedError(endpoint_url="x")

    monkeypatch.setattr(store._client, "put_object", broken)
    with pytest.raises(NameTaken if there else StoreUnavailable):
        store.put("a", b"second")


def test_listing_goes_on_after_a_name_and_over_pages(s3: S3) -> None:
    store = Store(s3)
    for at in range(5):
        store.put(f"p=1/{at}", b"x" * at)
    store.put("p=10/0", b"")
    assert [o.key for o in store.listing("p=1/", "p=1/2")] == ["p=1/3", "p=1/4"]
    assert [o.size for o in store.listing("p=1/")] == [0, 1, 2, 3, 4]


def test_less_than_was_listed_is_damage(s3: S3) -> None:
    store = Store(s3)
    store.put("a", b"abc")
    with pytest.raises(ArchiveDamaged):
        store.read("a", 0, 9)


def test_no_and_not_now_are_told_apart(s3: S3, tmp_path: Path) -> None:
    with pytest.raises(StoreRefused):
        Store(S3(s3.endpoint, REGION, "no-such-bucket", s3.credentials_file)).put("a", b"")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(StoreUnavailable):
        Store(S3(nobody, REGION, "b", s3.credentials_file)).read("a", 0, 1)


def test_kms_wraps_under_its_encryption_context(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    master = KmsMasterKey(kms)
    blob = master.encrypt(b"k" * 32)
    assert b"k" * 32 not in blob
    assert master.decrypt(blob) == b"k" * 32
    monkeypatch.setitem(CONTEXT, "purpose", "other")
    with pytest.raises(StoreRefused):
        master.decrypt(blob)


def test_a_chain_written_to_s3_is_recovered_and_read_back(s3: S3, kms: Kms) -> None:
    store, keys = Store(s3), parquet_keys(kms, os.urandom, lambda: NOW)
    chain = Chain(0, None)
    for seq in range(3):
        chain.take(seq, value(seq), NOW)
        closed = chain.close()
        store.put(closed.name, write(closed.rows, closed.state, keys))
        chain.put()
    state = newest_state(store, keys, 0)
    assert state is not None
    assert state.next_offset == 3
    archive = open_archive(s3, kms)
    assert archive.counts() == {("ward-3", "e1"): 3}
    assert [r.time_ms - NOW for _, r in archive.rows(ADA, None, None, None, 9)] == [2, 1, 0]
    archive.close()

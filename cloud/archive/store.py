"""S3 as the archive needs it: write once, list, read a part. The only module that calls S3.

Law: an object is never overwritten (If-None-Match: *), and every call ends within its bound with
one of cloud.archive.errors. Retries that take longer than a second are the caller's.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import boto3
import botocore.exceptions
from botocore.config import Config

from cloud.archive.errors import ArchiveDamaged, NameTaken, StoreRefused, StoreUnavailable
from cloud.settings import S3, read_credentials

T = TypeVar("T")

CONNECT_S_MAX: Final = 2.0
READ_S_MAX: Final = 10.0

# Calls at a time: the reader opens files side by side.
CONNECTIONS_MAX: Final = 16

_LATER: Final = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)


class Listed(NamedTuple):
    """One object as listed. ``modified_ms``: the store's own time of writing."""

    key: str
    size: int
    modified_ms: int


def client_config() -> Config:
    """Return the bounds every AWS client of the archive has."""
    return Config(
        s3={"addressing_style": "path"},
        connect_timeout=CONNECT_S_MAX,
        read_timeout=READ_S_MAX,
        retries={"mode": "standard", "max_attempts": 2},
        max_pool_connections=CONNECTIONS_MAX,
    )


def asked(what: str, call: Callable[[], T]) -> T:
    """Return ``call()``; raise the archive's errors for botocore's."""
    try:
        return call()
    except botocore.exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status == 412 or code == "PreconditionFailed":
            raise NameTaken(f"{what}: there already") from error
        if status >= 500 or code in _LATER:
            raise StoreUnavailable(f"{what}: {code or status}; it is tried again") from error
        raise StoreRefused(f"{what}: {code or status}; check rights and names") from error
    except botocore.exceptions.ParamValidationError as error:
        raise StoreRefused(f"{what}: a parameter is not valid; check the configuration") from error
    except botocore.exceptions.BotoCoreError as error:
        raise StoreUnavailable(f"{what}: {type(error).__name__}; it is tried again") from error


class Store:
    """The archive's bucket. Thread-safe, as boto3 clients are."""

    def __init__(self, s3: S3, *, sse_kms: bool = False) -> None:
        """Read the credentials; nothing is called yet."""
        access, secret = read_credentials(s3.credentials_file)
        self._bucket = s3.bucket
        self._extra = {"ServerSideEncryption": "aws:kms"} if sse_kms else {}
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=s3.endpoint,
            region_name=s3.region,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            verify=str(s3.ca) if s3.ca else None,
            config=client_config(),
        )

    def put(self, key: str, body: bytes) -> None:
        """Write a new object with a SHA-256 that the server checks; raise NameTaken.

        A broken connection may hide either answer: versitygw refuses a name that is taken and
        hangs up before it has read the body. So the name is looked up before anything is said.
        """
        try:
            asked(f"put {key}", lambda: self._put(key, body))
        except StoreUnavailable:
            if any(listed.key == key for listed in self.listing(key)):
                raise NameTaken(f"put {key}: there, though the answer was lost") from None
            raise

    def _put(self, key: str, body: bytes) -> None:
        self._client.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=body,
            IfNoneMatch="*",
            ChecksumAlgorithm="SHA256",
            ContentType="application/vnd.apache.parquet",
            **self._extra,
        )

    def listing(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Yield objects under ``prefix`` whose name is greater than ``after``, in name order."""
        start = {"StartAfter": after} if after else {}
        token: dict[str, str] = {}
        while True:
            page = asked(
                f"list {prefix}",
                lambda token=token: self._client.list_objects_v2(  # type: ignore[misc] # one use
                    Bucket=self._bucket, Prefix=prefix, **start, **token
                ),
            )
            for entry in page.get("Contents", ()):
                modified_ms = int(entry["LastModified"].timestamp() * 1000)
                yield Listed(entry["Key"], entry["Size"], modified_ms)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, key: str, start: int, size: int) -> bytes:
        """Return ``size`` bytes from ``start``; raise ArchiveDamaged if there are fewer."""

        def call() -> bytes:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=key, Range=f"bytes={start}-{start + size - 1}"
            )
            data: bytes = answer["Body"].read()
            return data

        data = asked(f"get {key}", call)
        if len(data) != size:
            raise ArchiveDamaged(f"{key}: {len(data)} bytes where {size} were listed")
        return data

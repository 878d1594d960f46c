"""Data keys of Parquet files, wrapped under AWS KMS, with few calls to it.

A file's 256-bit data key is sealed with AES-256-GCM under a key-encryption key; that key is sealed
by KMS (encryption context ``purpose=archive``) and travels beside. One key-encryption key serves
the files of `KEK_LIFE_MS`. Parquet's own "double wrapping" does the same with a 128-bit
key-encryption key (arrow/cpp/src/parquet/encryption/file_key_wrapper.h), which would make the
256-bit data key no better than 128 bits; so it is off and this stands in its place.

Layout of a wrapped key, base64: 1 version byte (0x01) · 2 bytes length of the KMS blob · blob ·
`vitals.sealed` value bound to the master key's name.
"""

import base64
import binascii
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import boto3
import pyarrow.parquet.encryption as parquet_encryption

from cloud.archive.errors import ArchiveDamaged
from cloud.archive.store import asked, client_config
from cloud.settings import Kms, read_credentials
from vitals.errors import SealError
from vitals.sealed import KEY_BYTES, RandomBytes, Sealer

# One key-encryption key lives this long: a KMS call an hour instead of one a file.
KEK_LIFE_MS: Final = 3_600_000

# Opened key-encryption keys kept by a reader: a year of one writer's is 8,760.
OPENED_MAX: Final = 16_384

_VERSION: Final = b"\x01"
CONTEXT: Final = {"purpose": "archive"}


class MasterKey(Protocol):
    """What KMS does for us."""

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the blob of at most 4 KiB of plaintext."""
        ...

    def decrypt(self, blob: bytes) -> bytes:
        """Return the plaintext."""
        ...


class KmsMasterKey:
    """One AWS KMS key through boto3. Raises cloud.archive.errors."""

    def __init__(self, kms: Kms) -> None:
        """Read the credentials; nothing is called yet."""
        access, secret = read_credentials(kms.credentials_file)
        self._key_id = kms.key_id
        self._client: Any = boto3.client(
            "kms",
            endpoint_url=kms.endpoint,
            region_name=kms.region,
            aws_access_key_id=access,
            aws_secret_access_key=secret,
            verify=str(kms.ca) if kms.ca else None,
            config=client_config(),
        )

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the blob."""
        answer = asked(
            "kms encrypt",
            lambda: self._client.encrypt(
                KeyId=self._key_id, Plaintext=plaintext, EncryptionContext=CONTEXT
            ),
        )
        blob: bytes = answer["CiphertextBlob"]
        return blob

    def decrypt(self, blob: bytes) -> bytes:
        """Return the plaintext."""
        answer = asked(
            "kms decrypt",
            lambda: self._client.decrypt(
                KeyId=self._key_id, CiphertextBlob=blob, EncryptionContext=CONTEXT
            ),
        )
        plaintext: bytes = answer["Plaintext"]
        return plaintext


class _Current(NamedTuple):
    blob: bytes
    sealer: Sealer
    until_ms: int


class Envelope:
    """Wraps and unwraps data keys. Thread-safe."""

    def __init__(self, master: MasterKey, random: RandomBytes, now_ms: Callable[[], int]) -> None:
        """``random`` gives keys and nonces; ``now_ms`` retires key-encryption keys."""
        self._master = master
        self._random = random
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._current: _Current | None = None
        self._opened: OrderedDict[bytes, Sealer] = OrderedDict()

    def wrap(self, key: bytes, name: str) -> bytes:
        """Return ``key`` wrapped for the master key ``name``, as base64."""
        with self._lock:
            current = self._current
            if current is None or self._now_ms() >= current.until_ms:
                kek = self._random(KEY_BYTES)
                blob = self._master.encrypt(kek)
                sealer = Sealer(kek, self._random)
                current = self._current = _Current(blob, sealer, self._now_ms() + KEK_LIFE_MS)
        sealed = current.sealer.seal(key, name.encode())
        size = len(current.blob).to_bytes(2, "big")
        return base64.b64encode(_VERSION + size + current.blob + sealed)

    def unwrap(self, wrapped: str | bytes, name: str) -> bytes:
        """Return the data key; raise ArchiveDamaged if it was altered or moved."""
        try:
            raw = base64.b64decode(wrapped, validate=True)
        except binascii.Error as error:
            raise ArchiveDamaged("a wrapped key is not base64") from error
        split = 3 + int.from_bytes(raw[1:3], "big")
        if raw[:1] != _VERSION or len(raw) <= split:
            raise ArchiveDamaged("a wrapped key is not of a known version")
        try:
            return self._sealer(raw[3:split]).open(raw[split:], name.encode())
        except SealError as error:
            raise ArchiveDamaged("a wrapped key does not open: altered, or another's") from error

    def _sealer(self, blob: bytes) -> Sealer:
        with self._lock:
            found = self._opened.get(blob)
            if found is None:
                found = Sealer(self._master.decrypt(blob), self._random)
                self._opened[blob] = found
                if len(self._opened) > OPENED_MAX:
                    self._opened.popitem(last=False)
            else:
                self._opened.move_to_end(blob)
            return found


class _Client(parquet_encryption.KmsClient):  # type: ignore[misc] # pyarrow has no stubs
    def __init__(self, envelope: Envelope) -> None:
        parquet_encryption.KmsClient.__init__(self)
        self._envelope = envelope

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return self._envelope.wrap(key_bytes, master_key_identifier)

    def unwrap_key(self, wrapped_key: str, master_key_identifier: str) -> bytes:
        return self._envelope.unwrap(wrapped_key, master_key_identifier)


class ParquetKeys:
    """Encryption and decryption properties of files: AES_GCM_V1, 256 bit, footer included."""

    def __init__(self, envelope: Envelope, name: str) -> None:
        """``name``: the master key's, written beside each wrapped key."""
        self._factory = parquet_encryption.CryptoFactory(lambda _config: _Client(envelope))
        self._connection = parquet_encryption.KmsConnectionConfig()
        self._config = parquet_encryption.EncryptionConfiguration(
            footer_key=name,
            uniform_encryption=True,
            encryption_algorithm="AES_GCM_V1",
            plaintext_footer=False,
            double_wrapping=False,
            data_key_length_bits=8 * KEY_BYTES,
        )

    def encryption(self) -> Any:
        """Return properties for one new file: a fresh data key."""
        return self._factory.file_encryption_properties(self._connection, self._config)

    def decryption(self) -> Any:
        """Return properties that open any file of ours."""
        return self._factory.file_decryption_properties(self._connection)


def parquet_keys(kms: Kms, random: RandomBytes, now_ms: Callable[[], int]) -> ParquetKeys:
    """Return the keys of the archive as configured."""
    return ParquetKeys(Envelope(KmsMasterKey(kms), random, now_ms), kms.key_id)

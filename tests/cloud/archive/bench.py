"""Records, keys and an S3 in memory that can fail in every way the real one does."""

import os
from collections.abc import Iterator

from cloud import records
from cloud.archive.envelope import Envelope, ParquetKeys
from cloud.archive.errors import NameTaken, StoreUnavailable
from cloud.archive.parquet import open_file
from cloud.archive.store import Listed
from vitals.columns import Source, pack
from vitals.reading import Reading
from vitals.sealed import Sealer

NOW = 1_780_000_000_000
ADA, BOB = "0" * 32, "8" + "0" * 31  # both of partition 0
DEVICE = "d" * 32


class MasterKey:
    """KMS in memory: seals under a key that never leaves, counts its calls."""

    def __init__(self) -> None:
        self._sealer = Sealer(os.urandom(32), os.urandom)
        self.encrypted = self.decrypted = 0
        self.down = False

    def encrypt(self, plaintext: bytes) -> bytes:
        if self.down:
            raise StoreUnavailable("kms")
        self.encrypted += 1
        return self._sealer.seal(plaintext, b"archive")

    def decrypt(self, blob: bytes) -> bytes:
        self.decrypted += 1
        return self._sealer.open(blob, b"archive")


class MemoryStore:
    """S3: never overwrites; `fail` answers the next puts with an error, before or after."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written_ms: dict[str, int] = {}
        self.down = False
        self.lose_answers = 0
        self.reads = self.lists = 0
        self.now_ms = NOW

    def put(self, key: str, body: bytes) -> None:
        if self.down:
            raise StoreUnavailable("s3")
        if key in self.objects:
            raise NameTaken(key)
        self.objects[key] = body
        self.written_ms[key] = self.now_ms
        if self.lose_answers:
            self.lose_answers -= 1
            raise StoreUnavailable("s3 answered, nobody heard")

    def listing(self, prefix: str, after: str = "") -> Iterator[Listed]:
        if self.down:
            raise StoreUnavailable("s3")
        self.lists += 1
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > after:
                yield Listed(key, len(self.objects[key]), self.written_ms[key])

    def read(self, key: str, start: int, size: int) -> bytes:
        if self.down:
            raise StoreUnavailable("s3")
        self.reads += 1
        return self.objects[key][start : start + size]


def keys(master: MasterKey | None = None) -> ParquetKeys:
    return ParquetKeys(Envelope(master or MasterKey(), os.urandom, lambda: NOW), "key-1")


def record(
    seq: int, rows: list[tuple[str, Reading]] | None = None, *, floor: int = 0, epoch: str = "e1"
) -> records.SamplesRecord:
    listed = rows or [(ADA, Reading(0, 60.0 + seq % 40, NOW + seq, NOW + seq))]
    subjects = sorted({subject for subject, _ in listed})
    columns = pack(
        [Source(DEVICE, subject) for subject in subjects],
        [(subjects.index(subject), reading) for subject, reading in listed],
    )
    return records.SamplesRecord("ward-3", epoch, seq, floor, NOW, columns)


def value(seq: int, **more: int) -> bytes:
    return records.encode(record(seq, floor=more.get("floor", 0)))


def seqs_in(store: MemoryStore, parquet: ParquetKeys) -> list[int]:
    """Return the sequence number of every row of every file, in file order."""
    import io

    found: list[int] = []
    for key in sorted(store.objects):
        table = open_file(io.BytesIO(store.objects[key]), parquet).read()
        found += sorted(table["seq"].to_pylist())
    return found

"""A gateway as ingest meets it: epochs and sealed frames, made as the real one makes them."""

import os

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cloud.ingest.keys import CloudKeys
from vitals import columns as columns_
from vitals import epoch as epoch_
from vitals.columns import Source
from vitals.frame import FrameOpener, FrameSealer, Header, Lane, write_rejects
from vitals.reading import Reading, Rejected
from vitals.sealed import Sealer

NOW = 1_780_000_000_000


class Edge:
    """A gateway: makes epochs and frames as the real one does."""

    def __init__(self, name: str, private: X25519PrivateKey) -> None:
        self.name = name
        self.wrapped, self.key = epoch_.begin(name, private.public_key(), NOW, os.urandom)
        self.epoch = self.wrapped.epoch
        self._sealer = FrameSealer(self.key)

    def _seal(self, seq: int, lane: Lane, count: int, body: bytes) -> bytes:
        header = Header(1, self.name, self.epoch, seq, self.wrapped.key_id, lane, NOW, NOW, count)
        return self._sealer.seal(header, body)

    def frame(self, seq: int, sources: list[Source], rows: list[tuple[int, Reading]]) -> bytes:
        body = columns_.encode(columns_.pack(sources, rows))
        return self._seal(seq, Lane.LIVE, len(rows), body)

    def simple(self, seq: int) -> bytes:
        return self.frame(seq, [Source("bed-1")], [(0, Reading(0, 78.0, NOW, NOW))])

    def rejects(self, seq: int, count: int) -> bytes:
        one = Rejected("unit", "temp", "give it in C", "bed-1", b"Ada Ng temp=99X", NOW, 15)
        return self._seal(seq, Lane.QUARANTINE, count, write_rejects([one] * count))

    def body(self, seq: int, body: bytes) -> bytes:
        return self._seal(seq, Lane.LIVE, 1, body)

    def opener(self, epoch: str) -> FrameOpener | None:
        return FrameOpener(self.key) if epoch == self.epoch else None


class Keys:
    def __init__(self) -> None:
        self.private = X25519PrivateKey.generate()
        self.cloud = CloudKeys([self.private])
        self.subject = b"s" * 32
        self.identity = Sealer(b"i" * 32, os.urandom)
        self.quarantine = Sealer(b"q" * 32, os.urandom)

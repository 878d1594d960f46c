"""Entries into sealed frames, under an epoch whose key never leaves memory.

Law: a sequence number is used once, whether or not its frame reached the disk: the nonce is the
sequence number, and one number under one key for two bodies would break the seal. A frame stays
within the limits of readings and bytes whatever its entries hold.
"""

from collections.abc import Iterable, Iterator
from os import urandom
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from edge.entry import Entry
from vitals import columns, epoch, frame, limits
from vitals.columns import Source
from vitals.epoch import WrappedEpoch
from vitals.frame import Header, Lane
from vitals.reading import Reading, Rejected
from vitals.sealed import RandomBytes

_REJECT_BYTES: Final = 512
"""Upper estimate of a rejected entry's fields beside its raw input."""


class Sealed(msgspec.Struct, frozen=True):
    """One sealed frame and what the spool writes beside it."""

    epoch: str
    seq: int
    lane: int
    first_ms: int
    last_ms: int
    count: int
    data: bytes


def _source_bytes(source: Source) -> int:
    patient = source.patient
    texts = [source.device]
    if patient is not None:
        texts += [getattr(patient, name) for name in patient.__struct_fields__]
    return 32 + sum(len(text.encode()) for text in texts)


class Rows:
    """Readings of one frame to be, with its sources."""

    __slots__ = ("_index", "rows", "size")

    def __init__(self) -> None:
        """Start empty."""
        self._index: dict[Source, int] = {}
        self.rows: list[tuple[int, Reading]] = []
        self.size = 0

    def add(self, source: Source, readings: tuple[Reading, ...], size: int) -> None:
        """Take one entry's readings."""
        at = self._index.get(source)
        if at is None:
            at = self._index[source] = len(self._index)
            self.size += _source_bytes(source)
        self.rows += [(at, reading) for reading in readings]
        self.size += size

    def body(self) -> bytes:
        """Return the frame's body."""
        return columns.encode(columns.pack(list(self._index), self.rows))


def _live(entries: Iterable[Entry]) -> Iterator[Rows]:
    rows = Rows()
    for entry in entries:
        if entry.source is None or not entry.readings:
            continue
        if rows.rows and (
            rows.size + entry.size > limits.COMMIT_BYTES_MAX
            or len(rows.rows) + len(entry.readings) > limits.FRAME_READINGS_MAX
        ):
            yield rows
            rows = Rows()
        rows.add(entry.source, entry.readings, entry.size)
    if rows.rows:
        yield rows


def _quarantine(entries: Iterable[Entry]) -> Iterator[list[Rejected]]:
    rejects: list[Rejected] = []
    size = 0
    for entry in entries:
        for reject in entry.rejected:
            cost = len(reject.raw) + _REJECT_BYTES
            if rejects and size + cost > limits.COMMIT_BYTES_MAX:
                yield rejects
                rejects, size = [], 0
            rejects.append(reject)
            size += cost
    if rejects:
        yield rejects


class Sealing:
    """The running epoch: its wrapped form, its sealer, its next sequence number."""

    def __init__(
        self, edge: str, public: X25519PublicKey, now_ms: int, random: RandomBytes = urandom
    ) -> None:
        """Begin the first epoch of this start."""
        self._edge, self._public, self._random = edge, public, random
        self._begin(now_ms)

    def _begin(self, now_ms: int) -> None:
        self.epoch: WrappedEpoch
        self.epoch, key = epoch.begin(self._edge, self._public, now_ms, self._random)
        self._sealer = frame.FrameSealer(key)
        self._seq = 0

    def renew(self, now_ms: int) -> None:
        """Begin another epoch now."""
        self._begin(now_ms)

    def seal(self, entries: list[Entry], now_ms: int) -> list[Sealed]:
        """Return the frames of ``entries``, readings first; may begin a new epoch before."""
        age_s = (now_ms - self.epoch.began_ms) / 1000
        # A clock set back would keep a key for ever: a negative age renews as well.
        spent = self._seq + 2 * len(entries) > limits.EPOCH_FRAMES_MAX
        if spent or not 0 <= age_s <= limits.EPOCH_S_MAX:
            self._begin(now_ms)
        frames = []
        for rows in _live(entries):
            times = [reading.received_ms for _, reading in rows.rows]
            frames.append(self._seal(Lane.LIVE, times, rows.body()))
        for rejects in _quarantine(entries):
            times = [reject.received_ms for reject in rejects]
            frames.append(self._seal(Lane.QUARANTINE, times, frame.write_rejects(rejects)))
        return frames

    def _seal(self, lane: Lane, times: list[int], body: bytes) -> Sealed:
        seq, first, last = self._seq, min(times), max(times)
        self._seq += 1
        of = self.epoch
        header = Header(
            frame.VERSION, of.edge, of.epoch, seq, of.key_id, lane, first, last, len(times)
        )
        data = self._sealer.seal(header, body)
        return Sealed(of.epoch, seq, lane, first, last, len(times), data)

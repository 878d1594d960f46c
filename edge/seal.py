"""Entries into sealed frames, under an epoch whose key never leaves memory.

Law: a sequence number is used once, whether or not its frame reached the disk: the nonce is the
sequence number, and one number under one key for two bodies would break the seal. A frame stays
within the limits of readings and bytes whatever its entries hold.
"""

from collections.abc import Iterable, Iterator, Sequence
from os import urandom
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from edge.entry import Entry
from vitals import columns, epoch, frame, limits
from vitals.columns import Columns, Source
from vitals.epoch import WrappedEpoch
from vitals.frame import FrameOpener, Header, Lane
from vitals.reading import DeviceAlert, Reading, Rejected
from vitals.sealed import RandomBytes

BODY_BYTES: Final = limits.COMMIT_BYTES_MAX
"""A body over this is halved: what fills a window is meant to travel as one frame, not more."""

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


def _columns(entries: Sequence[Entry]) -> Columns:
    """Return the readings and alerts of entries that have some, in their order.

    Sources are told apart by identity: a connection hands over the same object until it names
    somebody else, and hashing its texts for every line costs 1 µs. Equal ones stand twice.
    """
    at: dict[int, int] = {}
    sources: list[Source] = []
    source: list[int] = []
    readings: list[Reading] = []
    alerts: list[tuple[int, DeviceAlert]] = []
    for entry in entries:
        who, said = entry.source, entry.readings
        place = at.get(id(who))
        if place is None:
            if who is None:
                continue
            place = at[id(who)] = len(sources)
            sources.append(who)
        readings += said
        source += (place,) * len(said)
        if entry.alerts:
            alerts += [(place, alert) for alert in entry.alerts]
    return columns.gather(sources, source, readings, alerts)


def _bodies(entries: Sequence[Entry]) -> Iterator[tuple[Columns, bytes]]:
    """Yield the content of frames, halved until each is within the limits."""
    content = _columns(entries)
    body = columns.encode(content)
    small = (
        len(body) <= BODY_BYTES
        and len(content) <= limits.FRAME_READINGS_MAX
        and len(content.alerts) <= limits.FRAME_ALERTS_MAX
    )
    if small or len(entries) == 1:
        yield content, body
        return
    half = len(entries) // 2
    yield from _bodies(entries[:half])
    yield from _bodies(entries[half:])


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


def _span(content: Columns) -> tuple[int, int]:
    times = content.received_times_ms()
    if content.alerts:
        times += [alert.received_ms for _, alert in content.alerts]
    return min(times), max(times)


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
        self._key = key
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
        kept = [entry for entry in entries if entry.readings or entry.alerts]
        frames = [self._live(*made) for made in _bodies(kept)] if kept else []
        for rejects in _quarantine(entries):
            times = [reject.received_ms for reject in rejects]
            body = frame.write_rejects(rejects)
            frames.append(self._seal(Lane.QUARANTINE, min(times), max(times), len(times), body))
        return frames

    def _live(self, content: Columns, body: bytes) -> Sealed:
        return self._seal(Lane.LIVE, *_span(content), len(content), body)

    def seal_folded(self, content: Columns) -> Sealed:
        """Return one frame of the BACKLOG lane under the next sequence number."""
        body = columns.encode(content)
        return self._seal(Lane.BACKLOG, *_span(content), len(content), body)

    def _seal(self, lane: Lane, first: int, last: int, count: int, body: bytes) -> Sealed:
        seq = self._seq
        self._seq += 1
        of = self.epoch
        header = Header(frame.VERSION, of.edge, of.epoch, seq, of.key_id, lane, first, last, count)
        return Sealed(of.epoch, seq, lane, first, last, count, self._sealer.seal(header, body))

    def opener(self) -> FrameOpener:
        """Return the opener of the running epoch's own frames, for folding stored ones."""
        return FrameOpener(self._key)

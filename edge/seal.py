"""Entries into sealed frames, under an epoch whose key never leaves memory.

Law: a sequence number is used once, whether or not its frame reached the disk: the nonce is the
sequence number, and one number under one key for two bodies would break the seal. A frame stays
within the limits of readings and bytes whatever its entries hold.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from operator import itemgetter
from os import urandom
from typing import Final, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from edge.entry import Entry
from edge.moment import MARKED, Moment
from vitals import columns, epoch, frame, limits
from vitals.columns import Columns, Source
from vitals.epoch import WrappedEpoch
from vitals.frame import FrameOpener, Header, Lane
from vitals.reading import DeviceAlert, Reading, Rejected
from vitals.sealed import RandomBytes

BODY_BYTES: Final = limits.COMMIT_BYTES_MAX
"""A body over this is halved: what fills a window is meant to travel as one frame, not more."""

_VITAL_OF, _, _STATUS_OF, _SITE_OF, _CHANNEL_OF, _REASON_OF, _VALUE_OF = map(itemgetter, range(7))
"""The parts of an `edge.moment.Row`."""

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


def _columns(entries: Sequence[Entry]) -> tuple[Columns, int, int]:
    """Return the readings and alerts of entries that have some, in their order, and their span.

    Sources are told apart by identity: a connection hands over the same object until it names
    somebody else, and hashing its texts for every line costs 1 µs. Equal ones stand twice.
    """
    at: dict[int, int] = {}
    sources: list[Source] = []
    places: list[int] = []
    moments: list[Moment] = []
    lines = True
    for entry in entries:
        who = entry.source
        place = at.get(id(who))
        if place is None:
            assert who is not None  # noqa: S101 - whoever has readings or alerts has a source
            place = at[id(who)] = len(sources)
            sources.append(who)
        places.append(place)
        moment = entry.moment
        if moment is None or entry.alerts:
            lines = False
        else:
            moments.append(moment)
    if lines:
        return _of_lines(sources, places, moments)
    return _of_any(sources, places, entries)


def _of_lines(
    sources: list[Source], places: list[int], moments: list[Moment]
) -> tuple[Columns, int, int]:
    """Return the columns of lines. Every line of a ward passes here.

    A loop over the lines with a few additions to each list cost 1.3 µs a line; column by column
    in C it is half of that.
    """
    said = [moment.rows for moment in moments]
    counts = list(map(len, said))
    rows = list(chain.from_iterable(said))
    received, first_ms, last_ms = _times([moment.received_ms for moment in moments], counts)
    clocks = [moment.time_source for moment in moments]
    time, time_source = received, []
    if any(clocks):
        time, _, _ = _times([moment.time_ms for moment in moments], counts)
        time_source = list(chain.from_iterable(map(repeat, clocks, counts)))
    content = Columns(
        sources=sources,
        source=list(chain.from_iterable(map(repeat, places, counts))),
        vital=list(map(_VITAL_OF, rows)),
        value=list(map(_VALUE_OF, rows)),
        time=time,
        received=received,
        time_source=time_source,
    )
    if max([moment.layout & MARKED for moment in moments]):
        content.status = columns.sparse(list(map(_STATUS_OF, rows)))
        content.site = columns.sparse(list(map(_SITE_OF, rows)))
        content.channel = columns.sparse(list(map(_CHANNEL_OF, rows)))
        content.reason = columns.sparse(list(map(_REASON_OF, rows)))
    return content, first_ms, last_ms


def _times(times_ms: list[int], counts: list[int]) -> tuple[list[int], int, int]:
    """Return a column of differences, its k-th time for ``counts[k]`` rows, and both ends."""
    first_ms, last_ms = min(times_ms), max(times_ms)
    column = [0] * sum(counts)
    column[0] = before_ms = times_ms[0]
    if first_ms != last_ms:
        row = 0
        for time_ms, count in zip(times_ms, counts, strict=True):
            if time_ms != before_ms:
                column[row] = time_ms - before_ms
                before_ms = time_ms
            row += count
    return column, first_ms, last_ms


def _of_any(
    sources: list[Source], places: list[int], entries: Sequence[Entry]
) -> tuple[Columns, int, int]:
    """Return the columns of lines, messages and alerts."""
    source: list[int] = []
    readings: list[Reading] = []
    alerts: list[tuple[int, DeviceAlert]] = []
    for place, entry in zip(places, entries, strict=True):
        said = entry.readings
        readings += said
        source += (place,) * len(said)
        alerts += [(place, alert) for alert in entry.alerts]
    content = columns.gather(sources, source, readings, alerts)
    return content, *_span(content)


class _Body(NamedTuple):
    """What one frame is to hold: how many readings or refusals, received when, encoded."""

    readings: int
    first_ms: int
    last_ms: int
    body: bytes


def _bodies(entries: Sequence[Entry]) -> Iterator[_Body]:
    """Yield the content of frames, halved until each is within the limits."""
    content, first_ms, last_ms = _columns(entries)
    body = columns.encode(content)
    small = (
        len(body) <= BODY_BYTES
        and len(content) <= limits.FRAME_READINGS_MAX
        and len(content.alerts) <= limits.FRAME_ALERTS_MAX
    )
    if small or len(entries) == 1:
        yield _Body(len(content), first_ms, last_ms, body)
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
        kept = [entry for entry in entries if entry.moment or entry.own or entry.alerts]
        frames = [self._seal(Lane.LIVE, made) for made in _bodies(kept)] if kept else []
        for rejects in _quarantine(entries):
            times = [reject.received_ms for reject in rejects]
            body = frame.write_rejects(rejects)
            made = _Body(len(times), min(times), max(times), body)
            frames.append(self._seal(Lane.QUARANTINE, made))
        return frames

    def seal_folded(self, content: Columns) -> Sealed:
        """Return one frame of the BACKLOG lane under the next sequence number."""
        body = columns.encode(content)
        return self._seal(Lane.BACKLOG, _Body(len(content), *_span(content), body))

    def _seal(self, lane: Lane, made: _Body) -> Sealed:
        count, first, last, body = made
        seq = self._seq
        self._seq += 1
        of = self.epoch
        header = Header(frame.VERSION, of.edge, of.epoch, seq, of.key_id, lane, first, last, count)
        return Sealed(of.epoch, seq, lane, first, last, count, self._sealer.seal(header, body))

    def opener(self) -> FrameOpener:
        """Return the opener of the running epoch's own frames, for folding stored ones."""
        return FrameOpener(self._key)

"""Group commit: what arrived within a short window becomes durable together, then is answered.

Law: effect first, promise second. No answer leaves before the transaction that holds its entry
has returned; the loop never waits for the disk (a worker thread does); what cannot be kept is
answered as refused and counted, and one bad entry never takes its batch with it.
"""

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import trio

from edge import metrics
from edge.disk_thread import DiskThread
from edge.entry import Entry
from edge.refusal import Reason
from edge.seal import Sealed, Sealing
from edge.spool import Held, Quota, Ranges, Spool, SpoolFull, Stored, is_damage, open_spool
from edge.spool_change import kind
from edge.upkeep import Upkeep
from healthsync.runtime.log import Log
from vitals import limits
from vitals.epoch import WrappedEpoch
from vitals.errors import VitalsError
from vitals.frame import Lane

IDLE_WINDOW_S: Final = 0.002
"""Window of the first line after silence: enough for its neighbours, unnoticed by a person. Under
load a commit follows the last by COMMIT_WINDOW_S, which fills its frame."""

ACK_FLUSH_S: Final = 0.25
"""Acknowledgements wait this long for a commit to travel with before they get their own."""

ENTRY_BYTES: Final = 1200
"""Of an entry in memory beside its content, measured: a refused HL7 message with its answer."""

PENDING_BYTES_MAX: Final = 1024 * 1024
"""Input in memory that is read for one commit; beyond it the collector waits for the disk and TCP
slows the senders. Some 870 entries: one commit's work, so that whoever floods the gateway with
the shortest input delays the others by tens of milliseconds and not by a second."""

UPKEEP_S: Final = 1.0
UPKEEP_BUSY_S: Final = 0.05
"""Between two steps of upkeep, and while a salvage goes on: lines have the disk in between."""

RETRY_PAUSE_S: Final = 0.05
"""Pause before the one retry of a transaction that the disk refused."""


Released = Callable[[list[Entry], Reason | None], None]
"""Told of entries whose fate is known, in the order of submission: None durable, else why not."""

Handover = Callable[[list[Held], WrappedEpoch], None]
"""Told of frames that were just committed, with their epoch, before anyone is answered."""


def _nobody(*_: object) -> None:
    """Stand in until the collector and the uplink are there."""


class _Batch(NamedTuple):
    frames: list[Sealed]
    kept: list[Entry]
    lost: list[Entry]
    """Those that cannot be sealed."""
    counts: Counter[str]


class _Outcome(NamedTuple):
    stored: Stored | None
    epoch: WrappedEpoch
    kept: list[Entry]
    lost: list[Entry]
    failure: Reason | None
    acks_left: list[Ranges]
    seconds: float
    aside: str
    error: str


class Committer:
    """Takes entries by `submit`, makes them durable in `run`, tells `released` and `stored`."""

    def __init__(
        self,
        path: Path,
        quota: Quota,
        sealing: Sealing,
        log: Log,
        now_ms: Callable[[], int],
    ) -> None:
        """Open the spool, setting a damaged one aside; a disk that fails is tried again later."""
        self._path, self._quota = path, quota
        self._sealing, self._log, self._now_ms = sealing, log, now_ms
        self.upkeep = Upkeep(path, sealing, log)
        self._aside = ""
        self._spool = self._open()
        self._spool.begin(sealing.epoch)
        self._pending: list[Entry] = []
        self._pending_bytes = self._held_bytes = 0
        self._counts: Counter[str] = Counter()
        self._acks: list[Ranges] = []
        self._sending: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._unsound: list[int] = []
        self._suspected = False
        self._sent: dict[str, int] | None = {}
        self._deleting = self._upkeeping = False
        self._wake, self._full, self._flushed = trio.Event(), trio.Event(), trio.Event()
        self._disk = trio.Lock()
        """Held by whoever commits or keeps up: one transaction at a time."""
        self._stopping = False
        self._last_end = -limits.COMMIT_WINDOW_S
        self._thread = DiskThread()
        self._waiting_since: float | None = None
        self._upkeep_at = 0.0
        self._shown = ""
        self.released: Released = _nobody
        self.stored: Handover = _nobody

    def _open(self, after_id: int = 0, *, damaged: bool = False) -> Spool:
        quota = self._quota
        spool, aside = open_spool(
            self._path,
            quota.bytes_max,
            self._now_ms(),
            refuse_when_full=quota.refuse,
            quarantine_bytes_max=quota.quarantine_bytes_max,
            age_ms_max=quota.age_ms_max,
            after_id=after_id,
            damaged=damaged,
        )
        if aside is not None:
            self._log.error("spool-damaged-set-aside", file=aside.name)
            self._aside = aside.name
        if not spool.is_open:
            self._log.error("spool-waits-for-its-disk")
        return spool

    def set_quota(self, quota: Quota) -> None:
        """Change what the spool may hold; nothing stored is touched before the next commit."""
        self._quota = self._spool.quota = quota

    def suspect(self) -> None:
        """A reader found the file damaged: set it aside before the next commit."""
        self._suspected = True

    def unsound(self, ids: list[int]) -> None:
        """Take frames that a reader passed over; they are set apart with a coming transaction."""
        self._unsound += ids

    async def session_opens(self) -> None:
        """Return when nothing is being folded; nothing will be until `session_ended`."""
        self._sent = None
        while self._upkeeping:
            await self._flushed.wait()

    def session_ended(self, sent: dict[str, int]) -> None:
        """Take epoch -> highest sequence number that any session of this process ever sent."""
        self._sent = sent

    @property
    def epoch(self) -> WrappedEpoch:
        """Return the running epoch; it has been stored."""
        return self._sealing.epoch

    def submit(self, entries: list[Entry], *, settling: bool = False) -> None:
        """Take entries; never blocks. Who is ``settling`` calls `settle` before it waits again.

        Entries of one call share a transaction: they are kept together or not at all.
        """
        if not settling:
            self._wake.set()
        if not self._pending:
            self._waiting_since = trio.current_time()
        self._pending += entries
        size = sum([entry.size for entry in entries])
        self._pending_bytes += size
        self._held_bytes += size + ENTRY_BYTES * len(entries)
        if self._pending_bytes >= limits.COMMIT_BYTES_MAX:
            self._full.set()

    def stuck_s(self) -> float:
        """Return how long the oldest input has waited for the disk; 0.0 when none waits."""
        since = self._waiting_since
        return 0.0 if since is None else max(0.0, trio.current_time() - since)

    @property
    def is_full(self) -> bool:
        """Tell whether so much is pending that no more should be read before it is committed."""
        return (
            self._held_bytes > PENDING_BYTES_MAX or self._pending_bytes >= limits.COMMIT_BYTES_MAX
        )

    async def window(self) -> None:
        """Wait for the neighbours of a first line; then look at them all."""
        if trio.current_time() - self._last_end < limits.COMMIT_WINDOW_S:
            await self._thread.tick()
        else:
            await trio.sleep(IDLE_WINDOW_S)

    async def settle(self) -> None:
        """Commit what is pending without waiting for more; return when its fate is known.

        In the caller's own task: to wake another for it costs as much as sealing forty lines.
        """
        try:
            self._disk.acquire_nowait()  # `acquire` takes a turn of the loop though it is free
        except trio.WouldBlock:
            await self._disk.acquire()
        try:
            if self._pending:
                await self._commit()
        finally:
            self._disk.release()

    def acked(self, epoch: str, ranges: list[tuple[int, int]]) -> None:
        """Take frames that the cloud has; they are deleted with a coming transaction."""
        if ranges:
            self._acks.append(Ranges(epoch, ranges))

    def sent(self, frame: Held, *, again: bool) -> None:
        """Count a frame that is on its way to the cloud, with a coming transaction."""
        counts, how = self._sending[frame.epoch], "resent" if again else "sent"
        counts[f"frames_{how}"] += 1
        counts[f"{kind(frame.lane)}_{how}"] += frame.rows

    async def flush_acks(self) -> None:
        """Return once every acknowledgement taken so far is in the spool."""
        while self._acks or self._deleting:
            self._wake.set()
            await self._flushed.wait()

    def stop(self) -> None:
        """Make `run` commit what is pending and return."""
        self._stopping = True
        self._wake.set()
        self._full.set()

    async def run(self) -> None:
        """Commit until stopped; closes the spool."""
        try:
            while True:
                if not self._pending:
                    with trio.move_on_after(ACK_FLUSH_S):
                        await self._wake.wait()
                self._wake = trio.Event()
                if self._pending and not self._stopping:
                    await self._window()
                if self._pending or self._acks or self._unsound:
                    async with self._disk:
                        await self._commit()
                elif self._stopping:
                    return
                if not self._stopping:
                    await self._keep_up()
        finally:
            await self._thread.run(self._end)
            self._thread.close()

    def _end(self) -> None:
        with suppress(sqlite3.Error, OSError):
            if self._spool.is_open:
                self._spool.note_devices(self.upkeep.heard())
        self._spool.close()

    async def _keep_up(self) -> None:
        now = trio.current_time()
        if now < self._upkeep_at:
            return
        self._upkeeping = True
        async with self._disk:
            if self._suspected:
                self._suspected = False
                await self._thread.run(partial(self._replace, self._now_ms()))
            more = await self._thread.run(
                partial(self.upkeep.step, self._spool, self._now_ms(), self._sent)
            )
        self._upkeeping = False
        self._upkeep_at = now + (UPKEEP_BUSY_S if more else UPKEEP_S)
        self._tell_flushed()

    def _tell_flushed(self) -> None:
        self._flushed.set()
        self._flushed = trio.Event()

    async def _window(self) -> None:
        if self._pending_bytes < limits.COMMIT_BYTES_MAX:
            self._full = trio.Event()
            left_s = self._last_end + limits.COMMIT_WINDOW_S - trio.current_time()
            with trio.move_on_after(max(left_s, IDLE_WINDOW_S)):
                await self._full.wait()

    async def _commit(self) -> None:
        entries, self._pending = self._pending, []
        self._pending_bytes = self._held_bytes = 0
        acks, self._acks = self._acks, []
        unsound, self._unsound = self._unsound, []
        sending, self._sending = self._sending, defaultdict(Counter)
        self._deleting = bool(acks)
        # Sealed here, where what was read is still in the processor's cache: in the worker it
        # costs twice as much.
        now_ms = self._now_ms()
        began = time.perf_counter()
        sealed = self._seal(entries, now_ms)
        outcome = await self._thread.run(
            lambda: self._work(sealed, acks, now_ms, unsound, sending, began),
            tick_s=limits.COMMIT_WINDOW_S,
        )
        if outcome.stored is None:
            for epoch, counts in sending.items():
                self._sending[epoch].update(counts)
        self._acks = outcome.acks_left + self._acks
        self._deleting = False
        self._last_end = trio.current_time()
        self._waiting_since = self._last_end if self._pending else None
        self._report(outcome)
        if outcome.stored is not None and outcome.stored.frames:
            self.stored(outcome.stored.frames, outcome.epoch)
        if outcome.kept:
            self.released(outcome.kept, None)
        if outcome.lost:
            self.released(outcome.lost, outcome.failure or Reason.SPOOL_FAILED)
        self._tell_flushed()

    def _report(self, outcome: _Outcome) -> None:
        if outcome.epoch.epoch != self._shown:
            self._shown = outcome.epoch.epoch
            metrics.EPOCH.info({"epoch": self._shown, "key_id": outcome.epoch.key_id})
            self._log.info("epoch-began", epoch=self._shown)
        if outcome.kept:
            metrics.COMMIT_SECONDS.observe(outcome.seconds)
        if outcome.stored is not None:
            metrics.SPOOL_FRAMES.set(outcome.stored.frames_now)
            metrics.SPOOL_BYTES.set(outcome.stored.bytes_now)
            if outcome.stored.dropped:
                metrics.DROPPED.inc(outcome.stored.dropped)
                self._log.error("spool-quota-dropped-oldest", frames=outcome.stored.dropped)
        if outcome.aside:
            self._log.error("spool-damaged-set-aside", file=outcome.aside)
        if outcome.lost:
            metrics.REFUSED.inc(len(outcome.lost))
            self._log.error(
                "input-not-kept",
                entries=len(outcome.lost),
                reason=str(outcome.failure or Reason.SPOOL_FAILED),
                error=outcome.error,
            )
        elif outcome.error:
            self._log.warning("spool-retried", error=outcome.error)

    # -- in the worker thread -------------------------------------------------------------------

    def _work(
        self,
        sealed: _Batch,
        acks: list[Ranges],
        now_ms: int,
        unsound: list[int],
        sending: Mapping[str, Counter[str]],
        began: float,
    ) -> _Outcome:
        lost: list[Entry] = []
        kept: list[Entry] = []
        stored, failure, aside, error_name = None, None, "", ""
        for attempt in range(3):
            frames, kept, bad, counted = self._seal(kept, now_ms) if attempt else sealed
            if bad:
                lost += bad
                self._counts["refused_inputs"] += len(bad)
            counts = self._counts + counted if self._counts else counted
            try:
                stored = self._spool.store(
                    self._sealing.epoch, frames, counts, acks, now_ms, unsound, sending
                )
            except SpoolFull:
                self._counts["refused_inputs"] += len(kept)
                lost, kept, failure = lost + kept, [], Reason.SPOOL_FULL
            except sqlite3.Error as error:
                error_name = getattr(error, "sqlite_errorname", type(error).__name__)
                if is_damage(error) and not aside:
                    aside, acks, unsound = self._replace(now_ms), [], []
                elif attempt:
                    self._counts["refused_inputs"] += len(kept)
                    lost, kept, failure = lost + kept, [], Reason.SPOOL_FAILED
                    break
                else:
                    time.sleep(RETRY_PAUSE_S)
            else:
                acks, unsound = [], []
                self._counts.clear()
                break
        return _Outcome(
            stored,
            self._sealing.epoch,
            kept,
            lost,
            failure,
            acks,
            time.perf_counter() - began,
            aside,
            error_name,
        )

    def _replace(self, now_ms: int) -> str:
        """Set the damaged file aside and go on with a fresh one and a new epoch."""
        after_id = self._spool.last_id
        self._spool.close()
        self._sealing.renew(now_ms)
        self._spool = self._open(after_id, damaged=True)
        self._spool.begin(self._sealing.epoch)
        self.upkeep.damaged()
        return self._aside

    def _seal(self, entries: list[Entry], now_ms: int) -> _Batch:
        """Return frames, the entries in them, and entries that cannot be sealed at all."""
        good, bad = entries, []
        try:
            frames = self._sealing.seal(entries, now_ms)
        except (VitalsError, ValueError, TypeError, OverflowError):
            good, frames = [], []
            for entry in entries:
                try:
                    frames += self._sealing.seal([entry], now_ms)
                    good.append(entry)
                except (VitalsError, ValueError, TypeError, OverflowError):
                    bad.append(entry)
        return _Batch(frames, good, bad, _counts(good, frames))


def _counts(entries: list[Entry], frames: list[Sealed]) -> Counter[str]:
    counts: Counter[str] = Counter()
    messages = lines = 0
    for entry in entries:
        if entry.message:
            messages += 1
        elif not entry.part:
            lines += 1
        if entry.rejected or entry.alerts or entry.ignored or entry.turned_away:
            counts["ignored_observations"] += entry.ignored
            counts["alerts_spooled"] += len(entry.alerts)
            counts["turned_away"] += entry.turned_away
            counts["rejected"] += len(entry.rejected)
            for reject in entry.rejected:
                counts[f"rejected:{reject.reason}"] += 1
    counts["received_messages"], counts["received_lines"] = messages, lines
    counts["frames_spooled"] = len(frames)
    for frame in frames:
        lane = "rejects" if frame.lane == Lane.QUARANTINE else "readings"
        counts[f"{lane}_spooled"] += frame.count
    return counts

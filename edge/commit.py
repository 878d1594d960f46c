"""Group commit: what arrived within a short window becomes durable together, then is answered.

Law: effect first, promise second. No answer leaves before the transaction that holds its entry
has returned; the loop never waits for the disk (a worker thread does); what cannot be kept is
answered as refused and counted, and one bad entry never takes its batch with it.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import trio

from edge import metrics
from edge.entry import Entry
from edge.refusal import Reason
from edge.seal import Sealed, Sealing
from edge.spool import Held, Ranges, Spool, SpoolFull, Stored, is_damage, open_spool, set_aside
from healthsync.runtime.log import Log
from vitals import limits
from vitals.epoch import WrappedEpoch
from vitals.errors import VitalsError
from vitals.frame import Lane

IDLE_WINDOW_S: Final = 0.002
"""Window of the first line after silence: enough for its neighbours, unnoticed by a person."""

IDLE_AFTER_S: Final = 0.1
"""Silence after which the short window applies; under load the whole window fills frames."""

ACK_FLUSH_S: Final = 0.25
"""Acknowledgements wait this long for a commit to travel with before they get their own."""

PENDING_BYTES_MAX: Final = 4 * 1024 * 1024
"""Input waiting for the disk; beyond it the collector stops reading and TCP slows the senders."""

RETRY_PAUSE_S: Final = 0.05
"""Pause before the one retry of a transaction that the disk refused."""


Released = Callable[[list[Entry], Reason | None], None]
"""Told of entries whose fate is known, in the order of submission: None durable, else why not."""

Handover = Callable[[list[Held], WrappedEpoch], None]
"""Told of frames that were just committed, with their epoch, before anyone is answered."""


def _nobody(*_: object) -> None:
    """Stand in until the collector and the uplink are there."""


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
        bytes_max: int,
        sealing: Sealing,
        log: Log,
        now_ms: Callable[[], int],
        *,
        refuse_when_full: bool,
    ) -> None:
        """Open the spool, setting a damaged one aside; raise sqlite3.Error if the disk fails."""
        self._path, self._bytes_max, self._refuse = path, bytes_max, refuse_when_full
        self._sealing, self._log, self._now_ms = sealing, log, now_ms
        self._spool = self._open()
        self._spool.begin(sealing.epoch)
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        self._counts: Counter[str] = Counter()
        self._acks: list[Ranges] = []
        self._deleting = False
        self._wake, self._full, self._room = trio.Event(), trio.Event(), trio.Event()
        self._flushed = trio.Event()
        self._stopping = False
        self._last_end = -IDLE_AFTER_S
        self._shown = ""
        self.released: Released = _nobody
        self.stored: Handover = _nobody

    def _open(self) -> Spool:
        spool, aside = open_spool(
            self._path, self._bytes_max, self._now_ms(), refuse_when_full=self._refuse
        )
        if aside is not None:
            self._log.error("spool-damaged-set-aside", file=aside.name)
        return spool

    @property
    def epoch(self) -> WrappedEpoch:
        """Return the running epoch; it has been stored."""
        return self._sealing.epoch

    def submit(self, entry: Entry) -> None:
        """Take one entry; never blocks. Await `room` before reading more input."""
        self._pending.append(entry)
        self._pending_bytes += entry.size + 1
        self._wake.set()
        if self._pending_bytes >= limits.COMMIT_BYTES_MAX:
            self._full.set()

    async def room(self) -> None:
        """Return once little enough is pending."""
        while self._pending_bytes > PENDING_BYTES_MAX:
            await self._room.wait()

    def acked(self, epoch: str, ranges: list[tuple[int, int]]) -> None:
        """Take frames that the cloud has; they are deleted with a coming transaction."""
        if ranges:
            self._acks.append(Ranges(epoch, ranges))

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
                if self._pending or self._acks:
                    await self._commit()
                elif self._stopping:
                    return
        finally:
            self._spool.close()

    async def _window(self) -> None:
        idle = trio.current_time() - self._last_end > IDLE_AFTER_S
        if self._pending_bytes < limits.COMMIT_BYTES_MAX:
            self._full = trio.Event()
            with trio.move_on_after(IDLE_WINDOW_S if idle else limits.COMMIT_WINDOW_S):
                await self._full.wait()

    async def _commit(self) -> None:
        entries, self._pending, self._pending_bytes = self._pending, [], 0
        acks, self._acks = self._acks, []
        self._deleting = bool(acks)
        outcome = await trio.to_thread.run_sync(self._work, entries, acks, self._now_ms())
        self._acks = outcome.acks_left + self._acks
        self._deleting = False
        self._last_end = trio.current_time()
        self._report(outcome)
        if outcome.stored is not None and outcome.stored.frames:
            self.stored(outcome.stored.frames, outcome.epoch)
        if outcome.kept:
            self.released(outcome.kept, None)
        if outcome.lost:
            self.released(outcome.lost, outcome.failure or Reason.SPOOL_FAILED)
        self._flushed.set()
        self._flushed = trio.Event()
        self._room.set()
        self._room = trio.Event()

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

    def _work(self, entries: list[Entry], acks: list[Ranges], now_ms: int) -> _Outcome:
        began = time.perf_counter()
        kept, lost = entries, []
        stored, failure, aside, error_name = None, None, "", ""
        for attempt in range(3):
            frames, kept, bad = self._seal(kept, now_ms)
            lost += bad
            self._counts["refused_inputs"] += len(bad)
            counts = self._counts + _counts(kept, frames)
            try:
                stored = self._spool.store(self._sealing.epoch, frames, counts, acks)
            except SpoolFull:
                self._counts["refused_inputs"] += len(kept)
                lost, kept, failure = lost + kept, [], Reason.SPOOL_FULL
            except sqlite3.Error as error:
                error_name = getattr(error, "sqlite_errorname", type(error).__name__)
                if is_damage(error) and not aside:
                    aside, acks = self._replace(now_ms), []
                elif attempt:
                    self._counts["refused_inputs"] += len(kept)
                    lost, kept, failure = lost + kept, [], Reason.SPOOL_FAILED
                    break
                else:
                    time.sleep(RETRY_PAUSE_S)
            else:
                acks = []
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
        self._spool.close()
        self._sealing.renew(now_ms)
        aside = set_aside(self._path, now_ms).name
        self._spool = self._open()
        self._spool.begin(self._sealing.epoch)
        return aside

    def _seal(
        self, entries: list[Entry], now_ms: int
    ) -> tuple[list[Sealed], list[Entry], list[Entry]]:
        """Return frames, the entries in them, and entries that cannot be sealed at all."""
        try:
            return self._sealing.seal(entries, now_ms), entries, []
        except (VitalsError, ValueError, TypeError, OverflowError):
            good: list[Entry] = []
            bad: list[Entry] = []
            frames: list[Sealed] = []
            for entry in entries:
                try:
                    frames += self._sealing.seal([entry], now_ms)
                    good.append(entry)
                except (VitalsError, ValueError, TypeError, OverflowError):
                    bad.append(entry)
            return frames, good, bad


def _counts(entries: list[Entry], frames: list[Sealed]) -> Counter[str]:
    counts: Counter[str] = Counter()
    messages = sum(entry.message for entry in entries)
    counts["received_messages"] = messages
    counts["received_lines"] = len(entries) - messages
    counts["rejected"] = sum(len(entry.rejected) for entry in entries)
    counts["ignored_observations"] = sum(entry.ignored for entry in entries)
    counts["frames_spooled"] = len(frames)
    for frame in frames:
        lane = "rejects" if frame.lane == Lane.QUARANTINE else "readings"
        counts[f"{lane}_spooled"] += frame.count
    return counts

"""What the spool needs besides commits: folding while the link is down, salvage, device counts.

Law: one step at a time, in the committer's thread and between its transactions, each of bounded
work; a step that fails is tried again later and never keeps a line from the disk. Frames are
folded only while no session is open, and only such as no session of this process ever sent.
"""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edge import merge, salvage, spool_aside
from edge.seal import Sealing
from edge.spool import Spool
from edge.spool_devices import DeviceCounts
from healthsync.runtime.log import Log

NOTE_MS: Final = 10_000
"""Counts by device reach the disk this often; a crash costs those since."""

FOLD_MS: Final = 10_000
"""Between two looks for frames to fold."""

RETRY_MS: Final = 60_000
"""After a step that failed, or a salvage that found no room."""


def _nothing() -> Iterator[tuple[str, DeviceCounts]]:
    return iter(())


class Upkeep:
    """Made by the committer; `step` runs in its worker thread."""

    def __init__(self, path: Path, sealing: Sealing, log: Log) -> None:
        """``path`` is the spool's."""
        self._path, self._sealing, self._log = path, sealing, log
        self._salvage: Iterator[salvage.Progress] | None = None
        self._aside: Path | None = None
        self._noted_ms = self._folded_ms = self._tried_ms = 0
        self._looked = False
        self._upto: dict[str, int] = {}
        self.heard: Callable[[], Iterator[tuple[str, DeviceCounts]]] = _nothing
        """Yields what came from each device since its last call."""
        self.salvaged = False
        """True once frames of a damaged file came in: a session that is open must begin again."""

    def damaged(self) -> None:
        """A file was set aside: look for it."""
        self._looked, self._salvage, self._tried_ms = False, None, 0

    def step(self, spool: Spool, now_ms: int, sent: dict[str, int] | None) -> bool:
        """Do one thing that is due; return whether more is waiting.

        ``sent``: epoch -> highest sequence number ever sent, None while a session is open.
        """
        if not spool.is_open or 0 <= now_ms - self._tried_ms < RETRY_MS:
            return False
        try:
            return self._step(spool, now_ms, sent)
        except (sqlite3.Error, OSError) as error:
            self._tried_ms = now_ms
            self._salvage = None
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            self._log.warning("spool-upkeep-failed", error=name)
            return False

    def _step(self, spool: Spool, now_ms: int, sent: dict[str, int] | None) -> bool:
        if not 0 <= now_ms - self._noted_ms < NOTE_MS:
            self._noted_ms = now_ms
            spool.note_devices(self.heard())
        if sent is not None and not 0 <= now_ms - self._folded_ms < FOLD_MS:
            self._folded_ms = now_ms
            self._fold(spool, sent)
        return self._recover(spool, now_ms)

    def _fold(self, spool: Spool, sent: dict[str, int]) -> None:
        epoch = self._sealing.epoch.epoch
        after = max(sent.get(epoch, -1), self._upto.get(epoch, -1))
        done = merge.fold(spool, epoch, after, self._sealing.opener(), self._sealing.seal_folded)
        self._upto = {epoch: done.upto}
        if done.frames:
            self._log.info(
                "spool-folded",
                frames=done.frames,
                into=done.into,
                bytes_before=done.bytes_before,
                bytes_after=done.bytes_after,
            )

    def _recover(self, spool: Spool, now_ms: int) -> bool:
        if self._salvage is None:
            if self._looked:
                return False
            waiting = spool_aside.pending(self._path)
            if not waiting:
                self._looked = True
                return False
            self._aside = waiting[0]
            self._salvage = salvage.recover(self._aside, spool)
        progress = next(self._salvage, None)
        if progress is None or progress.done:
            self._salvage = None
            self.salvaged = True
            if progress is not None and self._aside is not None:
                self._log.warning(
                    "spool-salvaged",
                    file=self._aside.name,
                    frames=progress.salvaged,
                    unsalvageable=progress.unsalvageable,
                )
        elif progress.waiting:
            self._tried_ms = now_ms
            return False
        return True

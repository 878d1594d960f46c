"""The thread that waits for the disk, so that the gateway's loop never does.

Law: one job at a time, in the order given; a job that was begun is finished, whoever is cancelled
meanwhile. After a job the thread can let some time pass and tick.

`trio.to_thread` does the same for any number of threads. For the gateway's one job, a hundred
times a second, it cost 220 µs of CPU each time, and `trio.sleep` between two of them 250 (found
cold, as after every pause: the caches are somebody else's by then). A descriptor to wait for and a
queue cost 60, and the tick comes with it.
"""

import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, TypeVar

import trio

T = TypeVar("T")

JOIN_S: Final = 30.0
"""Wait for the thread at the end: as long as a slow card takes for one transaction."""


class _Job(Generic[T]):
    __slots__ = ("error", "result", "tick_s", "work")

    def __init__(self, work: Callable[[], T], tick_s: float) -> None:
        self.work, self.tick_s = work, tick_s
        self.result: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result.append(self.work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self.error = error


class DiskThread:
    """Made and closed by the committer; `run` from one task at a time."""

    def __init__(self) -> None:
        """Nothing is opened and no thread started before the first job."""
        self._done = self._tick = -1
        self._jobs: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, work: Callable[[], T], *, tick_s: float = 0.0) -> T:
        """Return what ``work`` returns, or raise what it raises; then tick after ``tick_s``.

        The first call raises OSError when there are no descriptors left.
        """
        if self._thread is None:
            flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
            self._done, self._tick = os.eventfd(0, flags), os.eventfd(0, flags)
            self._thread = threading.Thread(target=self._loop, name="disk", daemon=True)
            self._thread.start()
        _clear(self._tick)
        job = _Job(work, tick_s)
        self._jobs.put(job)  # type: ignore[arg-type]  # what it returns goes to nobody else
        with trio.CancelScope(shield=True):
            await trio.lowlevel.wait_readable(self._done)
        _clear(self._done)
        if job.error is not None:
            raise job.error
        return job.result[0]

    async def tick(self) -> None:
        """Return when the last job's ``tick_s`` are over, or when another job came."""
        await trio.lowlevel.wait_readable(self._tick)

    def _loop(self) -> None:
        tick_s = 0.0
        while True:
            try:
                job = self._jobs.get(timeout=tick_s or None)
            except queue.Empty:
                job, tick_s = None, 0.0
                os.eventfd_write(self._tick, 1)
                continue
            if tick_s:
                os.eventfd_write(self._tick, 1)
            if job is None:
                return
            job.run()
            tick_s = job.tick_s
            os.eventfd_write(self._done, 1)

    def close(self) -> None:
        """End the thread and close the descriptors."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(JOIN_S)
            self._thread = None
            for descriptor in (self._done, self._tick):
                os.close(descriptor)


def _clear(descriptor: int) -> None:
    with suppress(BlockingIOError):  # it was clear
        os.eventfd_read(descriptor)

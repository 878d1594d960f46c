"""One partition: a thread that delivers its records one after another, and what waits for it.

Law: order. A record is begun when the one before it is done, so a later Bundle of a subject never
overtakes an earlier one; partitions wait for each other in nothing. What waits is bounded by
`is_full`: beyond it Kafka keeps the rest.

========= ===================================== ===============================================
state     meaning                               next
========= ===================================== ===============================================
idle      nothing waits                         put -> busy; cancel -> ended
busy      the oldest record is being delivered  done -> idle or busy; cancel or failure -> ended
ended     nothing more is sent                  (a new lane begins at the committed offset)
========= ===================================== ===============================================
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from cloud.deliver.connection import Connection
from cloud.deliver.courier import Courier, Record

# A live ward's Bundles are some 5 KB each; a large one has 512 KB. Eight lanes hold 64 MiB at most.
WINDOW_RECORDS_MAX: Final = 256
WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024


class Cancelled(Exception):
    """The partition is somebody else's, or the process ends."""


class Lane:
    """Made by the thread that polls Kafka; `start`, then `put`; `cancel` and `join` end it."""

    def __init__(
        self,
        partition: int,
        connection: Connection,
        courier_of: Callable[[Callable[[float], None]], Courier],
    ) -> None:
        """``courier_of`` takes what waits some seconds and raises Cancelled."""
        self.partition = partition
        self.connection = connection
        self.done: int | None = None
        """Offset after the last record that is done."""
        self.taken: int | None = None
        """Offset after the last record that was put."""
        self.failure: Exception | None = None
        """What ended the thread against its will."""
        self._courier = courier_of(self._pause)
        self._cancelled = threading.Event()
        self._changed = threading.Condition()
        self._waiting: deque[Record] = deque()
        self._bytes = 0
        # A name that is being looked up cannot be interrupted; the process may end all the same.
        self._thread = threading.Thread(target=self._run, name=f"lane-{partition}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, record: Record) -> None:
        """Take the partition's next record."""
        with self._changed:
            self._waiting.append(record)
            self._bytes += len(record.value or b"")
            self.taken = record.offset + 1
            self._changed.notify()

    def __len__(self) -> int:
        return len(self._waiting)

    def is_full(self) -> bool:
        """Tell whether nothing more should be fetched."""
        return len(self._waiting) >= WINDOW_RECORDS_MAX or self._bytes >= WINDOW_BYTES_MAX

    def is_low(self) -> bool:
        """Tell whether fetching should begin again: at half, for Kafka's client takes a while."""
        few = len(self._waiting) <= WINDOW_RECORDS_MAX // 2
        return few and self._bytes <= WINDOW_BYTES_MAX // 2

    def oldest_ms(self) -> int | None:
        """Return when the record being delivered was written; None: nothing waits."""
        with self._changed:
            return self._waiting[0].time_ms if self._waiting else None

    def cancel(self) -> None:
        """Begin no further request; the one under way may end."""
        self._cancelled.set()
        with self._changed:
            self._changed.notify()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; False: it goes on."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _pause(self, seconds: float) -> None:
        if self._cancelled.wait(seconds):
            raise Cancelled

    def _run(self) -> None:
        try:
            while True:
                self._courier.deliver(self._next())
                with self._changed:
                    record = self._waiting.popleft()
                    self._bytes -= len(record.value or b"")
                    self.done = record.offset + 1
        except Cancelled:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is: the process has to know and end
            self.failure = error
        finally:
            self.connection.close()

    def _next(self) -> Record:
        with self._changed:
            while not self._waiting:
                if self._cancelled.is_set():
                    raise Cancelled
                self._changed.wait()
            return self._waiting[0]

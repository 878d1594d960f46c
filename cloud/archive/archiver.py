"""All partitions of one archive process: recover, take, flush, back off. Knows no Kafka.

Law: a chain goes on only after its file is in the store, or after the file that took its name was
read. While the store is down partitions are held (paused) with one closed file each, so memory
is bounded and nothing is lost; Kafka keeps what is not yet written.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from cloud.archive import metrics
from cloud.archive.chain import Chain
from cloud.archive.envelope import ParquetKeys
from cloud.archive.errors import NameTaken, StoreRefused, StoreUnavailable
from cloud.archive.parquet import (
    FileState,
    first_offset_of,
    open_file,
    partition_prefix,
    read_state,
    write,
)
from cloud.archive.ranged import ObjectFile
from cloud.archive.store import Store
from healthsync.runtime.log import Log

# Pauses between tries of a store that is down: soon after a blip, bounded load in an outage.
BACKOFF_MS_MIN: Final = 500
BACKOFF_MS_MAX: Final = 30_000


class Consumer(Protocol):
    """What the archiver asks of its Kafka consumer."""

    def hold(self, partition: int) -> None:
        """Fetch nothing of the partition until it is sent on."""
        ...

    def send_on(self, partition: int, offset: int) -> bool:
        """Fetch the partition from ``offset`` on; False: not possible now, ask again."""
        ...


def newest_state(store: Store, keys: ParquetKeys, partition: int) -> FileState | None:
    """Return the state of a partition's newest file, None if it has none. Raises ArchiveError."""
    last = deque(store.listing(partition_prefix(partition)), maxlen=1)
    if not last:
        return None
    newest = last[0]
    file = open_file(ObjectFile(store, newest.key, newest.size), keys)
    return read_state(file, newest.key, first_offset_of(newest.key))


class Archiver:
    """The partitions assigned to this process."""

    def __init__(
        self,
        store: Store,
        keys: ParquetKeys,
        consumer: Consumer,
        flush_ms: int,
        rows_max: int,
        now_ms: Callable[[], int],
        log: Log,
    ) -> None:
        """Everything is injected; nothing is called yet."""
        self._store = store
        self._keys = keys
        self._consumer = consumer
        self._flush_ms = flush_ms
        self._rows_max = rows_max
        self._now_ms = now_ms
        self._log = log
        self._chains: dict[int, Chain] = {}
        self._unread: set[int] = set()
        self._held: set[int] = set()
        self._backoff_ms = 0
        self._try_at_ms = 0

    def assigned(self, partition: int) -> None:
        """The partition is ours: hold it until its newest file was read."""
        self._unread.add(partition)
        self._hold(partition)

    def revoked(self, partition: int) -> None:
        """The partition is another's: drop what was gathered, Kafka has it."""
        self._unread.discard(partition)
        self._held.discard(partition)
        self._chains.pop(partition, None)

    def take(self, partition: int, offset: int, value: bytes | None) -> None:
        """Take one record."""
        chain = self._chains.get(partition)
        if chain is None or partition in self._held:
            return  # held meanwhile: it is fetched again from the offset we go on from
        taken = chain.take(offset, value, self._now_ms())
        metrics.READINGS.inc(taken.readings)
        if taken.duplicate:
            metrics.DUPLICATES.inc()
        if taken.refused:
            metrics.REFUSED.inc()
            self._log.error("record-refused", partition=partition, offset=offset)

    def work(self, *, everything: bool = False) -> dict[int, int]:
        """Read newest files, put files that are due (or all); return partition -> next offset.

        What is returned is in the store: it may be committed.
        """
        done: dict[int, int] = {}
        if self._now_ms() < self._try_at_ms and not everything:
            return done
        try:
            for partition in sorted(self._unread):
                self._recover(partition)
            for partition, chain in sorted(self._chains.items()):
                due = chain.due(self._now_ms(), self._flush_ms, self._rows_max)
                if chain.closed or due or (everything and len(chain)):
                    self._flush(partition, chain)
                    done[partition] = chain.first_offset
                if partition in self._held and self._consumer.send_on(partition, chain.next_offset):
                    self._held.discard(partition)
            self._backoff_ms = 0
        except (StoreUnavailable, StoreRefused) as error:
            self._later(error)
        return done

    def _hold(self, partition: int) -> None:
        self._held.add(partition)
        self._consumer.hold(partition)

    def _recover(self, partition: int) -> None:
        state = newest_state(self._store, self._keys, partition)
        chain = self._chains[partition] = Chain(partition, state)
        self._unread.discard(partition)
        self._log.info("partition", partition=partition, next_offset=chain.next_offset)

    def _flush(self, partition: int, chain: Chain) -> None:
        closed = chain.close()
        try:
            body = write(closed.rows, closed.state, self._keys)
            self._store.put(closed.name, body)
        except NameTaken:
            # our own answer was lost, or another process was first: its file says how to go on
            self._log.warning("name-taken", partition=partition, first_offset=chain.first_offset)
            metrics.TAKEN.inc()
            self._hold(partition)
            chain.adopt(newest_state(self._store, self._keys, partition))
            return
        except (StoreUnavailable, StoreRefused):
            self._hold(partition)
            raise
        chain.put()
        metrics.FILES.inc()
        metrics.ROWS.inc(closed.state.rows)
        metrics.BYTES.inc(len(body))

    def _later(self, error: Exception) -> None:
        self._backoff_ms = min(BACKOFF_MS_MAX, max(BACKOFF_MS_MIN, self._backoff_ms * 2))
        self._try_at_ms = self._now_ms() + self._backoff_ms
        metrics.STORE_ERRORS.inc()
        self._log.warning(
            "store-down", error=type(error).__name__, what=str(error), retry_ms=self._backoff_ms
        )

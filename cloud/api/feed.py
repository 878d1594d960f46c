"""From Redis's live channel to the hub, in one thread.

Law: first listen, then load the snapshot, then hand on what was heard: nothing falls between.
After any doubt (error, silence of the server) the hub is told that nothing is live, and all of
that happens again. Who hands over waits for the hub, so Redis is never read faster than shown.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import redis
import trio

from cloud.api.board import SPARK_MS
from cloud.api.hub import Hub
from cloud.api.store import Seen, Store
from cloud.project.layout import CHANNEL, MINUTE_MS
from cloud.records import LiveUpdate
from healthsync.runtime.log import Log
from vitals.errors import SealError

# The server is asked for a sign of life this often, and taken for dead after this long without.
PING_S: Final = 1.0
SILENCE_S: Final = 4.0

BACKOFF_S_MIN: Final = 0.1
BACKOFF_S_MAX: Final = 2.0
HAND_OVER_MAX: Final = 200


class Feed:
    """Runs until the process ends."""

    def __init__(
        self,
        client: Any,
        store: Store,
        hub: Hub,
        log: Log,
        now_ms: Callable[[], int],
        mono_ms: Callable[[], float],
    ) -> None:
        """Take a redis-py client, whose pool has a connection to spare."""
        self._client = client
        self._store = store
        self._hub = hub
        self._log = log
        self._now_ms = now_ms
        self._mono_ms = mono_ms

    async def run(self) -> None:
        """Run the thread; cancelling leaves it to end by itself."""
        await trio.to_thread.run_sync(self._run, abandon_on_cancel=True)

    def _run(self) -> None:
        backoff_s = BACKOFF_S_MIN
        while True:
            try:
                self._listen()
            except (trio.Cancelled, trio.RunFinishedError):
                return
            except (redis.RedisError, SealError, msgspec.DecodeError) as error:
                self._log.warning("live-feed-lost", error=type(error).__name__, retry_s=backoff_s)
            try:
                live = trio.from_thread.run_sync(self._lost)
            except (trio.Cancelled, trio.RunFinishedError):
                return
            backoff_s = BACKOFF_S_MIN if live else min(backoff_s * 2, BACKOFF_S_MAX)
            time.sleep(backoff_s)

    def _lost(self) -> bool:
        was = self._hub.live
        self._hub.set_live(live=False)
        return was

    def _listen(self) -> None:
        with self._client.pubsub() as channel:
            channel.subscribe(CHANNEL)
            self._load()
            self._log.info("live-feed")
            heard = asked = time.monotonic()
            while True:
                message = channel.get_message(timeout=PING_S)
                updates: list[LiveUpdate] = []
                while message is not None:
                    heard = time.monotonic()
                    if message["type"] == "message":
                        updates.append(self._store.open_update(message["data"]))
                    if len(updates) >= HAND_OVER_MAX:
                        break
                    message = channel.get_message(timeout=0)
                if updates:
                    trio.from_thread.run_sync(self._hub.receive, updates)
                else:
                    trio.from_thread.check_cancelled()
                now = time.monotonic()
                if now - heard > SILENCE_S:
                    raise redis.ConnectionError("the live channel is silent")
                if now - asked >= PING_S:
                    asked = now
                    channel.ping()

    def _load(self) -> None:
        everyone = list(self._store.everyone())
        now_ms = self._now_ms()
        first = (now_ms - SPARK_MS) // MINUTE_MS
        history = []
        for seen in everyone:
            if any(now_ms - each.reading.received_ms < SPARK_MS for each in seen.latest):
                minutes = [m for m in self._store.minutes(seen.subject) if m >= first]
                history.append((seen.subject, self._store.rows(seen.subject, minutes)))
        trio.from_thread.run_sync(self._loaded, everyone, history)

    def _loaded(self, everyone: list[Seen], history: list[tuple[str, Any]]) -> None:
        for subject, rows in history:
            self._hub.board.fill(subject, rows)
        self._hub.board.load(everyone, self._now_ms(), self._mono_ms())
        self._hub.set_live(live=True)
        self._hub.restate()

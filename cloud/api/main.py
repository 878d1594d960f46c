"""``healthsync cloud api``: the shell. It owns the clients, the hub's tasks and the server."""

import os
import time
from pathlib import Path

import trio

from cloud import https
from cloud.api import service
from cloud.api.app import build
from cloud.api.feed import Feed
from cloud.api.hub import Hub
from cloud.api.metrics import Metrics
from cloud.api.service import GuardedArchive, Service
from cloud.api.settings import Config
from cloud.api.signin import Door
from cloud.api.store import Store
from cloud.api.ward import boot_id
from cloud.archive.errors import ArchiveError
from cloud.archive.reader import open_archive
from cloud.project import connect
from healthsync.runtime import metrics
from healthsync.runtime.clock import now_ms
from healthsync.runtime.config import load, read_key
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify
from healthsync.runtime.stop import Stop
from vitals.errors import ConfigError
from vitals.sealed import Sealer

WATCHDOG_EVERY_S = 1.0
STOP_LOOK_S = 0.1


def mono_ms() -> float:
    """Return milliseconds of the monotonic clock."""
    return time.monotonic() * 1000


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: key cannot be read ({type(error).__name__})") from error


def _archive(settings: Config) -> GuardedArchive:
    return GuardedArchive(open_archive(settings.s3, settings.kms), (ArchiveError, OSError))


def run(config: Path) -> int:
    """Serve until SIGTERM; raise ConfigError."""
    settings = load(config, Config)
    log = Log("api", now_ms)
    stop = Stop()
    client = connect.pooled(settings.redis, service.REDIS_THREADS + service.ARCHIVE_THREADS + 2)
    store = Store(
        client,
        Sealer(read_key(settings.keys.identity), os.urandom),
        Sealer(read_key(settings.keys.values), os.urandom),
        read_key(settings.keys.index),
    )
    counters = Metrics()
    served = Service(
        f"{settings.public_url.rstrip('/')}/fhir",
        store,
        _archive(settings),
        _pem(settings.jwt.public),
        _pem(settings.jwt.private),
        counters,
        log,
        now_ms,
        trio.CapacityLimiter(service.REDIS_THREADS),
        trio.CapacityLimiter(service.ARCHIVE_THREADS),
    )
    hub = Hub(counters, now_ms, mono_ms, boot_id())
    app = build(served, hub, Door.of_file(settings.users_file), service.wall_seconds)
    feed = Feed(client, store, hub, log, now_ms, mono_ms)
    metrics.serve(settings.metrics.port)

    async def until_stopped() -> None:
        while not stop:  # noqa: ASYNC110 - a signal handler sets it, not a task
            await trio.sleep(STOP_LOOK_S)
        notify("STOPPING=1")
        hub.close()

    async def watchdog() -> None:
        while True:
            notify("WATCHDOG=1")
            await trio.sleep(WATCHDOG_EVERY_S)

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            nursery.start_soon(feed.run)
            nursery.start_soon(watchdog)
            async with trio.open_nursery() as serving:
                await serving.start(https.run, app, settings.listen, until_stopped)
                log.info("ready")
                notify("READY=1")
            nursery.cancel_scope.cancel()

    trio.run(serve)
    log.info("stopped")
    return Exit.OK

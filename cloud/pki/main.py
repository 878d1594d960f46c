"""``healthsync cloud est --config FILE``: the process around the desk.

Ends: SIGTERM or SIGINT -> exit 0; wrong configuration or no authority -> exit 78; its port taken
-> exit 69.
"""

from pathlib import Path
from typing import Final

import trio
from prometheus_client import Gauge

from cloud import https
from cloud.pki.app import App
from cloud.pki.config import EstConfig
from cloud.pki.folder import open_desk
from healthsync.runtime import metrics
from healthsync.runtime.clock import now_ms
from healthsync.runtime.config import load
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify, watchdog_interval_s
from healthsync.runtime.stop import Stop

STOP_LOOK_S: Final = 0.1

EXPIRES = Gauge("healthsync_est_issuing_expires_seconds", "Life left of the issuing authority")


def run(config: Path) -> int:
    """Serve until told to stop; return the exit code."""
    settings = load(config, EstConfig)
    log = Log("est", now_ms)
    stop = Stop()
    desk = open_desk(settings.folder, settings.leaf_days, settings.grace_days)
    app = App(desk, log).build()
    end_ms = int(desk.issuing.certificate.not_valid_after_utc.timestamp() * 1000)
    EXPIRES.set_function(lambda: (end_ms - now_ms()) / 1000)
    metrics.serve(settings.metrics.port)

    async def until_stopped() -> None:
        while not stop:  # noqa: ASYNC110 - a signal handler sets it, not a task
            await trio.sleep(STOP_LOOK_S)
        notify("STOPPING=1")

    async def watchdog() -> None:
        interval_s = watchdog_interval_s()
        while interval_s is not None:
            notify("WATCHDOG=1")
            await trio.sleep(interval_s)

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(https.run, app, settings.listen, until_stopped)
            log.info("serving", port=settings.listen.port)
            notify("READY=1")
            nursery.start_soon(watchdog)
            await until_stopped()
            nursery.cancel_scope.deadline = trio.current_time() + https.GRACE_S + 1

    outcome = Exit.OK
    try:
        trio.run(serve)
    except* OSError as errors:
        outcome = Exit.UNAVAILABLE
        names = sorted({type(error).__name__ for error in errors.exceptions})
        log.warning("cannot-listen", port=settings.listen.port, errors=names)
    log.info("stopped", code=outcome.value)
    return outcome

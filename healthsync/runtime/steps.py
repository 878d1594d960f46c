"""The main loop of a service that does its work in short steps, watched by systemd."""

import time
from typing import Final, Protocol

from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify
from healthsync.runtime.stop import Stop

WATCHDOG_EVERY_S: Final = 1.0
"""Well under any sensible WatchdogSec; a step takes at most seconds."""


class Steps(Protocol):
    """What steps."""

    @property
    def ready(self) -> bool:
        """Tell whether it does its work."""

    def step(self) -> object:
        """Do some of it, or wait a little."""


def until_stopped(steps: Steps, stop: Stop, log: Log) -> None:
    """Step until asked to stop; tell systemd, and the log once, when it is ready."""
    log.info("started")
    announced = False
    fed_s = 0.0
    while not stop:
        steps.step()
        if time.monotonic() - fed_s >= WATCHDOG_EVERY_S:
            fed_s = time.monotonic()
            notify("WATCHDOG=1")
        if steps.ready and not announced:
            announced = True
            notify("READY=1")
            log.info("ready")

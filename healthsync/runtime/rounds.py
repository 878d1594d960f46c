"""A process that does the same thing every so often, until it is asked to stop."""

import time
from collections.abc import Callable
from typing import Final

from healthsync.runtime.notify import notify, watchdog_interval_s
from healthsync.runtime.stop import Stop

# How often it looks whether to stop.
TICK_S: Final = 0.2


def run(stop: Stop, work: Callable[[], float]) -> None:
    """Call ``work`` now and again after the seconds that it returns; tell systemd of it."""
    notify("READY=1")
    watchdog_s, last_watchdog, next_round = watchdog_interval_s(), 0.0, 0.0
    while not stop:
        now_s = time.monotonic()
        if now_s >= next_round:
            next_round = now_s + work()
        if watchdog_s is not None and now_s - last_watchdog >= watchdog_s:
            last_watchdog = now_s
            notify("WATCHDOG=1")
        time.sleep(TICK_S)
    notify("STOPPING=1")

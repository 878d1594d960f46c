"""Calls that are waited for by another thread, one after the other, in their order.

The thread ends with the process and is never waited for: a call of librdkafka's may hang for good
(`engine`, on partitions that were lost).
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

Aside = Callable[[Callable[[], None]], "Future[None]"]


def at_once(call: Callable[[], None]) -> "Future[None]":
    """Do ``call`` before returning: what the thread does, without one."""
    future: Future[None] = Future()
    _do(call, future)
    return future


def thread(name: str) -> Aside:
    """Return what hands calls to a thread of its own; the future tells how a call ended."""
    waiting: SimpleQueue[tuple[Callable[[], None], Future[None]]] = SimpleQueue()

    def work() -> None:
        while True:
            _do(*waiting.get())

    def aside(call: Callable[[], None]) -> "Future[None]":
        future: Future[None] = Future()
        waiting.put((call, future))
        return future

    threading.Thread(target=work, name=name, daemon=True).start()
    return aside


def _do(call: Callable[[], None], future: "Future[None]") -> None:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - whoever waits for it raises it
        future.set_exception(error)
    else:
        future.set_result(None)

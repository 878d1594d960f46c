"""The disk's thread does one job at a time, hands back what came of it, and ticks after it."""

import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import pytest
import trio

from edge.disk_thread import DiskThread


def _with(test: Callable[[DiskThread], Awaitable[None]]) -> None:
    async def main() -> None:
        thread = DiskThread()
        try:
            with trio.fail_after(10):
                await test(thread)
        finally:
            thread.close()

    trio.run(main)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count


def test_a_job_runs_in_another_thread_and_its_result_comes_back() -> None:
    async def test(thread: DiskThread) -> None:
        here = threading.get_ident()
        there = {await thread.run(threading.get_ident) for _ in range(100)}
        assert len(there) == 1
        assert here not in there

    _with(test)


def test_what_a_job_raises_is_raised_and_the_next_one_runs() -> None:
    def fails() -> NoReturn:
        raise OSError("disk")

    async def test(thread: DiskThread) -> None:
        with pytest.raises(OSError, match="disk"):
            await thread.run(fails)
        assert await thread.run(lambda: 7) == 7

    _with(test)


def test_the_loop_goes_on_meanwhile() -> None:
    async def test(thread: DiskThread) -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await thread.run(lambda: time.sleep(0.3))
            nursery.cancel_scope.cancel()
        assert turns > 3

    _with(test)


def test_a_job_that_was_begun_is_finished_before_its_caller_ends() -> None:
    done = []

    def job() -> None:
        time.sleep(0.2)
        done.append(True)

    async def test(thread: DiskThread) -> None:
        with trio.move_on_after(0.05) as scope:
            await thread.run(job)
            assert done
            await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught

    _with(test)


def test_it_ticks_after_the_time_given_and_at_once_when_another_job_comes() -> None:
    async def test(thread: DiskThread) -> None:
        for _ in range(3):
            began = trio.current_time()
            await thread.run(lambda: None, tick_s=0.05)
            await thread.tick()
            await thread.tick()  # it has ticked: nobody waits again
            assert trio.current_time() - began >= 0.05
        await thread.run(lambda: None, tick_s=60.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.tick)
            await trio.sleep(0.02)
            await thread.run(lambda: None)

    _with(test)


def test_who_waits_for_the_tick_can_be_cancelled() -> None:
    async def test(thread: DiskThread) -> None:
        await thread.run(lambda: None, tick_s=60.0)
        with trio.move_on_after(0.02) as scope:
            await thread.tick()
        assert scope.cancelled_caught

    _with(test)


def test_nothing_is_opened_before_the_first_job_and_nothing_is_left_after_the_end() -> None:
    threads, descriptors = threading.active_count(), _descriptors()

    async def main() -> None:
        for jobs in range(3):
            thread = DiskThread()
            for _ in range(jobs):
                await thread.run(lambda: None, tick_s=5.0)
            thread.close()
            thread.close()

    trio.run(main)
    assert (threading.active_count(), _descriptors()) == (threads, descriptors)

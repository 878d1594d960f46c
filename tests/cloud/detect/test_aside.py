"""Calls aside: one after the other, their errors told to whoever waits."""

import subprocess
import sys
import threading

import pytest

from cloud.detect.aside import at_once, thread


def test_calls_are_done_in_their_order_and_one_at_a_time() -> None:
    aside, gate, seen = thread("test"), threading.Event(), list[int]()

    def wait() -> None:
        gate.wait(5)
        seen.append(1)

    first = aside(wait)
    second = aside(lambda: seen.append(2))
    assert not first.done()
    gate.set()
    second.result(5)
    assert seen == [1, 2]


@pytest.mark.parametrize("make", [lambda: at_once, lambda: thread("test")])
def test_an_error_is_raised_where_it_is_waited_for_and_the_next_call_is_done(make: object) -> None:
    assert callable(make)
    aside = make()

    def fail() -> None:
        raise ValueError("on purpose")

    failed, seen = aside(fail), list[int]()
    with pytest.raises(ValueError, match="on purpose"):
        failed.result(5)
    aside(lambda: seen.append(1)).result(5)
    assert seen == [1]


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    program = (
        "import threading; from cloud.detect.aside import thread;"
        " started = threading.Event();"
        " thread('test')(lambda: (started.set(), threading.Event().wait())); started.wait(5)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=20, check=False)
    assert done.returncode == 0

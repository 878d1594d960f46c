"""Python's collector of cycles in processes that hold much and make few: seldom, never over all.

It is for what errors leave behind. Readings make no cycles, but objects by the thousand: at
Python's own 700 it walks everything that is remembered, again and again.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

ALLOCATIONS: Final = 50_000
YOUNG: Final = 20
OLD: Final = 20
"""Thresholds of `gc.set_threshold`; Python's are 700, 10, 10."""


def seldom() -> None:
    """Leave what is there now out of every later collection, and collect seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, YOUNG, OLD)


@contextmanager
def building() -> Iterator[None]:
    """Collect nothing while much is made that stays, and leave it out of later collections.

    Reading 100,000 subjects back took 8.3 s with the collector and 1.7 s without.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if enabled:
            gc.enable()

"""For every test: nothing that a service left out of garbage collection stays left out."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _collected_again() -> Iterator[None]:
    """Services freeze what they hold (`healthsync.runtime.cycles`); Hypothesis looks for it."""
    yield
    if gc.get_freeze_count():
        gc.unfreeze()

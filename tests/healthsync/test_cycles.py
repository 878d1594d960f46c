"""The collector of cycles: left out of what stays, and on again afterwards."""

import gc
from collections.abc import Iterator

import pytest

from healthsync.runtime.cycles import ALLOCATIONS, OLD, YOUNG, building, seldom


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.enable()
    gc.unfreeze()


def walked(one: object) -> bool:
    return any(other is one for other in gc.get_objects())


def test_what_is_there_is_left_out_and_the_rest_is_collected_seldom() -> None:
    kept = [object()]
    assert walked(kept)
    seldom()
    assert not walked(kept)
    assert gc.get_threshold() == (ALLOCATIONS, YOUNG, OLD)


def test_nothing_is_collected_while_much_is_made() -> None:
    with building():
        assert not gc.isenabled()
        kept = [object()]
    assert gc.isenabled()
    assert not walked(kept)


def test_it_is_on_again_after_an_error() -> None:
    with pytest.raises(KeyError), building():
        raise KeyError
    assert gc.isenabled()


def test_it_stays_off_for_who_had_it_off() -> None:
    gc.disable()
    with building():
        pass
    assert not gc.isenabled()

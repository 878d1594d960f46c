"""What counts as delivered."""

import pytest

from cloud.proof import Proof
from tests.cloud.ingest.test_delivery import Place


def place(offset: int | None, partition: int = 0, topic: str = "samples") -> Place:
    return Place(topic, partition, offset)


def test_offsets_that_rise_are_proof() -> None:
    proof = Proof()
    assert [proof(place(at)) for at in (0, 1, 7, 8)] == [True] * 4


@pytest.mark.parametrize("offset", [None, 5, 4, 0])
def test_none_or_one_that_its_partition_had_is_not(offset: int | None) -> None:
    proof = Proof()
    assert proof(place(5))
    assert not proof(place(offset))
    assert proof(place(6))


def test_a_first_report_without_a_place_is_not() -> None:
    proof = Proof()
    assert not proof(place(None))
    assert proof(place(0))


def test_partitions_and_topics_are_told_apart() -> None:
    proof = Proof()
    assert proof(place(9))
    assert proof(place(0, partition=1))
    assert proof(place(0, topic="quarantine"))
    assert not proof(place(9))

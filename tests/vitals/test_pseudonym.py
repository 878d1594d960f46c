"""Pseudonyms: the same for ever, and different wherever anything differs."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitals import pseudonym, topics

KEY = bytes(range(32))
TEXT = st.text(max_size=20)


@pytest.mark.parametrize(
    ("made", "golden"),
    [
        (pseudonym.patient_subject(KEY, "SIM000001"), "5b605d197d4d7f5a4db36162828fe3a5"),
        (pseudonym.device_subject(KEY, "edge-1", "bed-01"), "4e12e3cddab0562c0d1efcb4a8c35402"),
        (pseudonym.device_id(KEY, "edge-1", "bed-01"), "9f4c0c334de29546453ac91190c24e79"),
        (pseudonym.blind_index(KEY, "SIM000001"), "8909fcc3a86fba0cddfedde889958c91"),
        (pseudonym.patient_subject(KEY, "Ægir-0001"), "90e2b7d83bfad1c274c37a8988404651"),
    ],
)
def test_pseudonyms_never_change(made: str, golden: str) -> None:
    # Golden: stored records are keyed by these. A change here orphans every patient's data.
    assert made == golden


@given(st.binary(min_size=32, max_size=32), TEXT, TEXT)
def test_pseudonyms_are_32_hex_digits_and_have_a_partition(key: bytes, one: str, two: str) -> None:
    for made in (
        pseudonym.patient_subject(key, one),
        pseudonym.device_subject(key, one, two),
        pseudonym.device_id(key, one, two),
        pseudonym.blind_index(key, one),
    ):
        assert re.fullmatch(r"[0-9a-f]{32}", made)
        assert 0 <= topics.partition_of(made) < topics.SUBJECT_PARTITIONS


@given(TEXT, TEXT, TEXT, TEXT)
def test_edge_and_device_never_run_into_each_other(a: str, b: str, c: str, d: str) -> None:
    same = (a, b) == (c, d)
    assert (pseudonym.device_id(KEY, a, b) == pseudonym.device_id(KEY, c, d)) is same


def test_lengths_are_hashed_with_the_parts() -> None:
    assert pseudonym.device_id(KEY, "ab", "c") != pseudonym.device_id(KEY, "a", "bc")
    assert pseudonym.device_subject(KEY, "", "abc") != pseudonym.device_subject(KEY, "abc", "")


@pytest.mark.parametrize("make", [pseudonym.patient_subject, pseudonym.blind_index])
def test_spaces_around_a_record_number_do_not_make_another_patient(
    make: Callable[[bytes, str], str],
) -> None:
    assert make(KEY, " SIM000001\t") == make(KEY, "SIM000001")
    assert make(KEY, "SIM000001") != make(KEY, "sim000001")


def test_kinds_and_keys_are_kept_apart() -> None:
    made = {
        pseudonym.patient_subject(KEY, "x"),
        pseudonym.blind_index(KEY, "x"),
        pseudonym.device_id(KEY, "x", "x"),
        pseudonym.device_subject(KEY, "x", "x"),
        pseudonym.patient_subject(bytes(32), "x"),
    }
    assert len(made) == 5


def test_subjects_spread_over_the_partitions() -> None:
    counts = [0] * topics.SUBJECT_PARTITIONS
    for number in range(4000):
        counts[topics.partition_of(pseudonym.patient_subject(KEY, f"SIM{number:06d}"))] += 1
    assert min(counts) > 400
    assert max(counts) < 600

"""Sums name what a set forgot."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloud.audit.explain import Differences, explain
from vitals.tally import Tally

frames = st.dictionaries(
    st.integers(0, 2**32 - 1), st.integers(0, 20_000), min_size=2, max_size=60
).map(lambda found: sorted(found.items()))


def tally(records: list[tuple[int, int]]) -> Tally:
    made = Tally()
    for record in records:
        made.add(*record)
    return made


@given(frames)
def test_the_same_frames_do_not_differ(records: list[tuple[int, int]]) -> None:
    assert explain(records, tally(records[::-1])) == Differences()


@given(frames, st.data())
def test_a_run_that_is_lost_or_doubled_is_named(
    records: list[tuple[int, int]], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(records) - 1))
    last = data.draw(st.integers(first, len(records) - 1))
    run = [seq for seq, _ in records[first : last + 1]]
    without = records[:first] + records[last + 1 :]
    assert explain(records, tally(without)) == Differences(lost=run)
    twice = records + records[first : last + 1]
    assert explain(records, tally(twice)) == Differences(doubled=run)


@given(frames, st.data())
def test_one_lost_and_one_doubled_are_both_named(
    records: list[tuple[int, int]], data: st.DataObject
) -> None:
    lost, doubled = data.draw(st.permutations(records))[:2]
    found = [record for record in records if record != lost] + [doubled]
    assert explain(records, tally(found)) == Differences(lost=[lost[0]], doubled=[doubled[0]])


@given(frames, st.data())
def test_a_changed_number_of_readings_is_named(
    records: list[tuple[int, int]], data: st.DataObject
) -> None:
    seq, readings = data.draw(st.sampled_from(records))
    other = data.draw(st.integers(0, 20_000))
    assume(other != readings)
    found = [(s, other if s == seq else r) for s, r in records]
    assert explain(records, tally(found)) == Differences(altered=[seq])


@pytest.mark.parametrize(
    "found",
    [
        [(0, 1), (2, 1), (4, 1)],  # 1 and 3 lost
        [(0, 1), (1, 1), (2, 2), (3, 2), (4, 1)],  # two altered, whose sums fit none of the five
        [],
        [(9, 1), (9, 1), (9, 1), (9, 1), (9, 1), (9, 1), (9, 1)],
    ],
)
def test_what_no_explanation_fits_is_unnamed_and_not_guessed(found: list[tuple[int, int]]) -> None:
    records = [(seq, 1) for seq in range(5)]
    if not found:
        assert explain(records, tally(found)) == Differences(lost=[0, 1, 2, 3, 4])
        return
    assert explain(records, tally(found)).unnamed

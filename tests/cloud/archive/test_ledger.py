"""What a footer says of each epoch: what was taken once, what came again."""

import msgspec

from cloud import records
from cloud.archive.chain import Chain
from cloud.archive.ledger import EpochEntry, Ledger
from tests.cloud.archive.bench import NOW, record, value
from vitals.tally import Tally


def test_what_came_again_is_counted_and_what_was_taken_is_summed() -> None:
    ledger = Ledger()
    assert [ledger.take(record(seq)) for seq in (4, 2, 4)] == [True, True, False]
    (entry,) = ledger.entries()
    assert (entry.records, entry.readings, entry.again, entry.sums) == (2, 2, 1, (6, 20, 6))


def test_a_file_goes_on_where_the_one_before_ended() -> None:
    chain = Chain(0, None)
    for offset, seq in enumerate((0, 1, 1)):
        chain.take(offset, value(seq), NOW)
    state = chain.close().state
    after = Chain(0, state)
    after.take(2, value(1), NOW)  # fetched again: not counted again
    after.take(3, value(0), NOW)
    after.take(4, value(2), NOW)
    (entry,) = after.close().state.ledger
    assert (entry.records, entry.again, entry.sums) == (3, 2, (3, 5, 3))


def test_an_entry_of_an_older_version_is_taken_over_without_sums() -> None:
    old = msgspec.msgpack.encode(["ward-3", "e1", 1, [(1, 3)], 7, 3])
    entry = msgspec.msgpack.decode(old, type=EpochEntry)
    assert (entry.again, entry.sums) == (0, None)
    ledger = Ledger([entry])
    assert not ledger.take(record(2))
    assert ledger.take(record(4))
    (entry,) = ledger.entries()
    assert (entry.readings, entry.records, entry.again, entry.sums) == (8, 4, 1, None)


def test_a_record_of_an_older_ingest_says_nothing_of_its_frame() -> None:
    old = msgspec.to_builtins(record(3), builtin_types=(bytes,))
    del old["frame_readings"]
    assert records.decode_samples(msgspec.msgpack.encode(old)).frame_readings is None


def test_a_tally_does_not_depend_on_the_order() -> None:
    one, other = Tally(), Tally(1, 5, (9, 81, 45))
    for seq, readings in ((2, 3), (9, 5)):
        one.add(seq, readings)
    other.add(2, 3)
    assert one == other
    assert one != Tally(2, 8, (11, 85, 52))

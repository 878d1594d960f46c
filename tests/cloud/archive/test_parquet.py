import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cloud.archive import envelope as envelope_
from cloud.archive.envelope import Envelope, ParquetKeys
from cloud.archive.errors import ArchiveDamaged, ArchiveError, StoreUnavailable
from cloud.archive.ledger import EpochEntry, Ledger
from cloud.archive.parquet import (
    FileState,
    Rows,
    decode_state,
    encode_state,
    file_name,
    first_offset_of,
    open_file,
    read_state,
    write,
)
from tests.cloud.archive.bench import ADA, BOB, DEVICE, NOW, MasterKey, keys, record
from vitals.columns import CHANNEL_MAX, TIME_MS_MAX, check
from vitals.reading import Reading

STATE = FileState(
    1, 0, 40, 50, 3, NOW, NOW + 9, [ADA, BOB], [EpochEntry("w", "e", 2, [(4, 9)], 7, 3)]
)


def made(parquet: ParquetKeys) -> bytes:
    rows = Rows()
    rows.add(
        record(
            7,
            [
                (BOB, Reading(4, 36.9, NOW + 9, NOW, 0, 3, 1, 2)),
                (ADA, Reading(0, None, NOW + 5, NOW + 6, 1)),
                (ADA, Reading(0, 78.0, NOW, NOW + 1)),
            ],
        )
    )
    return write(rows, STATE, parquet)


def test_rows_come_back_sorted_with_scaled_values_and_nulls() -> None:
    parquet = keys()
    table = open_file(io.BytesIO(made(parquet)), parquet).read().to_pylist()
    assert [(r["subject"], r["vital"], r["value"], r["time_ms"]) for r in table] == [
        (ADA, 0, 78, NOW),
        (ADA, 0, None, NOW + 5),
        (BOB, 4, 369, NOW + 9),
    ]
    last = table[2]
    assert (last["site"], last["channel"], last["time_source"], last["status"]) == (3, 1, 2, 0)
    assert (last["device"], last["edge"], last["epoch"], last["seq"]) == (DEVICE, "ward-3", "e1", 7)
    assert table[1]["received_ms"] == NOW + 6


def test_the_state_comes_back_from_the_footer() -> None:
    parquet = keys()
    file = open_file(io.BytesIO(made(parquet)), parquet)
    assert read_state(file, file_name(0, 40), 40) == STATE


def test_without_the_key_the_file_does_not_open() -> None:
    body = made(keys())
    with pytest.raises((OSError, pa.ArrowException)):
        pq.ParquetFile(io.BytesIO(body))
    with pytest.raises(ArchiveError):
        open_file(io.BytesIO(body), keys())


def test_nothing_of_the_rows_or_the_state_stands_in_clear() -> None:
    body = made(keys())
    for word in (ADA, BOB, DEVICE, "ward-3", "subject", "heart", "healthsync.state"):
        assert word.encode() not in body
    assert body[-4:] == b"PARE"  # encrypted footer (Parquet modular encryption)


@pytest.mark.parametrize("at", [30, -60, -300])
def test_a_flipped_byte_is_found(at: int) -> None:
    parquet = keys()
    body = bytearray(made(parquet))
    body[at] ^= 1
    with pytest.raises((ArchiveError, OSError)):
        open_file(io.BytesIO(bytes(body)), parquet).read()


def test_a_file_under_another_name_is_found() -> None:
    parquet = keys()
    file = open_file(io.BytesIO(made(parquet)), parquet)
    with pytest.raises(ArchiveDamaged):
        read_state(file, file_name(0, 41), 41)
    with pytest.raises(ArchiveDamaged):
        read_state(file, file_name(1, 40), 40)


def test_names_sort_as_their_offsets_do() -> None:
    names = [file_name(3, offset) for offset in (0, 9, 10, 99_999, 10**15)]
    assert names == sorted(names)
    assert [first_offset_of(name) for name in names] == [0, 9, 10, 99_999, 10**15]
    with pytest.raises(ArchiveDamaged):
        first_offset_of("samples/v1/p=3/other.parquet")


def test_a_state_that_is_junk_or_of_another_version_is_refused() -> None:
    import msgspec

    assert decode_state(encode_state(STATE)) == STATE
    for junk in (b"", b"!!", encode_state(STATE)[:-8]):
        with pytest.raises(ArchiveDamaged):
            decode_state(junk)
    with pytest.raises(ArchiveDamaged):
        decode_state(encode_state(msgspec.structs.replace(STATE, version=2)))


def test_the_largest_numbers_that_pass_the_check_fit_the_columns() -> None:
    big = Reading(0, float(2**31 - 1), TIME_MS_MAX, TIME_MS_MAX, 5, 8, CHANNEL_MAX, 2)
    whole = record(2**32 - 1, [(ADA, big)])
    check(whole.columns)
    rows = Rows()
    rows.add(whole)
    (row,) = rows.table().to_pylist()
    assert (row["value"], row["channel"], row["time_ms"]) == (2**31 - 1, CHANNEL_MAX, TIME_MS_MAX)
    assert row["seq"] == 2**32 - 1


def test_data_keys_have_256_bits_and_each_file_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped: list[bytes] = []
    original = Envelope.wrap

    def wrap(self: Envelope, key: bytes, name: str) -> bytes:
        wrapped.append(key)
        return original(self, key, name)

    monkeypatch.setattr(Envelope, "wrap", wrap)
    parquet = keys()
    made(parquet)
    made(parquet)
    assert [len(key) for key in wrapped] == [32, 32]
    assert wrapped[0] != wrapped[1]


def test_many_files_cost_one_call_to_kms() -> None:
    master = MasterKey()
    parquet = keys(master)
    for body in [made(parquet) for _ in range(5)]:
        open_file(io.BytesIO(body), parquet).read()
    assert (master.encrypted, master.decrypted) == (1, 1)


def test_a_key_encryption_key_is_retired_by_time() -> None:
    master, now = MasterKey(), [NOW]
    envelope = Envelope(master, lambda n: b"r" * n, lambda: now[0])
    first = envelope.wrap(b"k" * 32, "key-1")
    now[0] += envelope_.KEK_LIFE_MS
    second = envelope.wrap(b"k" * 32, "key-1")
    assert master.encrypted == 2
    assert envelope.unwrap(first, "key-1") == envelope.unwrap(second, "key-1") == b"k" * 32


@pytest.mark.parametrize("wrapped", ["", "!", "AQAA", "AgAA"])
def test_a_wrapped_key_that_is_junk_is_refused(wrapped: str) -> None:
    with pytest.raises(ArchiveDamaged):
        Envelope(MasterKey(), lambda n: b"r" * n, lambda: NOW).unwrap(wrapped, "key-1")


def test_a_wrapped_key_is_bound_to_its_master_key() -> None:
    envelope = Envelope(MasterKey(), lambda n: b"r" * n, lambda: NOW)
    with pytest.raises(ArchiveDamaged):
        envelope.unwrap(envelope.wrap(b"k" * 32, "key-1"), "key-2")


def test_kms_being_down_is_told_as_such() -> None:
    master = MasterKey()
    master.down = True
    with pytest.raises(StoreUnavailable):
        made(keys(master))


def test_the_ledger_takes_a_frame_once_and_survives_its_file() -> None:
    ledger = Ledger()
    assert [ledger.take(record(seq)) for seq in (0, 1, 1, 5, 0)] == [True, True, False, True, False]
    again = Ledger(ledger.entries())
    assert not again.take(record(5))
    assert again.take(record(4))
    (entry,) = again.entries()
    assert (entry.readings, entry.records, entry.ranges) == (4, 4, [(0, 1), (4, 5)])


def test_what_lies_below_the_floor_counts_as_seen_but_a_frame_never_hides_itself() -> None:
    ledger = Ledger()
    assert ledger.take(record(10, floor=99))
    assert not ledger.take(record(3))
    assert not ledger.take(record(10))
    assert ledger.take(record(11))

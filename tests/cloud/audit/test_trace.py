"""One frame through every stage."""

import pytest

from cloud import records
from cloud.audit.evidence import EpochName
from cloud.audit.since import FrameName
from cloud.audit.trace import (
    InArchive,
    InKafka,
    InSpool,
    Place,
    as_text,
    in_archive,
    in_detect,
    in_quarantine,
    in_samples,
    judge,
    places,
)
from tests.cloud.archive.bench import MemoryStore, keys, record
from tests.cloud.audit.stages import taken
from tests.cloud.audit.test_readers import Message

NAME = FrameName(EpochName("ward-3", "e" * 32), 7)
ACKED = InSpool("acknowledged")
KAFKA = [InKafka("samples", 1, 40, 3, 5), InKafka("samples", 2, 8, 2, 5)]
DETECT = {1: True, 2: True}
ARCHIVE = [InArchive(1, "f1", 3), InArchive(2, "f2", 2)]


def verdict(
    spool: InSpool = ACKED,
    kafka: list[InKafka] = KAFKA,
    detect: dict[int, bool] = DETECT,
    archive: list[InArchive] = ARCHIVE,
) -> str:
    return judge(NAME, spool, kafka, detect, archive).verdict


def test_a_frame_that_is_everywhere_agrees() -> None:
    assert verdict() == "agrees"
    assert verdict(spool=InSpool("no spool listed")) == "agrees"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"spool": InSpool("stored", 5)}, "waiting"),
        ({"kafka": [], "detect": {}, "archive": []}, "differs"),
        ({"spool": InSpool("stored", 5), "kafka": [], "detect": {}, "archive": []}, "waiting"),
        ({"spool": InSpool("unsound"), "kafka": [], "detect": {}, "archive": []}, "differs"),
        ({"kafka": KAFKA[:1], "detect": {1: True}, "archive": ARCHIVE[:1]}, "differs"),
        ({"detect": {1: True, 2: False}}, "waiting"),
        ({"archive": [ARCHIVE[0], InArchive(2, "", 0)]}, "waiting"),
        ({"archive": [ARCHIVE[0], InArchive(2, "f2", 1)]}, "differs"),
        ({"archive": [ARCHIVE[0], InArchive(2, "f2", 0)]}, "differs"),
        ({"kafka": [InKafka("samples", 1, 40, 4, 5), KAFKA[1]]}, "differs"),
    ],
)
def test_what_is_missing_is_waited_for_or_wrong(changed: dict[str, object], expected: str) -> None:
    assert verdict(**changed) == expected  # type: ignore[arg-type]


def test_a_rejected_input_ends_in_quarantine() -> None:
    kafka = [InKafka("quarantine", 0, 4, 2)]
    assert verdict(kafka=kafka, detect={}, archive=[]) == "agrees"


def test_records_of_the_frame_are_found_by_key_and_headers() -> None:
    value = records.encode(record(7))
    key = f"{NAME}/1"
    messages = [Message(key, value, 1), Message(f"{NAME}1/1", value, 1), Message(key, b"junk", 1)]
    assert in_samples(messages, NAME) == [InKafka("samples", 1, 41, 1)]
    headers = [("kind", b"rejects"), ("count", b"3"), ("epoch", b"e" * 32), ("seq", b"7")]
    sealed = [Message("ward-3", b"sealed", 0, headers), Message("ward-4", b"sealed", 0, headers)]
    assert in_quarantine(sealed, NAME) == [InKafka("quarantine", 0, 40, 3)]


def test_a_record_that_came_again_is_followed_once() -> None:
    again = [*KAFKA, InKafka("samples", 1, 90, 3, 5), InKafka("quarantine", 0, 1, 1)]
    assert places(again) == [Place(1, 40, 3), Place(2, 8, 2)]
    assert verdict(kafka=again[:3]) == "agrees"


def test_detect_knows_by_number_and_below_its_floor() -> None:
    at = [Place(1, 40, 3), Place(2, 8, 2), Place(3, 1, 1)]
    held = taken([(1, 7, 3), (2, 9, 2)])
    held.parts[2].seen.raise_floor(8)
    assert in_detect({NAME.epoch: held}, NAME, at) == {1: True, 2: True, 3: False}
    assert in_detect({}, NAME, at[:1]) == {1: False}


def test_the_archives_file_is_found_by_the_offset() -> None:
    from cloud.archive.chain import Chain
    from cloud.archive.parquet import write
    from cloud.archive.reader import Archive
    from tests.cloud.archive.bench import NOW, value

    store, parquet = MemoryStore(), keys()
    chain, names = Chain(0, None), []
    for offset, seq in enumerate((5, 7, 8, 9)):
        chain.take(offset, value(seq), NOW)
        if offset % 2:
            closed = chain.close()
            store.put(closed.name, write(closed.rows, closed.state, parquet))
            names.append(closed.name)
            chain.put()
    archive = Archive(store, parquet)
    try:
        name = FrameName(EpochName("ward-3", "e1"), 7)
        at = [Place(0, 1, 1), Place(0, 3, 1), Place(0, 4, 1)]
        assert in_archive(archive, name, at) == [
            InArchive(0, names[0], 1),
            InArchive(0, names[1], 0),
            InArchive(0, "", 0),
        ]
    finally:
        archive.close()


def test_the_text_has_a_line_a_stage() -> None:
    text = as_text(judge(NAME, InSpool("stored", 5), KAFKA, {1: True, 2: False}, ARCHIVE))
    assert text.splitlines() == [
        f"frame    {NAME}",
        "spool    stored, 5 readings",
        "kafka    samples partition 1 offset 40: 3 readings of 5",
        "kafka    samples partition 2 offset 8: 2 readings of 5",
        "detect   partition 1: taken",
        "detect   partition 2: not taken yet",
        "archive  partition 1: 3 rows in f1",
        "archive  partition 2: 2 rows in f2",
        "waiting",
    ]
    assert "kafka    nothing" in as_text(judge(NAME, ACKED, [], {}, []))

"""Samples records for tests: a small ward, one frame after another."""

import random

from cloud.records import SamplesRecord
from vitals.codes import BY_NAME
from vitals.columns import Source, pack
from vitals.reading import Reading
from vitals.topics import partition_of

T0 = 1_795_428_000_000
EDGE, EPOCH = "edge-1", "ab" * 16


def subject_in(partition: int, nth: int = 0) -> str:
    """Return a subject that lies in a partition, each in another chunk of its memory."""
    return f"{partition + 8 * nth:08x}{nth:04x}" + "0" * 20


def device(nth: int) -> str:
    return f"{nth:032x}"


def reading(
    vital: str, value: float | None, time_ms: int, status: int = 0, site: int = 0, channel: int = 0
) -> Reading:
    return Reading(BY_NAME[vital].index, value, time_ms, time_ms + 5, status, site, channel)


def record(
    seq: int,
    rows: list[tuple[str, Reading]],
    *,
    floor: int = 0,
    ingested_ms: int | None = None,
    edge: str = EDGE,
    epoch: str = EPOCH,
) -> SamplesRecord:
    """Return the record of one frame: (subject, reading) rows of one partition."""
    subjects = sorted({subject for subject, _ in rows})
    sources = [Source(device(1000 + at), subject) for at, subject in enumerate(subjects)]
    columns = pack(sources, [(subjects.index(subject), reading) for subject, reading in rows])
    newest = max((r.time_ms for _, r in rows), default=T0)
    return SamplesRecord(
        edge, epoch, seq, floor, newest + 100 if ingested_ms is None else ingested_ms, columns
    )


def ward(seconds: int, beds: int, seed: int = 7) -> list[tuple[int, SamplesRecord]]:
    """Return (partition, record) of a ward at 1 Hz whose patients desaturate now and then."""
    rng = random.Random(seed)
    subjects = [subject_in(at % 8, at // 8) for at in range(beds)]
    spo2 = dict.fromkeys(subjects, 96)
    out = []
    for second in range(seconds):
        at = T0 + second * 1000
        by_partition: dict[int, list[tuple[str, Reading]]] = {}
        for subject in subjects:
            spo2[subject] = max(80, min(99, spo2[subject] + rng.choice((-2, -1, 0, 1, 1))))
            rows = by_partition.setdefault(partition_of(subject), [])
            rows.append((subject, reading("spo2", spo2[subject], at)))
            rows.append((subject, reading("heart_rate", rng.randrange(60, 140), at)))
            if second % 60 == 0:
                rows.append((subject, reading("nibp_systolic", 120, at)))
                rows.append((subject, reading("nibp_diastolic", 80, at)))
        floor = max(0, second - 20)
        out += [(p, record(second, rows, floor=floor)) for p, rows in sorted(by_partition.items())]
    return out

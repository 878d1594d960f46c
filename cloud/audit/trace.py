"""One frame through every stage: what ``--frame`` prints.

Its place in a consumer is read from the partitions that Kafka has it in. Messages, detect's state
and the archive are given.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from cloud import records
from cloud.archive.errors import ArchiveError
from cloud.archive.reader import Archive
from cloud.audit.errors import Unreachable
from cloud.audit.evidence import EpochName, Held
from cloud.audit.since import FrameName
from vitals.errors import UNREADABLE


class InSpool(msgspec.Struct, frozen=True):
    """What a gateway's spool says of the frame."""

    state: str
    """stored, acknowledged, unsound, not here (never, or forgotten), or no spool listed."""
    readings: int | None = None
    """Readings, or rejected inputs, while it is stored."""


class InKafka(msgspec.Struct, frozen=True):
    """One record of the frame."""

    topic: str
    partition: int
    offset: int
    readings: int
    """Of the quarantine topic: rejected inputs."""
    frame_readings: int | None = None


class InArchive(msgspec.Struct, frozen=True):
    """Where the archive has a part of the frame."""

    partition: int
    file: str
    """Empty: not in a file."""
    rows: int


class Trace(msgspec.Struct, frozen=True):
    """A frame at every stage."""

    frame: str
    spool: InSpool
    kafka: list[InKafka]
    detect: dict[int, bool]
    """Partition -> taken."""
    archive: list[InArchive]
    verdict: str
    """agrees, waiting or differs."""


class Place(NamedTuple):
    """A partition's first record of the frame, and its readings."""

    partition: int
    offset: int
    readings: int


def in_samples(messages: Iterable[Any], name: FrameName) -> list[InKafka]:
    """Return the frame's records of the samples topic, those that came again included."""
    found = []
    begin = f"{name}/".encode()
    for message in messages:
        if not (message.key() or b"").startswith(begin):
            continue
        try:
            record = records.decode_samples(message.value() or b"")
        except UNREADABLE:
            continue
        found.append(
            InKafka(
                "samples",
                message.partition(),
                message.offset(),
                len(record.columns),
                record.frame_readings,
            )
        )
    return found


def in_quarantine(messages: Iterable[Any], name: FrameName) -> list[InKafka]:
    """Return the frame's records of the quarantine topic."""
    found = []
    for message in messages:
        headers = {key: (value or b"").decode() for key, value in message.headers() or ()}
        edge = (message.key() or b"").decode("utf-8", "replace")
        if (edge, headers.get("epoch"), headers.get("seq")) == (*name.epoch, str(name.seq)):
            count = int(headers.get("count", "0"))
            found.append(InKafka("quarantine", message.partition(), message.offset(), count))
    return found


def places(kafka: list[InKafka]) -> list[Place]:
    """Return the first record of each partition of the samples topic."""
    first: dict[int, Place] = {}
    for one in kafka:
        if one.topic == "samples":
            first.setdefault(one.partition, Place(one.partition, one.offset, one.readings))
    return list(first.values())


def in_detect(detect: dict[EpochName, Held], name: FrameName, at: list[Place]) -> dict[int, bool]:
    """Return whether detect has taken each part."""
    parts = detect.get(name.epoch, Held()).parts
    return {
        place.partition: place.partition in parts and name.seq in parts[place.partition].seen
        for place in at
    }


def in_archive(archive: Archive, name: FrameName, at: list[Place]) -> list[InArchive]:
    """Return the file of each part; raises Unreachable."""
    try:
        return [
            InArchive(
                place.partition,
                *archive.find(place.partition, place.offset, *name.epoch, name.seq),
            )
            for place in at
        ]
    except ArchiveError as error:
        raise Unreachable("archive", str(error)) from error


def judge(
    name: FrameName,
    spool: InSpool,
    kafka: list[InKafka],
    detect: dict[int, bool],
    archive: list[InArchive],
) -> Trace:
    """Return the trace with its verdict."""
    at = places(kafka)
    whole = next((one.frame_readings for one in kafka if one.frame_readings is not None), None)
    readings = {place.partition: place.readings for place in at}
    wrong = (spool.state == "acknowledged" and not kafka) or spool.state == "unsound"
    if at and whole is not None and sum(readings.values()) != whole:
        wrong = wrong or spool.state == "acknowledged" or sum(readings.values()) > whole
    wrong = wrong or any(one.file and one.rows != readings[one.partition] for one in archive)
    here = all(detect.values()) and all(one.rows == readings[one.partition] for one in archive)
    done = bool(kafka) and here and spool.state != "stored"
    verdict = "differs" if wrong else "agrees" if done else "waiting"
    return Trace(str(name), spool, kafka, detect, archive, verdict)


def as_text(trace: Trace) -> str:
    """Return one line a stage, and the verdict."""
    held = "" if trace.spool.readings is None else f", {trace.spool.readings} readings"
    text = [f"frame    {trace.frame}", f"spool    {trace.spool.state}{held}"]
    text += [
        f"kafka    {one.topic} partition {one.partition} offset {one.offset}:"
        f" {one.readings} readings"
        + ("" if one.frame_readings is None else f" of {one.frame_readings}")
        for one in trace.kafka
    ] or ["kafka    nothing"]
    text += [
        f"detect   partition {partition}: {'taken' if taken else 'not taken yet'}"
        for partition, taken in trace.detect.items()
    ]
    text += [
        f"archive  partition {one.partition}: "
        + (f"{one.rows} rows in {one.file}" if one.file else "not in a file yet")
        for one in trace.archive
    ]
    return "\n".join([*text, trace.verdict])

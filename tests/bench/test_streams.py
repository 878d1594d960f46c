"""The streams bench: its data are what ingest writes, its comparison sees what differs."""

import collections
import json
import random
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from bench import streams, streams_kafka
from bench.streams_data import (
    BACKLOG_AGE_MS,
    FOLDED_S,
    IN_FLIGHT,
    PROBE_DELAY_MS,
    VITALS_SAID,
    WINDOW_MS,
    Keyed,
    Plan,
    backlog,
    live,
    probe,
    probed_us,
)
from bench.streams_policy import bundles
from bench.streams_sides import write_templates
from cloud.detect.made import Message
from cloud.fhir.ids import instant
from cloud.records import SamplesRecord, decode_samples
from vitals import columns as columns_of
from vitals.codes import BY_NAME
from vitals.topics import partition_of

END_MS = 1_795_428_000_000
PLAN = Plan(90, 60, END_MS)
"""Two whole gateways and one of ten beds."""

Row = tuple[str, int, int | None, int]


def decoded(records: list[Keyed]) -> list[SamplesRecord]:
    return [decode_samples(record.value) for record in records]


def rows(records: list[SamplesRecord], back_ms: int = 0) -> "collections.Counter[Row]":
    found: collections.Counter[Row] = collections.Counter()
    for record in records:
        part = record.columns
        for source, vital, value, time_ms in zip(
            part.source, part.vital, part.value, accumulate(part.time), strict=True
        ):
            found[part.sources[source].subject, vital, value, time_ms + back_ms] += 1
    return found


@pytest.mark.parametrize("shape", [live, backlog])
def test_every_sample_is_there_once_in_records_that_detect_takes(
    shape: Callable[[Plan], Iterator[Keyed]],
) -> None:
    records = list(shape(PLAN))
    seen = set()
    for keyed, record in zip(records, decoded(records), strict=True):
        columns_of.check(record.columns)
        assert {partition_of(one.subject) for one in record.columns.sources} == {keyed.partition}
        seen.add((record.edge, record.epoch, record.seq, keyed.partition))
        assert record.floor == max(0, record.seq - IN_FLIGHT)
    assert len(seen) == len(records)
    found = rows(decoded(records))
    assert found.total() == PLAN.samples * len(VITALS_SAID)
    assert set(found.values()) == {1}
    assert {vital for _, vital, _, _ in found} == {BY_NAME[name].index for name in VITALS_SAID}


def test_the_same_plan_gives_the_same_bytes_to_every_contender() -> None:
    assert list(live(PLAN)) == list(live(PLAN))
    assert list(backlog(PLAN)) == list(backlog(PLAN))


def test_both_shapes_are_the_same_data() -> None:
    assert rows(decoded(list(live(PLAN)))) == rows(decoded(list(backlog(PLAN))), BACKLOG_AGE_MS)


def test_a_live_frame_is_one_commit_window() -> None:
    spans: dict[tuple[str, int], list[int]] = {}
    due = []
    for keyed in live(PLAN):
        record = decode_samples(keyed.value)
        spans.setdefault((record.edge, record.seq), []).extend(record.columns.times_ms())
        due.append(keyed.due_ms)
    assert max(max(times) - min(times) for times in spans.values()) == WINDOW_MS
    assert due == sorted(due)


def test_a_backlogs_frame_holds_a_folded_span_by_bed_and_time() -> None:
    for keyed in backlog(PLAN):
        record = decode_samples(keyed.value)
        part = record.columns
        assert list(part.source) == sorted(part.source)
        by_source = collections.Counter(part.source)
        assert set(by_source.values()) <= {5 * FOLDED_S, 5 * (PLAN.seconds - FOLDED_S)}
        assert max(part.times_ms()) <= record.ingested_ms - BACKLOG_AGE_MS


def test_some_are_ill_and_most_are_not() -> None:
    low = {
        subject
        for subject, vital, value, _ in rows(decoded(list(backlog(Plan(1000, 60, END_MS)))))
        if (vital == BY_NAME["spo2"].index and value is not None and value < 90)
        or (vital == BY_NAME["heart_rate"].index and value is not None and value > 130)
    }
    assert 5 <= len(low) <= 50


def test_a_probe_says_when_it_was_sent_and_that_it_has_been_low_long_enough() -> None:
    now_us = END_MS * 1000 + 123
    keyed = probe(random.Random(1), "ab" * 16, 3, now_us)
    record = decode_samples(keyed.value)
    (source,) = record.columns.sources
    assert probed_us(source.subject) == now_us
    assert partition_of(source.subject) == keyed.partition
    assert record.columns.times_ms() == [END_MS - PROBE_DELAY_MS, END_MS]


def test_the_peers_pieces_give_our_bundle(tmp_path: Path) -> None:
    path = tmp_path / "templates"
    write_templates(path)
    head, tail, *lines = path.read_text().splitlines()
    kinds = [line.split("\t") for line in lines]
    for keyed in list(live(Plan(3, 2, END_MS))):
        record = decode_samples(keyed.value)
        for at, source in enumerate(record.columns.sources):
            entries = []
            for origin, vital, value, time_ms in zip(
                record.columns.source,
                record.columns.vital,
                record.columns.value,
                record.columns.times_ms(),
                strict=True,
            ):
                if origin != at or value is None:
                    continue
                (kind,) = [
                    kind
                    for kind in kinds
                    if int(kind[0]) == vital and int(kind[3]) <= value <= int(kind[4])
                ]
                _, name, decimals, _, _, slots, first, *pieces = kind
                said = {
                    "i": f"{source.subject}.{name}.{base36(time_ms)}",
                    "s": source.subject,
                    "t": instant(time_ms),
                    "d": source.device,
                    "v": f"{value / 10:.1f}" if int(decimals) else str(value),
                }
                parts = [said[s] + p for s, p in zip(slots, pieces, strict=True)]
                entries.append(first + "".join(parts))
            whole = head + ",".join(entries) + tail
            made = dict(bundles(record))
            assert made[source.subject.encode()] == whole.encode()


def base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


class Wrote:
    """Stands for what a contender left in ``fhir``."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages

    def committed(self, topic: str) -> Iterator[tuple[bytes, bytes]]:
        assert topic == "fhir"
        yield from self._messages


def right() -> tuple[list[Keyed], list[Message]]:
    records = list(live(Plan(3, 1, END_MS)))
    return records, [Message(*one) for record in decoded(records) for one in bundles(record)]


def test_the_right_bundles_differ_in_nothing_in_any_spelling() -> None:
    records, wrote = right()
    assert streams.differences(Wrote(wrote), records) == []  # type: ignore[arg-type]
    spelled = [Message(one.key, json.dumps(json.loads(one.value)).encode()) for one in wrote]
    assert streams.differences(Wrote(spelled), records) == []  # type: ignore[arg-type]


def test_a_missing_a_doubled_and_a_changed_bundle_are_seen() -> None:
    records, wrote = right()
    assert streams.differences(Wrote(wrote[1:]), records)  # type: ignore[arg-type]
    assert streams.differences(Wrote([*wrote, wrote[0]]), records)  # type: ignore[arg-type]
    changed = Message(wrote[0].key, wrote[0].value.replace(b'"final"', b'"amended"', 1))
    told = streams.differences(Wrote([changed, *wrote[1:]]), records)  # type: ignore[arg-type]
    assert any("status" in line and "amended" in line for line in told)


class Running:
    """Stands for a contender's process; None while it runs."""

    def __init__(self, returncode: int | None = None) -> None:
        self.returncode = returncode

    def poll(self) -> int | None:
        return self.returncode


@pytest.mark.system
def test_a_load_is_waited_for_to_its_last_record() -> None:
    records = list(backlog(Plan(40, 60, END_MS)))
    with streams_kafka.running() as kafka:
        for _ in range(2):
            reader = Consumer(
                {
                    "bootstrap.servers": kafka.bootstrap,
                    "group.id": "test",
                    "isolation.level": "read_committed",
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                }
            )
            with kafka.loaded(records):
                pass
            with pytest.raises(TimeoutError):
                kafka.wait("test", [Running()], 0.2)
            with pytest.raises(RuntimeError, match="ended with 3"):
                kafka.wait("test", [Running(3)], 5.0)
            found = 0
            reader.subscribe(["samples"])
            ends = {}
            for _ in range(300):
                for message in reader.consume(1000, 0.1):
                    if message.error() is None:
                        found += 1
                        ends[message.partition()] = message.offset() + 1
                if found == len(records):
                    break
            assert found == len(records)
            *most, last = [TopicPartition("samples", at, end) for at, end in ends.items()]
            reader.commit(offsets=most, asynchronous=False)
            with pytest.raises(TimeoutError):
                kafka.wait("test", [Running()], 0.2)
            reader.commit(offsets=[last], asynchronous=False)
            kafka.wait("test", [Running()], 5.0)
            reader.close()
        assert sum(1 for _ in kafka.committed("samples")) == 2 * len(records)

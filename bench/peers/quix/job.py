"""The job of `bench.streams` on Quix Streams: ``job.py BOOTSTRAP GROUP STATE_DIR TEMPLATES``.

Runs in an environment of its own (requirements.txt), so nothing of ours is imported. Frames once,
five Observations a sample, two limits a subject, exactly once. Output goes
to the partition that librdkafka picks by the key.

Quix keys state by the message's key, which here is a frame; a subject's state is reached through
the same transaction under the subject as prefix, which spares the peer a topic for repartitioning.
"""

import hashlib
import json
import sys
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from quixstreams import Application  # type: ignore[import-not-found]  # of its own environment
from quixstreams.models.serializers import Serializer  # type: ignore[import-not-found]  # as above

DELAY_MS, CLEAR_MS, GAP_MS, LATE_MS = 10_000, 5_000, 30_000, 60_000
COMMIT_S = 0.1
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Source(msgspec.Struct, gc=False):
    device: str
    subject: str


class Columns(msgspec.Struct):
    sources: list[Source]
    source: list[int]
    vital: list[int]
    value: list[int]
    time: list[int]


class Record(msgspec.Struct):
    edge: str
    epoch: str
    seq: int
    floor: int
    ingested_ms: int
    columns: Columns


class Rule(NamedTuple):
    name: str
    shown: str
    vital: int
    low: bool
    limit: int
    clear: int
    priority: str


class Out(NamedTuple):
    topic: str
    key: bytes
    value: bytes


RULES = {
    0: Rule("heart_rate.high", "HR", 0, False, 130, 125, "medium"),
    2: Rule("spo2.low", "SpO2", 2, True, 90, 91, "high"),
}


class Value(Serializer):  # type: ignore[misc]  # Serializer is of that environment
    """Writes the value of an `Out`."""

    def __call__(self, value: Out, ctx: Any) -> bytes:  # noqa: ARG002 - Quix calls it so
        return value.value


class Templates:
    """The pieces of a Bundle's entry by vital and value; the file is written by the bench."""

    def __init__(self, path: Path) -> None:
        head, tail, *lines = path.read_text().splitlines()
        self.head, self.tail = head, tail
        self.by_value: dict[tuple[int, int], tuple[str, int, str, list[str]]] = {}
        for line in lines:
            vital, name, decimals, first, last, slots, *pieces = line.split("\t")
            for value in range(int(first), int(last) + 1):
                self.by_value[int(vital), value] = (f".{name}.", int(decimals), slots, pieces)


@lru_cache(8192)
def base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = DIGITS[digit] + digits
    return digits


@lru_cache(8192)
def second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def step(
    rule: Rule, state: list[int], subject: str, value: int, time: int, ingested: int
) -> bytes | None:
    """Take one reading into ``state`` (last, began, raised, since, worst)."""
    last, began, raised, since, worst = state
    if time < last:
        return None
    gap = last != 0 and time - last > GAP_MS
    breach = value < rule.limit if rule.low else value > rule.limit
    told, ended = "", 0
    if not raised:
        if not breach:
            began = worst = 0
        else:
            if not began or gap:
                began, worst = time, value
            worst = min(worst, value) if rule.low else max(worst, value)
            if time - began >= DELAY_MS:
                raised, told = time, "active"
    elif breach:
        since = 0
        if value < worst if rule.low else value > worst:
            worst, told = value, "active"
    elif value < rule.clear if rule.low else value > rule.clear:
        since = 0
    else:
        since = time if not since or gap else since
        if time - since >= CLEAR_MS:
            told, ended = "ended", since
    alert = None
    if told:
        named = f"episode/1/{subject}/threshold/{rule.name}/0/{began}"
        event = {
            "episode": hashlib.sha256(named.encode()).hexdigest()[:32],
            "subject": subject,
            "kind": "threshold",
            "vital": rule.name.partition(".")[0],
            "priority": rule.priority,
            "state": told,
            "text": f"{rule.shown} {worst}{'<' if rule.low else '>'}{rule.limit}",
            "limit": rule.limit,
            "worst": worst,
            "began_ms": began,
            "raised_ms": raised,
            "at_ms": time,
            "policy": "default-1",
        }
        if ended:
            event["ended_ms"] = ended
        if ingested - time > LATE_MS:
            event["retrospective"] = True
        alert = json.dumps(event).encode()
    if ended:
        began = raised = since = worst = 0
    state[:] = last, began, raised, since, worst
    state[0] = time
    return alert


class Job:
    """Takes records."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._decode = msgspec.msgpack.Decoder(Record).decode

    def take(self, value: bytes, state: Any) -> list[Out]:
        """Return what one record gives; ``state`` is of the record's partition."""
        record = self._decode(value)
        transaction = state._transaction
        if self._seen(record, transaction):
            return []
        columns = record.columns
        rows: list[list[tuple[int, int, int]]] = [[] for _ in columns.sources]
        for at, vital, number, time in zip(
            columns.source, columns.vital, columns.value, accumulate(columns.time), strict=True
        ):
            rows[at].append((vital, number, time))
        out: list[Out] = []
        for source, mine in zip(columns.sources, rows, strict=True):
            self._judge(source.subject, mine, record.ingested_ms, transaction, out)
            out.append(Out("fhir", source.subject.encode(), self._bundle(source, mine)))
        return out

    @staticmethod
    def _seen(record: Record, transaction: Any) -> bool:
        frames = transaction.as_state(prefix=b"frames")
        name = f"{record.edge}/{record.epoch}"
        floor, *above = frames.get(name) or [0]
        if record.seq < floor or record.seq in above:
            return True
        floor = max(floor, record.floor)
        frames.set(name, [floor, *(seq for seq in (*above, record.seq) if seq >= floor)])
        return False

    @staticmethod
    def _judge(
        subject: str,
        rows: list[tuple[int, int, int]],
        ingested: int,
        transaction: Any,
        out: list[Out],
    ) -> None:
        kept = transaction.as_state(prefix=subject.encode())
        states = kept.get("conditions") or {"0": [0] * 5, "2": [0] * 5}
        for vital, number, time in rows:
            rule = RULES.get(vital)
            if rule is not None:
                alert = step(rule, states[str(vital)], subject, number, time, ingested)
                if alert is not None:
                    episode = json.loads(alert)["episode"]
                    out.append(Out("alerts", f"{subject}/{episode}".encode(), alert))
        kept.set("conditions", states)

    def _bundle(self, source: Source, rows: list[tuple[int, int, int]]) -> bytes:
        subject, device = source.subject, source.device
        entries = []
        for vital, number, time in rows:
            name, decimals, slots, (first, *pieces) = self._templates.by_value[vital, number]
            said = {
                "i": f"{subject}{name}{base36(time)}",
                "s": subject,
                "t": f"{second(time // 1000)}.{time % 1000:03}Z",
                "d": device,
                "v": f"{number / 10:.1f}" if decimals else str(number),
            }
            parts = [first]
            for slot, piece in zip(slots, pieces, strict=True):
                parts += (said[slot], piece)
            entries.append("".join(parts))
        return (self._templates.head + ",".join(entries) + self._templates.tail).encode()


def main() -> None:
    """Run until SIGTERM."""
    bootstrap, group, folder, templates = sys.argv[1:5]
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=COMMIT_S,
        consumer_poll_timeout=0.05,
        state_dir=folder,
        loglevel="INFO",
        consumer_extra_config={
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 65_536,
            "group.instance.id": group,
            "session.timeout.ms": 10_000,
        },
        producer_extra_config={
            "compression.type": "lz4",
            "linger.ms": 1,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 524_288,
        },
    )
    job = Job(Templates(Path(templates)))
    samples = app.topic("samples", value_deserializer="bytes", key_deserializer="bytes")
    outs = {
        name: app.topic(name, value_serializer=Value(), key_serializer="bytes")
        for name in ("fhir", "alerts")
    }
    made = app.dataframe(samples).apply(job.take, stateful=True, expand=True)
    for name, topic in outs.items():
        mine = made.filter(lambda out, name=name: out.topic == name)
        mine.to_topic(topic, key=lambda out: out.key)
    app.run()


if __name__ == "__main__":
    main()

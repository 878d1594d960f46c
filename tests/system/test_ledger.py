"""The ledger of a running ward: it agrees, and names by number whatever is done to it by hand."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from cloud import records
from cloud.audit.config import AuditConfig
from cloud.audit.topics import TopicReader
from cloud.ingest.config import IngestConfig
from cloud.settings import kafka_config
from edge.spool import Ranges, Spool
from healthsync.runtime import config
from tests.system.box import HEALTHSYNC, ROOT, Box, until
from vitals import topics
from vitals.epoch import WrappedEpoch

pytestmark = pytest.mark.system

BEDS = 6
LINES = 10


class Ward:
    """A onebox of its own: what is done to its ledger stays done."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.config = Path(box.info["audit_config"])
        self.settings = config.load(self.config, AuditConfig)
        self.spool = self.settings.edge[0].spool

    def audit(self, *options: str, at: Path | None = None) -> tuple[int, Any]:
        """Return exit code and JSON of an audit, with the configuration ``at``."""
        done = subprocess.run(
            [*HEALTHSYNC, "audit", "--config", str(at or self.config), "--json", *options],
            capture_output=True,
            text=True,
            timeout=150,
            cwd=ROOT,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def ask(self, query: str) -> list[Any]:
        db = sqlite3.connect(f"{self.spool.as_uri()}?mode=ro", uri=True)
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()

    def samples(self) -> list[Any]:
        reader = TopicReader(self.settings.kafka, topics.SAMPLES)
        try:
            return list(reader.new())
        finally:
            reader.close()

    def produce(self, partition: int, key: bytes, value: bytes) -> None:
        """Write into the samples topic as ingest."""
        ingest = config.load(self.config.parent / "ingest-1.toml", IngestConfig)
        producer = Producer(kafka_config(ingest.kafka))
        producer.produce(topics.SAMPLES.name, value, key, partition)
        assert producer.flush(20) == 0


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    box = Box(Path(tmp_path_factory.mktemp("ledger")) / "run")
    try:
        for number in range(LINES):
            for bed in range(BEDS):
                line = f"device=led-{bed} mrn=LED{bed:06} heart_rate={70 + number} oxygen=97%"
                assert box.say(f"reply=yes {line}\n").strip() == "ok"
        assert box.say("device=led-0 reply=yes heart_rate=abc\n").startswith("rejected")
        yield Ward(box)
    finally:
        box.stop()


def test_a_ward_at_rest_agrees_at_every_stage(ward: Ward) -> None:
    code, said = ward.audit("--wait", "60")
    assert (code, said["verdict"]) == (0, "agrees"), said
    (line,) = said["lines"]
    expected = BEDS * LINES * 2
    for stage in ("spooled", "sent", "acknowledged", "samples", "detect", "archive"):
        assert line[stage] == expected, stage
    assert (line["received_lines"], line["rejected"]) == (BEDS * LINES + 1, 1)
    assert line["rejected"] == sum(line["rejected_by"].values())
    assert (line["rejects"], line["quarantine"], line["waiting"]) == (1, 1, 0)
    assert ward.ask("SELECT count(*) FROM acked") == [(1,)]


def test_a_frame_is_followed_from_the_spool_to_its_file(ward: Ward) -> None:
    message = ward.samples()[0]
    record = records.decode_samples(message.value())
    name = f"{record.edge}/{record.epoch}/{record.seq}"
    code, said = ward.audit("--frame", name)
    assert (code, said["verdict"], said["spool"]["state"]) == (0, "agrees", "acknowledged"), said
    (kafka,) = said["kafka"]
    assert (kafka["partition"], kafka["offset"]) == (message.partition(), message.offset())
    assert said["detect"] == {str(message.partition()): True}
    assert said["archive"][0]["file"].startswith(f"samples/v1/p={message.partition()}/")
    code, said = ward.audit("--frame", f"{record.edge}/{record.epoch}/999999")
    assert (code, said["kafka"], said["spool"]["state"]) == (1, [], "not here")


def test_since_leaves_out_what_is_older(ward: Ward) -> None:
    assert len(ward.audit("--since", "1h")[1]["lines"]) == 1
    code, said = ward.audit("--since", "2099-01-01T00:00:00Z")
    assert (code, said["lines"]) == (0, [])


def test_an_acknowledged_frame_that_never_reached_kafka_is_named(
    ward: Ward, tmp_path: Path
) -> None:
    proxy = ward.box.pids()["haproxy-edge"]
    os.kill(proxy, signal.SIGSTOP)
    try:
        assert ward.box.say("device=led-0 reply=yes heart_rate=71\n").strip() == "ok"
        epoch, seq = ward.ask("SELECT epoch, max(seq) FROM frames")[0]
        told = tmp_path / "spool.db"
        source, copy = sqlite3.connect(ward.spool), sqlite3.connect(told)
        source.backup(copy)
        source.close()
        copy.close()
        # A copy that was told a lie: the cloud has what it never got.
        spool = Spool(told, 1 << 30, refuse_when_full=False)
        running = WrappedEpoch("ward-1", epoch, "", b"", 0)
        spool.store(running, [], Counter(), [Ranges(epoch, [(seq, seq)])])
        spool.close()
        lied = tmp_path / "audit.toml"
        lied.write_text(ward.config.read_text().replace(str(ward.spool), str(told)))
        code, said = ward.audit(at=lied)
    finally:
        os.kill(proxy, signal.SIGCONT)
    assert (code, said["verdict"]) == (1, "differs")
    lost = {"stage": "samples", "what": "lost", "partition": None, "first": seq, "last": seq}
    assert said["lines"][0]["ranges"] == [lost]
    code, said = ward.audit("--wait", "60")
    assert code == 0, said


def test_a_record_written_again_changes_nothing_and_is_counted(ward: Ward) -> None:
    message = ward.samples()[3]
    ward.produce(message.partition(), message.key(), message.value())
    until(lambda: ward.audit()[1]["lines"][0]["detect_again"] == 1, 30, "detect to count it")
    code, said = ward.audit("--wait", "30")
    assert (code, said["lines"][0]["samples_again"]) == (0, 1), said


def test_a_record_written_again_with_another_content_and_one_of_nobody_are_named(
    ward: Ward,
) -> None:
    message = ward.samples()[4]
    record = records.decode_samples(message.value())
    record.columns.value[0] = (record.columns.value[0] or 0) + 1
    ward.produce(message.partition(), message.key(), records.encode(record))
    forged = msgspec.structs.replace(record, seq=5_000)
    key = records.samples_key(record.edge, record.epoch, 5_000, message.partition())
    ward.produce(message.partition(), key, records.encode(forged))
    time.sleep(1)
    code, said = ward.audit()
    assert (code, said["verdict"]) == (1, "differs")
    named = {(one["what"], one["first"], one["last"]) for one in said["lines"][0]["ranges"]}
    assert ("altered", record.seq, record.seq) in named
    assert ("unknown", 5_000, 5_000) in named
    text = ward.box.audit(0)
    assert text.returncode == 1
    assert f"another content, by sequence number: partition {message.partition()}" in text.stdout

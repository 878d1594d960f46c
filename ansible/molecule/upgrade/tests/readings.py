"""Readings as ingest writes them, and what became of them: run by the host's own release.

`readings.py write` puts the readings of a new subject into Kafka and prints who it is;
`readings.py look` prints what lies in Kafka and Redis, and how far each service has come.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.streams_data import BEDS, VITALS_SAID, Plan, live
from cloud.project import layout
from cloud.records import decode_samples
from vitals.ports import BY_NAME
from vitals.topics import SUBJECT_PARTITIONS

HOST: Final = "192.0.2.1"
CA: Final = "/etc/healthsync/service-ca.pem"
PASSWORD: Final = Path("/etc/healthsync/cloud/project/redis-project.password")
SECONDS: Final = 5
WAIT_S: Final = 20.0
KAFKA: Final = {
    "bootstrap.servers": f"{HOST}:{BY_NAME['kafka'].number}",
    "security.protocol": "SSL",
    "ssl.ca.location": CA,
    "ssl.certificate.location": "/etc/healthsync/pki/admin.pem",
    "ssl.key.location": "/etc/healthsync/pki/admin.key",
}


def write() -> dict[str, Any]:
    """Write what Kafka acknowledges, of somebody who was never here before."""
    now_ms = int(time.time() * 1000)
    records = list(live(Plan(1, SECONDS, now_ms, first=BEDS * (now_ms // 1000))))
    producer = Producer({**KAFKA, "acks": "all"})
    for record in records:
        producer.produce("samples", record.value, record.key, record.partition)
    if producer.flush(WAIT_S):
        raise SystemExit("Kafka did not acknowledge what was written")
    (source,) = decode_samples(records[0].value).columns.sources
    return {"subject": source.subject, "records": len(records)}


def consumer(group: str) -> Consumer:
    """Return a consumer that changes nothing for its group."""
    options = {"isolation.level": "read_committed", "enable.partition.eof": True}
    return Consumer({**KAFKA, **options, "group.id": group, "enable.auto.commit": False})


def ends(topic: str) -> dict[str, int]:
    """Return the offset after the last record of each partition."""
    asked = consumer("audit")
    try:
        return {
            str(at): asked.get_watermark_offsets(TopicPartition(topic, at), WAIT_S)[1]
            for at in range(SUBJECT_PARTITIONS)
        }
    finally:
        asked.close()


def committed(group: str) -> dict[str, int]:
    """Return how far a group has come in `samples`; 0 where it has nothing yet."""
    asked = consumer(group)
    try:
        places = [TopicPartition("samples", at) for at in range(SUBJECT_PARTITIONS)]
        found = asked.committed(places, WAIT_S)
        return {str(one.partition): max(0, one.offset) for one in found}
    finally:
        asked.close()


def observations() -> dict[str, int]:
    """Return how often readings of each subject were written for FHIR, in finished transactions."""
    said = {name.replace("_", "-") for name in VITALS_SAID}
    reader = consumer("audit")
    reader.assign([TopicPartition("fhir", at, 0) for at in range(SUBJECT_PARTITIONS)])
    left = SUBJECT_PARTITIONS
    found: Counter[str] = Counter()
    deadline = time.monotonic() + WAIT_S
    try:
        while left:
            message = reader.poll(1.0)
            if time.monotonic() > deadline:
                raise SystemExit("fhir cannot be read to its end")
            if message is None:
                continue
            if message.error() is None:
                for entry in json.loads(message.value())["entry"]:
                    kind, _, name = entry["request"]["url"].partition("/")
                    if kind == "Observation" and name.split(".")[1] in said:
                        found[message.key().decode()] += 1
            elif message.error().name() == "_PARTITION_EOF":
                left -= 1
            else:
                raise SystemExit(str(message.error()))
        return found
    finally:
        reader.close()


def look() -> dict[str, Any]:
    """Return the state of everything that a restart could lose."""
    client = redis.Redis(
        host=HOST,
        port=BY_NAME["redis"].number,
        ssl=True,
        ssl_ca_certs=CA,
        username="project",
        password=PASSWORD.read_text().strip(),
    )
    projected = {
        field.decode().split("/")[1]: int(value)
        for field, value in client.hgetall(layout.OFFSETS).items()
        if field.startswith(b"samples/")
    }
    latest = {
        subject.decode(): sorted(
            field.decode() for field in client.hkeys(layout.latest_key(subject.decode()))
        )
        for subject in client.smembers(layout.SUBJECTS)
    }
    places = [str(at) for at in range(SUBJECT_PARTITIONS)]
    return {
        "samples": ends("samples"),
        "detect": committed("detect"),
        "project": {at: projected.get(at, 0) for at in places},
        "latest": latest,
        "observations": observations(),
    }


if __name__ == "__main__":
    print(json.dumps({"write": write, "look": look}[sys.argv[1]]()))

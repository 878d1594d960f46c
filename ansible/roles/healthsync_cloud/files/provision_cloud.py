"""Topics, ACLs and bucket, as the release that runs this wants them: `provision_cloud.py FILE`.

FILE is JSON: `kafka` (bootstrap, ca, cert, key), `replication`, `wait_s`, and `s3` (endpoint,
region, bucket, credentials_file, ca, retain_days) or null. Prints `made` when something was
missing, else `kept`; the work itself is `cloud.provision`'s.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from cloud import provision
from cloud.settings import S3, Kafka, kafka_config
from healthsync.runtime.config import convert
from vitals import topics


def _is_complete(config: dict[str, Any], wait_s: float) -> bool:
    """Tell whether every topic is there; waits for the broker, raises KafkaException."""
    admin = AdminClient(config)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return {t.name for t in topics.ALL} <= set(admin.list_topics(timeout=2).topics)
        except KafkaException:
            if time.monotonic() > deadline:
                raise


def main(file: str) -> int:
    """Make what is missing; return the exit code."""
    wanted = json.loads(Path(file).read_text(encoding="utf-8"))
    config = dict(kafka_config(convert(wanted["kafka"], Kafka, file)))
    complete = _is_complete(config, wanted["wait_s"])
    provision.kafka(config, replication=wanted["replication"], wait_s=wanted["wait_s"])
    if wanted["s3"] is not None:
        retain_days = wanted["s3"].pop("retain_days")
        provision.bucket(
            convert(wanted["s3"], S3, file), retain_days=retain_days, wait_s=wanted["wait_s"]
        )
    print("kept" if complete else "made")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A deliver process to be killed: ``deliver_process.py BOOTSTRAP BASE_URL INSTANCE``."""

import sys
from pathlib import Path

from cloud.deliver.address import parse
from cloud.deliver.config import Config
from cloud.deliver.main import made, serve
from cloud.settings import Kafka, Metrics
from healthsync.runtime.clock import now_ms
from healthsync.runtime.log import Log
from healthsync.runtime.stop import Stop

NOTHING = Path("/nonexistent")


def plain(bootstrap: str) -> dict[str, str | int | bool]:
    return {
        "bootstrap.servers": bootstrap,
        "broker.address.family": "v4",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
    }


def settings(bootstrap: str, url: str, instance: int) -> Config:
    kafka = Kafka(bootstrap, NOTHING, NOTHING, NOTHING)
    return Config(url, kafka, Metrics(0), answer_s=5, instance=instance)


if __name__ == "__main__":
    bootstrap, url, instance = sys.argv[1:]
    log = Log("deliver", now_ms)
    stop = Stop()
    config = settings(bootstrap, url, int(instance))
    sys.exit(serve(made(config, parse(url), plain(bootstrap), log), stop, log))

"""A member of detect's group that dies between giving partitions up and their being given on.

``half_shared.py BOOTSTRAP IDENTITY``: prints what it is assigned; asked to give up, it is killed.
"""

import os
import signal
import sys
from typing import Any

from cloud.brokers import BrokerWatch
from cloud.detect import clients
from vitals import topics


def assigned(consumer: Any, partitions: list[Any]) -> None:
    consumer.incremental_assign(partitions)
    print("assigned", len(partitions), flush=True)


def killed(_consumer: Any, _partitions: list[Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    bootstrap, identity = sys.argv[1:]
    base: dict[str, str | int | bool] = {
        "bootstrap.servers": bootstrap,
        "broker.address.family": "v4",
    }
    consumer = clients.consumer(base, identity, BrokerWatch())
    consumer.subscribe([topics.SAMPLES.name], on_assign=assigned, on_revoke=killed)
    while True:
        consumer.poll(0.05)

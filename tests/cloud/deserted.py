"""What librdkafka tells of a client that calls nobody any more."""

import json

from cloud.brokers import ALONE_US_MIN, LOOKS, BrokerWatch


def statistics(kind: str = "consumer") -> str:
    broker = {"state": "INIT", "stateage": ALONE_US_MIN, "source": "learned"}
    return json.dumps({"type": kind, "msg_cnt": 1, "brokers": {"a:1/1": broker}})


def deserted() -> BrokerWatch:
    watch = BrokerWatch()
    for _ in range(LOOKS):
        watch.told(statistics())
    return watch

"""``healthsync cloud project``: the shell. It owns the consumer and closes it."""

import os
from pathlib import Path

from confluent_kafka import Consumer, KafkaException

from cloud.brokers import BrokerWatch, Deserted
from cloud.project import connect
from cloud.project.batch import Batch
from cloud.project.consume import Loop
from cloud.project.metrics import Metrics
from cloud.project.settings import Config
from cloud.project.writer import Seals, Writer
from cloud.settings import kafka_config
from healthsync.runtime import metrics
from healthsync.runtime.clock import now_ms
from healthsync.runtime.config import load, read_key
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify
from healthsync.runtime.steps import until_stopped
from healthsync.runtime.stop import Stop
from vitals.sealed import Sealer

GROUP = "project"


def run(config: Path) -> int:
    """Run until SIGTERM; a lost group membership or fatal client error asks to be restarted."""
    settings = load(config, Config)
    log = Log("project", now_ms)
    stop = Stop()
    seals = Seals(
        Sealer(read_key(settings.keys.identity), os.urandom),
        Sealer(read_key(settings.keys.values), os.urandom),
        read_key(settings.keys.index),
    )
    watch = BrokerWatch()
    consumer = Consumer(
        {
            **watch.config,
            **kafka_config(settings.kafka),
            "group.id": GROUP,
            "client.id": GROUP,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
            "session.timeout.ms": 10_000,
            "queued.max.messages.kbytes": 16_384,
        }
    )
    loop = Loop(
        consumer,
        watch,
        lambda: Writer(connect.once(settings.redis), seals, now_ms),
        lambda: Batch(seals.identity),
        Metrics(),
        log,
        now_ms,
    )
    metrics.serve(settings.metrics.port)
    try:
        loop.subscribe()
        until_stopped(loop, stop, log)
    except (KafkaException, Deserted) as error:
        log.crash("kafka-fatal", error)
        return Exit.RESTART
    finally:
        notify("STOPPING=1")
        consumer.close()
    log.info("stopped")
    return Exit.OK

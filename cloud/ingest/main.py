"""``healthsync cloud ingest --config FILE``: the process around the server.

Ends: SIGTERM or SIGINT -> sessions told "going-away", producer flushed, exit 0; a producer that
can never work again (fatal, fenced) -> exit 75; wrong configuration -> exit 78.
"""

import os
import signal
from pathlib import Path
from typing import Final

import trio
from confluent_kafka import KafkaException, Producer
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cloud.ingest.config import IngestConfig
from cloud.ingest.delivery import Delivery, producer_config
from cloud.ingest.keys import CloudKeys
from cloud.ingest.known import KnownAssociations
from cloud.ingest.pushes import Pushes
from cloud.ingest.revoked import Revoked
from cloud.ingest.server import Server
from cloud.ingest.split import Pseudonyms
from cloud.ingest.unpack import Unpacker
from healthsync.runtime import config as config_
from healthsync.runtime import metrics as metrics_
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify, watchdog_interval_s
from vitals.errors import ConfigError
from vitals.sealed import Sealer

# Sessions end and Kafka takes the rest within this; what is left, gateways send again.
STOP_S_MAX: Final = 10.0
FLUSH_S_MAX: Final = 5.0


def run(config: Path) -> int:
    """Serve until told to stop; return the exit code."""
    settings = config_.load(config, IngestConfig)
    log = Log("ingest", now_ms)
    keys = settings.keys
    unpacker = Unpacker(
        Pseudonyms(config_.read_key(keys.subject)),
        Sealer(config_.read_key(keys.identity), os.urandom),
        Sealer(config_.read_key(keys.quarantine), os.urandom),
        KnownAssociations(),
    )
    held = CloudKeys(
        [
            X25519PrivateKey.from_private_bytes(config_.read_key(path))
            for path in (keys.hpke_private, *keys.hpke_private_older)
        ]
    )
    metrics_.serve(settings.metrics.port)
    return trio.run(_serve, settings, held, unpacker, log)


async def _serve(settings: IngestConfig, held: CloudKeys, unpacker: Unpacker, log: Log) -> int:
    outcome = Exit.OK
    stopping = trio.Event()

    def fatal() -> None:
        nonlocal outcome
        outcome = Exit.RESTART
        stopping.set()

    try:
        delivery = Delivery(Producer, producer_config(settings.kafka), log, fatal)
    except KafkaException as error:
        raise ConfigError(f"the Kafka client cannot be made: {error}; see [kafka]") from error
    pushes = Pushes(settings.settings_folder, log)
    revoked = Revoked(settings.revocation_list, log)
    server = Server(settings.listen, held, unpacker, delivery, now_ms, log, pushes, revoked)
    try:
        async with trio.open_nursery() as nursery:
            port = await nursery.start(server.run)
            nursery.start_soon(_signals, stopping)
            nursery.start_soon(_watchdog)
            log.info("serving", port=port)
            notify("READY=1")
            await stopping.wait()
            notify("STOPPING=1")
            log.info("stopping", code=outcome.value)
            nursery.cancel_scope.deadline = trio.current_time() + STOP_S_MAX
            server.stop()
            await server.over.wait()
            nursery.cancel_scope.cancel()
    except* OSError as errors:
        outcome = Exit.UNAVAILABLE
        names = sorted({type(error).__name__ for error in errors.exceptions})
        log.warning("cannot-listen", port=settings.listen.port, errors=names)
    finally:
        with trio.CancelScope(shield=True):
            left = await delivery.close(FLUSH_S_MAX)
            log.info("stopped", code=outcome.value, undelivered=left)
    return outcome


async def _signals(stopping: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            stopping.set()


async def _watchdog() -> None:
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify("WATCHDOG=1")
        await trio.sleep(interval_s)

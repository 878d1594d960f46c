"""``healthsync cloud deliver --config FILE [--to URL]``: the process around `Loop`.

Ends: SIGTERM or SIGINT -> requests under way end, offsets are committed, exit 0; a Kafka client
that can never work again, or another process of the same instance -> exit 75; a defect -> exit
70; wrong configuration -> exit 78. The FHIR server, its token endpoint and Kafka being down end
nothing.
"""

import random
import secrets
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from cloud.brokers import Deserted
from cloud.deliver.address import Address, parse
from cloud.deliver.config import Config
from cloud.deliver.connection import Connection
from cloud.deliver.consume import Failed, Loop, consumer_config
from cloud.deliver.courier import Courier
from cloud.deliver.lane import Lane
from cloud.deliver.letters import Letters
from cloud.deliver.server import OneRequest, Server
from cloud.deliver.tokens import Tokens
from cloud.settings import kafka_config
from healthsync.runtime import metrics, tls
from healthsync.runtime.clock import now_ms
from healthsync.runtime.config import load
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify
from healthsync.runtime.steps import until_stopped
from healthsync.runtime.stop import Stop
from vitals.errors import ConfigError


def run(config: Path, to: str | None = None) -> int:
    """Deliver until told to stop; return the exit code."""
    settings = load(config, Config)
    try:
        base = parse(settings.to if to is None else to)
    except ValueError as error:
        raise ConfigError(f"{'--to' if to is not None else f'{config}: to'}: {error}") from error
    log = Log("deliver", now_ms)
    stop = Stop()
    try:
        loop = made(settings, base, kafka_config(settings.kafka), log)
    except KafkaException as error:
        raise ConfigError(f"{config}: the Kafka client cannot be made: {error}") from error
    metrics.serve(settings.metrics.port)
    return serve(loop, stop, log)


def made(settings: Config, base: Address, kafka: Mapping[str, Any], log: Log) -> Loop:
    """Return the loop, not yet joined; raise ConfigError or KafkaException."""
    try:
        context = tls.client(settings.ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{settings.ca}: no authorities there ({type(error).__name__})"
        ) from error
    ask = OneRequest(context, settings.answer_s)
    tokens: Tokens | None = None
    if settings.oauth is not None:
        tokens = Tokens(settings.oauth, base, ask, now_ms, lambda: secrets.token_hex(16))
    letters = Letters(kafka, settings.identity(), log)
    chance = random.SystemRandom().random

    def new_lane(partition: int) -> Lane:
        connection = Connection(base, context, settings.answer_s)
        server = Server(base, connection, tokens)
        return Lane(
            partition,
            connection,
            lambda pause: Courier(
                server,
                lambda record, letter: letters.put(record, letter, pause),
                pause,
                now_ms,
                chance,
                log,
                settings.give_up_s,
            ),
        )

    return Loop(
        consumer_config(kafka, settings.identity()), new_lane, letters, ask.check, log, now_ms
    )


def serve(loop: Loop, stop: Stop, log: Log) -> int:
    """Step the loop until asked to stop; it is closed on every way out."""
    try:
        loop.subscribe()
        until_stopped(loop, stop, log)
    except (KafkaException, Deserted) as error:
        log.crash("kafka-fatal", error)
        return Exit.RESTART
    except Failed as error:
        log.crash("defect", error.__cause__ or error)
        return Exit.INTERNAL
    finally:
        notify("STOPPING=1")
        loop.close()
    log.info("stopped")
    return Exit.OK

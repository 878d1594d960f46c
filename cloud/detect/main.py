"""``healthsync cloud detect``: configuration, signals and exit codes around the engine."""

from pathlib import Path

from cloud.brokers import Deserted
from cloud.detect.calls import Fenced, Unreachable
from cloud.detect.config import Config
from cloud.detect.engine import Engine
from cloud.policy.default import DEFAULT
from cloud.policy.seal import publish
from cloud.policy.text import load as load_policy
from cloud.settings import kafka_config
from healthsync.runtime import cycles, metrics
from healthsync.runtime.clock import now_ms
from healthsync.runtime.config import load
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify
from healthsync.runtime.steps import until_stopped
from healthsync.runtime.stop import Stop


def run(config: Path) -> int:
    """Run until SIGTERM; RESTART when fenced, UNAVAILABLE when Kafka does not answer."""
    settings = load(config, Config)
    # Without a key nobody can be named in clear here: `publish` refuses such a policy.
    policy = DEFAULT if settings.policy_file is None else load_policy(settings.policy_file)
    text = publish(policy, str(settings.policy_file or "default")).text
    log = Log("detect", now_ms)
    stop = Stop()
    metrics.serve(settings.metrics.port)
    engine = Engine(kafka_config(settings.kafka), settings.identity(), text, log, now_ms)
    return serve(engine, stop, log)


def serve(engine: Engine, stop: Stop, log: Log) -> int:
    """Step the engine until asked to stop; it is closed on every way out."""
    cycles.seldom()
    try:
        engine.start()
        until_stopped(engine, stop, log)
        engine.rest()
    except (Fenced, Deserted) as error:
        log.crash("fenced", error)
        return Exit.RESTART
    except Unreachable as error:
        log.crash("kafka-unreachable", error)
        return Exit.UNAVAILABLE
    finally:
        notify("STOPPING=1")
        engine.close()
    log.info("stopped")
    return Exit.OK

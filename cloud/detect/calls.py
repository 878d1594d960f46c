"""Calls into Kafka's clients and what their errors mean: end, abort, or try again.

Law: retries key on the error's own word (fatal, abortable, retriable), never on its text; every
retry is bounded by RETRY_S_MAX.

========== ============================== ==============================
error      once                           retried
========== ============================== ==============================
fatal      Fenced                         Fenced
abortable  as it is: abort                as it is: abort
retriable  Unreachable                    again, then Unreachable
other      as it is                       as it is
========== ============================== ==============================
"""

import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from healthsync.runtime.log import Log

CALL_S: Final = 5.0
RETRY_S_MAX: Final = 60.0
BACKOFF_S: Final = 0.1


class Fenced(Exception):
    """Another process of the same name took over, or a client is beyond use: start again."""


class Unreachable(Exception):
    """Kafka did not answer within its bound."""


def error_of(raised: KafkaException) -> Any:
    """Return the KafkaError inside."""
    return raised.args[0]


def transient(error: Any) -> bool:
    """Tell whether the same call may well succeed later."""
    return bool(error.retriable()) or error.code() in {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._WAIT_COORD,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }


def once(call: Callable[[], Any]) -> None:
    """Do ``call``; raises KafkaException for what must be aborted, Fenced, or Unreachable."""
    try:
        call()
    except KafkaException as raised:
        error = error_of(raised)
        if error.fatal():
            raise Fenced(error.name()) from raised
        if transient(error) and not error.txn_requires_abort():
            raise Unreachable(error.name()) from raised
        raise


def retried(call: Callable[[], Any], log: Log, monotonic_s: Callable[[], float]) -> Any:
    """Return what ``call`` returns, trying again what Kafka says may be tried again.

    Raises KafkaException for what must be aborted, Fenced, or Unreachable.
    """
    deadline = monotonic_s() + RETRY_S_MAX
    while True:
        try:
            return call()
        except TimeoutError as raised:
            code, cause = "timeout", raised
        except KafkaException as raised:
            error = error_of(raised)
            if error.fatal():
                raise Fenced(error.name()) from raised
            if error.txn_requires_abort() or not transient(error):
                raise
            code, cause = error.name(), raised
        if monotonic_s() > deadline:
            raise Unreachable(code) from cause
        log.warning("retry", code=code)
        time.sleep(BACKOFF_S)

"""Notices a Kafka client that calls nobody any more.

Law: pure but for what it is told; whoever makes a client merges `BrokerWatch.config` into its
settings, calls `check` in its loop, and ends with exit 75 to be started anew.

A broker that comes back from a pause of some 50 s (a frozen machine, a moved one) is fenced by its
controller for a moment, and answers that the cluster has no brokers. librdkafka 2.10 and later
then drops all of them, bootstrap servers included, and waits for ever, without an error
(librdkafka issue 5301; seen here with 2.16.1, whatever ``metadata.recovery.strategy`` says). In its
statistics every broker then stands in INIT: nobody is connected, being connected to, or about to
be tried again. A Kafka that is merely away looks different: its brokers are called every second.
"""

from typing import Any, Final

import msgspec

from vitals.errors import VitalsError

LOOK_MS: Final = 5_000
LOOKS: Final = 2
"""So many in a row: a client that is being made knows nobody for a moment."""

ALONE_US_MIN: Final = 15_000_000
"""In INIT for this long. With a Kafka that is away it was 0.03 s at most (40 s watched)."""


class Deserted(VitalsError):
    """This client will never hear of Kafka again: the process has to be started anew."""


class _Broker(msgspec.Struct):
    state: str
    stateage: int
    """Microseconds."""
    source: str


class _Statistics(msgspec.Struct):
    """What is read of librdkafka's STATISTICS.md."""

    type: str
    msg_cnt: int
    brokers: dict[str, _Broker]


_decoder: Final = msgspec.json.Decoder(_Statistics)


class BrokerWatch:
    """State of one client."""

    def __init__(self) -> None:
        """Begin as connected."""
        self._alone = 0

    @property
    def config(self) -> dict[str, Any]:
        """Return the client's settings that make librdkafka tell."""
        return {"statistics.interval.ms": LOOK_MS, "stats_cb": self.told}

    def told(self, statistics: str) -> None:
        """Take one look (JSON); served by the client's poll."""
        found = _decoder.decode(statistics)
        # An idle producer's connections are closed by the broker, and it needs none.
        needs = found.type == "consumer" or found.msg_cnt > 0
        called = any(_is_called(broker) for broker in found.brokers.values())
        self._alone = self._alone + 1 if needs and not called else 0

    def check(self) -> None:
        """Raise Deserted when this client will never hear of Kafka again."""
        if self._alone >= LOOKS:
            raise Deserted("the Kafka client calls no broker any more; starting anew")


def _is_called(broker: _Broker) -> bool:
    if broker.state == "UP":
        return True
    # A logical one (a group's coordinator) has no address of its own to call.
    is_real = broker.source in {"learned", "configured"}
    return is_real and (broker.state != "INIT" or broker.stateage < ALONE_US_MIN)

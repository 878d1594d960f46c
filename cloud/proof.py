"""Whether Kafka really has what a producer says it has: only what came with an offset counts.

Law: success without an offset, or with one not above what its partition had, is no success.

librdkafka reports a message delivered without knowing so in two cases: a later request of its
partition succeeded ("implicit ack"), or the broker called it a duplicate. Both rest on the broker
refusing gaps in an idempotent producer's sequence. It does not refuse the first one: of a producer
it has not seen in a partition it takes any sequence. So when a broker comes back (from a pause, or
with a new leader), it may turn the first request down, take the second, and the first is reported
delivered and lost. Seen with librdkafka 2.16.1 and Kafka 4.1 after a broker stood still for 60 s:
the partition's log began with sequence 4.

A topic that is deleted and made anew begins at 0 again: start its producers anew with it.

What is not proven is treated as failed. It may be in Kafka all the same: sent again, whoever reads
must know it by its own identity (frames by edge, epoch and seq).
"""

from typing import Any


class Proof:
    """The highest offset known of each partition. Belongs to one producer, and to one thread."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        """Know nothing."""
        self._last: dict[tuple[str, int], int] = {}

    def __call__(self, message: Any) -> bool:
        """Tell whether a message reported without an error is in the log (a report's Message)."""
        offset = message.offset()
        where = (message.topic(), message.partition())
        if offset is None or offset <= self._last.get(where, -1):
            return False
        self._last[where] = offset
        return True

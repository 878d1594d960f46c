"""Whether every partition has an owner; and if not, a word to the group to share them out anew.

Law: it looks and asks, and never takes anything. Static members that are killed between the two
steps of a cooperative rebalance (given up, not yet given on) come back to what they had, and the
group sees no reason to share out what lies between. Somebody who joins for a moment is a reason: a
member of no name that wants another topic gets nothing of ours, and the group shares out anew.

One member asks, the first by name, after two looks that agree; all look, without waiting.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import Consumer, ConsumerGroupState, KafkaException

from cloud.detect import clients, metrics
from healthsync.runtime.log import Log
from vitals import topics

LOOK_EVERY_S: Final = 5.0
"""A rebalance that goes on is over before the second look; a process that was killed is a member
for SESSION_TIMEOUT_MS yet."""

ASK_S_MAX: Final = 30.0
"""How long whoever joined waits until the group has heard of it."""


class Owners:
    """Looks at the group of one process."""

    def __init__(
        self,
        base: clients.Settings,
        identity: str,
        log: Log,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``identity``: the process's name in the group."""
        self._base = base
        self._identity = identity
        self._log = log
        self._monotonic_s = monotonic_s
        self._admin = clients.admin(base)
        self._look_at = monotonic_s() + LOOK_EVERY_S
        self._looking: Future[Any] | None = None
        self._missed: set[int] = set()
        self._asking: Any = None
        self._ask_until = 0.0

    def step(self) -> None:
        """Go on with looking or asking; never waits, but to leave the group again."""
        now = self._monotonic_s()
        if self._asking is not None:
            self._go_on_asking(now)
        elif self._looking is not None:
            if self._looking.done():
                future, self._looking = self._looking, None
                self._look_at = now + LOOK_EVERY_S
                self._judge(future, now)
        elif now >= self._look_at:
            asked = self._admin.describe_consumer_groups([clients.GROUP])
            self._looking = asked[clients.GROUP]

    def close(self) -> None:
        """Leave the group if somebody was asking."""
        if self._asking is not None:
            self._asking.close()
            self._asking = None

    def _judge(self, future: "Future[Any]", now: float) -> None:
        try:
            group = future.result()
        except KafkaException:
            return  # the next look will tell
        missed = ownerless(group)
        again, self._missed = missed & self._missed, missed
        metrics.OWNERLESS.set(len(missed))
        if again and first(group) == self._identity:
            self._log.warning("ownerless", partitions=sorted(again))
            self._missed = set()
            self._ask(now)

    def _ask(self, now: float) -> None:
        self._asking = Consumer(clients.asker(self._base, self._identity))
        self._asking.subscribe([topics.COMMANDS.name], on_assign=self._heard)
        self._ask_until = now + ASK_S_MAX

    def _heard(self, _consumer: Any, _partitions: list[Any]) -> None:
        self._ask_until = 0.0

    def _go_on_asking(self, now: float) -> None:
        self._asking.poll(0)
        if now >= self._ask_until:
            self.close()
            self._look_at = now + LOOK_EVERY_S


def ownerless(group: Any) -> set[int]:
    """Return the partitions of ``samples`` that no member has, of a group that is at rest."""
    if group.state != ConsumerGroupState.STABLE:
        return set()
    owned = {
        place.partition
        for member in group.members
        if member.assignment is not None
        for place in member.assignment.topic_partitions
        if place.topic == topics.SAMPLES.name
    }
    return set(range(topics.SAMPLES.partitions)) - owned


def first(group: Any) -> str:
    """Return the first of the members' names; whoever has none is none of ours."""
    names = [member.group_instance_id for member in group.members if member.group_instance_id]
    return min(names, default="")

"""Ingest's word on a gateway's session, to every partition of ``commands``.

For whoever watches over silence (cloud/detect/silence.py).

Law: pure. A presence may be lost, and another follows within PRESENCE_S; so it is never kept back,
and never waited for. A gateway that says nothing is not vouched for, however long its connection
looks alive.
"""

from typing import Final

import msgspec

from cloud.ingest.unpack import Record
from cloud.policy.bounds import GATEWAY_S_MIN
from cloud.records import Presence
from vitals import topics

PRESENCE_S: Final = 10.0
"""How often a session is vouched for: one that is lost between two others must not ring, so a
policy's ``gateway_s`` (30 s unless it says otherwise) has to be above twice as much."""
assert GATEWAY_S_MIN > 2 * PRESENCE_S  # noqa: S101

FRESH_S: Final = 6.0
"""Three heartbeats of a gateway (2 s, edge/UPLINK.md); after that its line counts as cut."""

assert FRESH_S < PRESENCE_S  # noqa: S101 - a cut line is vouched for once at most


def presence(edge: str, now_ms: int, *, connected: bool) -> list[Record]:
    """Return the records that say it, one for every partition."""
    value = msgspec.json.encode(Presence(edge, connected, now_ms))
    return [
        Record(topics.COMMANDS.name, partition, edge.encode(), value, [])
        for partition in range(topics.COMMANDS.partitions)
    ]

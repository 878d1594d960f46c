"""Gateways of one partition: who is there, who is gone, and the alerts of those at home here.

Law: every partition knows of every gateway, because the devices of one that is gone are not silent;
only its home partition (`vitals.topics.home_of`) tells of it.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from cloud.detect import silence
from cloud.detect.alerts import Episodes, answer, due, give, tick
from cloud.detect.lifecycle import SKEW_MS, Raised, Returned
from cloud.detect.rules import Rules
from cloud.detect.silence import Gateway, gateway_event
from cloud.records import AlertEvent, Command, Presence
from vitals.topics import home_of

GATEWAYS_MAX: Final = 10_000
"""Gateways watched; further ones are served all the same, but nobody misses them."""


class Common(msgspec.Struct, array_like=True):
    """What belongs to no subject. Fields are only added at the end."""

    gateways: dict[str, Gateway] = {}
    episodes: dict[str, Episodes] = {}
    policy: str = ""
    """Its text."""
    who: str = ""
    """Who gave it."""


class Gateways:
    """What is kept of them, with the rules that hold for each."""

    def __init__(self, number: int, rules_of: Callable[[str], Rules]) -> None:
        """``rules_of``: a gateway's name -> the rules of whoever is behind it."""
        self.common = Common()
        self._number = number
        self._rules_of = rules_of

    def presence(self, given: Presence, now_ms: int) -> tuple[bool, list[AlertEvent]]:
        """Take ingest's word; return whether the gateway came back, and what is to be told."""
        known = self.common.gateways
        gateway = known.get(given.edge)
        if gateway is None:
            if given.connected and len(known) < GATEWAYS_MAX:
                known[given.edge] = Gateway(now_ms, now_ms)
            return False, []
        if not given.connected:
            return False, []  # its time runs: it may be back with another ingest in a second
        gateway.heard_ms = now_ms
        if not gateway.away:
            return False, []
        gateway.away = False
        gateway.since_ms = now_ms
        return True, self._live(given.edge, Returned(now_ms, now_ms), None)

    def answer(self, command: Command, now_ms: int) -> list[AlertEvent]:
        """Carry out a command about a gateway's alert."""
        held = self.common.episodes.get(command.subject)
        if held is None:
            return []
        _, told = answer(held, command, now_ms, self._rules_of(command.subject).life)
        if not held:
            del self.common.episodes[command.subject]
        return told

    def away(self) -> list[str]:
        """Return the names of those that are gone."""
        return [edge for edge, gateway in self.common.gateways.items() if gateway.away]

    def due(self, now_ms: int) -> bool:
        """Tell whether `tick` would do something now."""
        return any(self._due(*one, now_ms) for one in self.common.gateways.items())

    def tick(self, now_ms: int) -> tuple[bool, list[AlertEvent]]:
        """Let the clock act; return whether it did anything, and what is to be told."""
        acted = False
        out: list[AlertEvent] = []
        for edge, gateway in self.common.gateways.items():
            if gateway.heard_ms > now_ms + SKEW_MS:
                gateway.heard_ms = now_ms  # the clock was set back: count from now
            if not self._due(edge, gateway, now_ms):
                continue
            acted = True
            effective = self._rules_of(edge).effective
            if not gateway.away and now_ms - gateway.heard_ms > effective.silence.gateway_ms:
                gateway.away = True
                event = gateway_event(edge, gateway, now_ms, effective)
                raised = Raised(event.episode, event.began_ms, event.at_ms)
                out += self._live(edge, raised, event)
            if (held := self.common.episodes.get(edge)) is not None:
                out += tick(held, now_ms, self._rules_of(edge).life)
        return acted, out

    def resume(self, now_ms: int) -> None:
        """Give everybody time to be heard after a pause in which nobody listened."""
        for gateway in self.common.gateways.values():
            gateway.heard_ms = max(gateway.heard_ms, now_ms)

    def _due(self, edge: str, gateway: Gateway, now_ms: int) -> bool:
        held = self.common.episodes.get(edge)
        rules = self._rules_of(edge)
        return (
            not gateway.away and now_ms - gateway.heard_ms > rules.effective.silence.gateway_ms
        ) or (held is not None and due(held, rules.life) <= now_ms)

    def _live(
        self, edge: str, given: Raised | Returned, event: AlertEvent | None
    ) -> list[AlertEvent]:
        if home_of(edge) != self._number:
            return []
        held = self.common.episodes.setdefault(edge, {})
        out = give(held, silence.GATEWAY_RULE, given, self._rules_of(edge).life, event)
        if not held:
            del self.common.episodes[edge]
        return out

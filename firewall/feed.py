"""Who is refused at enrolment again and again: from the log of `healthsync cloud est`.

Law: pure. A line that is not that log's is passed over; what is counted is bounded, the oldest
sources are forgotten first.
"""

import ipaddress
from collections import OrderedDict, deque
from typing import Final

import msgspec

REFUSALS: Final = 5
"""A person with a token to type has as many tries."""
WINDOW_S: Final = 600
SOURCES_MAX: Final = 10_000

_CODES: Final = frozenset(
    {"token-unknown", "token-used", "token-expired", "token-name", "too-many"}
)


class _Line(msgspec.Struct):
    service: str = ""
    event: str = ""
    code: str = ""
    address: str = ""


_decoder = msgspec.json.Decoder(_Line)


def refused(line: str) -> str:
    """Return the address whose token a line says was refused, or nothing."""
    try:
        said = _decoder.decode(line)
        if said.service != "est" or said.event != "refused" or said.code not in _CODES:
            return ""
        return str(ipaddress.ip_address(said.address))
    except (msgspec.DecodeError, ValueError):
        return ""


class Refusals:
    """Counts refusals of each source within a window."""

    def __init__(self, count: int = REFUSALS, window_s: float = WINDOW_S) -> None:
        """``count`` refusals within ``window_s`` seconds are too many."""
        self._count = count
        self._window_s = window_s
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def again(self, address: str, now_s: float) -> bool:
        """Take note of a refusal; return True when it is one too many, and count anew."""
        times = self._seen.setdefault(address, deque())
        self._seen.move_to_end(address)
        while times and now_s - times[0] > self._window_s:
            times.popleft()
        times.append(now_s)
        if len(times) >= self._count:
            del self._seen[address]
            return True
        if len(self._seen) > SOURCES_MAX:
            self._seen.popitem(last=False)
        return False

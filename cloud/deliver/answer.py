"""What a server's answer means, and how long to wait before asking again.

Law: pure. Only an answer that says "stored" counts as stored; only one that speaks of the content
refuses it. Whatever is not known is asked again: it costs time, never a reading.

======================== ========== ==========================================================
status                   verdict    why
======================== ========== ==========================================================
200, 201, 204            STORED     of a transaction: when its body says so for every entry
202 and other 2xx, 3xx   AGAIN      accepted is not stored; credentials follow no redirection
400, 404, 413, 422       REFUSED    FHIR R4 §3.1.0.7, §3.1.0.11: the content, or its size
401                      LOGIN      a new token once, then as AGAIN
409, 412                 CONFLICT   somebody else's write at the same time, or a rule of the server
408, 425, 429, 502-504   AGAIN      overload, a proxy without its server
500 and other 5xx        FAULT      as AGAIN; `give_up_s` may end it
everything else          AGAIN      403, 405, 415 ...: somebody has to set something right
======================== ========== ==========================================================
"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final, NamedTuple

import msgspec

from vitals.errors import UNREADABLE

BACKOFF_S_MIN: Final = 0.5
BACKOFF_S_MAX: Final = 60.0

# 2**7 * BACKOFF_S_MIN is over BACKOFF_S_MAX; a counter beyond it changes nothing.
_DOUBLINGS_MAX: Final = 7

RETRY_AFTER_S_MAX: Final = 300.0
"""A server that names a later time is asked after this one all the same."""


class Answer(NamedTuple):
    """What came back: status, ``Retry-After`` as sent or empty, body."""

    status: int
    retry_after: str
    body: bytes


class Verdict(Enum):
    """A closed set; see the table."""

    STORED = "stored"
    AGAIN = "again"
    FAULT = "fault"
    LOGIN = "login"
    CONFLICT = "conflict"
    REFUSED = "refused"


STORED: Final = frozenset({200, 201, 204})
REFUSED: Final = frozenset({400, 404, 413, 422})
CONFLICT: Final = frozenset({409, 412})
LOGIN: Final = 401
PROXY: Final = frozenset({502, 503, 504})


def verdict_of(status: int) -> Verdict:
    """Return what a status says of the one resource or Bundle that was sent."""
    if status in STORED:
        return Verdict.STORED
    if status in REFUSED:
        return Verdict.REFUSED
    if status in CONFLICT:
        return Verdict.CONFLICT
    if status == LOGIN:
        return Verdict.LOGIN
    if 500 <= status <= 599 and status not in PROXY:
        return Verdict.FAULT
    return Verdict.AGAIN


class Unintelligible(Exception):
    """An answer of 200 that is none to what was asked."""


class _Response(msgspec.Struct):
    status: str


class _Entry(msgspec.Struct):
    response: _Response


class _Bundle(msgspec.Struct, rename="camel"):
    resource_type: str
    type: str
    entry: list[_Entry] = []


_bundles: Final = msgspec.json.Decoder(_Bundle)


def left_of(body: bytes, count: int) -> list[int]:
    """Return which of a transaction's ``count`` entries the server does not call stored.

    Entries are answered in the order they were sent (FHIR R4 §3.1.0.11.2), each with a status such
    as ``201 Created``. Raises Unintelligible.
    """
    try:
        bundle = _bundles.decode(body)
    except UNREADABLE as error:
        raise Unintelligible("no Bundle") from error
    if (bundle.resource_type, bundle.type) != ("Bundle", "transaction-response"):
        raise Unintelligible("no transaction-response")
    if len(bundle.entry) != count:
        raise Unintelligible("another number of entries")
    return [
        at
        for at, entry in enumerate(bundle.entry)
        if entry.response.status.split(" ")[0] not in {str(status) for status in STORED}
    ]


class _Resource(msgspec.Struct, rename="camel"):
    resource_type: str


_resources: Final = msgspec.json.Decoder(_Resource)


def check_stored(body: bytes) -> None:
    """Raise Unintelligible when what came with a PUT's 200 is neither nothing nor a resource.

    A proxy's page of greeting comes with 200 too.
    """
    if not body.strip():
        return
    try:
        _resources.decode(body)
    except UNREADABLE as error:
        raise Unintelligible("no resource") from error


class _Capability(msgspec.Struct, rename="camel"):
    resource_type: str
    fhir_version: str


_capabilities: Final = msgspec.json.Decoder(_Capability)


def is_r4(answer: Answer) -> bool:
    """Tell whether this answer to ``GET metadata`` is that of a FHIR R4 server."""
    try:
        found = _capabilities.decode(answer.body)
    except UNREADABLE:
        return False
    is_statement = found.resource_type == "CapabilityStatement"
    return answer.status == 200 and is_statement and found.fhir_version.startswith("4.0.")


def retry_after_s(text: str, now_ms: int) -> float:
    """Return the seconds that ``Retry-After`` (RFC 9110 §10.2.3) asks for; 0 for anything else."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        # Longer than any sensible number: the bound, without computing it.
        return min(float(text), RETRY_AFTER_S_MAX) if len(text) < 10 else RETRY_AFTER_S_MAX
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    wait_s = at.replace(tzinfo=at.tzinfo or UTC).timestamp() - now_ms / 1000
    return min(max(0.0, wait_s), RETRY_AFTER_S_MAX)


def backoff_s(tries: int, chance: float) -> float:
    """Return the wait after the ``tries``-th failure in a row (from 1); ``chance`` in [0, 1).

    Doubles up to BACKOFF_S_MAX; half of it by chance, so that eight partitions do not knock at a
    server that comes back at the same moment.
    """
    whole: float = min(BACKOFF_S_MIN * 2 ** min(tries - 1, _DOUBLINGS_MAX), BACKOFF_S_MAX)
    return whole * (0.5 + 0.5 * chance)

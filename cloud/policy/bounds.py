"""Every cap and range of a policy, and the words for what is outside.

Law: each has its unit in its name and its reason beside it, unless it is a matter of taste how
much is plenty; the bounds themselves are allowed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

TEXT_BYTES_MAX: Final = 900_000
"""It travels in one Kafka record: JSON escapes at most double it, and the topic takes 2 MiB."""

RULES_MAX: Final = 48
"""Of the site, and changes of a layer: a value is held against every rule of its vital."""
TRENDS_MAX: Final = 16
"""Each remembers a window of every subject."""
WARDS_MAX: Final = 500
GATEWAYS_MAX: Final = 64
"""Of one ward."""
BEDS_MAX: Final = 5_000
PATIENTS_MAX: Final = 5_000
"""With limits of their own; a patient without any needs no entry."""

PRIORITIES_PER_SIDE_MAX: Final = 2

DELAY_S_MAX: Final = 300.0
"""Philips' longest, with NBP INOP suppression, is 60 s; past minutes it is no alarm any more."""
LATE_S_MIN: Final = 10.0
"""Below it the way from the bed to the cloud makes everything late, and nothing rings."""
LATE_S_MAX: Final = 86_400.0
GAP_S_MIN: Final = 5.0
"""A monitor that sends every few seconds would start each delay anew, and never ring."""
GAP_S_MAX: Final = 300.0
STALE_S_MIN: Final = 5.0
STALE_S_MAX: Final = 600.0
SILENT_S_MIN: Final = 10.0
"""Shorter, and a device that sends every few seconds is silent between two readings."""
GATEWAY_S_MIN: Final = 25.0
"""Shorter, and one presence of a gateway that is lost (cloud/ingest/presence.py) is an absence."""
SILENT_S_MAX: Final = 600.0
FORGET_S_MIN: Final = 900.0
"""Above any time to raise, whatever layers meet: forgotten before it rings, it never would."""
FORGET_S_MAX: Final = 86_400.0
WINDOW_MIN_MIN: Final = 5.0
WINDOW_MIN_MAX: Final = 60.0
NEWS2_MAX: Final = 20
QSOFA_MAX: Final = 3
SHOCK_INDEX_MIN: Final = 0.3
SHOCK_INDEX_MAX: Final = 3.0
AGE_S_MIN: Final = 10.0
AGE_S_MAX: Final = 86_400.0
ESCALATIONS_MAX: Final = 8
ESCALATE_S_MIN: Final = 10.0
HOLD_S_MIN: Final = 60.0
HOLD_S_MAX: Final = 43_200.0
"""Acknowledged or shelved for longer than a shift, an alert is forgotten."""
FLAP_COUNT_MIN: Final = 2
FLAP_COUNT_MAX: Final = 100
FLAP_S_MIN: Final = 10.0
FLAP_S_MAX: Final = 86_400.0
AROUND_S_MAX: Final = 3_600.0
AGE_YEARS_MAX: Final = 130
ADULT_YEARS: Final = 16
"""NEWS2 is not for anybody younger (Royal College of Physicians 2017)."""

assert SILENT_S_MAX < FORGET_S_MIN  # noqa: S101

COMBINATIONS_MAX: Final = 50_000
"""Of wards, beds and patients, looked at for one vital."""
PROBLEMS_SHOWN_MAX: Final = 20
WORDS_MAX: Final = 500
"""Characters of a clinician's name or reason."""


def outside(where: str, value: float, low: float, high: float) -> Iterator[str]:
    """Yield that a value is outside its bounds, both of which are allowed."""
    if not low <= value <= high:  # holds for what is not a number, too
        yield f"{where}: {value:g} is outside {low:g} to {high:g}; give one inside"


def twice(where: str, names: Iterable[str]) -> Iterator[str]:
    """Yield each name that is given more than once."""
    for name, times in Counter(names).items():
        if times > 1:
            yield f"{where} {name}: given {times} times; keep one"


def same(kind: str, keys: list[object]) -> Iterator[str]:
    """Yield entries that are for one and the same, by place: the key may be a person's number."""
    first: dict[object, int] = {}
    for at, key in enumerate(keys):
        if first.setdefault(key, at) != at:
            yield f"{kind}[{at}]: is for the same as {kind}[{first[key]}]; keep one"

"""The recorded patients of ``recordings/`` (see its README), read once, never written.

Law: facts from the recordings pass through unchanged; a gap stays a gap (None).
"""

import csv
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

FILE: Final = Path(__file__).parent / "recordings" / "bidmc.csv"


class Second(NamedTuple):
    """One second of one recording, in beats, beats, breaths a minute and percent."""

    heart_rate: int | None
    pulse: int | None
    resp: int | None
    spo2: int | None


def _number(text: str) -> int | None:
    return int(text) if text else None


@cache
def recordings() -> tuple[tuple[Second, ...], ...]:
    """Return every recording, one `Second` a second, in the order of their numbers."""
    found: dict[str, list[Second]] = {}
    with FILE.open(encoding="ascii", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for recording, *values in rows:
            heart_rate, pulse, resp, spo2 = map(_number, values)
            found.setdefault(recording, []).append(Second(heart_rate, pulse, resp, spo2))
    return tuple(map(tuple, found.values()))

"""Hand-made recorded data: values by the second, as JSON lines, rows or samples records."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloud.policy.model import Policy
from cloud.policy.text import write
from cloud.whatif.ward import NO_VALUE, Origin, Row, Ward
from vitals.codes import BY_NAME, decimal_scale

T0 = 1_795_428_000_000
Values = Mapping[str, float | None]


def flat(seconds: int, **values: float) -> list[dict[str, float | None]]:
    """Return the same values every second."""
    return [dict(values) for _ in range(seconds)]


def line(second: float, vital: str, value: float | None, /, **more: Any) -> str:
    """Return one object as ``healthsync edge decode`` prints it."""
    at = datetime.fromtimestamp(T0 / 1000 + second, UTC).isoformat(timespec="milliseconds")
    told = {
        "kind": "reading",
        "device": "mon-1",
        "patient": "MRN-SECRET-1",
        "bed": "B1",
        "vital": vital,
        "value": value,
        "unit": BY_NAME[vital].unit,
        "site": None,
        "channel": 0,
        "time": at.replace("+00:00", "Z"),
        "time_source": "device",
        "status": "missing" if value is None else "ok",
        "reason": None,
    }
    return json.dumps(told | more) + "\n"


def lines(seconds: Iterable[Values], **more: Any) -> list[str]:
    """Return the lines of a bed at 1 Hz."""
    return [
        line(second, vital, value, **more)
        for second, values in enumerate(seconds)
        for vital, value in values.items()
    ]


def file(path: Path, of: Iterable[str]) -> Path:
    """Write lines."""
    path.write_text("".join(of), encoding="utf-8")
    return path


def policy_file(path: Path, policy: Policy) -> Path:
    """Write a policy as somebody would."""
    path.write_text(write(policy), encoding="utf-8")
    return path


def row(
    vital: str, value: float | None, time_ms: int, arrival_ms: int | None = None, **more: int
) -> Row:
    """Return one reading."""
    code = BY_NAME[vital]
    number = NO_VALUE if value is None else round(value * decimal_scale(code))
    return Row(time_ms, time_ms if arrival_ms is None else arrival_ms, code.index, number, **more)


def ward(subject: str, rows: Iterable[tuple[str, Row]], edge: str = "edge-1") -> Ward:
    """Return a ward of one subject; each row with its device."""
    made = Ward()
    for device, one in rows:
        made.add(made.bed(subject, "bed"), one, made.source(Origin(device, edge)))
    return made

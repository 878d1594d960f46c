"""A recorded ward (``bidmc.csv`` of simulators/recordings) into a `Ward`: one bed a recording.

Columns ``recording,HR,PULSE,RESP,SpO2``, one row a second. An empty field is a value that the
monitor did not have: MISSING, as the gateway makes of ``spo2=``. The recordings have no dates, so
all begin at RECORDED_MS.
"""

import csv
import hashlib
from pathlib import Path
from typing import Final

from cloud.whatif.errors import DataWrong
from cloud.whatif.ward import NO_VALUE, Origin, Row, Ward
from vitals.codes import BY_NAME, Status, decimal_scale
from vitals.columns import VALUE_MAX

FILE: Final = "bidmc.csv"
RECORDED_MS: Final = 1_767_225_600_000
"""2026-01-01T00:00:00Z: a day as good as any other."""

COLUMNS: Final = {
    "HR": BY_NAME["heart_rate"],
    "PULSE": BY_NAME["pulse_rate"],
    "RESP": BY_NAME["resp_rate"],
    "SpO2": BY_NAME["spo2"],
}
_HEADER: Final = ["recording", *COLUMNS]
_STEP_MS: Final = 1_000


def read(path: Path, ward: Ward) -> None:
    """Take every row; raise DataWrong with its line."""
    seconds: dict[str, int] = {}
    with path.open(encoding="ascii", errors="replace", newline="") as file:
        rows = csv.reader(file)
        if next(rows, None) != _HEADER:
            raise DataWrong(f"{path}: line 1: not {','.join(_HEADER)}; give a recorded ward")
        try:
            for row in rows:
                _take(row, seconds, ward)
        except (ValueError, csv.Error):
            raise DataWrong(
                f"{path}: line {rows.line_num}: not a recording's number and"
                f" {len(COLUMNS)} whole numbers or empty fields; mend it, or take it out"
            ) from None


def _take(row: list[str], seconds: dict[str, int], ward: Ward) -> None:
    recording, *texts = row
    values = [int(text) if text else None for text in texts]
    number = int(recording)
    if not 0 < number <= VALUE_MAX or len(values) != len(COLUMNS):
        raise ValueError(recording)
    at = seconds[recording] = seconds.get(recording, -1) + 1
    time_ms = RECORDED_MS + at * _STEP_MS
    who = hashlib.sha256(f"recording/{number}".encode()).hexdigest()[:32]
    bed = ward.bed(who, f"recording {number:02d}")
    source = ward.source(Origin(who, ""))
    for vital, value in zip(COLUMNS.values(), values, strict=True):
        if value is None:
            row_ = Row(time_ms, time_ms, vital.index, NO_VALUE, int(Status.MISSING))
        elif 0 <= value <= vital.high:
            row_ = Row(time_ms, time_ms, vital.index, value * decimal_scale(vital))
        else:
            raise ValueError(recording)
        ward.add(bed, row_, source)

"""Logs: one JSON object a line on stdout, ids and counts only.

Law: no value, no name, no number of a patient ever reaches a log. There is no free-text
parameter besides ``event``; fields are ids, counts, codes, durations.
"""

import json
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TextIO

Field = str | int | float | bool | None | list[str] | list[int]

LEVELS: Final = ("debug", "info", "warning", "error")


class Log:
    """Writes events of one service."""

    def __init__(self, service: str, now_ms: Callable[[], int], out: TextIO | None = None) -> None:
        """Name the service; ``out`` is stdout unless given."""
        self._service = service
        self._now_ms = now_ms
        self._out = out

    def _write(self, level: str, event: str, fields: dict[str, Field]) -> None:
        at = datetime.fromtimestamp(self._now_ms() / 1000, UTC)
        record: dict[str, Field] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "service": self._service,
            "event": event,
        }
        record |= {name: value for name, value in fields.items() if name not in record}
        out = self._out or sys.stdout
        out.write(json.dumps(record) + "\n")
        out.flush()

    def info(self, event: str, /, **fields: Field) -> None:
        """Log something that went as meant."""
        self._write("info", event, fields)

    def warning(self, event: str, /, **fields: Field) -> None:
        """Log something that an operator should know."""
        self._write("warning", event, fields)

    def error(self, event: str, /, **fields: Field) -> None:
        """Log something that an operator must act on."""
        self._write("error", event, fields)

    def crash(self, event: str, error: BaseException) -> None:
        """Log a defect: where it was raised, not what it said (messages may carry input)."""
        frames = traceback.extract_tb(error.__traceback__)
        trace = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        self._write("error", event, {"error": type(error).__name__, "trace": trace})

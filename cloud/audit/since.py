"""The words of ``--since`` and ``--frame``. Pure: the clock is given."""

import argparse
import re
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from cloud.audit.evidence import EpochName
from vitals import limits

_AGO: Final = re.compile(r"(\d{1,6})([smhd])")
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_EPOCH: Final = re.compile(r"[0-9a-f]{32}")
_SAY: Final = (
    "write a time with its zone, such as 2026-11-23T10:00:00Z, or how long ago: 2h, 30m, 7d"
)


class FrameName(NamedTuple):
    """One frame, for ever."""

    epoch: EpochName
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch.edge}/{self.epoch.epoch}/{self.seq}"


def since(now_ms: Callable[[], int]) -> Callable[[str], int]:
    """Return what reads ``--since`` as milliseconds of UTC; it raises ArgumentTypeError."""

    def read(text: str) -> int:
        ago = _AGO.fullmatch(text)
        if ago:
            return now_ms() - int(ago[1]) * _UNIT_MS[ago[2]]
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(_SAY) from error
        if moment.tzinfo is None:
            raise argparse.ArgumentTypeError(_SAY)
        return int(moment.timestamp() * 1000)

    return read


def frame_name(text: str) -> FrameName:
    """Read ``EDGE/EPOCH/SEQ``; raises ArgumentTypeError."""
    edge, _, rest = text.partition("/")
    epoch, _, seq = rest.partition("/")
    if not edge or not _EPOCH.fullmatch(epoch) or not seq.isdecimal():
        raise argparse.ArgumentTypeError(
            "write EDGE/EPOCH/SEQ as `--json` has them: the epoch is 32 hex digits"
        )
    if int(seq) > limits.EPOCH_FRAMES_MAX:
        raise argparse.ArgumentTypeError(f"no frame has a number over {limits.EPOCH_FRAMES_MAX}")
    return FrameName(EpochName(edge, epoch), int(seq))

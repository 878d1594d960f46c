"""The clock, in one place, so that everything else takes it as an argument."""

import time


def now_ms() -> int:
    """Return milliseconds of UTC since 1970 on the system clock."""
    return time.time_ns() // 1_000_000

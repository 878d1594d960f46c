"""Whether systemd's watchdog is fed.

Law: pure. It is fed only while data can flow: the collector's task runs, or the program is
stopping, and no commit hangs. Whatever starves it is logged once, and once more when it is over.
"""

from typing import Final

from healthsync.runtime.log import Log

STUCK_S_MAX: Final = 30.0
"""A commit that hangs longer than this is no slow card: the watchdog starves and systemd starts
the program again. Answers wait meanwhile, so no sender believes what is not kept."""


class Pulse:
    """Ask `beats` at every look."""

    def __init__(self, log: Log) -> None:
        """Begin well."""
        self._log = log
        self._withheld = False

    def beats(self, stuck_s: float, *, collecting: bool, stopping: bool) -> bool:
        """Tell whether to feed the watchdog; ``stuck_s``: how long a commit has been waiting."""
        well = stuck_s <= STUCK_S_MAX and (collecting or stopping)
        if not well and not self._withheld:
            self._log.error(
                "watchdog-withheld", commit_stuck_s=round(stuck_s, 1), collecting=collecting
            )
        elif well and self._withheld:
            self._log.warning("watchdog-fed-again", commit_stuck_s=round(stuck_s, 1))
        self._withheld = not well
        return well

"""Exit codes of every command, after sysexits(3) where it has a word for it."""

from enum import IntEnum


class Exit(IntEnum):
    """A closed set; `healthsync --help` prints it."""

    OK = 0
    """Done, or stopped cleanly on SIGTERM or SIGINT."""
    DEGRADED = 1
    """A check found something wrong (status, audit, verify)."""
    FAILED = 2
    """A check found the thing checked dead or unreachable."""
    USAGE = 64
    """The command line is wrong."""
    UNAVAILABLE = 69
    """A server this process needs did not answer within its bound; start it again."""
    INTERNAL = 70
    """A defect: the log holds the trace."""
    RESTART = 75
    """State was lost to a peer (fenced, rebalanced away); starting again is right."""
    CONFIG = 78
    """The configuration is wrong; starting again will not help."""

"""Puts the old rules back unless somebody confirms the new ones: a program of its own.

    rollback.py FOLDER CHANGE SECONDS

Law: the standard library alone, everything in memory before it says that it is armed, and whoever
renames ``pending`` first has decided: this program, or `healthsync firewall confirm`. It lives
on when its caller, the shell or the ssh session dies. SIGTERM means now.
"""

import contextlib
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from types import FrameType

PENDING = "pending"
ROLLED_BACK = "rolled-back"
ARMED = "armed"
BATCH = "rollback.batch"

POLL_S = 0.05
TRIES = 40
TRY_EVERY_S = 0.25

_NETLINK_NETFILTER = 12
_SEND_BUFFER_FORCE = 32
_ERROR = 2


class _Now(Exception):
    """Somebody ends this program: better the old rules now than never."""


def main(arguments: list[str]) -> int:
    """Wait and put back; return 0 when confirmed or put back, 1 when the kernel refuses."""
    folder, change, seconds = Path(arguments[0]), arguments[1], float(arguments[2])
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _now)
    raw = (folder / change / BATCH).read_bytes()
    # Of the time since boot, suspended or not: nobody's clock can be set past it.
    ends_s = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
    (folder / change / ARMED).touch()
    with contextlib.suppress(_Now):
        while time.clock_gettime(time.CLOCK_BOOTTIME) < ends_s:
            if not waiting(folder, change):
                return 0
            time.sleep(POLL_S)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not taken(folder, change):
        return 0
    return 0 if put_back(raw) else 1


def _now(_number: int, _frame: FrameType | None) -> None:
    raise _Now


def waiting(folder: Path, change: str, name: str = PENDING) -> bool:
    """Tell whether this change, and no later one, still waits for somebody's word."""
    try:
        return (folder / name).read_text(encoding="ascii").split()[0] == change
    except (FileNotFoundError, IndexError):
        return False


def taken(folder: Path, change: str) -> bool:
    """Decide for the old rules; return False when somebody was faster."""
    if not waiting(folder, change):
        return False
    try:
        (folder / PENDING).rename(folder / ROLLED_BACK)
    except FileNotFoundError:
        return False
    if waiting(folder, change, ROLLED_BACK):
        return True
    # Confirmed, and the next one begun, within this very moment: that one is not ours.
    (folder / ROLLED_BACK).rename(folder / PENDING)
    return False


def put_back(raw: bytes) -> bool:
    """Send the old rules until the kernel has taken them; return whether it has."""
    for _ in range(TRIES):
        if send(raw):
            return True
        time.sleep(TRY_EVERY_S)
    return False


def send(raw: bytes) -> bool:
    """Send a batch in this process's network namespace; return whether it is in force."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as one:
        one.bind((0, 0))
        one.setsockopt(socket.SOL_SOCKET, _SEND_BUFFER_FORCE, len(raw) + 65_536)
        one.send(raw)
        acknowledged = False
        while True:
            try:
                answer = one.recv(1 << 20, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return acknowledged
            except OSError:
                return False
            at = 0
            while at + 20 <= len(answer):
                length, kind = struct.unpack_from("=IH", answer, at)
                if kind == _ERROR:
                    if struct.unpack_from("=i", answer, at + 16)[0]:
                        return False
                    acknowledged = True
                at += max((length + 3) & ~3, 16)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    finally:
        os.sync()

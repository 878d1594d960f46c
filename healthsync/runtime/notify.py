"""Tells systemd READY, WATCHDOG and STOPPING (sd_notify(3)); does nothing outside systemd."""

import os
import socket


def notify(state: str) -> None:
    """Send one state, such as ``READY=1``, to $NOTIFY_SOCKET if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)  # a manager that does not read must not stop the service
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            return  # systemd restarts a service whose watchdog starves; nothing to add here


def watchdog_interval_s() -> float | None:
    """Return half of $WATCHDOG_USEC in seconds, or None when no watchdog is set."""
    usec = os.environ.get("WATCHDOG_USEC")
    return int(usec) / 2_000_000 if usec and usec.isdigit() else None

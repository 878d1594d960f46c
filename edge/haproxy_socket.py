"""Tells the gateway's HAProxy of another certificate, over its runtime socket.

The private key goes over a unix socket on this machine and nowhere else.
"""

import re

from healthsync.runtime.haproxy import HaproxyError, Runtime


class HaproxySocket:
    """One HAProxy and the file that its ``crt`` names."""

    def __init__(self, address: str, file: str) -> None:
        """``address``: a path, or ``abns@name``; ``file``: as written in HAProxy's file."""
        self._runtime, self._file = Runtime(address), file

    def serial(self) -> int:
        """Return the serial of the certificate that HAProxy uses; raise HaproxyError."""
        said = self._runtime.ask(f"show ssl cert {self._file}")
        match = re.search(r"^Serial: ([0-9A-Fa-f]+)$", said, re.MULTILINE)
        if match is None:
            raise HaproxyError("HAProxy does not use this file")
        return int(match[1], 16)

    def use(self, bundle: bytes) -> None:
        """Use another certificate from the next connection on; raise HaproxyError."""
        self._runtime.replace("cert", self._file, bundle)

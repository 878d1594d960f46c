"""Tells the gateway's HAProxy of another certificate, over its runtime socket.

Law: changes nothing for connections that stand. Every command is a connection of its own, bounded
in time and bytes; a change that HAProxy does not commit is aborted there and raised. The private
key goes over a unix socket on this machine and nowhere else.
"""

import re
import socket
from typing import Final

from edge.certificate_store import BUNDLE_BYTES_MAX

COMMAND_S_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 16 * 1024
_ABSTRACT: Final = "abns@"
_PATH_BYTES: Final = 108
"""sun_path of unix(7): HAProxy pads an ``abns@`` name with zeros to its end."""


class HaproxyError(OSError):
    """HAProxy does not answer on its socket, or does not take the certificate."""


class HaproxySocket:
    """One HAProxy and the file that its ``crt`` names."""

    def __init__(self, address: str, file: str) -> None:
        """``address``: a path, or ``abns@name``; ``file``: as written in HAProxy's file."""
        self._address, self._file = address, file

    def serial(self) -> int:
        """Return the serial of the certificate that HAProxy uses; raise HaproxyError."""
        said = self._command(f"show ssl cert {self._file}\n".encode())
        match = re.search(r"^Serial: ([0-9A-Fa-f]+)$", said, re.MULTILINE)
        if match is None:
            raise HaproxyError("HAProxy does not use this file")
        return int(match[1], 16)

    def use(self, bundle: bytes) -> None:
        """Use another certificate from the next connection on; raise HaproxyError."""
        if len(bundle) > BUNDLE_BYTES_MAX:
            raise HaproxyError("the bundle is too large")
        # An empty line ends what is sent.
        lines = b"".join(line + b"\n" for line in bundle.splitlines() if line)
        begun = self._command(f"set ssl cert {self._file} <<\n".encode() + lines + b"\n")
        if "Transaction" not in begun:
            raise HaproxyError("HAProxy does not take the certificate")
        if "Success!" not in self._command(f"commit ssl cert {self._file}\n".encode()):
            self._command(f"abort ssl cert {self._file}\n".encode())
            raise HaproxyError("HAProxy did not commit the certificate")

    def _command(self, command: bytes) -> str:
        address: str | bytes = self._address
        if self._address.startswith(_ABSTRACT):
            name = b"\0" + self._address.removeprefix(_ABSTRACT).encode()
            address = name.ljust(_PATH_BYTES, b"\0")
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(COMMAND_S_MAX)
                sock.connect(address)
                sock.sendall(command)
                got = b""
                while (part := sock.recv(ANSWER_BYTES_MAX)) and len(got) <= ANSWER_BYTES_MAX:
                    got += part
        except OSError as error:
            raise HaproxyError(f"HAProxy's socket: {type(error).__name__}") from error
        return got.decode(errors="replace")

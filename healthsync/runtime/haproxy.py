"""HAProxy's runtime socket, as far as a file is replaced in a process that runs.

Law: changes nothing for connections that stand. Every command is a connection of its own, bounded
in time and bytes; HAProxy's answer decides, not that it was sent; what it does not commit is
aborted there and raised.
"""

import socket
from typing import Final, Literal

ANSWER_S_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 256 * 1024

SPARE_BYTES: Final = 500
"""Kept free of HAProxy's ``tune.bufsize``. Measured with HAProxy 2.6: a command of one byte less
than the buffer is taken, one more is never answered, and some more than that end the whole process
(a segmentation fault). So what is near it is never sent."""

BUFFER_BYTES: Final = 16_384
"""HAProxy's own ``tune.bufsize``, where its file does not say another."""

_ABSTRACT: Final = "abns@"
_PATH_BYTES: Final = 108
"""sun_path of unix(7): HAProxy fills an ``abns@`` name with zeros to its end."""

_EXCERPT_CHARS: Final = 200


class HaproxyError(OSError):
    """HAProxy does not answer on its socket, or does not take what it was told."""


class Runtime:
    """The socket of one HAProxy. ``address``: a path, or ``abns@name``."""

    def __init__(self, address: str, buffer_bytes: int = BUFFER_BYTES) -> None:
        """``buffer_bytes``: the ``tune.bufsize`` in its file."""
        self._address = address
        self.command_bytes_max = buffer_bytes - SPARE_BYTES
        """Of one command with all that comes with it."""

    def ask(self, command: str) -> str:
        """Return the answer to a command of one line; raise HaproxyError."""
        return self._send(f"{command}\n".encode())

    def replace(self, kind: Literal["cert", "crl-file"], file: str, pem: bytes) -> None:
        """Use ``pem`` for ``file``, as HAProxy's own file names it; raise HaproxyError."""
        # An empty line ends what is sent.
        lines = b"".join(line + b"\n" for line in pem.splitlines() if line)
        said = self._send(f"set ssl {kind} {file} <<\n".encode() + lines + b"\n")
        if "transaction" not in said.lower():
            raise HaproxyError(f"not taken: {_excerpt(said)}")
        said = self.ask(f"commit ssl {kind} {file}")
        if "Success" not in said:
            self.ask(f"abort ssl {kind} {file}")
            raise HaproxyError(f"not committed: {_excerpt(said)}")

    def _send(self, command: bytes) -> str:
        if len(command) > self.command_bytes_max:
            raise HaproxyError(
                f"{len(command)} bytes; the runtime socket takes {self.command_bytes_max}"
            )
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(ANSWER_S_MAX)
                sock.connect(self._path())
                sock.sendall(command)
                got = b""
                while (part := sock.recv(ANSWER_BYTES_MAX)) and len(got) <= ANSWER_BYTES_MAX:
                    got += part
        except OSError as error:
            raise HaproxyError(f"HAProxy's socket: {type(error).__name__}") from error
        if len(got) > ANSWER_BYTES_MAX:
            raise HaproxyError("an answer without end")
        return got.decode(errors="replace")

    def _path(self) -> bytes:
        if not self._address.startswith(_ABSTRACT):
            return self._address.encode()
        name = b"\0" + self._address.removeprefix(_ABSTRACT).encode()
        return name.ljust(_PATH_BYTES, b"\0")


def _excerpt(said: str) -> str:
    return " ".join(said.split())[:_EXCERPT_CHARS] or "no answer"

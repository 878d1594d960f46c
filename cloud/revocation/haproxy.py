"""HAProxy's runtime socket, as far as replacing a list in a running process.

Law: bounded in time and bytes; HAProxy's answer decides, not that it was sent.
"""

import socket
from pathlib import Path
from typing import Final

COMMAND_BYTES_MAX: Final = 65_000
"""Of ``tune.bufsize`` 65,536 (cloud.cfg.j2). Measured with HAProxy 2.6: 65,535 bytes are taken; one
more is never answered, and some more than that end the whole process (a segmentation fault). So
what is over this is never sent."""

ANSWER_BYTES_MAX: Final = 1024 * 1024
ANSWER_S_MAX: Final = 5.0

_ABSTRACT: Final = "abns@"
SUN_PATH_BYTES: Final = 108
"""unix(7): HAProxy fills a name of the kernel's own name space with zeros to its end."""


class NotTaken(OSError):
    """HAProxy answered, and did not take it."""


def _path(address: str) -> str:
    name = address.removeprefix(_ABSTRACT)
    return address if name == address else ("\0" + name).ljust(SUN_PATH_BYTES, "\0")


def _ask(address: str, text: bytes) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ANSWER_S_MAX)
        sock.connect(_path(address))
        sock.sendall(text)
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
            if len(answer) > ANSWER_BYTES_MAX:
                raise NotTaken("an answer without end")
    return answer.decode("utf-8", "replace")


def command(file: Path, pem: bytes) -> bytes:
    """Return what tells HAProxy to hold ``pem`` for ``file``."""
    return f"set ssl crl-file {file} <<\n".encode() + pem.rstrip() + b"\n\n"


def replace_list(address: str, file: Path, pem: bytes) -> None:
    """Replace what HAProxy holds of ``file`` (as its configuration names it); raise OSError.

    ``address``: path of the runtime socket, or ``abns@NAME``.
    """
    text = command(file, pem)
    if len(text) > COMMAND_BYTES_MAX:
        raise NotTaken(f"{len(text)} bytes; the runtime socket takes {COMMAND_BYTES_MAX}")
    if b"\n\n" in pem:
        raise NotTaken("an empty line would end it early")
    said = _ask(address, text)
    if "transaction" not in said:
        raise NotTaken(said.strip()[:200] or "no answer")
    said = _ask(address, f"commit ssl crl-file {file}\n".encode())
    if "Success" not in said:
        _ask(address, f"abort ssl crl-file {file}\n".encode())
        raise NotTaken(said.strip()[:200] or "no answer")

"""The control socket's place in the file system, for the server and for the commands.

Law: a socket that nobody listens on is replaced, one that somebody does is left alone, and
anything else of that name is never touched. Whoever opens a listener closes it by `close`, which
removes the file only while it is still the one it made.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PATH_BYTES_MAX: Final = 107
"""What an address of a unix socket holds (unix(7): sun_path has 108 bytes with its zero)."""

MODE: Final = 0o600
BACKLOG: Final = 8


class Taken(OSError):
    """Another program answers on the socket."""


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give an address that fits, however deep the path: through the folder's descriptor."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Return a connected socket with a time limit on every call; raise OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout_s)
        with _address(path) as address:
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


class Listening:
    """A listener and the file that it made."""

    def __init__(self, path: Path) -> None:
        """Listen at ``path``; raise `Taken` or another OSError."""
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._made: tuple[int, int] | None = None
        try:
            self._bind()
            # Nobody can have connected yet: that takes a listener.
            path.chmod(MODE)
            self.sock.listen(BACKLOG)
            self.sock.setblocking(False)
        except BaseException:
            self.close()
            raise

    def _bind(self) -> None:
        with _address(self.path) as address:
            try:
                self.sock.bind(address)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                self._clear()
                self.sock.bind(address)
        found = self.path.lstat()
        self._made = found.st_dev, found.st_ino

    def _clear(self) -> None:
        """Remove what a crash left."""
        if not stat.S_ISSOCK(self.path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "something that is no socket has its name")
        try:
            connect(self.path, 1.0).close()
        except ConnectionRefusedError:
            self.path.unlink()
        else:
            raise Taken(errno.EADDRINUSE, "another program answers on it")

    def close(self) -> None:
        """Stop listening and remove the file."""
        self.sock.close()
        made, self._made = self._made, None
        try:
            found = self.path.lstat()
        except OSError:
            return
        if made == (found.st_dev, found.st_ino):
            self.path.unlink(missing_ok=True)

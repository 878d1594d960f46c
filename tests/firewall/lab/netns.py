"""Anonymous network namespaces: held by a file descriptor alone, without name or process."""

import ctypes
import errno
import os
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.firewall.lab.errors import LabError, LabUnavailable

_CLONE_NEWNET = 0x40000000
_SYS = Path("/proc/sys/net")
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(name: str, result: int) -> None:
    if result:
        code = ctypes.get_errno()
        if code in {errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOSPC}:
            raise LabUnavailable(
                f"{name}: {os.strerror(code)}. The packet lab makes network namespaces:"
                " it needs root with CAP_SYS_ADMIN, and a kernel with CONFIG_NET_NS"
            )
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _of_this_thread() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _unshared() -> int:
    _checked("unshare(CLONE_NEWNET)", _libc.unshare(_CLONE_NEWNET))
    return _of_this_thread()


class Namespace:
    """One network namespace, which lives as long as its descriptor or a socket made in it.

    Raises `LabUnavailable` if this user or kernel may not make one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        # In a thread that ends: the caller's own never leaves its namespace for this.
        with ThreadPoolExecutor(1) as pool:
            self._fd = pool.submit(_unshared).result()

    @property
    def fd(self) -> int:
        """Descriptor of the namespace, for setns(2) or IFLA_NET_NS_FD; the lab closes it."""
        if self._fd < 0:
            raise LabError(f"namespace {self.name} is closed")
        return self._fd

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run the current thread in the namespace, and go back to where it was.

        What is made inside stays in it: a socket, a thread, a process (`subprocess.run`).
        """
        fd, home = self.fd, _of_this_thread()
        try:
            _checked("setns", _libc.setns(fd, _CLONE_NEWNET))
            try:
                yield
            finally:
                _checked("setns back", _libc.setns(home, _CLONE_NEWNET))
        finally:
            os.close(home)

    def socket(self, family: int, kind: int, proto: int = 0) -> socket.socket:
        """Make a non-blocking socket in the namespace, usable from any thread."""
        with self.entered():
            try:
                made = socket.socket(family, kind, proto)
            except PermissionError as error:
                raise LabUnavailable(
                    f"socket({family}, {kind}, {proto}): the packet lab needs root with CAP_NET_RAW"
                ) from error
        made.setblocking(False)
        return made

    def sysctls(self, values: Mapping[str, str], *, must: bool = True) -> None:
        """Write files under /proc/sys/net; one this kernel lacks is an error only if it `must`."""
        with self.entered():
            for name, value in values.items():
                path = _SYS / name
                try:
                    path.write_text(value, "ascii")
                except FileNotFoundError as error:
                    if must:
                        raise LabUnavailable(f"this kernel has no {path}") from error
                except OSError as error:
                    raise LabUnavailable(
                        f"{path} cannot be written ({error.strerror}):"
                        " the packet lab needs root with CAP_NET_ADMIN, and a writable /proc/sys"
                    ) from error

    def close(self) -> None:
        """Let go of the namespace; the kernel takes it apart when its last socket is closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

"""Network namespaces of a test's own thread, and nft(8) in them."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
_library = ctypes.CDLL(None, use_errno=True)


@contextmanager
def namespace() -> Iterator[None]:
    """Run the calling thread in an empty network namespace that ends with the block."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _library.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "these tests need root: a network namespace")
        try:
            yield
        finally:
            if _library.setns(before, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(before)


def nft(*words: str, text: str | None = None) -> str:
    """Run nft(8) in this thread's namespace; return what it prints."""
    done = subprocess.run(
        ["nft", *words], input=text, text=True, check=False, capture_output=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(text: str) -> None:
    """Load nft text."""
    nft("-f", "-", text=text)

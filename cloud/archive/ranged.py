"""An S3 object as a seekable file for pyarrow: its end is fetched first, the rest on demand."""

import io
from typing import Final, Protocol

# The end that is fetched first: a footer with its state; small files come whole.
TAIL_BYTES: Final = 256 * 1024

# Least bytes of a further request: column chunks lie beside each other.
RANGE_BYTES: Final = 1024 * 1024


class Ranges(Protocol):
    """What can read a part of an object (`Store`)."""

    def read(self, key: str, start: int, size: int) -> bytes:
        """Return the bytes."""
        ...


class ObjectFile(io.RawIOBase):
    """A read-only file over one immutable object; raises what the store raises."""

    def __init__(self, store: Ranges, key: str, size: int, tail: bytes = b"") -> None:
        """``size`` as listed; ``tail``: the object's last bytes if they are at hand."""
        super().__init__()
        self._store = store
        self._key = key
        self._size = size
        self._at = 0
        self.tail = tail or store.read(key, max(0, size - TAIL_BYTES), min(size, TAIL_BYTES))
        self._block = (size - len(self.tail), self.tail)
        self._tail_block = self._block

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; return the new position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, all that are left if negative."""
        left = max(0, self._size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        if count == 0:
            return b""
        for start, block in (self._tail_block, self._block):
            if start <= self._at and self._at + count <= start + len(block):
                break
        else:
            start = self._at
            block = self._store.read(
                self._key, start, min(max(count, RANGE_BYTES), self._size - start)
            )
            self._block = (start, block)
        data = block[self._at - start : self._at - start + count]
        self._at += count
        return data

"""A damaged spool as bytes: its pages, the journal's newer images of them, and what is on them.

Law: opens for reading alone and believes nothing it reads. Gives each page as SQLite would see it
had no sector of the journal gone bad; leaves out pages that are known to be free, since what is on
them was deleted.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from edge import pages, wal
from edge.pages import Row
from vitals.epoch import WrappedEpoch

PAGE_BYTES: Final = 4096
"""Of every spool made here; for a file whose header is gone."""

WAL_FRAMES_MAX: Final = 65_536
"""Page images of the journal that are looked at: 256 MiB, far over what it ever grows to."""


class Wreck:
    """The file at ``path`` and its journal, whatever is left of them. Close it."""

    def __init__(self, path: Path) -> None:
        """Open both and read the journal's headers; raise OSError."""
        self._file = path.open("rb")
        self._log: BinaryIO | None = None
        try:
            sizes = pages.page_size(self._file.read(100)) or (PAGE_BYTES, PAGE_BYTES)
            self._images: dict[int, int] = {}
            log = path.with_name(path.name + "-wal")
            if log.exists():
                self._log = log.open("rb")
                sizes = self._read_log(self._log, *sizes)
            self._bytes, self._usable = sizes
            size = self._file.seek(0, 2)
        except BaseException:
            self.close()
            raise
        self.pages = max([-(-size // self._bytes), *self._images])
        first = self.page(1) or b""
        # The journal may hold the header that the file has lost.
        if (better := pages.page_size(first)) and better[0] == self._bytes:
            self._usable = better[1]
        known = len(first) == self._bytes and first[:16] == pages.MAGIC
        self._free = (
            pages.free_pages(first, self._usable, self.pages, self.page) if known else set()
        )

    def _read_log(self, log: BinaryIO, page_bytes: int, usable: int) -> tuple[int, int]:
        of = wal.shape(log.read(wal.HEADER_BYTES), page_bytes, log.read(wal.FRAME_HEADER_BYTES))
        if of is None or not 512 <= of.page_bytes <= 65536:
            return page_bytes, usable
        # Images in the order of time: the last of a page is the newest.
        self._images = {image.page: image.at for image in wal.whole(log, of, most=WAL_FRAMES_MAX)}
        if of.page_bytes != page_bytes:
            return of.page_bytes, of.page_bytes
        return page_bytes, usable

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._log is not None:
            self._log.close()

    def page(self, number: int) -> bytes | None:
        """Return one page, None beyond the end; a cut last page is filled up with zeros."""
        at = self._images.get(number)
        try:
            if at is not None and self._log is not None:
                self._log.seek(at)
                page = self._log.read(self._bytes)
            elif number > 0:
                self._file.seek((number - 1) * self._bytes)
                page = self._file.read(self._bytes)
            else:
                return None
        except OSError:  # a sector that the card does not give any more
            return None
        return page.ljust(self._bytes, b"\x00") if page else None

    def records(self, number: int) -> Iterator[Row | WrappedEpoch]:
        """Yield what is on one page that is not known to be free, by its shape alone."""
        if number in self._free:
            return
        page = self.page(number)
        if page is not None:
            yield from pages.records(page, number, self._usable, self.page)

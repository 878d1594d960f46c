"""Serial numbers of revoked gateway certificates, from the file that HAProxy uses too.

Law: reads only; a file that cannot be read or parsed leaves what was known. `pull-crl` has checked
who signed it. HAProxy refuses new connections; this ends the sessions that are open, and refuses
where HAProxy has not got the list yet.
"""

from pathlib import Path

from cloud.revocation import lists
from cloud.revocation.lists import ListRefused
from healthsync.runtime.log import Log


def serial(text: bytes | str) -> int | None:
    """Return the number of HAProxy's hexadecimal one, None if it is none."""
    try:
        found = int(text if isinstance(text, str) else text.decode("ascii"), 16)
    except ValueError:
        return None
    return found if found >= 0 else None


class Revoked:
    """The file; it is read again when it has changed."""

    def __init__(self, file: Path | None, log: Log) -> None:
        """``file`` None: nobody is revoked here."""
        self._file, self._log = file, log
        self._stamp: tuple[int, int, int] | None = None
        self._serials: frozenset[int] = frozenset()
        self.look()

    def look(self) -> None:
        """Read the file if it has changed."""
        if self._file is None:
            return
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return
            read = lists.parse(self._file.read_bytes())
        except (OSError, ListRefused) as error:
            self._log.error("revocation-list-unreadable", error=type(error).__name__)
            return
        self._stamp = stamp
        self._serials = frozenset(entry.serial_number for one in read for entry in one)

    def __contains__(self, number: int) -> bool:
        return number in self._serials

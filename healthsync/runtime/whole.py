"""Files that are there whole or not at all, whenever the power goes."""

import os
from pathlib import Path


def write(
    path: Path, data: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None
) -> None:
    """Replace ``path`` durably: after a cut it holds all of ``data`` or what it held before.

    The bytes reach the disk before the name does, and the name before this returns. ``owner``:
    user and group that it is given to. Raises OSError, and then ``path`` is as it was.
    """
    new = path.with_name(path.name + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor, opened with its mode
        os.fchmod(handle, mode)  # of one left over, and whatever the umask
        if owner is not None:
            os.fchown(handle, *owner)
        file.write(data)
        file.flush()
        os.fsync(handle)
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was renamed, made or removed in a folder durable; raise OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

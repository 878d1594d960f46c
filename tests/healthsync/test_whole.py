"""A file is there whole, durably and privately, or it is as it was."""

import os
import stat
from pathlib import Path

import pytest

from healthsync.runtime import whole


def test_it_is_written_with_its_mode_whatever_the_umask_and_what_was_left(tmp_path: Path) -> None:
    path = tmp_path / "key"
    left = tmp_path / "key.new"
    left.write_bytes(b"of a cut that was long ago")
    left.chmod(0o644)
    before = os.umask(0o077)
    try:
        whole.write(path, b"secret")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        whole.write(path, b"public", mode=0o644)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)
    assert path.read_bytes() == b"public"
    assert [one.name for one in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("nth", [0, 1])
def test_stopped_before_any_sync_the_old_one_or_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    path = tmp_path / "state"
    whole.write(path, b"old")
    seen: list[bool] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        seen.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        if len(seen) > nth:
            raise OSError("the power went")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="power"):
        whole.write(path, b"new")
    # the bytes before the name, the name before the answer
    assert seen == [False, True][: nth + 1]
    assert path.read_bytes() == (b"old", b"new")[nth]


def test_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    whole.write(path, b"old")
    real = os.open

    def full(name: Path, flags: int, mode: int = 0o777) -> int:
        return real("/dev/full" if str(name).endswith(".new") else name, flags, mode)

    monkeypatch.setattr(os, "open", full)
    monkeypatch.setattr(os, "fchmod", lambda _handle, _mode: None)  # of the machine's own device
    with pytest.raises(OSError, match="No space"):
        whole.write(path, b"new" * 1000)
    assert path.read_bytes() == b"old"

"""Signed settings are found by the gateway's name, read anew when they change, never guessed."""

import io
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.ingest.pushes import FILE_BYTES_MAX, Pushes, read, write
from healthsync.runtime.log import Log
from vitals import settings as settings_

PRIVATE = Ed25519PrivateKey.generate()


def test_what_was_written_is_read_and_still_signed() -> None:
    made = settings_.sign("ward-1", 3, 'ward = "Übersee"\n'.encode(), PRIVATE)
    again = read(write(made))
    assert again == made
    settings_.verify("ward-1", again, PRIVATE.public_key())


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    pushes = Pushes(tmp_path)
    assert pushes.of("ward-1") is None
    path = tmp_path / "ward-1.json"
    for version in (1, 2):
        path.write_bytes(write(settings_.sign("ward-1", version, b"", PRIVATE)))
        os.utime(path, ns=(version, version))
        found = pushes.of("ward-1")
        assert found is not None
        assert found.version == version
        assert pushes.of("ward-1") is found
    assert pushes.of("ward-2") is None
    path.unlink()
    assert pushes.of("ward-1") is None


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"\xff", b'{"version":1,"document":"","key":"","signature":"!"}'],
)
def test_a_file_that_is_none_is_nobodys_and_is_said_once(tmp_path: Path, data: bytes) -> None:
    out = io.StringIO()
    pushes = Pushes(tmp_path, Log("ingest", lambda: 0, out))
    (tmp_path / "ward-1.json").write_bytes(data)
    for _ in range(3):
        assert pushes.of("ward-1") is None
    assert out.getvalue().count("settings-unreadable") == 1


def test_a_file_without_end_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "ward-1.json").open("wb") as file:
        file.truncate(100 * FILE_BYTES_MAX)
    assert Pushes(tmp_path).of("ward-1") is None
    with pytest.raises(ValueError, match="at most"):
        read(bytes(FILE_BYTES_MAX + 1))


def test_without_a_folder_nothing_is_pushed() -> None:
    assert Pushes(None).of("ward-1") is None

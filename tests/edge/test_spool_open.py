"""Whatever lies on the disk, the start goes on; whatever the disk does, it recovers by itself."""

import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edge import epoch_file, spool_read, spool_schema
from edge.spool import Backlog, Spool, is_damage, open_spool, set_aside
from edge.spool_aside import pending
from edge.spool_schema import part
from tests.edge.spooling import (
    NOW,
    PLENTY,
    ask,
    counters,
    entry,
    fill,
    handed,
    opened,
    put,
    sealed,
    sealing,
    seqs,
    store,
    tell,
)

ROOT = Path(__file__).parents[2]


def _open(path: Path) -> tuple[Spool, Path | None]:
    return open_spool(path, PLENTY, NOW, refuse_when_full=False)


def _works(spool: Spool) -> None:
    of = sealing()
    assert put(spool, of, sealed(of, 0)).frames_now == 1


def test_a_sound_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    opened(path).close()
    spool, aside = _open(path)
    assert aside is None
    spool.close()


@pytest.mark.parametrize(
    "content",
    [
        b"not a database at all" * 400,
        b"SQLite format 3\x00" * 300,
        b"x",
        b"SQLite format 3\x00" + bytes(84),
    ],
)
def test_what_is_no_database_is_set_aside_and_the_start_goes_on(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(content)
    spool, aside = _open(path)
    assert aside == tmp_path / f"spool.db.damaged-{NOW}"
    assert aside.read_bytes() == content
    assert pending(path) == [aside]
    _works(spool)
    spool.close()


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    path.touch()
    spool, aside = _open(path)
    assert aside is None
    _works(spool)
    spool.close()


def test_an_empty_database_with_a_full_journal_is_not_thrown_away(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    fill(spool, of, 5)
    shutil.copy(part(path, "-wal"), tmp_path / "kept")
    spool.close()
    path.write_bytes(b"")
    shutil.copy(tmp_path / "kept", part(path, "-wal"))
    spool, aside = _open(path)
    assert aside is not None
    assert part(aside, "-wal").read_bytes() == (tmp_path / "kept").read_bytes()
    _works(spool)
    spool.close()


@pytest.mark.parametrize(
    "change",
    [
        "PRAGMA user_version=4",
        "DROP TABLE counters",
        "ALTER TABLE frames DROP COLUMN crc",
        "PRAGMA user_version=0",
        "PRAGMA writable_schema=ON; UPDATE sqlite_master SET sql='CREATE'; PRAGMA user_version=2",
    ],
)
def test_a_newer_a_foreign_and_a_crippled_database_are_set_aside(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "spool.db"
    opened(path).close()
    tell(path, change)
    spool, aside = _open(path)
    assert aside is not None
    _works(spool)
    spool.close()


def test_pages_overwritten_in_the_middle_are_found_after_an_unclean_stop(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq) for seq in range(200)))
    spool.close()
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 8192):
        data[page : page + 64] = b"\xa5" * 64
    path.write_bytes(data)
    part(path, "-wal").write_bytes(bytes(33))
    spool, aside = _open(path)
    assert aside is not None
    assert spool.store(of.epoch, [], Counter()).frames_now == 0
    spool.close()


def test_a_clean_start_reads_next_to_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq) for seq in range(50)))
    spool.close()
    looked: list[str] = []
    monkeypatch.setattr(spool_schema, "_quick_check", lambda _: looked.append("all of it"))
    opened(path).close()
    assert not looked
    part(path, "-wal").write_bytes(bytes(33))
    opened(path).close()
    assert looked


def test_looking_for_damage_ends_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for first in range(0, 3000, 100):
        put(spool, of, *(sealed(of, first + seq, size=300) for seq in range(100)))
    spool.close()
    monkeypatch.setattr(spool_schema, "CHECK_S_MAX", -1.0)
    part(path, "-wal").write_bytes(bytes(33))
    spool, aside = _open(path)
    assert aside is None
    spool.close()


def test_what_is_said_after_the_interruption_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted:
        """A connection whose check ends when it is interrupted, with half a result."""

        def __init__(self) -> None:
            self.stopped = threading.Event()

        def interrupt(self) -> None:
            self.stopped.set()

        def execute(self, _: str) -> "Interrupted":
            self.stopped.wait(0.5)
            return self

        def fetchone(self) -> tuple[str]:
            return ("Page 7 is never used",)

    check: Any = spool_schema._quick_check
    monkeypatch.setattr(spool_schema, "CHECK_S_MAX", 0.0)
    check(Interrupted())
    monkeypatch.setattr(spool_schema, "CHECK_S_MAX", 60.0)
    with pytest.raises(sqlite3.DatabaseError, match="quick_check"):
        check(Interrupted())


def test_opening_and_reading_ends_cost_the_same_however_much_is_stored(tmp_path: Path) -> None:
    def steps(count: int) -> int:
        path, of = tmp_path / f"{count}.db", sealing()
        spool = opened(path)
        for first in range(0, count, 100):
            put(spool, of, *(sealed(of, first + seq, size=300) for seq in range(100)))
        spool.close()
        taken = 0

        def step() -> int:
            nonlocal taken
            taken += 1
            return 0

        connect = sqlite3.connect

        def counting(*arguments: object, **named: object) -> sqlite3.Connection:
            db: sqlite3.Connection = connect(*arguments, **named)  # type: ignore[call-overload]  # passed on as they came
            db.set_progress_handler(step, 50)
            return db

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite3, "connect", counting)
            opened(path).close()
            backlog = Backlog(path)
            assert backlog.last_id() == count
            assert len(backlog.epochs()) == len(backlog.lowest()) == 1
            backlog.close()
            assert spool_read.read(path, NOW)["frames"] == count
        return taken

    assert steps(4000) <= steps(200) + 2


def test_set_aside_writes_over_nothing_and_takes_the_journal_along(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    names = []
    for content in (b"one", b"two"):
        path.write_bytes(content)
        part(path, "-wal").write_bytes(content)
        part(path, "-shm").write_bytes(content)
        names.append(set_aside(path, NOW))
    assert [name.read_bytes() for name in names] == [b"one", b"two"]
    assert [part(name, "-wal").read_bytes() for name in names] == [b"one", b"two"]
    assert not list(tmp_path.glob("*-shm"))
    assert pending(path) == names
    part(path, f".damaged-{NOW + 2}-wal").write_bytes(b"half of a file put aside")
    path.write_bytes(b"three")
    assert set_aside(path, NOW + 2) == part(path, f".damaged-{NOW + 3}")
    part(path, ".damaged-9").touch()
    part(path, ".damaged-10").touch()
    assert pending(path)[:2] == [part(path, ".damaged-9"), part(path, ".damaged-10")]


def test_ids_go_on_in_the_file_that_takes_a_damaged_ones_place(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    last = fill(spool, of, 3)[-1].id
    spool.close()
    spool, aside = open_spool(
        path, PLENTY, NOW, refuse_when_full=False, after_id=last + 5, damaged=True
    )
    assert aside is not None
    later = sealing()
    assert put(spool, later, sealed(later, 0)).frames[0].id > last + 5
    spool.close()


def test_is_damage_tells_broken_from_busy() -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    broken = sqlite3.DatabaseError("malformed")
    broken.sqlite_errorcode = sqlite3.SQLITE_CORRUPT | 1 << 8  # an extended code
    assert is_damage(broken)
    assert is_damage(spool_schema.damage("x"))
    assert not is_damage(full)
    assert not is_damage(sqlite3.OperationalError("no code"))


# -- the disk ---------------------------------------------------------------------------------


def test_a_place_where_nothing_can_be_made_does_not_stop_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    spool, aside = _open(folder / "spool.db")  # the folder is not there (yet)
    assert (aside, spool.is_open) == (None, False)
    of = sealing()
    spool.begin(of.epoch)
    with pytest.raises(sqlite3.OperationalError):
        put(spool, of, sealed(of, 0))
    folder.mkdir()
    assert put(spool, of, sealed(of, 1)).frames_now == 1
    spool.close()
    assert [epoch.epoch for epoch in epoch_file.read(folder / "spool.db.epochs")] == [
        of.epoch.epoch
    ]
    assert len(handed(folder / "spool.db")) == 1


def test_a_handle_that_can_only_read_is_opened_again(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, sealed(of, 0))
    spool.close()
    spool = opened(path)
    # As when the disk could only be read at the time of opening.
    spool._db.close()
    spool._handle = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        put(spool, of, sealed(of, 1))
    assert not spool.is_open
    assert put(spool, of, sealed(of, 2)).frames_now == 2
    spool.close()


def test_a_file_that_is_another_after_opening_it_again_has_the_epoch_too(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, sealed(of, 0))
    spool.close()
    path.unlink()  # the card was changed
    put(spool, of, sealed(of, 1))
    assert [held.seq for held in handed(path)] == [1]
    assert spool.last_id == 2
    spool.close()


def test_opening_again_in_a_running_epoch_hides_nothing(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, sealed(of, 0))
    spool.close()
    other = opened(tmp_path / "other.db")
    put(other, of, sealed(of, 0))
    other.close()
    (tmp_path / "other.db").rename(part(path, ".damaged-5"))
    assert put(spool, of, sealed(of, 1)).frames[0].id == 2
    assert len(seqs(path)) == 2
    spool.close()


def test_damage_of_a_file_that_was_opened_again_is_told_as_damage(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    spool.close()
    path.write_bytes(b"gone to noise" * 1000)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        put(spool, of, sealed(of, 0))
    assert is_damage(caught.value)
    spool.begin(of.epoch)  # is said where it counts: by `store`


_FULL = """
import resource, signal, sqlite3, sys
from pathlib import Path
from tests.edge.spooling import *
from edge.spool import open_spool

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, of = Path(sys.argv[1]), sealing()
spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False)
spool.begin(of.epoch)
print(of.epoch.epoch, spool.is_open)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
kept, failures, seq = [], 0, 0
while failures < 5:
    seq += 1
    try:
        kept += [one.seq for one in put(spool, of, sealed(of, seq, size=4000)).frames]
        failures = 0
    except sqlite3.Error as error:
        failures += 1
print(*kept)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(*(one.seq for one in put(spool, of, sealed(of, seq + 1)).frames))
spool.close()
"""


@pytest.mark.parametrize("most", [0, 30_000, 200_000, 400_001])
def test_a_full_disk_keeps_what_it_said_and_goes_on_by_itself(tmp_path: Path, most: int) -> None:
    path = tmp_path / "spool.db"
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(path), str(most)],
        capture_output=True,
        cwd=ROOT,
        text=True,
        timeout=60,
        check=True,
    )
    began, kept, after = done.stdout.splitlines()
    said = {int(seq) for seq in (kept + " " + after).split()}
    assert {seq for _, seq in seqs(path)} == said
    assert bool(kept) == (most > 30_000)
    assert began.endswith("True")
    assert spool_read.verify(path) == []


_READ_ONLY = """
import os, sqlite3, subprocess, sys
from pathlib import Path
from tests.edge.spooling import *
from edge.spool import is_damage, open_spool

folder = Path(sys.argv[1])
path, of = folder / "spool.db", sealing()
def mount(*words):
    subprocess.run(["mount", *words], check=True)
mount("--bind", str(folder), str(folder))
mount("-o", "remount,bind,ro", str(folder))
spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False)
spool.begin(of.epoch)
try:
    put(spool, of, sealed(of, 0))
except sqlite3.Error as error:
    print("refused", aside, is_damage(error))
mount("-o", "remount,bind,rw", str(folder))
spool.close()
spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False)
print(len(put(spool, of, sealed(of, 1)).frames), aside is not None)
spool.close()
"""


def _may_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not _may_unshare(), reason="needs a mount namespace of its own")
@pytest.mark.parametrize("there", ["nothing", "a spool", "a damaged one"])
def test_a_disk_that_can_only_be_read_does_not_stop_the_start(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    if there == "a spool":
        opened(folder / "spool.db").close()
    elif there == "a damaged one":
        (folder / "spool.db").write_bytes(b"noise" * 1000)
    done = subprocess.run(
        ["unshare", "-Urm", sys.executable, "-c", _READ_ONLY, str(folder)],
        capture_output=True,
        cwd=ROOT,
        text=True,
        timeout=60,
        check=False,
    )
    damaged = there == "a damaged one"
    assert done.stdout.splitlines() == [f"refused None {damaged}", f"1 {damaged}"], done.stderr


def test_a_commit_takes_what_one_synced_write_takes(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    began = time.process_time()
    for number in range(300):
        store(spool, of, entry(number))
    assert (time.process_time() - began) / 300 < 0.003
    size = part(path, "-wal").stat().st_size
    assert size / 300 < 6 * 4120  # pages written for one frame: both trees and the counts
    spool.close()
    assert counters(path)["frames_spooled"] == 300
    assert ask(path, "SELECT count(*) FROM frames") == [(300,)]

"""What was promised is there after a power cut, at whatever byte it came; nothing is there twice.

A cut is a copy of the database with its journal truncated at each 512 bytes of the tail; a worn
card is one sector of noise there. ``HEALTHSYNC_FAULT_BYTES`` sets how much of the tail is gone
through, 64 KiB unless given; ``HEALTHSYNC_KILLS`` how often a process is killed, 6 times.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edge import merge, spool_read
from edge.salvage import recover
from edge.seal import Sealing
from edge.spool import Spool, open_spool
from edge.spool_aside import pending
from tests.edge.spooling import NOW, PLENTY, ack, ask, entry, handed, reject, sealing, seqs, store
from vitals import frame
from vitals.frame import Lane

SECTOR = 512
TAIL = int(os.environ.get("HEALTHSYNC_FAULT_BYTES", str(64 * 1024)))
ROOT = Path(__file__).parents[2]


class Recorded(NamedTuple):
    """A spool as it lay on the disk when the power went, and what was promised by which byte."""

    folder: Path
    of: Sealing
    promised: list[tuple[int, set[int]]]
    """(bytes of journal, sequence numbers stored when these were synced), in order."""

    def stored_by(self, size: int) -> set[int]:
        return max((one for one in self.promised if one[0] <= size), key=lambda one: one[0])[1]

    def copy(self, folder: Path) -> Path:
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(self.folder, folder)
        (folder / "spool.db-shm").unlink(missing_ok=True)
        return folder / "spool.db"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    live = tmp_path_factory.mktemp("live")
    path, of = live / "spool.db", sealing()
    spool = Spool(path, PLENTY, refuse_when_full=False)
    spool.begin(of.epoch)
    now: set[int] = set()
    promised: list[tuple[int, set[int]]] = [(0, set())]

    def note(*gone: int) -> None:
        now.difference_update(gone)
        promised.append((path.with_name("spool.db-wal").stat().st_size, set(now)))

    for number in range(60):
        if number == 20:
            spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            promised[:] = [(0, set(now))]
        big = [reject(9000)] if number % 7 == 0 else []
        held = store(spool, of, entry(number, at_ms=NOW + number), *big).frames
        now.update(one.seq for one in held)
        note()
        if number == 40:
            ack(spool, of, (0, 9))
            note(*range(10))
    before = set(now)
    folded = merge.fold(spool, of.epoch.epoch, 30, of.opener(), of.seal_folded, span_ms=0)
    assert folded.frames > 20
    left = {seq for (seq,) in ask(path, "SELECT seq FROM frames")}
    now.update(left)
    note(*(before - left))
    now.update(one.seq for one in store(spool, of, entry(1)).frames)
    note()
    kept = tmp_path_factory.mktemp("kept")
    for name in ("spool.db", "spool.db-wal", "spool.db.epochs"):
        shutil.copy(live / name, kept / name)
    spool.close()
    return Recorded(kept, of, promised)


def _reopened(path: Path) -> set[int]:
    """Open, salvage whatever was put aside, and return what the uplink would be handed."""
    spool, _ = open_spool(path, PLENTY, NOW, refuse_when_full=False)
    assert spool.is_open
    for aside in pending(path):
        assert list(recover(aside, spool, 0))[-1].done
    spool.close()
    found = seqs(path)
    assert len(found) == len(set(found))
    assert spool_read.verify(path) == []
    return {seq for _, seq in found}


def _readings(path: Path, of: Sealing) -> list[float | None]:
    """Return the values of all readings that the uplink would be handed, opened."""
    opener = of.opener()
    values: list[float | None] = []
    for held in handed(path):
        header, body = opener.open(held.data)
        if header.lane != Lane.QUARANTINE:
            values += [row.value for _, row in frame.read_readings(body).rows()]
    return values


def _tail(size: int) -> range:
    first = max(0, (size - TAIL) // SECTOR * SECTOR)
    return range(first, size + 1, SECTOR)


def test_a_journal_cut_at_any_sector_keeps_every_transaction_before(
    recorded: Recorded, tmp_path: Path
) -> None:
    size = (recorded.folder / "spool.db-wal").stat().st_size
    cuts = [*_tail(size), *(end for end, _ in recorded.promised if end >= size - TAIL)]
    for cut in cuts:
        path = recorded.copy(tmp_path / "cut")
        os.truncate(path.with_name("spool.db-wal"), cut)
        found = _reopened(path)
        assert found == recorded.stored_by(cut), cut
        values = _readings(path, recorded.of)
        assert len(values) == len(set(values)) or values.count(1.0) == 2, cut


def test_a_bad_sector_in_the_journal_takes_no_transaction_before_it(
    recorded: Recorded, tmp_path: Path
) -> None:
    size = (recorded.folder / "spool.db-wal").stat().st_size
    noise = random.Random(7)
    lost = 0
    everything = recorded.promised[-1][1]
    for at in _tail(size - SECTOR):
        path = recorded.copy(tmp_path / "bad")
        with path.with_name("spool.db-wal").open("r+b") as file:
            file.seek(at)
            file.write(noise.randbytes(SECTOR))
        found = _reopened(path)
        assert found >= recorded.stored_by(at) & everything, at
        lost += len(everything - found)
        values = _readings(path, recorded.of)
        assert len(set(values)) >= len(values) - 1, at
    assert lost <= len(_tail(size - SECTOR)) / 4  # what lay behind the sector came back


def test_a_bad_sector_anywhere_in_the_database_costs_only_what_lay_on_it(
    recorded: Recorded, tmp_path: Path
) -> None:
    base = recorded.copy(tmp_path / "whole")
    spool = Spool(base, PLENTY, refuse_when_full=False)
    spool.close()  # the journal is played in, and gone
    everything = {seq for _, seq in seqs(base)}
    size = base.stat().st_size
    noise, acked = random.Random(8), set(range(10))
    for at in range(0, min(size, 2 * TAIL), SECTOR):
        folder = tmp_path / "bad"
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(base.parent, folder)
        path = folder / "spool.db"
        with path.open("r+b") as file:
            file.seek(at)
            file.write(noise.randbytes(SECTOR))
        path.with_name("spool.db-wal").write_bytes(bytes(33))  # as after an unclean stop
        spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False)
        assert spool.is_open
        if aside is not None:
            list(recover(aside, spool, 0))
        spool.close()
        found = {seq for _, seq in seqs(path)}
        # Where the list of free pages was hit, acknowledged frames may come back: the cloud knows
        # them. A folded frame's originals may not: their readings would count twice.
        assert found - everything <= acked, at
        assert len(everything - found) <= 16, at
        values = _readings(path, recorded.of)
        assert len(set(values)) >= len(values) - 1, at


_CHILD = """
import sys
from pathlib import Path
from tests.edge.spooling import *
from edge import merge

path, of = Path(sys.argv[1]), sealing()
spool = opened(path, 300_000, quarantine_bytes_max=60_000)
print(of.epoch.epoch, flush=True)
upto = -1
while True:
    for number in range(20):
        stored = store(spool, of, entry(number), *([reject(2000)] if number % 5 == 0 else []))
        print(*(one.seq for one in stored.frames), flush=True)
    upto = merge.fold(spool, of.epoch.epoch, upto, of.opener(), of.seal_folded, span_ms=0).upto
"""


def _run_and_kill(path: Path, seconds: float) -> tuple[str, list[int]]:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert child.stdout is not None
    try:
        epoch = child.stdout.readline().strip()
        time.sleep(seconds)
    finally:
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read().splitlines()
        child.stdout.close()
        child.wait()
    return epoch, [int(seq) for line in said for seq in line.split()]


def test_a_process_killed_at_random_keeps_what_it_said_was_stored(tmp_path: Path) -> None:
    path, chance = tmp_path / "spool.db", random.Random(3)
    turns = int(os.environ.get("HEALTHSYNC_KILLS", "6"))
    for _ in range(turns):
        epoch, said = _run_and_kill(path, chance.uniform(0.01, 0.3))
        assert said
        spool, aside = open_spool(path, 300_000, NOW, refuse_when_full=False)
        spool.close()
        assert aside is None
        assert spool_read.verify(path) == []
        rows = ask(
            path,
            "SELECT seq, covers_from, covers_to, lane FROM frames WHERE epoch = ?",
            epoch,
        )
        counts: dict[str, Any] = dict(
            ask(path, "SELECT name, value FROM counters WHERE epoch = ?", epoch)
        )
        here = {row[0] for row in rows}
        for _, low, high, _ in rows:
            if low is not None:
                here.update(range(low, high + 1))
        # All but what the quotas pushed out, oldest first, and the last may be one not yet said.
        missing = set(said) - here
        assert len(missing) <= counts.get("frames_dropped", 0) + counts.get("frames_merged", 0)
        assert not missing or max(missing) < max(said) - 20
        assert counts["highest_seq"] >= max(said)

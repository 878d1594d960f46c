"""Which frames were acknowledged is known by number, whatever happens to the process."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import spool_acked, spool_read, spool_upkeep
from edge.spool_change import Change
from tests.edge.spooling import (
    ack,
    ask,
    counters,
    filled,
    opened,
    put,
    put_aside,
    recovered,
    sealed,
    sealing,
    spoil,
    tell,
)
from vitals import limits
from vitals.interval import IntervalSet


def ranges(path: Path) -> list[tuple[int, int]]:
    return ask(path, "SELECT first, last FROM acked ORDER BY epoch, first")


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 6)), max_size=30))
def test_ranges_are_merged_like_a_set(
    tmp_path_factory: pytest.TempPathFactory, added: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("acked") / "spool.db"
    of, spool, expected = sealing(), opened(path), IntervalSet()
    for first, more in added:
        expected.add_range(first, first + more)
    ack(spool, of, *((first, first + more) for first, more in added))
    assert ranges(path) == list(expected)
    spool.close()


def test_frames_acknowledged_in_order_are_one_range(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq) for seq in range(50)))
    for seq in range(50):
        ack(spool, of, (seq, seq))
    spool.close()
    assert ranges(path) == [(0, 49)]
    assert counters(path)["frames_acked"] == 50


def test_ranges_beyond_the_cap_go_lowest_first_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_acked, "ACKED_RANGES_MAX", 3)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    ack(spool, of, (0, 1), (10, 10), (20, 20))
    assert "acked_forgotten" not in counters(path)
    ack(spool, of, (21, 21))  # touches: no new range
    assert ranges(path) == [(0, 1), (10, 10), (20, 21)]
    ack(spool, of, (30, 30))
    assert ranges(path) == [(10, 10), (20, 21), (30, 30)]
    assert counters(path)["acked_forgotten"] == 2
    spool.close()


def test_a_transaction_that_fails_notes_nothing(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)

    def work(db: object, change: Change) -> None:
        spool_acked.note(db, change, of.epoch.epoch, 0, 5)  # type: ignore[arg-type]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        spool.transact(work)
    spool.close()
    assert ranges(path) == []


def test_ranges_go_with_their_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, old, new = tmp_path / "spool.db", sealing(), sealing()
    spool = opened(path)
    for of in (old, new):
        put(spool, of, sealed(of, 0))
        ack(spool, of, (0, 0))
    spool.close()
    tell(path, f"UPDATE epochs SET began_ms = 1 WHERE epoch = '{old.epoch.epoch}'")  # noqa: S608
    monkeypatch.setattr(spool_upkeep, "EPOCHS_KEPT", 1)
    opened(path).close()
    assert ask(path, "SELECT epoch FROM acked") == [(new.epoch.epoch,)]


def test_ranges_come_out_of_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    of = filled(path)
    spoil(path, [20, 21], random.Random(1))
    spool, aside = put_aside(path)
    recovered(aside, spool)
    spool.close()
    assert ask(path, "SELECT epoch, first, last FROM acked") == [(of.epoch.epoch, 0, 4)]


def test_nonsense_of_a_damaged_file_is_passed_over(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing().epoch.epoch
    spool = opened(path)
    most = limits.EPOCH_FRAMES_MAX
    nonsense = [(of, -1, 3), (of, 9, 8), (of, 0, most + 1)]
    spool.transact(lambda db, change: spool_acked.carry(db, change, nonsense))
    assert ranges(path) == []
    spool.transact(lambda db, change: spool_acked.carry(db, change, [(of, 0, most)]))
    assert ranges(path) == [(0, most)]
    spool.close()


_CHILD = """
import sys
from pathlib import Path
from tests.edge.spooling import ack, opened, put, sealed, sealing
path, of = Path(sys.argv[1]), sealing()
spool = opened(path)
for seq in range(1_000_000):
    put(spool, of, sealed(of, seq, lane=2 if seq % 7 == 3 else 0))
    if seq % 3 == 2:
        ack(spool, of, (seq - 2, seq - 2), (seq, seq))
    print(seq, flush=True)
"""


def test_a_kill_leaves_counts_and_ranges_true_to_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 60:
            break
    os.kill(child.pid, signal.SIGKILL)
    last = max([60, *(int(line) for line in child.stdout.read().split()[:-1])])
    child.wait(10)
    child.stdout.close()
    assert spool_read.verify(path) == []  # spooled = acked + stored, readings and rejects too
    counted = counters(path)
    assert counted["frames_spooled"] > last
    acked = IntervalSet(ranges(path))
    assert acked.count() == counted["frames_acked"] >= 2 * (last // 3)
    stored = {seq for (seq,) in ask(path, "SELECT seq FROM frames")}
    assert not {seq for seq in stored if seq in acked}
    assert len(stored) + acked.count() == counted["frames_spooled"]

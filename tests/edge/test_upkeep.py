"""Between commits: folding only while no session is open, salvage, and counts by device."""

import io
import json
import sqlite3
from pathlib import Path

import pytest
import trio

from edge import merge
from edge.seal import Sealing
from edge.spool import Spool
from edge.spool_devices import DeviceCounts
from edge.upkeep import FOLD_MS, NOTE_MS, RETRY_MS, Upkeep
from healthsync.runtime.log import Log
from tests.edge.gateway import Gateway
from tests.edge.gateway import entry as gateway_entry
from tests.edge.ingest import until
from tests.edge.spooling import NOW, ask, entry, filled, handed, opened, put_aside, sealing, store


class Kept:
    """A spool with its upkeep."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "spool.db"
        self.of: Sealing = sealing()
        self.spool: Spool = opened(self.path)
        self.logged = io.StringIO()
        self.upkeep = Upkeep(self.path, self.of, Log("edge", lambda: NOW, self.logged))

    def commit(self, count: int, gap_ms: int = 1000) -> None:
        for at in range(count):
            store(self.spool, self.of, entry(at, at_ms=NOW + at * gap_ms))

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.logged.getvalue().splitlines()]

    def frames(self) -> int:
        return len(handed(self.path))


@pytest.fixture(name="kept")
def _kept(tmp_path: Path) -> object:
    kept = Kept(tmp_path)
    yield kept
    kept.spool.close()


def test_small_frames_are_folded_while_the_link_is_down(kept: Kept) -> None:
    kept.commit(400)
    kept.upkeep.step(kept.spool, NOW, {})
    assert kept.frames() == 1
    assert kept.events() == ["spool-folded"]


def test_nothing_is_folded_while_a_session_is_open(kept: Kept) -> None:
    kept.commit(400)
    kept.upkeep.step(kept.spool, NOW, None)
    assert kept.frames() == 400


def test_what_was_ever_sent_is_never_folded(kept: Kept) -> None:
    kept.commit(400)
    kept.upkeep.step(kept.spool, NOW, {kept.of.epoch.epoch: 49})
    left = handed(kept.path)
    assert [held.seq for held in left[:50]] == list(range(50))
    assert len(left) == 51


def test_of_another_epoch_nothing_that_was_sent_counts(kept: Kept) -> None:
    kept.commit(400)
    kept.upkeep.step(kept.spool, NOW, {"0" * 32: 1 << 30})
    assert kept.frames() == 1


def test_looking_for_frames_to_fold_has_its_pause(kept: Kept) -> None:
    kept.upkeep.step(kept.spool, NOW, {})
    kept.commit(400)
    kept.upkeep.step(kept.spool, NOW + FOLD_MS - 1, {})
    assert kept.frames() == 400
    kept.upkeep.step(kept.spool, NOW + FOLD_MS, {})
    assert kept.frames() == 1


def test_counts_by_device_reach_the_disk_at_their_pace(kept: Kept) -> None:
    told = iter([DeviceCounts(2, 9, 1, NOW), DeviceCounts(1, 1, 0, NOW + 5)])
    kept.upkeep.heard = lambda: iter([("bed-1", next(told))])
    kept.upkeep.step(kept.spool, NOW, None)
    kept.upkeep.step(kept.spool, NOW + NOTE_MS - 1, None)
    query = "SELECT inputs, readings, rejects, last_ms FROM devices"
    assert ask(kept.path, query) == [(2, 9, 1, NOW)]
    kept.upkeep.step(kept.spool, NOW + NOTE_MS, None)
    assert ask(kept.path, query) == [(3, 10, 1, NOW + 5)]


def test_a_step_that_fails_is_tried_again_later_and_harms_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    kept.commit(400)
    with monkeypatch.context() as patched:
        patched.setattr(merge, "fold", fail)
        assert kept.upkeep.step(kept.spool, NOW, {}) is False
    assert kept.events() == ["spool-upkeep-failed"]
    kept.upkeep.step(kept.spool, NOW + RETRY_MS - 1, {})
    assert kept.frames() == 400
    kept.upkeep.step(kept.spool, NOW + RETRY_MS, {})
    assert kept.frames() == 1


def test_a_damaged_spools_frames_come_back_and_the_session_is_told(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    filled(path)
    before = {(held.epoch, held.seq) for held in handed(path)}
    spool, _ = put_aside(path)
    logged = io.StringIO()
    upkeep = Upkeep(path, sealing(), Log("edge", lambda: NOW, logged))
    try:
        steps = 0
        while upkeep.step(spool, NOW, None):
            steps += 1
            assert steps < 1000
    finally:
        spool.close()
    assert {(held.epoch, held.seq) for held in handed(path)} == before
    assert upkeep.salvaged
    assert "spool-salvaged" in logged.getvalue()


def test_the_committer_folds_until_a_session_opens_and_again_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(tmp_path)
    steps: list[dict[str, int] | None] = []

    def step(_spool: Spool, _now_ms: int, sent: dict[str, int] | None) -> bool:
        steps.append(sent)
        return False

    monkeypatch.setattr(gateway.committer.upkeep, "step", step)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.committer.run)
            for sent in (None, {"e": 7}):
                if sent is None:
                    await gateway.committer.session_opens()
                else:
                    gateway.committer.session_ended(sent)
                gateway.committer.submit([gateway_entry()])
                with trio.fail_after(10):
                    await until(lambda wanted=sent: wanted in steps)
            gateway.committer.stop()

    trio.run(main)
    assert steps[-1] == {"e": 7}
    assert None in steps

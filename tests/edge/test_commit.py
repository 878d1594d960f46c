"""Nothing is promised before it is on the disk; what cannot be kept is told so."""

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from edge import commit
from edge.entry import Entry, accepted
from edge.refusal import Reason
from edge.spool import Backlog, Held
from tests.edge.gateway import Gateway, entry, reading, reject
from tests.edge.ingest import until
from vitals import limits
from vitals.columns import Source
from vitals.epoch import WrappedEpoch


def _counters(path: Path) -> dict[str, int]:
    db = sqlite3.connect(path)
    found = dict(db.execute("SELECT name, sum(value) FROM counters GROUP BY name"))
    db.close()
    return found


class Watched:
    """A gateway's committer with what it told recorded."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.gateway = Gateway(folder, **changes)
        self.committer = self.gateway.committer
        self.told: list[tuple[list[Entry], Reason | None]] = []
        self.stored: list[Held] = []
        self.committer.released = lambda entries, failure: self.told.append((entries, failure))
        self.committer.stored = self._stored

    def _stored(self, frames: list[Held], epoch: WrappedEpoch) -> None:
        self.stored += frames

    def run(self, *entries: Entry) -> None:
        async def main() -> None:
            for one in entries:
                self.committer.submit([one])
            self.committer.stop()
            await self.committer.run()

        trio.run(main)


def test_what_arrives_together_is_one_frame_a_lane_and_one_transaction(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.run(entry(1), reject(), entry(2))
    assert [held.seq for held in watched.stored] == [0, 1]
    assert [(len(entries), failure) for entries, failure in watched.told] == [(3, None)]
    counters = _counters(watched.gateway.path)
    assert counters == {
        "received_lines": 3,
        "rejected": 1,
        "rejected:bad-number": 1,
        "frames_spooled": 2,
        "readings_spooled": 2,
        "rejects_spooled": 1,
        "highest_seq": 1,
    }


def test_nobody_is_told_while_the_transaction_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path)
    spool = watched.committer._spool
    told_when_storing = []
    store = spool.store

    def slow(*arguments: Any) -> Any:
        told_when_storing.append(len(watched.told))
        result = store(*arguments)
        told_when_storing.append(len(watched.told))
        return result

    monkeypatch.setattr(spool, "store", slow)  # watches the moment of the commit
    watched.run(entry())
    assert told_when_storing == [0, 0]
    assert len(watched.told) == 1


def test_one_entry_that_cannot_be_sealed_does_not_take_its_batch(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    poison = accepted(Source("half a character \ud800"), (reading(1),), None)
    watched.run(entry(1), poison, entry(2))
    assert [(len(entries), failure) for entries, failure in watched.told] == [
        (2, None),
        (1, Reason.SPOOL_FAILED),
    ]
    assert _counters(watched.gateway.path)["refused_inputs"] == 1


def test_a_full_spool_refuses_in_words_and_recovers_by_itself(tmp_path: Path) -> None:
    watched = Watched(tmp_path, spool_bytes_max=300, refuse_when_full=True)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.committer.run)
            for told in (1, 2):
                watched.committer.submit([entry()])
                await until(lambda told=told: len(watched.told) == told)
            first = watched.stored[0]
            watched.committer.acked(first.epoch, [(first.seq, first.seq)])
            await watched.committer.flush_acks()
            watched.committer.submit([entry()])
            await until(lambda: len(watched.told) == 3)
            watched.committer.stop()

    trio.run(main)
    assert [failure for _, failure in watched.told] == [None, Reason.SPOOL_FULL, None]
    assert _counters(watched.gateway.path)["refused_inputs"] == 1
    assert "input-not-kept" in watched.gateway.events()


def test_a_disk_that_fails_once_is_tried_again_under_another_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path)
    spool = watched.committer._spool
    store, failures = spool.store, [sqlite3.OperationalError("disk I/O error")]

    def failing(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return store(*arguments)

    monkeypatch.setattr(spool, "store", failing)  # the disk fails once
    watched.run(entry())
    assert [(len(entries), failure) for entries, failure in watched.told] == [(1, None)]
    assert [held.seq for held in watched.stored] == [1]


def test_a_disk_that_goes_on_failing_refuses_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path)
    spool = watched.committer._spool

    def failing(*_: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    store = spool.store
    monkeypatch.setattr(spool, "store", failing)  # a full disk

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.committer.run)
            watched.committer.submit([entry()])
            await until(lambda: watched.told)
            monkeypatch.setattr(spool, "store", store)  # room again
            watched.committer.submit([entry()])
            await until(lambda: len(watched.told) == 2)
            watched.committer.stop()

    trio.run(main)
    assert [failure for _, failure in watched.told] == [Reason.SPOOL_FAILED, None]
    assert _counters(watched.gateway.path)["refused_inputs"] == 1


def test_damage_met_while_running_sets_the_file_aside_and_keeps_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path)
    spool = watched.committer._spool
    first = watched.committer.epoch

    def broken(*_: Any) -> Any:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(spool, "store", broken)  # the file is damaged from here on
    watched.run(entry())
    assert [(len(entries), failure) for entries, failure in watched.told] == [(1, None)]
    assert watched.stored[0].epoch != first.epoch
    assert [path.name for path in tmp_path.glob("*damaged*")]
    backlog = Backlog(watched.gateway.path)
    assert backlog.last_id() == 1
    assert [epoch.epoch for epoch in backlog.epochs()] == [watched.stored[0].epoch]
    backlog.close()
    assert "spool-damaged-set-aside" in watched.gateway.events()


def test_what_is_read_for_one_commit_is_bounded(tmp_path: Path) -> None:
    async def fills(*sizes: int) -> list[bool]:
        committer = Watched(tmp_path / str(len(sizes))).committer
        found = []
        for size in sizes:
            committer.submit([Entry(None, (), (), size)])
            found.append(committer.is_full)
        return found

    fit = commit.PENDING_BYTES_MAX // commit.ENTRY_BYTES
    assert trio.run(fills, *[0] * (fit + 1)) == [False] * fit + [True]
    # A frame is full before memory is.
    assert trio.run(fills, limits.COMMIT_BYTES_MAX - 1, 1) == [False, True]


def test_whoever_settles_comes_back_when_its_own_input_has_its_fate(tmp_path: Path) -> None:
    watched = Watched(tmp_path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.committer.run)
            for told in (1, 2, 3):
                watched.committer.submit([entry(told)], settling=True)
                with trio.fail_after(5):
                    await watched.committer.settle()
                assert len(watched.told) == told
            with trio.fail_after(5):
                await watched.committer.settle()  # of nothing
            watched.committer.stop()

    trio.run(main)
    assert len(watched.told) == 3


def test_whoever_is_cancelled_while_settling_leaves_nothing_without_its_fate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(tmp_path)
    spool = watched.committer._spool
    store, begun = spool.store, threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.set()
        time.sleep(0.1)
        return store(*arguments)

    monkeypatch.setattr(spool, "store", slow)  # a slow disk

    async def main() -> None:
        async with trio.open_nursery() as keeping:
            keeping.start_soon(watched.committer.run)
            async with trio.open_nursery() as taking:
                watched.committer.submit([entry(1)], settling=True)
                taking.start_soon(watched.committer.settle)
                await until(begun.is_set)
                watched.committer.submit([entry(2)], settling=True)  # nobody settles this one
                taking.cancel_scope.cancel()
            assert len(watched.told) == 1
            watched.committer.stop()

    trio.run(main)
    assert [(len(entries), failure) for entries, failure in watched.told] == [(1, None)] * 2


def test_under_load_commits_follow_each_other_by_a_window(tmp_path: Path) -> None:
    watched = Watched(tmp_path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.committer.run)
            began, ends = trio.current_time(), []
            for value in range(1, 21):
                await watched.committer.window()
                watched.committer.submit([entry(value)], settling=True)
                await watched.committer.settle()
                ends.append(trio.current_time())
            assert ends[0] - began >= commit.IDLE_WINDOW_S
            # One end may be seen late, and the next pause looks short: all of them together not.
            assert ends[-1] - ends[1] >= 0.95 * limits.COMMIT_WINDOW_S * (len(ends) - 2)
            watched.committer.stop()

    trio.run(main)

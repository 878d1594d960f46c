"""The session with ingest: what is committed goes out at once, what is not acked goes again."""

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket

from edge import uplink
from edge.spool import Backlog, Held
from edge.uplink import Uplink
from onebox import ports
from tests.edge.gateway import NOW, PRIVATE, Gateway, entry
from tests.edge.ingest import Ingest, serving, until
from tests.edge.spooling import ask, counters
from vitals.columns import Columns
from vitals.errors import SessionError
from vitals.session import Credit, encode


class Ward:
    """A committer with an uplink towards a stand-in for ingest."""

    def __init__(self, folder: Path, credit: int = 64) -> None:
        self.gateway = Gateway(folder)
        self.committer = self.gateway.committer
        self.ingest = Ingest(PRIVATE, credit)
        self.sent = 0

    def start(self, port: int) -> Uplink:
        link = Uplink(
            "ward-1", port, self.gateway.path, self.committer, self.gateway.log, lambda: NOW
        )
        self.committer.stored = link.offer
        return link

    async def send(self, count: int = 1) -> None:
        """Commit ``count`` frames of one reading each."""
        for _ in range(count):
            self.committer.submit([entry(self.sent)])
            self.sent += 1
            await until(lambda: self.stored_rows() >= self.sent)

    def stored_rows(self) -> int:
        db = sqlite3.connect(self.gateway.path)
        row = db.execute("SELECT sum(value) FROM counters WHERE name = 'readings_spooled'")
        count = row.fetchone()[0] or 0
        db.close()
        return int(count)

    def values(self) -> list[float | None]:
        return [
            r.value
            for _, body in self.ingest.frames
            if isinstance(body, Columns)
            for _, r in body.rows()
        ]

    def run(self, story: Callable[[trio.Nursery], Awaitable[None]]) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.committer.run)
                await story(nursery)
                nursery.cancel_scope.cancel()

        trio.run(main)


def test_what_was_stored_before_the_link_came_up_and_after_arrives_once(tmp_path: Path) -> None:
    ward = Ward(tmp_path)

    async def story(nursery: trio.Nursery) -> None:
        await ward.send(3)
        async with serving(ward.ingest):
            nursery.start_soon(ward.start(ward.ingest.port).run)
            await until(lambda: len(ward.ingest.frames) == 3)
            await ward.send(3)
            await until(lambda: len(ward.ingest.frames) == 6)
            await until(lambda: ward.committer._spool.frames == 0)

    ward.run(story)
    assert ward.values() == [0, 1, 2, 3, 4, 5]
    assert [seq for _, seq, _ in ward.ingest.sessions[0]] == [0, 1, 2, 3, 4, 5]


def test_after_a_reconnect_only_unacknowledged_frames_go_again(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.ingest.acking = False

    async def story(nursery: trio.Nursery) -> None:
        async with serving(ward.ingest):
            nursery.start_soon(ward.start(ward.ingest.port).run)
            await until(lambda: ward.ingest.hellos)
            await ward.send(5)
            await until(lambda: len(ward.ingest.frames) == 5)
            await ward.ingest.ack(ward.committer.epoch.epoch, [(0, 1), (3, 3)])
            await until(lambda: ward.committer._spool.frames == 2)
            await ward.ingest.websocket.aclose()
            ward.ingest.acking = True
            await until(lambda: ward.committer._spool.frames == 0)

    ward.run(story)
    assert [seq for _, seq, _ in ward.ingest.sessions[1]] == [2, 4]
    assert [floor for _, _, floor in ward.ingest.sessions[1]] == [2, 2]
    counted = counters(ward.gateway.path)
    # What was sent goes with the next commit or acknowledgement: all of it by now.
    assert (counted["frames_sent"], counted["readings_sent"]) == (5, 5)
    assert (counted["frames_resent"], counted["readings_resent"]) == (2, 2)
    assert ask(ward.gateway.path, "SELECT first, last FROM acked") == [(0, 4)]


def test_an_acknowledgement_of_frames_never_sent_deletes_nothing(tmp_path: Path) -> None:
    ward = Ward(tmp_path, credit=1)
    ward.ingest.acking = False

    async def story(nursery: trio.Nursery) -> None:
        async with serving(ward.ingest):
            nursery.start_soon(ward.start(ward.ingest.port).run)
            await until(lambda: ward.ingest.hellos)
            await ward.send(3)
            await until(lambda: len(ward.ingest.frames) == 1)
            await ward.ingest.ack(ward.committer.epoch.epoch, [(0, 2**40)])
            await until(lambda: len(ward.ingest.frames) == 2)
            await ward.committer.flush_acks()
            assert ward.committer._spool.frames == 2

    ward.run(story)


def test_no_more_is_in_flight_than_the_credit_allows(tmp_path: Path) -> None:
    ward = Ward(tmp_path, credit=2)
    ward.ingest.acking = False

    async def story(nursery: trio.Nursery) -> None:
        async with serving(ward.ingest):
            nursery.start_soon(ward.start(ward.ingest.port).run)
            await until(lambda: ward.ingest.hellos)
            await ward.send(4)
            await until(lambda: len(ward.ingest.frames) == 2)
            await ward.ingest.websocket.send_message(encode(Credit(3)))
            await until(lambda: len(ward.ingest.frames) == 3)
            await ward.ingest.ack(ward.committer.epoch.epoch, [(0, 2)])
            await until(lambda: len(ward.ingest.frames) == 4)

    ward.run(story)


def test_a_new_epoch_is_told_before_its_first_frame(tmp_path: Path) -> None:
    ward = Ward(tmp_path)

    async def story(nursery: trio.Nursery) -> None:
        async with serving(ward.ingest):
            nursery.start_soon(ward.start(ward.ingest.port).run)
            await until(lambda: ward.ingest.hellos)
            await ward.send()
            ward.committer._sealing.renew(NOW)
            await ward.send()
            await until(lambda: len(ward.ingest.frames) == 2)

    ward.run(story)
    epochs = [epoch for epoch, _, _ in ward.ingest.sessions[0]]
    assert len(set(epochs)) == 2
    assert [seq for _, seq, _ in ward.ingest.sessions[0]] == [0, 0]


def test_collection_goes_on_without_a_link_and_the_link_comes_back(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    port = ports.free(1)[0]

    async def story(nursery: trio.Nursery) -> None:
        link = ward.start(port)
        nursery.start_soon(link.run)
        await ward.send(2)
        await until(lambda: link.attempt >= 2)
        async with serving(ward.ingest, port):
            await until(lambda: ward.committer._spool.frames == 0, 8)

    ward.run(story)
    assert ward.values() == [0, 1]
    assert "uplink-down" in ward.gateway.events()


def test_a_silent_peer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(tmp_path)
    monkeypatch.setattr(uplink, "PING_S", 0.02)
    monkeypatch.setattr(uplink, "SILENCE_S_MAX", 0.1)

    async def story(nursery: trio.Nursery) -> None:
        async with serving(ward.ingest):
            nursery.start_soon(ward.start(ward.ingest.port).run)
            await until(lambda: ward.ingest.hellos)
            ward.ingest.answering = False
            await until(lambda: "uplink-down" in ward.gateway.events())
            ward.ingest.answering = True
            await until(lambda: len(ward.ingest.hellos) == 2)

    ward.run(story)


def test_a_peer_that_stops_reading_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink, "PING_S", 0.02)
    monkeypatch.setattr(uplink, "SILENCE_S_MAX", 0.2)
    ward = Ward(tmp_path, credit=10_000)

    async def stuck(message: object) -> None:
        await trio.sleep_forever()

    send = trio_websocket.WebSocketConnection.send_message

    async def blocking(websocket: Any, message: bytes) -> None:
        if websocket.is_client and ward.sent:
            await stuck(message)
        await send(websocket, message)

    monkeypatch.setattr(trio_websocket.WebSocketConnection, "send_message", blocking)

    async def story(nursery: trio.Nursery) -> None:
        async with serving(ward.ingest):
            nursery.start_soon(ward.start(ward.ingest.port).run)
            await until(lambda: "uplink-up" in ward.gateway.events())
            await ward.send()
            await until(lambda: "uplink-down" in ward.gateway.events())

    ward.run(story)


def test_a_defect_in_the_uplink_ends_a_session_not_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward(tmp_path)
    broken = [1, 1]

    def epochs(_: Backlog) -> list[Any]:
        if broken:
            broken.pop()
            raise KeyError("a defect")
        return [ward.committer.epoch]

    monkeypatch.setattr(Backlog, "epochs", epochs)

    async def story(nursery: trio.Nursery) -> None:
        async with serving(ward.ingest):
            nursery.start_soon(ward.start(ward.ingest.port).run)
            await ward.send()
            await until(lambda: len(ward.ingest.frames) == 1)

    ward.run(story)
    assert ward.gateway.events().count("uplink-crashed") == 2


def test_what_ingest_said_is_the_reason_whatever_a_sender_met_in_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward(tmp_path)

    async def session(_: Uplink) -> None:
        raise ExceptionGroup("", [trio.TooSlowError(), SessionError("ingest closed: revoked")])

    monkeypatch.setattr(Uplink, "_session", session)

    async def story(nursery: trio.Nursery) -> None:
        nursery.start_soon(ward.start(1).run)
        await until(lambda: "uplink-down" in ward.gateway.events())

    ward.run(story)
    assert "ingest closed: revoked" in ward.gateway.logged.getvalue()


def test_the_clocks_difference_is_measured(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    measured: list[float] = []

    async def story(nursery: trio.Nursery) -> None:
        async with serving(ward.ingest):
            link = ward.start(ward.ingest.port)
            link.measured = lambda off_ms, _delay_ms: measured.append(off_ms)
            nursery.start_soon(link.run)
            await until(lambda: 40 in measured)

    ward.run(story)
    assert set(measured) == {40}


def test_pauses_grow_and_stay_bounded() -> None:
    full = [uplink.backoff_s(attempt, 1) for attempt in range(12)]
    assert full[0] == uplink.BACKOFF_S_MIN
    assert full[-1] == uplink.BACKOFF_S_MAX
    assert full == sorted(full)
    assert uplink.backoff_s(50, 0) == uplink.BACKOFF_S_MAX / 2


def test_a_frame_goes_out_without_the_disk_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = Ward(tmp_path)
    reads: list[int] = []
    after = Backlog.after

    def counted(*arguments: Any) -> list[Held]:
        reads.append(1)
        return after(*arguments)

    monkeypatch.setattr(Backlog, "after", counted)

    async def story(nursery: trio.Nursery) -> None:
        async with serving(ward.ingest):
            nursery.start_soon(ward.start(ward.ingest.port).run)
            await until(lambda: "uplink-up" in ward.gateway.events())
            await ward.send(3)
            await until(lambda: len(ward.ingest.frames) == 3)

    ward.run(story)
    assert reads == []

"""Partitions that nobody owns are seen, and shared out anew."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException

from cloud.detect import clients, owners
from cloud.detect.owners import ASK_S_MAX, LOOK_EVERY_S, Owners, first, ownerless
from healthsync.runtime.log import Log
from tests.cloud.detect.broker import Broker
from tests.cloud.detect.fleet import HERE, Fleet, wait_until
from vitals import topics

ALL = range(topics.SAMPLES.partitions)


def group(state: Any = ConsumerGroupState.STABLE, **held: Any) -> Any:
    """Return a group's description; names with ``_`` for ``-``, or "" for a member of none."""
    members = [
        SimpleNamespace(
            group_instance_id=name.replace("_", "-"),
            assignment=SimpleNamespace(
                topic_partitions=[SimpleNamespace(topic="samples", partition=at) for at in numbers]
            ),
        )
        for name, numbers in held.items()
    ]
    return SimpleNamespace(state=state, members=members)


def test_what_nobody_has_is_found() -> None:
    assert ownerless(group(a=ALL)) == set()
    assert ownerless(group(a=range(4, 8), b=[])) == {0, 1, 2, 3}
    assert ownerless(group(a=range(4, 8), b=range(4))) == set()
    assert ownerless(group()) == set(ALL)
    # While a group shares out, nobody is expected to have anything.
    assert ownerless(group(ConsumerGroupState.PREPARING_REBALANCING, a=[])) == set()
    assert ownerless(group(ConsumerGroupState.COMPLETING_REBALANCING, a=[])) == set()


def test_partitions_of_other_topics_count_for_nothing() -> None:
    found = group(a=ALL)
    for place in found.members[0].assignment.topic_partitions:
        place.topic = "commands"
    assert ownerless(found) == set(ALL)


def test_a_member_of_no_name_is_never_the_first() -> None:
    found = group(detect_1=[], detect_0=[])
    found.members.append(SimpleNamespace(group_instance_id=None, assignment=None))
    assert first(found) == "detect-0"
    assert ownerless(found) == set(ALL)


class Asker:
    """A member that joins for a moment."""

    def __init__(self) -> None:
        self.heard: Callable[[Any, list[Any]], None] | None = None
        self.closed = False
        self.assigned = False

    def subscribe(self, names: list[str], on_assign: Any) -> None:
        assert names == [topics.COMMANDS.name]
        self.heard = on_assign

    def poll(self, timeout_s: float) -> None:
        assert timeout_s == 0
        if self.assigned and self.heard is not None:
            self.heard(self, [])

    def close(self) -> None:
        self.closed = True


class Watched:
    """`Owners` with a clock and a group of the test's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, identity: str = "detect-0") -> None:
        self.now = 0.0
        self.told: Any = group(detect_0=range(4, 8), detect_1=[])
        self.looks = 0
        self.askers: list[Asker] = []
        self.lines = io.StringIO()
        monkeypatch.setattr(clients, "admin", lambda _base: self)
        monkeypatch.setattr(owners, "Consumer", self._asker)
        log = Log("detect", lambda: 0, self.lines)
        self.owners = Owners({}, identity, log, lambda: self.now)

    def _asker(self, config: dict[str, Any]) -> Asker:
        assert "group.instance.id" not in config
        assert config["group.id"] == clients.GROUP
        self.askers.append(Asker())
        return self.askers[-1]

    def describe_consumer_groups(self, names: list[str]) -> dict[str, "Future[Any]"]:
        self.looks += 1
        future: Future[Any] = Future()
        if isinstance(self.told, Exception):
            future.set_exception(self.told)
        elif self.told is not None:
            future.set_result(self.told)
        return dict.fromkeys(names, future)

    def still_asking(self) -> bool:
        return not self.askers[-1].closed

    def look(self) -> None:
        """Let one look begin and be judged."""
        self.now += LOOK_EVERY_S
        self.owners.step()
        self.owners.step()


def test_two_looks_that_agree_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.owners.step()
    assert watched.looks == 0
    watched.look()
    assert not watched.askers
    watched.look()
    (asker,) = watched.askers
    assert json.loads(watched.lines.getvalue())["partitions"] == [0, 1, 2, 3]
    watched.owners.step()
    assert watched.still_asking()
    asker.assigned = True
    watched.owners.step()
    assert not watched.still_asking()
    # It looks again, and asks again only when that agrees twice too.
    watched.look()
    assert len(watched.askers) == 1
    watched.look()
    assert len(watched.askers) == 2


def test_looks_that_do_not_agree_do_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    for held in (range(4, 8), range(4), ALL, range(4)):
        watched.told = group(detect_0=held)
        watched.look()
    assert not watched.askers


def test_only_the_first_by_name_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, "detect-1")
    for _ in range(4):
        watched.look()
    assert not watched.askers


def test_whoever_asks_gives_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.look()
    watched.look()
    watched.now += ASK_S_MAX - 0.1
    watched.owners.step()
    assert not watched.askers[0].closed
    watched.now += 0.2
    watched.owners.step()
    assert watched.askers[0].closed


def test_leaving_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.owners.close()
    watched.look()
    watched.look()
    watched.owners.close()
    assert watched.askers[0].closed


def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.told = None
    for _ in range(5):
        watched.look()
    assert watched.looks == 1


def test_a_look_that_fails_is_looked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.told = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    watched.look()
    watched.told = group(detect_0=[], detect_1=[])
    watched.look()
    assert not watched.askers
    watched.look()
    assert watched.askers


# -- the real thing ------------------------------------------------------------------------------


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def half_shared(broker: Broker, identity: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, HERE / "half_shared.py", broker.bootstrap, identity],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parents[2],
        env={"PYTHONPATH": str(HERE.parents[2])},
    )


@pytest.mark.system
def test_partitions_that_two_killed_members_left_between_them_find_an_owner(
    broker: Broker, tmp_path: Path
) -> None:
    with half_shared(broker, "detect-1") as giving:
        assert giving.stdout is not None
        assert giving.stdout.readline() == "assigned 8\n"
        with half_shared(broker, "detect-0") as waiting:
            assert waiting.stdout is not None
            # Asked to give four up it is killed; the other waits for them.
            assert giving.wait(60) == -signal.SIGKILL
            assert waiting.stdout.readline() == "assigned 0\n"
            waiting.kill()
    folder = tmp_path / "fleet"
    folder.mkdir()
    fleet = Fleet(broker, folder)
    try:
        fleet.start("detect-0")
        fleet.start("detect-1")
        for name in ("detect-0", "detect-1"):
            wait_until(partial(fleet.is_ready, name), f"{name} ready")
        wait_until(lambda: fleet.held() == set(ALL), "every partition has an owner", 60)
    finally:
        fleet.close()

"""Applying, confirming, rolling back: whoever dies on the way, the rules are the old or the new."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import firewall
from firewall import change, kernel, policy_file, rollback, wire
from firewall.change import CONFIRM_S_MAX, CONFIRM_S_MIN, KEPT, Busy, Store, TooLate
from firewall.compile import compile_policy
from firewall.kernel import Kernel, Refused
from firewall.messages import timed
from tests.firewall.spaces import load, namespace, nft
from vitals.errors import ConfigError

OURS = Path(firewall.__file__).parent / "policies"
EDGE, CLOUD = OURS / "edge.toml", OURS / "cloud.toml"
WAIT_S_MAX = 30.0
SOON_S = 3
PROGRAM_S_MAX = 60


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A folder of changes, in a network namespace of the test's own; no program is left over."""
    monkeypatch.setattr(change, "CONFIRM_S_MIN", 1)
    with namespace():
        yield Store(tmp_path / "state")
        for pid in waiting_programs(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def waiting_programs(folder: Path) -> list[int]:
    """Return the processes that wait to roll back a change of one folder."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (one / "cmdline").read_bytes().split(b"\0")
                if rollback.__file__.encode() in words and str(folder).encode() in b" ".join(words):
                    found.append(int(one.name))
    return found


def until(true: Callable[[], bool], what: str) -> None:
    ends_s = time.monotonic() + WAIT_S_MAX
    while not true():
        assert time.monotonic() < ends_s, f"{what}: not within {WAIT_S_MAX} s"
        time.sleep(0.05)  # another process's progress, polled


def in_force() -> str:
    """Return which policy the kernel has."""
    with Kernel() as one:
        found, _ = one.snapshot("healthsync")
    for path in (EDGE, CLOUD):
        if found == kernel.made(compile_policy(policy_file.load(path))):
            return path.stem
    return "nothing" if found is None else "something"


def applied(store: Store, path: Path, seconds: int = 60) -> str:
    found = change.apply(store, path, seconds, "none")
    assert found is not None
    return found.change


def keep(store: Store, path: Path) -> None:
    applied(store, path)
    change.confirm(store)


# -- confirm, or not ------------------------------------------------------------------------------


def test_confirmed_it_stays_and_nobody_waits(store: Store, tmp_path: Path) -> None:
    number = applied(store, EDGE)
    assert in_force() == "edge"
    assert len(waiting_programs(tmp_path)) == 1
    assert change.confirm(store) == number == store.confirmed()
    until(lambda: not waiting_programs(tmp_path), "the program ends")
    assert in_force() == "edge"


def test_unconfirmed_the_first_one_is_taken_away(store: Store, tmp_path: Path) -> None:
    applied(store, EDGE, SOON_S)
    until(lambda: in_force() == "nothing", "rolled back")
    with pytest.raises(TooLate, match="the last one was rolled back: apply it again"):
        change.confirm(store)
    assert store.confirmed() == ""


def test_unconfirmed_the_one_before_returns(store: Store) -> None:
    keep(store, CLOUD)
    with Kernel() as one:
        one.send(wire.batch(timed("healthsync", "blocked_4", [(b"\n\0\0\1", 900_000)])))
    applied(store, EDGE, SOON_S)
    assert in_force() == "edge"
    until(lambda: in_force() == "cloud", "rolled back")
    with Kernel() as one:
        assert [blocked.address for blocked in one.blocked("healthsync")] == [b"\n\0\0\1"]


def test_rolled_back_at_once(store: Store, tmp_path: Path) -> None:
    keep(store, CLOUD)
    number = applied(store, EDGE)
    assert change.roll_back(store) == number
    assert in_force() == "cloud"
    until(lambda: not waiting_programs(tmp_path), "the program ends")
    with pytest.raises(TooLate, match="no change waits"):
        change.roll_back(store)


def test_whoever_ends_the_program_gets_the_old_rules_now(store: Store, tmp_path: Path) -> None:
    keep(store, CLOUD)
    applied(store, EDGE)
    (pid,) = waiting_programs(tmp_path)
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    until(lambda: in_force() == "cloud", "rolled back")
    with pytest.raises(TooLate):
        change.confirm(store)


def test_what_is_in_force_and_confirmed_is_not_changed(store: Store) -> None:
    keep(store, EDGE)
    assert change.apply(store, EDGE, 60, "none") is None
    nft("add", "rule", "inet", "healthsync", "input", "accept")
    assert change.apply(store, EDGE, 60, "none") is not None


def test_only_one_of_confirm_and_rollback_decides(store: Store, tmp_path: Path) -> None:
    keep(store, CLOUD)
    for at in range(6):
        applied(store, EDGE)
        (pid,) = waiting_programs(tmp_path)
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.01 * at)  # so that now the one, now the other is first
        try:
            change.confirm(store)
            decided = "edge"
        except TooLate:
            decided = "cloud"
        until(lambda: not waiting_programs(tmp_path), "the program ends")
        assert in_force() == decided
        if decided == "edge":
            keep(store, CLOUD)
            until(lambda: not waiting_programs(tmp_path), "the program ends")


def test_a_program_leaves_a_later_change_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = tmp_path / rollback.PENDING
    pending.write_text("2 boot 100\n")
    assert not rollback.waiting(tmp_path, "1")
    assert not rollback.taken(tmp_path, "1")
    assert pending.read_text() == "2 boot 100\n"
    # The first is confirmed and the second begins between a look and the decision.
    waiting, looks = rollback.waiting, [True]

    def late(folder: Path, change_: str, name: str = rollback.PENDING) -> bool:
        return looks.pop() if looks else waiting(folder, change_, name)

    monkeypatch.setattr(rollback, "waiting", late)
    assert not rollback.taken(tmp_path, "1")
    assert pending.read_text() == "2 boot 100\n"
    assert rollback.taken(tmp_path, "2")
    assert not pending.exists()


# -- whoever dies ---------------------------------------------------------------------------------

CALLER = """
import os, signal, sys
from pathlib import Path
from firewall import change
change.CONFIRM_S_MIN = 1
change.apply(change.Store(Path(sys.argv[1])), Path(sys.argv[2]), 3, "none")
print("applied", flush=True)
signal.pause()
"""


def caller(store_folder: Path, path: Path, code: str = CALLER) -> "subprocess.Popen[str]":
    """Start somebody who applies, at the head of a process group of his own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(store_folder), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_caller_s_whole_group_is_killed(store: Store, tmp_path: Path) -> None:
    keep(store, CLOUD)
    with caller(tmp_path / "state", EDGE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "applied\n"
        assert in_force() == "edge"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PROGRAM_S_MAX)
    assert in_force() == "edge"
    until(lambda: in_force() == "cloud", "rolled back")


STEPS = ["store.prepare", "store.begin", "store.arm", "Kernel.replace"]
DYING = """
import os, signal, sys
from pathlib import Path
from firewall import change
change.CONFIRM_S_MIN = 1
owner = change.Store if sys.argv[3].startswith("store") else change.Kernel
name = sys.argv[3].partition(".")[2]
step = getattr(owner, name)
def dying(*given):
    if sys.argv[4] == "after":
        step(*given)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, dying)
change.apply(change.Store(Path(sys.argv[1])), Path(sys.argv[2]), 3, "none")
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_the_old_rules_are_there_in_time(
    store: Store, tmp_path: Path, step: str, when: str
) -> None:
    keep(store, CLOUD)
    state = tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(state), str(EDGE), step, when], timeout=PROGRAM_S_MAX
    )
    assert done.returncode == -signal.SIGKILL
    changed = (step, when) == ("Kernel.replace", "after")
    assert in_force() == ("edge" if changed else "cloud")
    until(lambda: not waiting_programs(tmp_path), "the program ends")
    assert in_force() == "cloud"
    # and the next one is not in the way of the last one's remains, once its time is over
    if store.pending():
        with pytest.raises(TooLate, match="the kernel does not have change"):
            change.confirm(store)
        change.roll_back(store)
    keep(store, EDGE)
    assert in_force() == "edge"


def test_when_the_program_itself_was_killed_the_next_one_takes_it_back(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, CLOUD)
    applied(store, EDGE, 1)
    (pid,) = waiting_programs(tmp_path)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Busy):
        change.apply(store, EDGE, 60, "none")
    monkeypatch.setattr(change, "OVERDUE_S", 0.0)
    until(store.overdue, "its time is over")
    assert in_force() == "edge"
    assert change.apply(store, CLOUD, 60, "none") is None  # what was before is there again
    assert in_force() == "cloud"


def test_a_program_that_cannot_start_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, CLOUD)
    monkeypatch.setattr(change, "_detached", lambda _program: None)
    monkeypatch.setattr(change, "ARMED_S_MAX", 0.2)
    with pytest.raises(Busy, match="did not start; nothing was changed"):
        change.apply(store, EDGE, 60, "none")
    assert in_force() == "cloud"
    assert store.pending() == ""


def test_what_the_kernel_refuses_changes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, CLOUD)

    def refusing(*_: Any) -> None:
        raise Refused([])

    monkeypatch.setattr(Kernel, "replace", refusing)
    with pytest.raises(Refused):
        change.apply(store, EDGE, 60, "none")
    assert store.pending() == ""
    until(lambda: not waiting_programs(tmp_path), "the program ends")
    assert in_force() == "cloud"


# -- two at once ----------------------------------------------------------------------------------


def test_a_second_change_waits_for_the_first_one_s_word(store: Store) -> None:
    number = applied(store, EDGE)
    with pytest.raises(Busy, match=f"change {number} waits: confirm it or roll it back first"):
        change.apply(store, CLOUD, 60, "none")
    assert in_force() == "edge"
    change.confirm(store)
    keep(store, CLOUD)


def test_two_at_the_same_moment(store: Store, tmp_path: Path) -> None:
    with store.locked():
        for call in (
            lambda: change.apply(store, EDGE, 60, "none"),
            lambda: change.confirm(store),
            lambda: change.roll_back(store),
            lambda: change.load(store, EDGE),
        ):
            with pytest.raises(Busy, match="another change is being made"):
                call()
    assert in_force() == "nothing"


def test_of_many_callers_one_applies(store: Store, tmp_path: Path) -> None:
    code = CALLER.replace("signal.pause()", "")
    callers = [caller(tmp_path / "state", path, code) for path in (EDGE, CLOUD, EDGE, CLOUD)]
    said = [process.communicate(timeout=PROGRAM_S_MAX)[0] for process in callers]
    assert said.count("applied\n") == 1
    assert in_force() == ["edge", "cloud"][said.index("applied\n") % 2]
    assert len(waiting_programs(tmp_path)) == 1


# -- boot -----------------------------------------------------------------------------------------


def rebooted(monkeypatch: pytest.MonkeyPatch) -> None:
    nft("flush", "ruleset")
    monkeypatch.setattr(change, "boot_id", lambda: "another-boot")


def test_a_boot_loads_what_was_confirmed_and_not_what_waited(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, CLOUD)
    applied(store, EDGE)
    for pid in waiting_programs(tmp_path):
        os.kill(pid, signal.SIGKILL)
    rebooted(monkeypatch)
    assert change.load(store, EDGE) == f"change {store.confirmed()}"
    assert in_force() == "cloud"
    with pytest.raises(TooLate):
        change.confirm(store)
    keep(store, EDGE)


def test_the_first_boot_takes_the_policy(store: Store) -> None:
    with pytest.raises(ConfigError, match="nothing was ever confirmed; give --policy FILE"):
        change.load(store, None)
    assert change.load(store, EDGE) == str(EDGE)
    assert in_force() == "edge"


def test_a_kernel_that_wants_it_said_otherwise_is_asked_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, CLOUD)
    rebooted(monkeypatch)
    batch = store.file(store.confirmed(), change.NEW)
    for broken in (b"", batch.read_bytes()[:-60], None):
        batch.unlink(missing_ok=True)
        if broken is not None:
            batch.write_bytes(broken)
        change.load(store, None)
        assert in_force() == "cloud"
        nft("flush", "ruleset")


def test_the_batch_of_a_boot_needs_no_library(store: Store) -> None:
    keep(store, CLOUD)
    raw = store.file(store.confirmed(), change.NEW).read_bytes()
    nft("flush", "ruleset")
    assert rollback.send(raw)
    assert in_force() == "cloud"
    assert not rollback.send(raw[:-60] + b"\xff" * 60)


# -- others, caps, remains ------------------------------------------------------------------------


def test_others_rules_survive_a_change_and_its_rollback(store: Store) -> None:
    load("table ip fail2ban {\n chain in {\n type filter hook input priority 5;\n accept\n}\n}")
    before = nft("-a", "list", "table", "ip", "fail2ban")
    applied(store, EDGE)
    change.roll_back(store)
    assert nft("-a", "list", "table", "ip", "fail2ban") == before


@pytest.mark.parametrize("seconds", [CONFIRM_S_MIN - 1, CONFIRM_S_MAX + 1])
def test_the_time_to_confirm_has_bounds(
    store: Store, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    monkeypatch.setattr(change, "CONFIRM_S_MIN", CONFIRM_S_MIN)
    with pytest.raises(ConfigError, match=f"use {CONFIRM_S_MIN} to {CONFIRM_S_MAX} seconds"):
        change.apply(store, EDGE, seconds, "none")


def test_old_changes_go_and_the_confirmed_one_stays(store: Store, tmp_path: Path) -> None:
    keep(store, CLOUD)
    confirmed = store.confirmed()
    for _ in range(KEPT + 3):
        applied(store, EDGE)
        change.roll_back(store)
    assert store.confirmed() == confirmed
    assert store.file(confirmed, change.NEW).exists()
    keep(store, EDGE)
    numbers = [one for one in (tmp_path / "state").iterdir() if one.name.isdecimal()]
    assert len(numbers) == KEPT
    assert store.file(store.confirmed(), change.NEW).exists()


def test_nobody_else_reads_the_folder(store: Store, tmp_path: Path) -> None:
    keep(store, CLOUD)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert store.file(store.confirmed(), change.NEW).stat().st_mode & 0o077 == 0

"""Changing the firewall so that nobody locks himself out: apply, confirm, or back to what was.

The folder::

    lock              one change at a time (flock)
    pending           number of the change that waits, its boot, and until when
    confirmed         number of the change that is loaded at boot
    rolled-back       number of the last change that nobody confirmed
    N/policy.toml     what was asked for
    N/new.batch       what makes it, for boot: no Python library is needed to send it
    N/rollback.batch  what brings back what was there before
    N/armed           the rollback program is waiting

=========  ==================================  =====================================================
state      meaning                             next
=========  ==================================  =====================================================
idle       ``confirmed`` or nothing in force   apply -> armed (rollback program waits) -> pending
armed      nothing changed yet                 kernel refuses -> idle; kernel takes it -> pending
pending    new rules in force                  confirm -> idle; time, rollback, SIGTERM -> rolled
rolled     old rules in force                  idle
=========  ==================================  =====================================================

Law: ``pending`` is renamed by whoever decides; a rename happens once. A boot loads only what was
confirmed. Nothing is changed before the rollback program says that it is armed.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from firewall import kernel, policy_file, rollback, wire
from firewall.compile import compile_policy
from firewall.kernel import Kernel
from firewall.messages import create
from firewall.ruleset import Ruleset
from healthsync.runtime import whole
from vitals.errors import ConfigError

CONFIRM_S_MIN: Final = 5
CONFIRM_S: Final = 60
CONFIRM_S_MAX: Final = 3600

ARMED_S_MAX: Final = 10.0
POLL_S: Final = 0.02
OVERDUE_S: Final = 30.0
"""So long after its time a change is taken back by whoever comes next: its program is dead."""
KEPT: Final = 5
"""Changes whose files stay, beside what is confirmed and what waits."""

CONFIRMED: Final = "confirmed"
LOCK: Final = "lock"
POLICY: Final = "policy.toml"
NEW: Final = "new.batch"
FOLDER_MODE: Final = 0o700

_SYSTEMD: Final = Path("/run/systemd/system")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Busy(Exception):
    """Somebody else is changing the firewall, or a change waits for its word."""


class TooLate(Exception):
    """There is nothing to decide: the change was rolled back, confirmed, or there was none."""


class Applied(NamedTuple):
    """A change that is in force until its time is over."""

    change: str
    seconds: int


class Store:
    """The folder of changes."""

    def __init__(self, folder: Path) -> None:
        """Make the folder if it is missing; raises OSError."""
        self._folder = folder
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; raises Busy at once when somebody else does."""
        with (self._folder / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy("another change is being made; try again") from None
            yield

    def pending(self) -> str:
        """Return the number of the change that waits, or nothing; one of before a boot is none."""
        name = self._folder / rollback.PENDING
        try:
            change, boot, _ = name.read_text(encoding="ascii").split()
        except (FileNotFoundError, ValueError):
            return ""
        if boot != boot_id():
            # The boot loaded what was confirmed; this one's time is over.
            name.rename(self._folder / rollback.ROLLED_BACK)
            return ""
        return change

    def confirmed(self) -> str:
        """Return the number of the change that was confirmed last, or nothing."""
        try:
            return (self._folder / CONFIRMED).read_text(encoding="ascii").split()[0]
        except (FileNotFoundError, IndexError):
            return ""

    def file(self, change: str, name: str) -> Path:
        """Return a file of a change."""
        return self._folder / change / name

    def prepare(self, ruleset: Ruleset, text: str, back: bytes) -> str:
        """Write the files of a new change durably; return its number."""
        numbers = [int(one.name) for one in self._folder.iterdir() if one.name.isdecimal()]
        change = str(max(numbers, default=0) + 1)
        (self._folder / change).mkdir(mode=FOLDER_MODE)
        whole.write(self.file(change, POLICY), text.encode())
        whole.write(self.file(change, NEW), fresh(ruleset))
        whole.write(self.file(change, rollback.BATCH), back)
        return change

    def overdue(self) -> bool:
        """Tell whether the change that waits should be gone long since: its program is dead."""
        if not self.pending():
            return False
        said = (self._folder / rollback.PENDING).read_text(encoding="ascii").split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) > float(said[2]) + OVERDUE_S

    def begin(self, change: str, seconds: int) -> None:
        """Let a change wait for its word, so long."""
        ends_s = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds
        said = f"{change} {boot_id()} {ends_s:.0f}\n"
        whole.write(self._folder / rollback.PENDING, said.encode())

    def cancel(self) -> None:
        """Take back a change that the kernel refused."""
        with contextlib.suppress(FileNotFoundError):
            (self._folder / rollback.PENDING).unlink()

    def confirm(self) -> str:
        """Decide for the new rules; raises TooLate."""
        change = self.pending()
        if not change:
            raise TooLate(self._why_too_late())
        try:
            (self._folder / rollback.PENDING).rename(self._folder / CONFIRMED)
        except FileNotFoundError:
            raise TooLate(self._why_too_late()) from None
        whole.sync_folder(self._folder)
        self._tidy()
        return change

    def _why_too_late(self) -> str:
        if (self._folder / rollback.ROLLED_BACK).exists():
            return "no change waits; the last one was rolled back: apply it again"
        return "no change waits"

    def _tidy(self) -> None:
        """Remove the files of changes that nobody needs any more."""
        kept = {self.confirmed(), self.pending()}
        numbers = sorted(int(one.name) for one in self._folder.iterdir() if one.name.isdecimal())
        for number in numbers[:-KEPT]:
            if str(number) not in kept:
                shutil.rmtree(self._folder / str(number))

    def arm(self, change: str, seconds: int, supervisor: str) -> None:
        """Start the rollback program and wait until it is armed; raises Busy when it is not."""
        program = [
            sys.executable,
            "-I",
            "-S",
            str(Path(rollback.__file__).resolve()),
            str(self._folder.resolve()),
            change,
            str(seconds),
        ]
        if supervisor == "systemd" or (supervisor == "auto" and _SYSTEMD.is_dir()):
            # A unit of its own: it outlives the session's and the caller's control group.
            unit = f"healthsync-firewall-rollback-{change}"
            command = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", *program]
            subprocess.run(command, check=True, timeout=ARMED_S_MAX, stdin=subprocess.DEVNULL)
        else:
            _detached(program)
        ends_s = time.monotonic() + ARMED_S_MAX
        while not self.file(change, rollback.ARMED).exists():
            if time.monotonic() > ends_s:
                raise Busy("the rollback program did not start; nothing was changed")
            time.sleep(POLL_S)


def boot_id() -> str:
    """Return what tells one boot from another."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def fresh(ruleset: Ruleset) -> bytes:
    """Return the batch that makes a ruleset, whatever is there of its table."""
    from firewall.messages import remove

    return wire.batch([*remove(ruleset.table), *create(ruleset)])


def _detached(program: list[str]) -> None:
    """Start a program in a session of its own, whose parent is nobody's child of ours."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        subprocess.Popen(
            program,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            cwd="/",
        )
    finally:
        os._exit(0)


def compiled(path: Path) -> tuple[Ruleset, str]:
    """Return the ruleset of a policy file and the file's text; raises ConfigError."""
    found = compile_policy(policy_file.load(path))
    return found, path.read_text(encoding="utf-8")


def apply(
    store: Store, path: Path, seconds: int = CONFIRM_S, supervisor: str = "auto"
) -> Applied | None:
    """Put a policy in force until ``seconds`` are over, or it is confirmed; None: it is already.

    Raises ConfigError, kernel.Refused (nothing changed), kernel.Unknown, Busy, OSError.
    """
    if not CONFIRM_S_MIN <= seconds <= CONFIRM_S_MAX:
        raise ConfigError(f"--confirm-in: use {CONFIRM_S_MIN} to {CONFIRM_S_MAX} seconds")
    ruleset, text = compiled(path)
    wanted = kernel.made(ruleset)  # what the kernel would refuse, it refuses here
    with store.locked(), Kernel() as one:
        if store.overdue():
            _taken_back(store, store.pending(), one)
        waiting = store.pending()
        if waiting:
            raise Busy(f"change {waiting} waits: confirm it or roll it back first")
        snapshot, _ = one.snapshot(ruleset.table)
        confirmed = store.confirmed()
        same = confirmed and store.file(confirmed, POLICY).read_text(encoding="utf-8") == text
        if same and snapshot == wanted:
            return None
        change = store.prepare(ruleset, text, one.capture(ruleset.table))
        store.begin(change, seconds)
        try:
            store.arm(change, seconds, supervisor)
            one.replace(ruleset, wanted)
        except (Busy, kernel.Refused, OSError, subprocess.SubprocessError):
            store.cancel()
            raise
        # Unknown is not cancelled: the rollback program brings back what is known.
    return Applied(change, seconds)


def confirm(store: Store) -> str:
    """Keep the change that waits; return its number. Raises TooLate, Busy.

    Only what is in force: whoever was killed before he changed anything left a change that waits,
    and nobody has seen that it lets him in.
    """
    with store.locked(), Kernel() as one:
        change = store.pending()
        if change:
            ruleset, _ = compiled(store.file(change, POLICY))
            found, _ = one.snapshot(ruleset.table)
            if found != kernel.made_of(store.file(change, NEW).read_bytes(), ruleset.table):
                raise TooLate(
                    f"the kernel does not have change {change} as it was applied;"
                    " see `verify`, or take it back with `rollback`"
                )
        return store.confirm()


def roll_back(store: Store) -> str:
    """Bring back what was before the change that waits; raises TooLate, Busy, kernel.Refused."""
    with store.locked():
        change = store.pending()
        if not change:
            raise TooLate("no change waits")
        with Kernel() as one:
            _taken_back(store, change, one)
        return change


def _taken_back(store: Store, change: str, one: Kernel) -> None:
    raw = store.file(change, rollback.BATCH).read_bytes()
    if not rollback.taken(store.file(change, "").parent, change):
        raise TooLate("it was decided a moment ago")
    one.send(raw)


def load(store: Store, path: Path | None) -> str:
    """Put in force what was confirmed, or the policy of a file when nothing was: at boot.

    Returns what was loaded. Raises ConfigError, kernel.Refused, Busy, OSError.
    """
    with store.locked(), Kernel() as one:
        change = store.confirmed()
        if change:
            try:
                one.send(store.file(change, NEW).read_bytes())
            except (kernel.Refused, kernel.Unknown, OSError):
                # A damaged file, or a kernel that wants it said otherwise: made once more.
                ruleset, _ = compiled(store.file(change, POLICY))
                one.replace(ruleset)
            return f"change {change}"
        if path is None:
            raise ConfigError("nothing was ever confirmed; give --policy FILE")
        ruleset, _ = compiled(path)
        one.replace(ruleset)
        return str(path)

"""Starts processes, watches them, starts them again, stops them: by their own process ids only.

Law: a child never outlives this process. Each asks the kernel for SIGKILL at its parent's death
(prctl PR_SET_PDEATHSIG) before it executes anything, which holds for SIGKILL of the parent too.
The signal goes out when the parent *thread* ends, so everything here runs in the main thread.

===========  =====================================================================
state        meaning
===========  =====================================================================
starting     running, not yet ready
ready        told READY=1, or its port answers
waiting      exited by itself; starts again at ``again_at``
stopped      stopped on purpose
===========  =====================================================================
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from healthsync.runtime.log import Log

BACKOFF_S: Final = (0.1, 5.0)
STABLE_S: Final = 10.0
"""Up for this long, a service starts its backoff anew."""
STOP_GRACE_S: Final = 8.0
WATCHDOG_S: Final = 45.0
"""A service that feeds its watchdog and then falls silent this long hangs: it is killed. Longer
than anything a healthy one does in one go, such as reading its state back."""
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Spec(NamedTuple):
    """How to run one service. ``port`` 0: it has none; ``notifies``: it tells READY=1 itself."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    port: int = 0
    notifies: bool = False


class Service:
    """One supervised process."""

    def __init__(self, spec: Spec) -> None:
        """Hold the spec; nothing is started."""
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "stopped"
        self.restarts = 0
        self.again_at = 0.0
        self.started_at = 0.0
        self._backoff_s = BACKOFF_S[0]
        self._notify: socket.socket | None = None
        self._notified = False
        self._fed_at: float | None = None

    @property
    def pid(self) -> int:
        """Return the process id, 0 when there is none."""
        return self.process.pid if self.process else 0

    def start(self) -> None:
        """Start the process."""
        env = dict(self.spec.env)
        self._notified = False
        self._fed_at = None
        if self.spec.notifies:
            address = f"healthsync-onebox/{os.getpid()}/{self.spec.name}"
            if self._notify is None:
                self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._notify.bind("\0" + address)
                self._notify.setblocking(False)
            env["NOTIFY_SOCKET"] = "@" + address
            env["WATCHDOG_USEC"] = str(int(WATCHDOG_S * 1_000_000))
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it died between fork and prctl
                os._exit(1)

        with self.spec.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(self.spec.argv),
                env=env,
                cwd=self.spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one thread; see the module's law
                start_new_session=True,
            )
        self.started_at = time.monotonic()
        self.state = "starting"

    def step(self, log: Log) -> bool:
        """Look once; return True when something changed."""
        before = self.state
        self._read_notifications()
        if self.process is not None and self.state in {"starting", "ready"}:
            code = self.process.poll()
            if code is not None:
                self._exited(code, log)
            elif self.state == "starting" and self._is_ready():
                self.state = "ready"
            elif self._fed_at is not None and time.monotonic() - self._fed_at > WATCHDOG_S:
                log.error("service.hung", name=self.spec.name, pid=self.pid)
                self._fed_at = None
                self.process.kill()
        elif self.state == "waiting" and time.monotonic() >= self.again_at:
            self.restarts += 1
            self.start()
            log.warning("service.restarted", name=self.spec.name, pid=self.pid)
        return self.state != before

    def _exited(self, code: int, log: Log) -> None:
        now = time.monotonic()
        if now - self.started_at >= STABLE_S:
            self._backoff_s = BACKOFF_S[0]
        self.again_at = now + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, BACKOFF_S[1])
        self.state = "waiting"
        log.warning("service.exited", name=self.spec.name, pid=self.pid, code=code)

    def _read_notifications(self) -> None:
        """Empty the socket: READY counts, WATCHDOG and the like must not fill it up."""
        if self._notify is None:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                said = self._notify.recv(4096)
                self._notified |= b"READY=1" in said
                if b"WATCHDOG=1" in said:
                    self._fed_at = time.monotonic()

    def _is_ready(self) -> bool:
        if self.spec.notifies:
            return self._notified
        return self.spec.port == 0 or answers(self.spec.port)

    def stop(self) -> None:
        """Ask the process to stop and, past the grace, make it."""
        self.state = "stopped"
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        if self._notify is not None:
            self._notify.close()
            self._notify = None


def answers(port: int) -> bool:
    """Tell whether something accepts connections on the loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(0.2)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def tail(path: Path, lines: int = 5) -> list[str]:
    """Return the last lines of a log."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except OSError:
        return []

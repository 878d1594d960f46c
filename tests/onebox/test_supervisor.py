import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from healthsync.runtime.log import Log
from onebox import supervisor
from onebox.supervisor import Service, Spec

WAIT_S = 10.0


def quiet() -> Log:
    return Log("test", lambda: 0, out=io.StringIO())


def spec(tmp_path: Path, code: str, *, notifies: bool = False) -> Spec:
    return Spec(
        "thing",
        [sys.executable, "-c", code],
        dict(os.environ),
        tmp_path,
        tmp_path / "log",
        notifies=notifies,
    )


def until(condition: Callable[[], bool], service: Service | None = None) -> None:
    log = quiet()
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen within its bound"
        if service is not None:
            service.step(log)
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    service = Service(spec(tmp_path, "import time; time.sleep(60)"))
    service.start()
    until(lambda: service.state == "ready", service)
    first = service.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: service.restarts == 1 and service.state == "ready", service)
    assert service.pid != first
    service.stop()
    assert not alive(first)


def test_a_process_that_always_dies_waits_longer_each_time(tmp_path: Path) -> None:
    service = Service(spec(tmp_path, "raise SystemExit(3)"))
    service.start()
    until(lambda: service.restarts >= 3, service)
    until(lambda: service.state == "waiting", service)
    assert service.again_at - time.monotonic() > 0.4
    service.stop()


def test_a_service_that_notifies_is_ready_only_when_it_says_so(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from healthsync.runtime.notify import notify\n"
        "while not Path('go').exists(): time.sleep(0.01)\n"
        "notify('READY=1'); time.sleep(60)"
    )
    service = Service(spec(tmp_path, code, notifies=True))
    service.start()
    for _ in range(20):
        service.step(quiet())
        time.sleep(0.01)
    assert service.state == "starting"
    (tmp_path / "go").touch()
    until(lambda: service.state == "ready", service)
    service.stop()


def test_a_service_that_notifies_often_is_not_held_up(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from healthsync.runtime.notify import notify\n"
        "notify('READY=1')\n"
        "for _ in range(1000): notify('WATCHDOG=1')\n"
        "Path('through').touch(); time.sleep(60)"
    )
    service = Service(spec(tmp_path, code, notifies=True))
    service.start()
    until(lambda: (tmp_path / "through").exists())  # nobody reads meanwhile
    until(lambda: service.state == "ready", service)
    service.stop()


def test_a_service_that_stops_feeding_its_watchdog_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "WATCHDOG_S", 0.3)
    code = (
        "import time; from pathlib import Path; from healthsync.runtime.notify import notify\n"
        "notify('READY=1'); notify('WATCHDOG=1')\n"
        "while Path('well').exists(): notify('WATCHDOG=1'); time.sleep(0.02)\n"
        "time.sleep(60)"
    )
    (tmp_path / "well").touch()
    service = Service(spec(tmp_path, code, notifies=True))
    service.start()
    until(lambda: service.state == "ready", service)
    fed_until = time.monotonic() + 1.0
    until(lambda: time.monotonic() > fed_until, service)
    assert service.restarts == 0
    (tmp_path / "well").unlink()
    until(lambda: service.restarts == 1, service)
    service.stop()


def test_children_die_with_a_parent_that_is_killed_hard(tmp_path: Path) -> None:
    parent_code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from onebox.supervisor import Service, Spec\n"
        "here = Path(sys.argv[1])\n"
        "s = Service(Spec('child', [sys.executable, '-c', 'import time; time.sleep(60)'], {},"
        " here, here / 'log'))\n"
        "s.start()\n"
        "(here / 'pid.new').write_text(str(s.pid)); (here / 'pid.new').rename(here / 'pid')\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", parent_code, str(tmp_path)])
    try:
        until(lambda: (tmp_path / "pid").exists())
        child = int((tmp_path / "pid").read_text())
        assert alive(child)
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not alive(child))


def test_a_process_that_ignores_sigterm_is_stopped_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import signal, time; from pathlib import Path\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); Path('deaf').touch(); time.sleep(60)"
    )
    monkeypatch.setattr(supervisor, "STOP_GRACE_S", 0.2)
    service = Service(spec(tmp_path, code))
    service.start()
    until(lambda: (tmp_path / "deaf").exists())
    pid = service.pid
    service.stop()
    assert not alive(pid)

"""A line that was answered `ok` is on the disk, whatever happens to the process."""

import signal
import socket
import threading
import time
from pathlib import Path

from edge.spool import Backlog
from tests.edge.ingest import Opener
from tests.edge.process import PRIVATE, Process
from vitals.columns import Columns

CALLERS = 4
AHEAD = 50


def _load(port: int, caller: int, answered: list[str]) -> None:
    """Send numbered lines, some ahead of their answers; note the device of every `ok`."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(5)
        answers = sock.makefile("rb")
        sent = 0
        try:
            while True:
                batch = range(sent, sent + AHEAD)
                reply = "reply=yes " if not sent else ""
                lines = [f"{reply}device=d{caller}-{n} heart_rate=78" for n in batch]
                sock.sendall("\n".join([*lines, ""]).encode())
                for number in batch:
                    if answers.readline() != b"ok\n":
                        return
                    answered.append(f"d{caller}-{number}")
                sent += AHEAD
        except OSError:
            return
        finally:
            answers.close()


def test_a_kill_in_mid_load_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    process = Process(tmp_path)
    answered: list[list[str]] = [[] for _ in range(CALLERS)]
    with process.started() as child:
        threads = [
            threading.Thread(target=_load, args=(process.line_port, n, answered[n]))
            for n in range(CALLERS)
        ]
        for thread in threads:
            thread.start()
        for _ in range(400):
            if all(len(one) >= 4 * AHEAD for one in answered):
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join(10)
    backlog, opener = Backlog(process.state / "spool.db"), Opener(PRIVATE)
    for epoch in backlog.epochs():
        opener.learn(epoch)
    kept: set[str] = set()
    for held in backlog.after(0, 1 << 60, 1 << 60, 1 << 30):
        _, body = opener.open(held.data)
        assert isinstance(body, Columns)
        kept |= {body.sources[at].device for at in body.source}
    backlog.close()
    said = {device for one in answered for device in one}
    assert len(said) >= CALLERS * 4 * AHEAD
    assert said <= kept


def test_a_stop_is_clean_and_the_next_start_has_another_epoch(tmp_path: Path) -> None:
    process = Process(tmp_path)
    for _ in range(2):
        with process.started() as child:
            with socket.create_connection(("127.0.0.1", process.line_port)) as sock:
                sock.sendall(b"reply=yes mrn=M-SECRET-9 name=SECRETNAME heart_rate=78\n")
                assert sock.recv(3) == b"ok\n"
            child.send_signal(signal.SIGTERM)
            assert child.wait(10) == 0
    backlog = Backlog(process.state / "spool.db")
    assert len(backlog.epochs()) == 2
    backlog.close()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"SECRET" not in path.read_bytes(), path

"""``healthsync onebox up|down|status|info|demo --run-dir DIR``."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.notify import notify
from healthsync.runtime.stop import Stop
from onebox.box import Box, StartError, held_by, read_state
from onebox.layout import RunDir

DOWN_S_MAX: Final = 60.0
DETACH_S_MAX: Final = 90.0


def register(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        sub = words.add_parser(name, help=text, description=text)
        sub.add_argument("--run-dir", type=Path, required=True, metavar="DIR")
        return sub

    up = add("up", "start everything and stay in the foreground until SIGTERM or Ctrl-C")
    up.add_argument("--detach", action="store_true", help="return when ready, run on behind")
    up.set_defaults(run=_up)
    add("down", "stop the onebox of a run directory").set_defaults(run=_down)
    status = add("status", "one line a process; exit 0 all ready, 1 degraded, 2 not running")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)
    info = add("info", "addresses, files, a token and process ids")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=_info)
    demo = add("demo", "a ward of recorded patients on a fresh onebox, with a live summary")
    demo.add_argument("--seconds", type=int, default=None, help="end by itself after this long")
    demo.add_argument("--beds", type=int, default=16)
    demo.set_defaults(run=_demo)


def _up(options: argparse.Namespace) -> int:
    run = RunDir(options.run_dir)
    if options.detach:
        return _detach(run)
    log = Log("onebox", now_ms)
    stop = Stop()
    began = time.monotonic()
    box = Box(run, log)
    try:
        box.start(lambda: not stop)
    except StartError as error:
        if stop:
            return Exit.OK
        print(f"healthsync onebox: {error}", file=sys.stderr)
        return Exit.UNAVAILABLE
    notify("READY=1")
    log.info("onebox.ready", seconds=round(time.monotonic() - began, 1), pid=os.getpid())
    try:
        while not stop:
            box.step()
            time.sleep(0.1)
    finally:
        notify("STOPPING=1")
        box.stop()
    log.info("onebox.stopped")
    return Exit.OK


def _detach(run: RunDir) -> int:
    run.make()
    with (run.log / "onebox.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "healthsync.cli", "onebox", "up", "--run-dir", str(run.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + DETACH_S_MAX
    while time.monotonic() < deadline:
        code = child.poll()
        if code is not None:
            print((run.log / "onebox.log").read_text()[-2000:], file=sys.stderr)
            return code
        if run.state.exists() and json.loads(run.state.read_text()).get("ready"):
            return Exit.OK
        time.sleep(0.1)
    child.terminate()
    return Exit.UNAVAILABLE


def _down(options: argparse.Namespace) -> int:
    run = RunDir(options.run_dir)
    pid = held_by(run)
    if not pid:
        print(f"no onebox runs in {run.root}")
        return Exit.OK
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_S_MAX
    while held_by(run):
        if time.monotonic() > deadline:
            print(f"process {pid} did not stop within {DOWN_S_MAX:.0f} s", file=sys.stderr)
            return Exit.FAILED
        time.sleep(0.1)
    return Exit.OK


def _status(options: argparse.Namespace) -> int:
    run = RunDir(options.run_dir)
    if not held_by(run):
        print("{}" if options.json else f"no onebox runs in {run.root}")
        return Exit.FAILED
    state = read_state(run)
    if options.json:
        print(json.dumps(state["services"], indent=1))
    else:
        print(f"{'SERVICE':<16}{'STATE':<10}{'PID':>8}{'PORT':>7}{'RESTARTS':>10}")
        for name, row in state["services"].items():
            print(
                f"{name:<16}{row['state']:<10}{row['pid']:>8}{row['port'] or '-':>7}"
                f"{row['restarts']:>10}"
            )
    ready = state["ready"] and all(r["state"] == "ready" for r in state["services"].values())
    return Exit.OK if ready else Exit.DEGRADED


def _info(options: argparse.Namespace) -> int:
    state = read_state(RunDir(options.run_dir))
    info = state["info"]
    if not info:
        print("the onebox is starting; try again shortly", file=sys.stderr)
        return Exit.DEGRADED
    if options.json:
        print(json.dumps(info, indent=1))
        return Exit.OK
    for key in ("ward_url", "fhir_url", "ca_file", "line_port", "mllp_port"):
        print(f"{key:<10} {info[key]}")
    print(f"sign-in    {info['sign_in']['user']} / {info['sign_in']['password']}")
    return Exit.OK


def _demo(options: argparse.Namespace) -> int:
    from onebox.demo import run_demo

    return run_demo(RunDir(options.run_dir), options.seconds, options.beds)

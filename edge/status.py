"""What a technician asks first: is it collecting, is it sending, what waits on the disk.

Law: asks the running program over its control socket, or reads its metrics port where that is
not to be had; reads the spool read-only; opens no frame and shows no patient. Exit codes: 0 in
order, 1 degraded (every complaint names its next step), 2 the program does not answer.
"""

import http.client
import json
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from edge import certificate, clock_floor, control_client, status_screen
from edge.complaint import Picture, judge
from edge.config import Config
from edge.live import flatten
from edge.spool_command import read_spool
from healthsync.runtime import clock
from healthsync.runtime.exits import Exit

METRICS_TIMEOUT_S: Final = 3.0
METRICS_BYTES_MAX: Final = 1024 * 1024
"""Of one page of metrics; ours has under 20 KiB."""


def read_metrics(port: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the running program's metrics, as `edge.live.flatten` does; raise OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=METRICS_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read(METRICS_BYTES_MAX).decode()
        live, rejects = flatten(text_string_to_metric_families(text))
    except (http.client.HTTPException, ValueError) as error:
        raise OSError("the metrics port does not speak Prometheus text") from error
    finally:
        connection.close()
    if not live:
        raise OSError("the metrics port is another program's")
    return live, rejects


def gather(config: Config) -> Picture:
    """Ask the program, or its metrics port, and return the whole picture with its verdict."""
    program, unanswered = None, ""
    try:
        program = control_client.ask(config.control_path, {"get": "status"})["status"]
    except (control_client.Unanswered, KeyError) as error:
        unanswered = str(error)
    found = picture(config, program, unanswered)
    code, wrong = judge(found)
    return {"state": code.name.lower(), "wrong": [one._asdict() for one in wrong]} | found


def picture(config: Config, program: Picture | None, unanswered: str) -> Picture:
    """Return what is to be judged; what can not be read is None in it.

    ``program``: the control socket's status; without it (``unanswered`` says why) the metrics
    port is asked.
    """
    live: dict[str, float] | None
    rejects: dict[str, float]
    if program is not None:
        live, rejects = program.pop("live"), program.pop("rejects")
    else:
        try:
            live, rejects = read_metrics(config.metrics_port)
        except OSError:
            live, rejects = None, {}
    spool: dict[str, Any] | None
    try:
        spool = read_spool(config)
    except sqlite3.Error:
        spool = None
    return {
        "edge": config.edge_id,
        "at_ms": clock.now_ms(),
        "live": live,
        "rejects": rejects,
        "program": program,
        "unanswered": unanswered,
        "spool": spool,
        "disk": _disk(config.state_dir),
        "certificate": _certificate(config, program),
    }


def _disk(folder: str) -> dict[str, int] | None:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return {"free_bytes": usage.free, "total_bytes": usage.total}


def _certificate(config: Config, program: Picture | None) -> Picture | None:
    path = config.link_certificate_path
    if not path:
        return None
    try:
        found = certificate.read(Path(path))
    except (OSError, ValueError) as error:
        return {"error": type(error).__name__}
    now_ms = max(clock.now_ms(), clock_floor.read(config))
    life_ms = max(1, found.ends_ms - found.begins_ms)
    shown = {
        "ends_ms": found.ends_ms,
        "days_left": round(found.days_left(now_ms), 2),
        "begun": now_ms >= found.begins_ms,
        "subject": found.subject,
        "serial": found.serial,
        "left_share": round((found.ends_ms - now_ms) / life_ms, 4),
        "renewal": None,
    }
    if config.certificate.folder:
        # Without the program only what the file says is known.
        state = "none" if found.placeholder else "valid" if now_ms < found.ends_ms else "expired"
        kept = None if program is None else program.get("certificate")
        shown["renewal"] = kept or {"state": state, "trouble": "", "told": None, "fingerprint": ""}
    return shown


def show(config: Config, *, as_json: bool) -> int:
    """Print the whole picture; return the exit code."""
    found = gather(config)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        status_screen.write(found, sys.stdout)
    return Exit[found["state"].upper()]

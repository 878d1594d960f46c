"""What a technician asks first: is it collecting, is it sending, what waits on the disk.

Law: reads the spool read-only and the metrics port; opens no frame and shows no patient. Exit
codes: 0 in order, 1 degraded (link down, backlog, drops), 2 the program does not answer.
"""

import http.client
import json
import sqlite3
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from edge.config import Config
from healthsync.runtime import clock
from healthsync.runtime.exits import Exit

METRICS_TIMEOUT_S: Final = 3.0
OLDEST_S_MAX: Final = 60.0
"""A frame this old is backlog worth a technician's eye."""

_PREFIX: Final = "healthsync_edge_"


def read_spool(config: Config) -> dict[str, object]:
    """Return depth, age and counters per epoch; raise sqlite3.Error."""
    db = sqlite3.connect(f"file:{config.spool_path}?mode=ro", uri=True)
    try:
        frames, size, oldest = db.execute(
            "SELECT count(*), coalesce(sum(size), 0), min(first_ms) FROM frames"
        ).fetchone()
        epochs: dict[str, dict[str, int]] = {}
        for epoch, name, value in db.execute("SELECT epoch, name, value FROM counters"):
            epochs.setdefault(epoch, {})[name] = value
    finally:
        db.close()
    age_s = None if oldest is None else max(0.0, round((clock.now_ms() - oldest) / 1000, 1))
    totals: dict[str, int] = {}
    for counters in epochs.values():
        for name, value in counters.items():
            if name != "highest_seq":
                totals[name] = totals.get(name, 0) + value
    return {
        "frames": frames,
        "bytes": size,
        "bytes_max": config.spool_bytes_max,
        "oldest_s": age_s,
        "totals": totals,
        "epochs": epochs,
    }


def read_metrics(port: int) -> dict[str, float]:
    """Return the running program's metrics without labels; raise OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=METRICS_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except http.client.HTTPException as error:
        raise OSError("the metrics port does not speak HTTP") from error
    finally:
        connection.close()
    return {
        sample.name.removeprefix(_PREFIX): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(_PREFIX) and not sample.labels
    }


def judge(spool: dict[str, object] | None, live: dict[str, float] | None) -> tuple[Exit, list[str]]:
    """Return the exit code and what is wrong, in words."""
    if live is None:
        return Exit.FAILED, ["the program does not answer on its metrics port; is it running?"]
    wrong = []
    if not live.get("link_up"):
        wrong.append("no session with the cloud")
    if live.get("dropped_frames_total"):
        wrong.append("frames were dropped: the spool's quota was reached")
    if live.get("refused_inputs_total"):
        wrong.append("input was refused: the disk did not take it")
    if spool is None:
        wrong.append("the spool cannot be read")
    elif isinstance(oldest := spool["oldest_s"], float) and oldest > OLDEST_S_MAX:
        wrong.append(f"the oldest frame has waited {oldest:.0f} s")
    return (Exit.DEGRADED if wrong else Exit.OK), wrong


def show(config: Config, *, as_json: bool) -> int:
    """Print the whole picture; return the exit code."""
    live: dict[str, float] | None
    spool: dict[str, object] | None
    try:
        live = read_metrics(config.metrics_port)
    except OSError:
        live = None
    try:
        spool = read_spool(config)
    except sqlite3.Error:
        spool = None
    code, wrong = judge(spool, live)
    if as_json:
        picture = {
            "edge": config.edge_id,
            "state": code.name.lower(),
            "wrong": wrong,
            "live": live,
            "spool": spool,
        }
        print(json.dumps(picture, indent=2))
        return code
    print(f"{config.edge_id}: {code.name.lower()}")
    for sentence in wrong:
        print(f"  ! {sentence}")
    if live is not None:
        print(f"  link        {'up' if live.get('link_up') else 'down'}", end="")
        print(f", clock offset {live.get('clock_offset_ms', 0):.0f} ms")
        print(f"  devices     {live.get('devices', 0):.0f}", end="")
        print(f" on {live.get('connections', 0):.0f} connections", end="")
        print(f", clocks off by up to {live.get('device_skew_max_ms', 0) / 1000:.0f} s")
        print(f"  lines       {live.get('lines_total', 0):.0f}", end="")
        print(f", messages {live.get('messages_total', 0):.0f}", end="")
        print(f", readings {live.get('readings_total', 0):.0f}")
    if spool is not None:
        _print_spool(spool)
    return code


def _print_spool(spool: dict[str, object]) -> None:
    oldest = "nothing waits" if spool["oldest_s"] is None else f"oldest {spool['oldest_s']} s"
    print(f"  spool       {spool['frames']} frames, {spool['bytes']} bytes, {oldest}")
    totals = spool["totals"]
    if isinstance(totals, dict):
        for name in sorted(totals):
            print(f"    {name:<22}{totals[name]}")


def show_spool(config: Config, *, as_json: bool) -> int:
    """Print the spool alone; return the exit code."""
    try:
        spool = read_spool(config)
    except sqlite3.Error as error:
        print(f"{config.spool_path}: cannot be read ({type(error).__name__})")
        return Exit.FAILED
    if as_json:
        print(json.dumps(spool, indent=2))
    else:
        print(f"{config.edge_id}:")
        _print_spool(spool)
    return Exit.OK

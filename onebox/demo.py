"""``make demo``: a ward of recorded patients on a fresh onebox, told live, judged at its end.

It ends well only when every stage saw data and `healthsync audit` finds each acknowledged reading
downstream exactly once.
"""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from healthsync.runtime import tls
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.stop import Stop
from onebox import scrape, values
from onebox.box import Box, StartError, held_by
from onebox.ca import write_private
from onebox.layout import RunDir
from onebox.supervisor import Service, Spec

SUMMARY_S: Final = 2.0
AUDIT_S: Final = 45
DEMO_MRN: Final = "SIM100001"
DESATURATE: Final = "2@8"
"""The second bed falls to 84 % eight seconds in, so that everybody sees an alert."""
CONNECTED_S_MAX: Final = 20.0
ALERT_S_MAX: Final = 40.0
"""The first alert is due some 20 s after the ward began to speak."""


def say(text: str = "") -> None:
    """Print one line for a person, at once."""
    print(text, flush=True)


class Rest:
    """REST of the running box, as its users reach it: TLS through HAProxy, bearer token."""

    def __init__(self, info: dict[str, Any]) -> None:
        """Take what `onebox info` tells."""
        self._base = str(info["fhir_url"])
        self._token = str(info["token"])
        self._context: ssl.SSLContext = tls.client(Path(info["ca_file"]))

    def get(self, path: str) -> dict[str, Any]:
        """Return the resource at ``path``; raises URLError when refused or unreachable."""
        request = urllib.request.Request(  # noqa: S310 - the base is our own https address
            f"{self._base}/{path}", headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=5, context=self._context) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
        return found


def wipe(run: RunDir) -> None:
    """Remove an earlier demo's directory; a running one or somebody else's files stay."""
    if run.is_ours() and not held_by(run):
        shutil.rmtree(run.root)


def replay_spec(box: Box, beds: int) -> Spec:
    """Return the simulated ward: recorded patients, one connection a bed."""
    return Spec(
        "ward",
        [
            sys.executable,
            "-m",
            "healthsync.cli",
            "simulate",
            "replay",
            "--host",
            values.LOOPBACK,
            "--port",
            str(box.plan.ports["line"]),
            "--beds",
            str(beds),
            "--ward",
            values.WARD,
            "--seed",
            "1",
            "--reply",
            "--desaturate",
            DESATURATE,
        ],
        box.plan.environment(),
        box.plan.run.root,
        box.plan.run.log / "ward.log",
    )


def run_demo(run: RunDir, seconds: int | None, beds: int) -> int:
    """Run until Ctrl-C or for ``seconds``; return 0 only if every stage agrees."""
    stop = Stop()
    wipe(run)
    say("demo: starting Kafka, Redis, S3, KMS, HAProxy and the services ...")
    began = time.monotonic()
    box = Box(run, Log("onebox", now_ms, out=_log_file(run)))
    try:
        box.start(lambda: not stop)
    except StartError as error:
        say(f"demo: {error}")
        return Exit.OK if stop else Exit.UNAVAILABLE
    ward = Service(replay_spec(box, beds))
    try:
        say(f"demo: ready after {time.monotonic() - began:.1f} s")
        ward.start()
        _greet(box, beds, stop)
        _watch(box, ward, seconds, stop)
        say("demo: the ward falls silent; waiting until every stage agrees ...")
        ward.stop()
        return _judge(box)
    finally:
        ward.stop()
        say("demo: stopping everything it started ...")
        box.stop()


def _log_file(run: RunDir) -> Any:
    run.make()
    return (run.log / "onebox.log").open("a", encoding="utf-8")


def _greet(box: Box, beds: int, stop: Stop) -> None:
    info = box.info()
    rest = Rest(info)
    patient = _first_patient(rest, box, stop)
    header = box.plan.run.config / "authorization.header"
    write_private(header, f"Authorization: Bearer {info['token']}\n".encode())
    curl = f"curl --cacert {_short(info['ca_file'])} -H @{_short(header)}"
    say()
    say(f"  ward page   {info['ward_url']}   ({beds} beds; its certificate is this demo's own)")
    say(f"  sign in     {info['sign_in']['user']} / {info['sign_in']['password']}")
    say(
        f"  bedside     printf 'heart_rate=78, oxygen=95%%\\n' | nc -N 127.0.0.1 "
        f"{info['line_port']}"
    )
    say(f"  {curl} '{info['fhir_url']}/Patient?identifier={DEMO_MRN}'")
    say(f"  {curl} '{info['fhir_url']}/Observation/$lastn?patient={patient}&category=vital-signs'")
    say(f"  {curl} '{info['fhir_url']}/DetectedIssue?patient={patient}'")
    say(
        f"  more        .venv/bin/healthsync onebox info --json --run-dir "
        f"{_short(box.plan.run.root)}"
    )
    say()


def _short(path: str | Path) -> str:
    given, here = Path(path), Path.cwd()
    return str(given.relative_to(here) if given.is_relative_to(here) else given)


def _first_patient(rest: Rest, box: Box, stop: Stop) -> str:
    """Return the pseudonymous id of the first bed's patient, once it has come through."""
    deadline = time.monotonic() + CONNECTED_S_MAX
    while time.monotonic() < deadline and not stop:
        box.step()
        try:
            entries = rest.get(f"Patient?identifier={DEMO_MRN}").get("entry", [])
        except (OSError, urllib.error.URLError):
            entries = []
        if entries:
            return str(entries[0]["resource"]["id"])
        time.sleep(0.2)
    return "UNKNOWN"


def _watch(box: Box, ward: Service, seconds: int | None, stop: Stop) -> None:
    metrics = box.info()["metrics"]
    began = time.monotonic()
    readings, when = 0.0, began
    before: dict[float, float] = {}
    next_line = began + SUMMARY_S
    quiet = Log("onebox", now_ms, out=_log_file(box.plan.run))
    alerts = 0.0
    while not stop:
        over = seconds is not None and time.monotonic() - began >= seconds
        if over and (alerts or time.monotonic() - began >= ALERT_S_MAX):
            return  # a short demo goes on until its first alert has come through
        box.step()
        ward.step(quiet)
        time.sleep(0.1)
        if time.monotonic() < next_line:
            continue
        edge = scrape.scrape(metrics["edge"])
        project = scrape.scrape(metrics["project"])
        detect = scrape.scrape(metrics["detect"])
        count = scrape.total(edge, "healthsync_edge_readings_total")
        now = time.monotonic()
        rate = max(0.0, count - readings) / (now - when)
        readings, when = count, now
        alerts = scrape.total(detect, "healthsync_detect_alerts_total")
        latency = scrape.buckets(project, "healthsync_project_latency_seconds")
        say(
            f"  {now - began:5.0f} s  readings/s {rate:6.1f}  alerts"
            f" {alerts:4.0f}  spool"
            f" {scrape.total(edge, 'healthsync_edge_spool_frames'):5.0f} frames  latency"
            f" p50 {_ms(scrape.quantile(latency, before, 0.5))}"
            f" p99 {_ms(scrape.quantile(latency, before, 0.99))}"
            f"{'' if box.settled() else '  (restarting something)'}"
        )
        before = latency
        next_line = now + SUMMARY_S


def _ms(seconds: float | None) -> str:
    return "    -   " if seconds is None else f"{seconds * 1000:5.0f} ms"


def _judge(box: Box) -> int:
    """Compare the stages; print what was found; return the exit code."""
    audit = _audit(box)
    rest = Rest(box.info())
    say(audit.stdout.rstrip())
    try:
        served = _served(rest)
    except (OSError, urllib.error.URLError) as error:
        say(f"demo: REST does not answer ({type(error).__name__})")
        return Exit.FAILED
    for what, number in served.items():
        say(f"  served by REST: {number} {what}")
    silent = [what for what, number in served.items() if not number]
    if audit.returncode or silent:
        if audit.returncode:
            say(f"demo: FAILED, the stages differ (audit exit {audit.returncode})")
        if silent:
            say(f"demo: FAILED, REST served no {', no '.join(silent)}")
        return Exit.DEGRADED
    say("demo: every acknowledged reading is at every stage exactly once")
    return Exit.OK


def _served(rest: Rest) -> dict[str, int]:
    """Return how many resources of each kind REST serves for the demo's first two patients."""
    first, second = (
        rest.get(f"Patient?identifier={mrn}").get("entry", []) for mrn in (DEMO_MRN, "SIM100002")
    )
    counts = {"patients": len(first) + len(second), "observations": 0, "alerts": 0}
    for entry in (*first, *second):
        subject = entry["resource"]["id"]
        found = rest.get(f"Observation?patient={subject}&_count=1000")
        counts["observations"] += len(found.get("entry", []))
        found = rest.get(f"DetectedIssue?patient={subject}")
        counts["alerts"] += len(found.get("entry", []))
    return counts


def _audit(box: Box) -> subprocess.CompletedProcess[str]:
    """Run the audit beside the supervised processes, which are looked after meanwhile."""
    argv = [
        sys.executable,
        "-m",
        "healthsync.cli",
        "audit",
        "--config",
        str(box.info()["audit_config"]),
        "--wait",
        str(AUDIT_S),
    ]
    log = box.plan.run.log / "audit.log"
    with log.open("w+", encoding="utf-8") as out:
        process = subprocess.Popen(
            argv,
            env=box.plan.environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=box.plan.run.root,
        )
        deadline = time.monotonic() + AUDIT_S + 30
        while process.poll() is None:
            box.step()
            time.sleep(0.1)
            if time.monotonic() > deadline:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        return subprocess.CompletedProcess(argv, process.returncode, out.read())

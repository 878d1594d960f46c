"""One run of the whole system: start in order, watch, tell, stop in reverse.

Law: one thread (see supervisor). ``state.json`` under the run directory is what other commands
read; it is replaced whole, so they never see half of one.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

import confluent_kafka

from cloud import provision
from cloud.api.tokens import mint
from cloud.settings import S3, Kafka, kafka_config
from healthsync.runtime import tls
from healthsync.runtime.log import Log
from onebox import plan as plan_
from onebox import ports
from onebox import values as values_
from onebox.layout import RunDir, require_tools
from onebox.secrets import WARD_USER
from onebox.supervisor import Service, Spec, tail
from vitals.errors import ConfigError, VitalsError

START_S_MAX: Final = 60.0
"""Bound of one stage of the start; the whole is ready in some 15 s on two cores."""
TOKEN_S: Final = 12 * 3600
POLL_S: Final = 0.05


class StartError(VitalsError):
    """A service did not become ready; the message names it and the end of its log."""


class Box:
    """The running system in one run directory."""

    def __init__(self, run: RunDir, log: Log) -> None:
        """Take the directory; raise ConfigError when it is in use or setup has not run."""
        require_tools()
        self._run = run
        self._log = log
        run.make()
        self._lock = take_lock(run)
        self.plan = plan_.Plan(run)
        self.services: dict[str, Service] = {}
        self._info: dict[str, Any] = {}
        self._ready = False

    # Starting ----------------------------------------------------------------------------

    def start(self, keep_going: Callable[[], bool] = lambda: True) -> None:
        """Start everything in order; raise StartError (after stopping all) when one fails."""
        busy = ports.taken(self.plan.ports)
        if busy:
            raise ConfigError(
                f"ports of this run are in use: {', '.join(busy)}; end what holds them, or delete"
                f" {self._run.config / 'ports.json'} to get new ones"
            )
        try:
            servers = self.plan.servers()
            self._format_kafka()
            self._start_stage(servers, keep_going)
            self._provision()
            self._start_stage([*self.plan.services(), self.plan.proxy("edge")], keep_going)
            self._info = self._make_info()
            self._until_served(keep_going)
            self._ready = True
            self._write_state()
        except BaseException:
            self.stop()
            raise

    def _format_kafka(self) -> None:
        command = self.plan.kafka_format()
        if command is None:
            return
        done = subprocess.run(
            command,
            env=self.plan.environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self._run.root,
        )
        if done.returncode:
            raise StartError(f"formatting Kafka's storage failed: {done.stderr.strip()[-500:]}")

    def _start_stage(self, specs: list[Spec], keep_going: Callable[[], bool]) -> None:
        for spec in specs:
            service = self.services[spec.name] = Service(spec)
            service.start()
        deadline = time.monotonic() + START_S_MAX
        names = {spec.name for spec in specs}
        while waiting := {n for n in names if self.services[n].state != "ready"}:
            self.step()
            if not keep_going():
                raise StartError("stopped while starting")
            failed = [n for n in waiting if self.services[n].restarts >= 3]
            if failed or time.monotonic() > deadline:
                name = min(failed or waiting)
                last = " | ".join(tail(self.services[name].spec.log, 3))
                raise StartError(f"{name} did not become ready; its log ends: {last}")
            time.sleep(POLL_S)

    def _until_served(self, keep_going: Callable[[], bool]) -> None:
        """Wait until REST answers through HAProxy, whose checks lag behind the services."""
        context = tls.client(self.plan.ca_file)
        deadline = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline and keep_going():
            self.step()
            with contextlib.suppress(OSError, urllib.error.URLError):
                url = f"{self._info['fhir_url']}/metadata"
                with urllib.request.urlopen(url, timeout=2, context=context):  # noqa: S310 - https
                    return
            time.sleep(POLL_S)
        raise StartError("REST does not answer through HAProxy; see log/haproxy-cloud.log")

    def _provision(self) -> None:
        values = self.plan.values("audit")
        admin = self.plan.certificates["admin"]
        kafka = Kafka(values["hs_kafka_bootstrap"], self.plan.ca_file, admin.cert, admin.key)
        try:
            provision.kafka(kafka_config(kafka), replication=1, wait_s=30.0)
        except confluent_kafka.KafkaException as error:
            last = " | ".join(tail(self.services["kafka"].spec.log, 3))
            raise StartError(f"Kafka refused its topics: {error}; its log ends: {last}") from error
        provision.bucket(
            S3(
                values["hs_s3_endpoint"],
                values_.REGION,
                values_.BUCKET,
                values["hs_s3_credentials_file"],
                self.plan.ca_file,
            ),
            retain_days=1,
            wait_s=10.0,
        )

    # Running -----------------------------------------------------------------------------

    def step(self) -> None:
        """Look after every process once."""
        changed = [service.step(self._log) for service in self.services.values()]
        if any(changed):
            self._write_state()

    def settled(self) -> bool:
        """Tell whether every service is ready."""
        return all(service.state == "ready" for service in self.services.values())

    def stop(self) -> None:
        """Stop everything, last started first: gateway, services, servers."""
        for service in reversed(self.services.values()):
            service.stop()
        self._run.state.unlink(missing_ok=True)
        self._lock.close()

    # Telling -----------------------------------------------------------------------------

    def _make_info(self) -> dict[str, Any]:
        numbers = self.plan.ports
        metrics = {
            name.removesuffix("-metrics"): f"http://127.0.0.1:{number}/metrics"
            for name, number in numbers.items()
            if name.endswith("-metrics") and name != "cloudwatch-metrics"
        }
        for side in ("edge", "cloud"):
            metrics[f"haproxy-{side}"] = (
                f"http://127.0.0.1:{numbers[f'{side}-haproxy-stats']}/metrics"
            )
        token = mint(
            self.plan.secrets.path("jwt.private.pem").read_bytes(),
            "demo",
            "user/*.rs",
            ["*"],
            int(time.time()),
            TOKEN_S,
        )
        return {
            "line_port": numbers["line"],
            "line_tls_port": numbers["line-tls"],
            "mllp_port": numbers["mllp"],
            "mllp_tls_port": numbers["mllp-tls"],
            "fhir_url": f"{self.plan.public_url}/fhir",
            "ward_url": f"{self.plan.public_url}/ward",
            "ca_file": str(self.plan.ca_file),
            "token": token,
            "sign_in": {"user": WARD_USER, "password": self.plan.secrets.password("ward")},
            "audit_config": str(self.plan.audit_config()),
            "operator_config": str(self.plan.operator_config()),
            "metrics": metrics,
        }

    def info(self) -> dict[str, Any]:
        """Return what `healthsync onebox info --json` prints."""
        return {
            **self._info,
            "services": {
                name: {"pid": service.pid, "port": service.spec.port}
                for name, service in self.services.items()
            },
        }

    def _write_state(self) -> None:
        state = {
            "supervisor_pid": os.getpid(),
            "ready": self._ready,
            "info": self.info() if self._ready else {},
            "services": {
                name: {
                    "state": service.state,
                    "pid": service.pid,
                    "port": service.spec.port,
                    "restarts": service.restarts,
                }
                for name, service in self.services.items()
            },
        }
        temporary = self._run.state.with_suffix(".new")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(state))
        temporary.replace(self._run.state)


def take_lock(run: RunDir) -> TextIO:
    """Return the held lock of a run directory; raise ConfigError when another run holds it."""
    lock = run.lock.open("a+", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise ConfigError(
            f"{run.root} is in use by the onebox of process {holder}; end it with `healthsync"
            f" onebox down --run-dir {run.root}`, or choose another --run-dir"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def held_by(run: RunDir) -> int:
    """Return the process id of the running supervisor of a run directory, 0 when none runs."""
    if not run.lock.exists():
        return 0
    with run.lock.open(encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(lock.read().strip() or 0)
    return 0


def read_state(run: RunDir) -> dict[str, Any]:
    """Return the state of a running box; raise ConfigError when none runs."""
    if not held_by(run):
        raise ConfigError(
            f"no onebox runs in {run.root}; start one with `healthsync onebox up --run-dir"
            f" {run.root}`"
        )
    try:
        state: dict[str, Any] = json.loads(Path(run.state).read_text())
    except (OSError, json.JSONDecodeError):
        raise ConfigError(f"the onebox in {run.root} is starting; try again shortly") from None
    return state

"""The way from a line to Kafka as one run: Kafka, both HAProxies, two ingests, the gateway.

Law: the same templates, certificates and programs as the onebox, without what comes after Kafka.
Everything started here is stopped here, by its own process id. One thread (see the supervisor).
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from bench.processes import cpu_s, process
from cloud import provision
from cloud.settings import Kafka, kafka_config
from healthsync.runtime.log import Log
from onebox import scrape
from onebox.layout import RunDir, require_tools
from onebox.plan import Plan
from onebox.supervisor import Service, Spec
from onebox.values import INGESTS

START_S_MAX = 90.0


class Way:
    """Made and stopped by `running`."""

    def __init__(self, folder: Path) -> None:
        """Render everything; start nothing."""
        require_tools()
        run = RunDir(folder)
        run.make()
        self.plan = Plan(run)
        self._log = Log("bench", lambda: int(time.time() * 1000), sys.stderr)
        self.services: dict[str, Service] = {}

    def start(self) -> None:
        """Start all of it, the gateway last."""
        # Rendered first: the format reads what the broker will.
        specs = (*self.plan.servers(), *self.plan.services())
        by_name = {spec.name: spec for spec in specs}
        command = self.plan.kafka_format()
        if command is not None:
            subprocess.run(
                command, env=self.plan.environment(), check=True, timeout=60, capture_output=True
            )
        self._stage(by_name["kafka"], by_name["haproxy-cloud"])
        admin = self.plan.certificates["admin"]
        bootstrap = self.plan.values("audit")["hs_kafka_bootstrap"]
        kafka = kafka_config(Kafka(bootstrap, self.plan.ca_file, admin.cert, admin.key))
        provision.kafka(kafka, replication=1, wait_s=30.0)
        topic = NewTopic("peer", num_partitions=8, replication_factor=1)
        client = AdminClient(kafka)
        for future in client.create_topics([topic]).values():
            future.result(30)
        self._stage(*(by_name[name] for name in INGESTS))
        self._stage(by_name["edge"], self.plan.proxy("edge"))
        self.until(lambda: self.edge("link_up") == 1, 30, "a session")

    def _stage(self, *specs: Spec) -> None:
        for spec in specs:
            self.services[spec.name] = Service(spec)
            self.services[spec.name].start()
        names = [spec.name for spec in specs]
        self.until(
            lambda: all(self.services[name].state == "ready" for name in names),
            START_S_MAX,
            "start",
        )

    def until(self, true: Callable[[], bool], bound_s: float, what: str) -> float:
        """Wait; return the seconds it took; raise TimeoutError."""
        began = time.monotonic()
        while True:
            for service in self.services.values():
                service.step(self._log)
            if true():
                return time.monotonic() - began
            if time.monotonic() - began > bound_s:
                raise TimeoutError(f"{what}: not within {bound_s:.0f} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop all, the last first."""
        for service in reversed(self.services.values()):
            service.stop()

    # -- numbers --------------------------------------------------------------------------------

    def edge(self, name: str) -> float:
        """Return a metric of the gateway, summed over its labels."""
        port = self.plan.ports["edge-metrics"]
        return scrape.total(
            scrape.scrape(f"http://127.0.0.1:{port}/metrics"), f"healthsync_edge_{name}"
        )

    def wire_bytes(self) -> float:
        """Return the bytes that gateways sent to the cloud's HAProxy so far, inside TLS."""
        port = self.plan.ports["cloud-haproxy-stats"]
        samples = scrape.scrape(f"http://127.0.0.1:{port}/metrics")
        return sum(
            value
            for name, labels, value in samples
            if name == "haproxy_frontend_bytes_in_total" and labels.get("proxy") == "uplink"
        )

    def cpu(self) -> dict[str, float]:
        """Return CPU seconds so far by name, both ingests as one."""
        found: dict[str, float] = {}
        for name, service in self.services.items():
            what = "ingest" if name in INGESTS else name
            used = cpu_s(service.pid) if service.pid else 0.0
            found[what] = found.get(what, 0.0) + used
        return found

    @contextlib.contextmanager
    def tap(self, topic: str, port: int, probe: float = 50.0) -> Iterator["TapProcess"]:
        """Consume and probe while in the block."""
        admin = self.plan.certificates["admin"]
        command = [sys.executable, "-m", "bench.tap", f"--ca={self.plan.ca_file}"]
        command += [f"--cert={admin.cert}", f"--key={admin.key}", f"--topic={topic}"]
        command += [f"--bootstrap=127.0.0.1:{self.plan.ports['kafka']}", f"--port={port}"]
        command += [f"--probe={probe}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with process(command, self.plan.run.log / f"tap-{topic}.log", **pipes) as child:
            yield TapProcess(child)


class TapProcess:
    """`bench.tap`, spoken to."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        """Wait until it consumes."""
        self._child = child
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            raise RuntimeError("the tap did not start")

    def ask(self, word: str) -> dict[str, Any]:
        """Say ``mark`` or ``tell``; return what it answers."""
        self.say(word)
        return self.hear()

    def say(self, word: str) -> None:
        """Say something; `hear` the answer later."""
        assert self._child.stdin is not None
        self._child.stdin.write(word + "\n")
        self._child.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for what it answers."""
        assert self._child.stdout is not None
        found: dict[str, Any] = json.loads(self._child.stdout.readline())
        return found


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Way]:
    """Start it, stop it."""
    way = Way(folder)
    try:
        way.start()
        yield way
    finally:
        way.stop()

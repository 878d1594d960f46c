"""The gateway as a process of its own, as an operator starts it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge.status import read_metrics
from onebox import ports
from tests.edge.tty import ROOT

PRIVATE = X25519PrivateKey.generate()


class Process:
    """A folder with its configuration, and the ports it names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen[bytes]] = []
        self.line_port, self.mllp_port, self.metrics_port, self.uplink_port = ports.free(4)
        key = folder / "cloud.pub"
        key.write_bytes(PRIVATE.public_key().public_bytes_raw())
        self.config = folder / "edge.toml"
        self.state = folder / "state"
        self.config.write_text(
            f'edge_id = "ward-1"\nstate_dir = "{self.state}"\nhpke_public = "{key}"\n'
            f"line_port = {self.line_port}\nmllp_port = {self.mllp_port}\n"
            f"uplink_port = {self.uplink_port}\nmetrics_port = {self.metrics_port}\n",
            encoding="utf-8",
        )

    def command(self, *words: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "healthsync.cli",
            "edge",
            *words,
            "--config",
            str(self.config),
        ]

    def set(self, *lines: str) -> None:
        """Put keys before those that are there; a key given twice is a mistake of the test."""
        self.config.write_text("\n".join(lines) + "\n" + self.config.read_text())

    def replace(self, old: str, new: str) -> None:
        """Change the configuration's text."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def events(self) -> list[dict[str, Any]]:
        """Return what was logged."""
        lines = (self.folder / "log").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("}\n")]

    def logged(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait for an event's n-th time in the log, and return it."""
        for _ in range(400):
            found = [one for one in self.events() if one["event"] == event]
            if len(found) >= count:
                return found[count - 1]
            time.sleep(0.025)
        raise AssertionError(f"{event} was not logged within 10 s: {self.events()}")

    @contextmanager
    def started(self, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run it while in the block; kill what is left of it after."""
        with (self.folder / "log").open("wb") as log:
            child = subprocess.Popen(
                self.command("run"), stdout=log, stderr=log, cwd=ROOT, env=os.environ | environment
            )
        self.children.append(child)
        try:
            self._wait(child)
            yield child
        finally:
            child.kill()
            child.wait()

    def _wait(self, child: "subprocess.Popen[bytes]") -> None:
        for _ in range(400):
            assert child.poll() is None, (self.folder / "log").read_text()
            try:
                read_metrics(self.metrics_port)
            except OSError:
                time.sleep(0.025)
            else:
                if b'"serving"' in (self.folder / "log").read_bytes():
                    return
        raise AssertionError("the gateway did not start within 10 s")

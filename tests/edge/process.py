"""The gateway as a process of its own, as an operator starts it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.status import read_metrics
from tests.edge.gateway import PRIVATE, free_port

ROOT = Path(__file__).parents[2]


class Process:
    """A folder with its configuration, and the ports it names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.line_port, self.mllp_port, self.metrics_port, self.uplink_port = (
            free_port() for _ in range(4)
        )
        key = folder / "cloud.pub"
        key.write_bytes(PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
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

    @contextmanager
    def started(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Run it while in the block; kill what is left of it after."""
        with (self.folder / "log").open("wb") as log:
            child = subprocess.Popen(
                self.command("run"), stdout=log, stderr=log, cwd=ROOT, env=os.environ
            )
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

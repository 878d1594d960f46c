"""Drives one running onebox the way its users do: nc, curl-like TLS, the command line."""

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEMO_TOKEN = "(the demo's own)"
HEALTHSYNC = [sys.executable, "-m", "healthsync.cli"]


class Box:
    """A onebox started by the command line, in a directory of its own."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.output = run_dir.parent / f"{run_dir.name}.log"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [*HEALTHSYNC, "onebox", "up", "--run-dir", str(run_dir)],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )
        began = time.monotonic()
        try:
            until(self._is_up, 90, "the onebox to be ready")
        except AssertionError as error:
            self.stop()
            raise AssertionError(f"{error}; {self.output.read_text()[-2000:]}") from None
        self.start_s = time.monotonic() - began
        self.info: dict[str, Any] = self.command_json("onebox", "info", "--json")

    def _is_up(self) -> bool:
        assert self.process.poll() is None, "onebox up ended by itself"
        return "onebox.ready" in self.output.read_text()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def command(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *HEALTHSYNC,
                *words,
                *(["--run-dir", str(self.run_dir)] if words[0] == "onebox" else []),
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=ROOT,
            check=False,
        )

    def command_json(self, *words: str) -> Any:
        done = self.command(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def pids(self) -> dict[str, int]:
        state = json.loads((self.run_dir / "state.json").read_text())
        return {name: int(row["pid"]) for name, row in state["services"].items()}

    def ready(self) -> bool:
        state = json.loads((self.run_dir / "state.json").read_text())
        return all(row["state"] == "ready" for row in state["services"].values())

    # What users do -----------------------------------------------------------------------

    def say(self, text: str | bytes) -> str:
        """Send bytes to the line port, end of input, and return what came back."""
        data = text.encode() if isinstance(text, str) else text
        with socket.create_connection(("127.0.0.1", self.info["line_port"]), 5) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
        return answer.decode()

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.info["ca_file"])

    def rest(
        self, path: str, token: str | None = DEMO_TOKEN, **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """GET below the FHIR base; return status, resource, headers."""
        url = urllib.parse.urlsplit(self.info["fhir_url"])
        client = http.client.HTTPSConnection(
            url.hostname or "", url.port, timeout=15, context=self.context()
        )
        if token is not None:
            given = self.info["token"] if token == DEMO_TOKEN else token
            headers["Authorization"] = f"Bearer {given}"
        try:
            client.request("GET", f"{url.path}/{path}", headers=headers)
            answer = client.getresponse()
            body = answer.read()
            return (
                answer.status,
                json.loads(body or b"{}"),
                {name.lower(): value for name, value in answer.getheaders()},
            )
        finally:
            client.close()

    def entries(self, path: str) -> list[dict[str, Any]]:
        status, bundle, _ = self.rest(path)
        assert status == 200, bundle
        return [entry["resource"] for entry in bundle.get("entry", [])]

    def subject(self, mrn: str) -> str:
        """Return the pseudonymous patient of an MRN, once it is known."""
        found: list[dict[str, Any]] = []

        def known() -> bool:
            found[:] = self.entries(f"Patient?identifier={mrn}")
            return bool(found)

        until(known, 20, "the patient to be known")
        return str(found[0]["id"])

    def audit(self, wait_s: int = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HEALTHSYNC, "audit", "--config", self.info["audit_config"], "--wait", str(wait_s)],
            capture_output=True,
            text=True,
            timeout=wait_s + 60,
            cwd=ROOT,
            check=False,
        )


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until true; fail after a bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)

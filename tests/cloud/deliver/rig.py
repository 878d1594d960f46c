"""The FHIR server process, Bundles to send it, and a courier whose waiting takes no time."""

import http.client
import io
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloud.deliver.address import Address, parse
from cloud.deliver.connection import Connection
from cloud.deliver.courier import Courier, Record
from cloud.deliver.server import Server
from cloud.deliver.tokens import Tokens
from cloud.fhir import resources
from cloud.records import Undelivered
from healthsync.runtime.log import Log
from onebox import ports

ROOT = Path(__file__).parents[3]
NOW_MS = 1_795_000_000_000


class FhirServer:
    """Started by `start`; keeps its port and its database over a kill."""

    def __init__(
        self, folder: Path, tls: tuple[Path, Path] | None = None, client: Path | None = None
    ) -> None:
        self.database = folder / "fhir.db"
        self._log = folder / "fhir.log"
        (self.port,) = ports.free(1)
        self._tls = tls
        self._client = client
        self._process: subprocess.Popen[bytes] | None = None
        scheme = "https" if tls else "http"
        self.origin = f"{scheme}://localhost:{self.port}"
        self.base = parse(f"{self.origin}/fhir")

    def start(self) -> None:
        further = [] if self._tls is None else ["--tls", *map(str, self._tls)]
        further += [] if self._client is None else ["--client", str(self._client)]
        program = Path(__file__).with_name("fhir_server.py")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, program, str(self.port), str(self.database), *further],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.02)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(10)
            self._process = None

    def _call(self, method: str, path: str, body: object = None) -> Any:
        connection: http.client.HTTPConnection
        if self._tls:
            context = ssl.create_default_context(cafile=str(self._tls[0]))
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection("localhost", self.port, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse().read()
        connection.close()
        return json.loads(answer) if answer else None

    def control(self, **wanted: object) -> None:
        self._call("POST", "/_control", wanted)

    def rule(self, on: str, do: str, times: int = 1, **more: object) -> None:
        self.control(rules=[{"on": on, "do": do, "times": times, **more}])

    def seen(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", "/_seen")
        return found

    def lines(self) -> list[str]:
        return [str(one["line"]) for one in self.seen()]

    def stored(self) -> dict[str, Any]:
        with sqlite3.connect(self.database) as db:
            found = {url: json.loads(body) for url, body in db.execute("select url, body from r")}
        db.close()
        return found

    def written(self) -> list[tuple[str, Any]]:
        """Return every write in its order, repeated ones too."""
        with sqlite3.connect(self.database) as db:
            rows = db.execute("select url, body from w order by n").fetchall()
        db.close()
        return [(url, json.loads(body)) for url, body in rows]

    def writes(self) -> int:
        with sqlite3.connect(self.database) as db:
            (found,) = db.execute("select count(*) from w").fetchone()
        db.close()
        return int(found)

    def versions(self) -> dict[str, int]:
        with sqlite3.connect(self.database) as db:
            found = dict(db.execute("select url, version from r").fetchall())
        db.close()
        return found


def observation(ident: str, value: float = 97, status: str = "final") -> tuple[str, dict[str, Any]]:
    resource = {
        "resourceType": "Observation",
        "id": ident,
        "status": status,
        "valueQuantity": {"value": value},
    }
    return f"Observation/{ident}", resource


def bundle(*entries: tuple[str, dict[str, Any]]) -> bytes:
    return resources.transaction([(url, json.dumps(body).encode()) for url, body in entries])


def record(value: bytes | None, offset: int = 7, partition: int = 3) -> Record:
    return Record(partition, offset, b"0" * 32, value, NOW_MS)


class Ended(Exception):
    """The courier waited longer than the test lets it."""


class Desk:
    """A courier, what it waited for, buried and logged; waiting moves a clock and no more."""

    def __init__(
        self,
        base: Address,
        tokens: Tokens | None = None,
        context: ssl.SSLContext | None = None,
        give_up_s: float = 0.0,
        answer_s: float = 5.0,
    ) -> None:
        self.now_ms = NOW_MS
        self.waits: list[float] = []
        self.letters: list[Undelivered] = []
        self.waits_max = 50
        self.on_wait: Callable[[int], None] = lambda _count: None
        self.out = io.StringIO()
        self.connection = Connection(base, context or ssl.create_default_context(), answer_s)
        self.courier = Courier(
            Server(base, self.connection, tokens),
            lambda _record, letter: self.letters.append(letter),
            self._pause,
            lambda: self.now_ms,
            lambda: 1.0,
            Log("deliver", lambda: NOW_MS, self.out),
            give_up_s,
        )

    def _pause(self, seconds: float) -> None:
        if not seconds:
            return
        self.waits.append(seconds)
        self.now_ms += round(seconds * 1000)
        if len(self.waits) > self.waits_max:
            raise Ended
        self.on_wait(len(self.waits))

    def deliver(self, *entries: tuple[str, dict[str, Any]]) -> None:
        self.courier.deliver(record(bundle(*entries)))

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.out.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]

    def close(self) -> None:
        self.connection.close()

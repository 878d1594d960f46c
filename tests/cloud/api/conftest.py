import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from prometheus_client import CollectorRegistry

from cloud import records
from cloud.api.app import build
from cloud.api.hub import Hub
from cloud.api.metrics import Metrics
from cloud.api.service import GuardedArchive, Service
from cloud.api.signin import Door, User, Users, hashed
from cloud.api.store import Store
from cloud.api.tokens import mint
from cloud.project.batch import Batch, Record
from cloud.project.writer import Seals, Writer
from cloud.records import AlertEvent, Identity, SamplesRecord
from healthsync.runtime.log import Log
from vitals.codes import BY_NAME
from vitals.columns import Source, pack
from vitals.reading import Patient, Reading
from vitals.sealed import Sealer

_spec = importlib.util.spec_from_file_location(
    "redis_server", Path(__file__).parents[1] / "project" / "redis_server.py"
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)

NOW = 1_790_000_000_000
ADA, BEA, CAM, DEVICE = "a" * 32, "b" * 32, "c" * 32, "d" * 32
BASE = "https://ward.example"

_SALT = b"s" * 16
NURSE = User("nurse", hashed("open", _SALT).hex(), _SALT.hex(), ["ICU"], "user/*.rs")


class FakeArchive:
    """The archive's interface over a list; counts what it is asked."""

    def __init__(self) -> None:
        self.held: list[tuple[str, str, Reading]] = []
        self.down = False

    def put(self, subject: str, *readings: Reading, device: str = DEVICE) -> None:
        self.held += [(subject, device, reading) for reading in readings]

    def rows(
        self,
        subject: str,
        start_ms: int | None,
        end_ms: int | None,
        vitals: frozenset[int] | None,
        newest: int,
    ) -> list[tuple[str, Reading]]:
        if self.down:
            raise OSError("no route")
        found = [
            (device, reading)
            for of, device, reading in self.held
            if of == subject
            and (start_ms is None or reading.time_ms >= start_ms)
            and (end_ms is None or reading.time_ms < end_ms)
            and (vitals is None or reading.vital in vitals)
        ]
        found.sort(key=lambda row: row[1].time_ms, reverse=True)
        return found[:newest]


class Ward:
    """The REST server over a real Redis that project's own writer fills."""

    def __init__(self, client: Any) -> None:
        counter = itertools.count()

        def counted(size: int) -> bytes:
            return next(counter).to_bytes(size, "big")

        key = Ed25519PrivateKey.generate()
        self.private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.now_ms = NOW
        self.mono_ms = 1_000_000.0
        self._identity = Sealer(b"i" * 32, counted)
        self._values = Sealer(b"v" * 32, counted)
        self.writer = Writer(
            client, Seals(self._identity, self._values, b"x" * 32), lambda: self.now_ms
        )
        self.store = Store(client, self._identity, self._values, b"x" * 32)
        self.archive = FakeArchive()
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.log = Log("api", lambda: self.now_ms)
        self.service = Service(
            f"{BASE}/fhir",
            self.store,
            GuardedArchive(self.archive, (OSError,)),
            public,
            self.private,
            metrics,
            self.log,
            lambda: self.now_ms,
            trio.CapacityLimiter(4),
            trio.CapacityLimiter(4),
        )
        self.hub = Hub(metrics, lambda: self.now_ms, lambda: self.mono_ms, "boot")
        self.door = Door(Users([NURSE]))
        self.app = build(self.service, self.hub, self.door, lambda: 0.0)
        self._seq = itertools.count(1)

    def write(self, *found: Record) -> None:
        batch = Batch(self._identity)
        for record in found:
            batch.add(record)
        assert not batch.refused
        self.writer.write(batch)

    def samples(self, subject: str, *readings: Reading, device: str = DEVICE) -> Record:
        seq = next(self._seq)
        rows = [(0, reading) for reading in readings]
        record = SamplesRecord(
            "edge-1", "e" * 32, seq, 0, self.now_ms, pack([Source(device, subject)], rows)
        )
        return Record("samples", 0, seq, b"k", records.encode(record))

    def identity(self, subject: str, name: str, ward: str, bed: str, mrn: str) -> Record:
        who = Identity(
            subject, Patient(mrn=mrn, name=name, ward=ward, bed=bed), DEVICE, "edge-1", NOW
        )
        sealed = self._identity.seal(records.encode(who), records.place("identity", subject))
        return Record("identity", 0, 0, subject.encode(), sealed)

    def alert(self, event: AlertEvent) -> Record:
        import msgspec

        return Record("alerts", 0, 0, b"k", msgspec.json.encode(event))

    def token(
        self, scope: str = "user/*.rs", wards: tuple[str, ...] = ("*",), lifetime_s: int = 600
    ) -> str:
        return mint(self.private, "tester", scope, list(wards), self.now_ms // 1000, lifetime_s)

    def ask(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """One request over ASGI, with a token of every ward unless told otherwise."""
        headers = {"Authorization": f"Bearer {self.token()}", **kwargs.pop("headers", {})}
        if headers["Authorization"] == "":
            del headers["Authorization"]

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
                return await client.request(method, path, headers=headers, **kwargs)

        return trio.run(run)

    def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.ask("GET", path, **kwargs)


def reading(
    name: str,
    value: float | None,
    at: int = 0,
    *,
    site: int = 0,
    channel: int = 0,
    status: int = 0,
    received: int = 0,
) -> Reading:
    """A reading ``at`` milliseconds before or after NOW."""
    return Reading(BY_NAME[name].index, value, NOW + at, NOW + at + received, status, site, channel)


@pytest.fixture
def make() -> Callable[..., Reading]:
    return reading


@pytest.fixture(scope="session")
def redis_process() -> Iterator[Any]:
    server = _module.RedisServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def ward(redis_process: Any) -> Iterator[Ward]:
    client = redis_process.client()
    client.flushall()
    yield Ward(client)
    client.close()


@pytest.fixture
def names() -> tuple[str, str, str]:
    """Subjects: Ada in ICU, Bea in HDU, a device without a patient."""
    return ADA, BEA, CAM

"""A partition's thread: one after another, bounded, and ended at once."""

import io
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloud.deliver import lane as module
from cloud.deliver.connection import Connection
from cloud.deliver.courier import Courier, Record
from cloud.deliver.lane import Cancelled, Lane
from cloud.deliver.server import Server
from healthsync.runtime.clock import now_ms
from healthsync.runtime.log import Log
from tests.cloud.deliver.rig import FhirServer, bundle, observation, record

BOUND_S = 20
BAD = observation("x.spo2.1", status="nonsense")


class Rig:
    """A lane on a real server; a dead letter waits until Kafka, here an event, has it."""

    def __init__(self, fhir: FhirServer) -> None:

        connection = Connection(fhir.base, ssl.create_default_context(), 10)
        self.kafka_has_it = threading.Event()
        self.asked = threading.Event()
        self.pause: Callable[[float], None]
        self.lane = Lane(0, connection, lambda pause: self._courier(fhir, connection, pause))

    def _courier(
        self, fhir: FhirServer, connection: Connection, pause: Callable[[float], None]
    ) -> Courier:
        self.pause = pause
        log = Log("deliver", now_ms, io.StringIO())
        server = Server(fhir.base, connection, None)
        return Courier(server, self._bury, pause, now_ms, lambda: 0.0, log)

    def _bury(self, _record: Record, _letter: Any) -> None:
        self.asked.set()
        while not self.kafka_has_it.is_set():
            self.pause(0.01)


@pytest.fixture
def rig(fhir: FhirServer) -> Iterator[Rig]:
    made = Rig(fhir)
    made.lane.start()
    yield made
    made.lane.cancel()
    made.lane.connection.abort()
    assert made.lane.join(BOUND_S)


def until(true: Callable[[], bool]) -> None:
    for _ in range(BOUND_S * 100):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not in time")


def test_records_are_done_in_their_order(fhir: FhirServer, rig: Rig) -> None:
    for offset in range(20):
        rig.lane.put(record(bundle(observation("same.spo2.1", offset)), offset))
    assert rig.lane.taken == 20
    until(lambda: rig.lane.done == 20)
    values = [body["valueQuantity"]["value"] for _url, body in fhir.written()]
    assert values == list(range(20))
    assert (len(rig.lane), rig.lane.oldest_ms()) == (0, None)


def test_nothing_overtakes_what_is_asked_again(fhir: FhirServer, rig: Rig) -> None:
    fhir.rule("POST /fhir", "status", times=1, status=503)
    for offset in range(5):
        rig.lane.put(record(bundle(observation("same.spo2.1", offset)), offset))
    until(lambda: rig.lane.done == 5)
    values = [body["valueQuantity"]["value"] for _url, body in fhir.written()]
    assert values == list(range(5))


def test_a_record_is_not_done_before_kafka_has_its_letter(fhir: FhirServer, rig: Rig) -> None:
    rig.lane.put(record(bundle(BAD), 4))
    rig.lane.put(record(bundle(observation("b.spo2.1")), 5))
    assert rig.asked.wait(BOUND_S)
    assert rig.lane.done is None
    assert fhir.stored() == {}
    rig.kafka_has_it.set()
    until(lambda: rig.lane.done == 6)


def test_cancelled_while_it_waits_it_does_no_more(fhir: FhirServer, rig: Rig) -> None:
    fhir.rule("POST /fhir", "status", times=1000, status=429, headers={"Retry-After": "300"})
    rig.lane.put(record(bundle(BAD), 4))
    until(lambda: "POST /fhir" in fhir.lines())
    rig.lane.cancel()
    assert rig.lane.join(BOUND_S)
    assert rig.lane.done is None
    assert rig.lane.failure is None


def test_cancelled_during_a_request_it_lets_that_end(fhir: FhirServer, rig: Rig) -> None:
    fhir.rule("POST /fhir", "late", seconds=0.5)
    rig.lane.put(record(bundle(observation("a.spo2.1")), 4))
    until(lambda: "POST /fhir" in fhir.lines())
    rig.lane.cancel()
    assert rig.lane.join(BOUND_S)
    assert rig.lane.done == 5


def test_idle_it_ends_at_once(rig: Rig) -> None:
    rig.lane.cancel()
    assert rig.lane.join(BOUND_S)
    with pytest.raises(Cancelled):
        rig.pause(0)


def test_a_defect_is_kept_for_the_process_to_end_with(rig: Rig) -> None:
    rig.lane.put(record([1]))  # type: ignore[arg-type]  # no value is a list
    until(lambda: rig.lane.failure is not None)
    assert rig.lane.done is None


def waiting(fhir: FhirServer) -> Lane:
    """Return a lane that has not begun, so that what is put stays."""
    return Rig(fhir).lane


def test_the_window_closes_at_its_records(fhir: FhirServer) -> None:
    lane = waiting(fhir)
    for offset in range(module.WINDOW_RECORDS_MAX - 1):
        lane.put(record(b"", offset))
    assert not lane.is_full()
    assert not lane.is_low()
    lane.put(record(b"", 1000))
    assert lane.is_full()


def test_the_window_closes_at_its_bytes(fhir: FhirServer) -> None:
    lane = waiting(fhir)
    half = b"x" * (module.WINDOW_BYTES_MAX // 2)
    lane.put(record(half))
    assert lane.is_low()
    lane.put(record(half[1:]))
    assert not lane.is_full()
    assert not lane.is_low()
    lane.put(record(b"x"))
    assert lane.is_full()

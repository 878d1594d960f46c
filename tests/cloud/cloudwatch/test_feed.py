from collections.abc import Iterator
from io import StringIO
from typing import Any

import botocore.exceptions
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, start_http_server
from prometheus_client.metrics import MetricWrapperBase

from cloud.cloudwatch import main as main_
from cloud.cloudwatch.config import Target
from cloud.cloudwatch.main import Feed, scrape
from cloud.cloudwatch.select import ALLOWED, Increases, Number, sums
from healthsync.runtime.log import Log

PAGE = """
# TYPE healthsync_ingest_set_aside counter
healthsync_ingest_set_aside_total{reason="forged"} 2
healthsync_ingest_set_aside_total{reason="malformed"} 3
# TYPE healthsync_ingest_sessions gauge
healthsync_ingest_sessions 4
# TYPE healthsync_ingest_secret gauge
healthsync_ingest_secret{mrn="M1"} 9
# TYPE process_cpu_seconds counter
process_cpu_seconds_total 1
"""


def test_only_allowed_names_leave_and_labels_do_not() -> None:
    assert sums(PAGE) == {
        "healthsync_ingest_set_aside_total": 5,
        "healthsync_ingest_sessions": 4,
    }


def test_a_counter_is_sent_as_its_increase_and_a_gauge_as_it_is() -> None:
    increases = Increases()
    first = increases.numbers("ingest-1", PAGE, 1)
    assert first == [Number("ingest-1", "healthsync_ingest_sessions", 4, "Count", 1)]
    more = PAGE.replace('"forged"} 2', '"forged"} 9')
    assert [n.value for n in increases.numbers("ingest-1", more, 2)] == [7, 4]


def test_a_service_that_started_again_counts_from_zero() -> None:
    increases = Increases()
    increases.numbers("ingest-1", PAGE, 1)
    restarted = PAGE.replace('"forged"} 2', '"forged"} 1').replace(
        '"malformed"} 3', '"malformed"} 0'
    )
    assert increases.numbers("ingest-1", restarted, 2)[0].value == 1


def test_two_services_have_their_own_counters() -> None:
    increases = Increases()
    increases.numbers("ingest-1", PAGE, 1)
    assert len(increases.numbers("ingest-2", PAGE, 1)) == 1


@pytest.mark.parametrize("name", sorted(n for n in ALLOWED if n.startswith("healthsync_ingest")))
def test_every_allowed_name_of_ingest_exists(name: str) -> None:
    from cloud.ingest import metrics

    assert _has(metrics, name)


@pytest.mark.parametrize("name", sorted(n for n in ALLOWED if n.startswith("healthsync_archive")))
def test_every_allowed_name_of_archive_exists(name: str) -> None:
    from cloud.archive import metrics

    assert _has(metrics, name)


def _has(module: Any, name: str) -> bool:
    families = [m for m in vars(module).values() if isinstance(m, MetricWrapperBase)]
    return name.removesuffix("_total") in {f.name for m in families for f in m.describe()}


class Watch:
    """CloudWatch that can be down."""

    def __init__(self) -> None:
        self.taken: list[Number] = []
        self.down = False
        self.pages: dict[int, str | Exception] = {1: PAGE}
        self.log = StringIO()
        self.feed = Feed(
            [Target("ingest-1", 1)], self.read, self.put, Log("cloudwatch", lambda: 0, self.log)
        )

    def read(self, port: int) -> str:
        page = self.pages[port]
        if isinstance(page, Exception):
            raise page
        return page

    def put(self, numbers: list[Number]) -> None:
        if self.down:
            raise botocore.exceptions.EndpointConnectionError(endpoint_url="x")
        self.taken += numbers


def test_what_could_not_be_sent_is_sent_later_in_order() -> None:
    watch = Watch()
    watch.down = True
    for at in range(3):
        watch.feed.gather(at)
        watch.feed.send()
    watch.down = False
    watch.feed.gather(3)
    watch.feed.send()
    sessions = [n.at_ms for n in watch.taken if n.name.endswith("sessions")]
    assert sessions == [0, 1, 2, 3]
    assert watch.log.getvalue().count("cloudwatch-down") == 1


def test_what_is_unsent_is_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_, "UNSENT_MAX", 5)
    watch = Watch()
    for at in range(20):
        watch.feed.gather(at)
    watch.feed.send()
    assert len(watch.taken) == 5
    assert watch.taken[-1].at_ms == 19


def test_many_numbers_go_in_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_, "PUT_NUMBERS", 2)
    watch = Watch()
    for at in range(3):
        watch.feed.gather(at)
    watch.feed.send()
    assert len(watch.taken) == 5  # a gauge at first, then a gauge and a counter each


def test_a_service_that_does_not_answer_disturbs_no_other() -> None:
    watch = Watch()
    watch.pages = {1: ConnectionRefusedError(), 2: PAGE, 3: "junk {"}
    targets = [Target("a", 1), Target("b", 2), Target("c", 3)]
    feed = Feed(targets, watch.read, watch.put, Log("cloudwatch", lambda: 0, watch.log))
    feed.gather(0)
    feed.send()
    assert [n.service for n in watch.taken] == ["b"]


@pytest.fixture
def page_port() -> Iterator[int]:
    registry = CollectorRegistry()
    Gauge("healthsync_ingest_sessions", "x", registry=registry).set(3)
    Counter("healthsync_ingest_frames", "x", registry=registry).inc(2)
    assert generate_latest(registry)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_real_page_is_scraped(page_port: int) -> None:
    found = sums(scrape(page_port))
    assert found["healthsync_ingest_sessions"] == 3
    assert found["healthsync_ingest_frames_total"] == 2

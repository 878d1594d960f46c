"""``healthsync cloud cloudwatch --config FILE``: looks at the services, tells CloudWatch.

Ends on SIGTERM or SIGINT only. A service that does not answer and a CloudWatch that refuses are
counted; what was not sent is kept up to `UNSENT_MAX` numbers and sent with the next round.
"""

import http.client
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import boto3
import botocore.exceptions
from botocore.config import Config
from prometheus_client import Counter

from cloud.cloudwatch.config import CloudWatch, CloudWatchConfig, Target
from cloud.cloudwatch.select import Increases, Number
from cloud.settings import read_credentials
from healthsync.runtime import config as config_
from healthsync.runtime import metrics as metrics_
from healthsync.runtime import rounds
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.stop import Stop

# A page of ours is under 100 KB.
PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
SCRAPE_S_MAX: Final = 2.0

# PutMetricData takes at most 1,000 metrics (API reference); fewer keep a request small.
PUT_NUMBERS: Final = 500

# About half an hour of seven services at 10 s.
UNSENT_MAX: Final = 10_000


SENT = Counter("healthsync_cloudwatch_sent_total", "Numbers CloudWatch took")
FAILURES = Counter("healthsync_cloudwatch_failures_total", "Calls CloudWatch did not take")
LOST = Counter("healthsync_cloudwatch_lost_total", "Numbers dropped: too many were unsent")
SCRAPES_FAILED = Counter(
    "healthsync_cloudwatch_scrapes_failed_total", "Pages that could not be read", ["target"]
)


def scrape(port: int) -> str:
    """Return a service's page; raise OSError, HTTPException or ValueError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SCRAPE_S_MAX)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        answer = connection.getresponse()
        body = answer.read(PAGE_BYTES_MAX + 1)
    finally:
        connection.close()
    if answer.status != 200 or len(body) > PAGE_BYTES_MAX:
        raise ValueError(f"status {answer.status}, {len(body)} bytes")
    return body.decode("utf-8")


class Feed:
    """Gathers numbers, sends them, keeps what could not be sent."""

    def __init__(
        self,
        targets: list[Target],
        read: Callable[[int], str],
        put: Callable[[list[Number]], None],
        log: Log,
    ) -> None:
        """``read`` gives the page of a port; ``put`` raises botocore's errors."""
        self._targets = targets
        self._read = read
        self._put = put
        self._log = log
        self._increases = Increases()
        self._unsent: deque[Number] = deque()
        self._failing = False

    def gather(self, at_ms: int) -> None:
        """Look at every service once."""
        for target in self._targets:
            try:
                page = self._read(target.port)
                self._unsent.extend(self._increases.numbers(target.name, page, at_ms))
            except (OSError, http.client.HTTPException, ValueError):
                SCRAPES_FAILED.labels(target.name).inc()
        while len(self._unsent) > UNSENT_MAX:
            self._unsent.popleft()
            LOST.inc()

    def send(self) -> None:
        """Send what there is, oldest first; stop at the first failure until the next round."""
        while self._unsent:
            part = [self._unsent[at] for at in range(min(PUT_NUMBERS, len(self._unsent)))]
            try:
                self._put(part)
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                FAILURES.inc()
                if not self._failing:
                    self._failing = True
                    self._log.warning("cloudwatch-down", error=type(error).__name__)
                return
            for _ in part:
                self._unsent.popleft()
            SENT.inc(len(part))
            if self._failing:
                self._failing = False
                self._log.info("cloudwatch-up")


def putter(settings: CloudWatch) -> Callable[[list[Number]], None]:
    """Return what sends numbers to the configured CloudWatch."""
    access, secret = read_credentials(settings.credentials_file)
    client: Any = boto3.client(
        "cloudwatch",
        endpoint_url=settings.endpoint,
        region_name=settings.region,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        verify=str(settings.ca) if settings.ca else None,
        config=Config(
            connect_timeout=2, read_timeout=5, retries={"mode": "standard", "max_attempts": 2}
        ),
    )

    def put(numbers: list[Number]) -> None:
        client.put_metric_data(
            Namespace=settings.namespace,
            MetricData=[
                {
                    "MetricName": number.name,
                    "Dimensions": [{"Name": "Service", "Value": number.service}],
                    "Timestamp": datetime.fromtimestamp(number.at_ms / 1000, UTC),
                    "Value": number.value,
                    "Unit": number.unit,
                }
                for number in numbers
            ],
        )

    return put


def run(config: Path) -> int:
    """Feed until told to stop; return the exit code."""
    settings = config_.load(config, CloudWatchConfig)
    log = Log("cloudwatch", now_ms)
    stop = Stop()
    feed = Feed(settings.target, scrape, putter(settings.cloudwatch), log)
    metrics_.serve(settings.metrics.port)
    log.info("serving", targets=len(settings.target))

    def work() -> float:
        feed.gather(now_ms())
        feed.send()
        return settings.every_s

    rounds.run(stop, work)
    log.info("stopped", code=Exit.OK.value)
    return Exit.OK

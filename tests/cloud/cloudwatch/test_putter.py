from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import botocore.exceptions
import pytest
from moto.server import ThreadedMotoServer

from cloud.cloudwatch.config import CloudWatch
from cloud.cloudwatch.main import putter
from cloud.cloudwatch.select import Number


def test_numbers_arrive_in_cloudwatch(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("a\nb\n", encoding="ascii")
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        put = putter(CloudWatch(endpoint, "us-east-1", credentials))
        at = datetime.now(UTC).replace(microsecond=0)
        put(
            [
                Number(
                    "ingest-1", "healthsync_ingest_sessions", 3, "Count", int(at.timestamp()) * 1000
                )
            ]
        )
        client = boto3.client(
            "cloudwatch",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        answer = client.get_metric_statistics(
            Namespace="HealthSync",
            MetricName="healthsync_ingest_sessions",
            Dimensions=[{"Name": "Service", "Value": "ingest-1"}],
            StartTime=at - timedelta(minutes=1),
            EndTime=at + timedelta(minutes=1),
            Period=60,
            Statistics=["Sum"],
        )
        assert [point["Sum"] for point in answer["Datapoints"]] == [3]
    finally:
        server.stop()
    with pytest.raises(botocore.exceptions.BotoCoreError):
        put([])

"""What must exist before the services start: topics, ACLs, the bucket. Idempotent.

The ACL table is the least each service needs; everything else is denied by the broker.
"""

import time
from collections.abc import Mapping
from typing import Final, NamedTuple

import boto3
import botocore.exceptions
from botocore.config import Config
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from cloud.settings import S3, read_credentials
from vitals import topics

HTTP_SERVER_ERROR: Final = 500


class Grant(NamedTuple):
    """One allowance: ``who`` (certificate's common name) may ``what`` on ``kind`` ``name``."""

    who: str
    what: str
    kind: str
    name: str
    prefixed: bool = False


def _reads(who: str, *names: str) -> list[Grant]:
    both = [Grant(who, what, "TOPIC", name) for name in names for what in ("READ", "DESCRIBE")]
    return [*both, Grant(who, "READ", "GROUP", who), Grant(who, "DESCRIBE", "GROUP", who)]


def _writes(who: str, *names: str) -> list[Grant]:
    return [Grant(who, what, "TOPIC", name) for name in names for what in ("WRITE", "DESCRIBE")]


GRANTS: Final = (
    *_writes("ingest", "samples", "identity", "quarantine", "alerts"),
    Grant("ingest", "IDEMPOTENT_WRITE", "BROKER", "kafka-cluster"),
    *_writes("ingest", "commands"),
    *_reads("detect", "samples", "commands", "state"),
    *_writes("detect", "fhir", "alerts", "poison", "state"),
    Grant("detect", "WRITE", "TRANSACTIONAL_ID", "detect-", prefixed=True),
    Grant("detect", "DESCRIBE", "TRANSACTIONAL_ID", "detect-", prefixed=True),
    *_reads("project", "samples", "alerts", "identity"),
    *_reads("archive", "samples"),
    *_writes("operator", "commands"),
    Grant("operator", "IDEMPOTENT_WRITE", "BROKER", "kafka-cluster"),
    *_reads("deliver", "fhir"),
    *_writes("deliver", "undelivered"),
    *_reads("audit", "samples", "state", "quarantine", "alerts", "identity", "fhir", "poison"),
)


def _binding(grant: Grant) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if grant.prefixed else ResourcePatternType.LITERAL
    return AclBinding(
        ResourceType[grant.kind],
        grant.name,
        pattern,
        f"User:{grant.who}",
        "*",
        AclOperation[grant.what],
        AclPermissionType.ALLOW,
    )


def _topic_config(topic: topics.Topic, replication: int) -> dict[str, str]:
    policy = (
        "compact"
        if topic.compact and topic.retention_ms < 0
        else ("compact,delete" if topic.compact else "delete")
    )
    return {
        "cleanup.policy": policy,
        "retention.ms": str(topic.retention_ms),
        "min.insync.replicas": str(max(1, replication - 1)),
        "max.message.bytes": str(topics.MESSAGE_BYTES_MAX),
    }


def kafka(
    config: Mapping[str, str | int | bool], *, replication: int, wait_s: float
) -> tuple[int, int]:
    """Make missing topics and ACLs; return how many topics there are and ACLs were asked for.

    Waits up to ``wait_s`` seconds for the broker; raises KafkaException after that.
    """
    admin = AdminClient(dict(config))
    deadline = time.monotonic() + wait_s
    while True:
        try:
            have = set(admin.list_topics(timeout=2).topics)
            break
        except KafkaException:
            if time.monotonic() > deadline:
                raise
    missing = [
        NewTopic(
            t.name,
            num_partitions=t.partitions,
            replication_factor=replication,
            config=_topic_config(t, replication),
        )
        for t in topics.ALL
        if t.name not in have
    ]
    if missing:
        for future in admin.create_topics(missing, operation_timeout=10).values():
            future.result(timeout=15)
    _grow(admin)
    bindings = [_binding(grant) for grant in dict.fromkeys(GRANTS)]
    for future in admin.create_acls(bindings).values():
        future.result(timeout=15)
    _until_in_force(admin, bindings, deadline)
    return len(topics.ALL), len(bindings)


def _grow(admin: AdminClient) -> None:
    """Let topics that an older version made take batches as large as ours are now."""
    wanted = [
        ConfigResource(
            ResourceType.TOPIC,
            t.name,
            incremental_configs=[
                ConfigEntry(
                    "max.message.bytes",
                    str(topics.MESSAGE_BYTES_MAX),
                    incremental_operation=AlterConfigOpType.SET,
                )
            ],
        )
        for t in topics.ALL
    ]
    for future in admin.incremental_alter_configs(wanted).values():
        future.result(timeout=15)


def _until_in_force(admin: AdminClient, bindings: list[AclBinding], deadline: float) -> None:
    """Wait until the broker knows every ACL: it learns them after the controller has said yes.

    A producer that is refused its id once, in between, is broken for good.
    """
    every = AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        None,
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    while not set(bindings) <= set(admin.describe_acls(every, request_timeout=10).result()):
        if time.monotonic() > deadline:
            raise KafkaException("the broker does not apply its ACLs; see its log")
        time.sleep(0.05)


def _passing(error: Exception) -> bool:
    """Tell whether S3 may well answer soon: nobody there yet, or a proxy that says 503."""
    if isinstance(error, botocore.exceptions.ClientError):
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"]) >= HTTP_SERVER_ERROR
    return True


def bucket(s3: S3, *, retain_days: int, wait_s: float) -> None:
    """Make the versioned bucket with Object Lock in COMPLIANCE mode, if it is not there."""
    access, secret = read_credentials(s3.credentials_file)
    client = boto3.client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name=s3.region,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        verify=str(s3.ca) if s3.ca else None,
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=2,
            read_timeout=10,
            retries={"max_attempts": 1},
        ),
    )
    deadline = time.monotonic() + wait_s
    while True:
        try:
            names = {b["Name"] for b in client.list_buckets()["Buckets"]}
            break
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
            if time.monotonic() > deadline or not _passing(error):
                raise
            time.sleep(0.1)
    if s3.bucket not in names:
        client.create_bucket(Bucket=s3.bucket, ObjectLockEnabledForBucket=True)
    client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    client.put_object_lock_configuration(
        Bucket=s3.bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": retain_days}},
        },
    )

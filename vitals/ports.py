"""Every listening port by name: what /etc/services, the firewall and the runbook call it.

``number`` is the port of a deployed system; one machine's demo takes free ports instead, except
where a person types it (``line``, ``line-tls``, ``mllp``, ``mllp-tls``), which it takes when free.
"""

from typing import Final, NamedTuple


class Port(NamedTuple):
    """A named TCP port."""

    name: str
    number: int
    side: str
    text: str


PORTS: Final = (
    Port("line", 7010, "edge", "bedside line protocol, plain, device network only"),
    Port("line-tls", 7011, "edge", "bedside line protocol in TLS, through HAProxy"),
    Port("mllp", 2575, "edge", "HL7 v2 MLLP (IANA hl7), plain, device network only"),
    Port("mllp-tls", 2576, "edge", "HL7 v2 MLLP in TLS, through HAProxy"),
    Port("line-proxy", 7012, "edge", "lines from its own HAProxy, PROXY v2, loopback"),
    Port("mllp-proxy", 2577, "edge", "MLLP from its own HAProxy, PROXY v2, loopback"),
    Port("uplink-local", 7020, "edge", "gateway program to its own HAProxy, loopback"),
    Port("edge-metrics", 9110, "edge", "Prometheus text of the gateway program, loopback"),
    Port("edge-haproxy-stats", 9111, "edge", "Prometheus text of HAProxy, loopback"),
    Port("uplink", 8443, "cloud", "gateways to ingest: HAProxy, client certificate required"),
    Port("est", 8445, "cloud", "enrolment of gateways (EST): HAProxy, server certificate only"),
    Port("rest", 443, "cloud", "FHIR REST and ward station: HAProxy"),
    Port("ingest", 7443, "cloud", "ingest behind HAProxy, TLS"),
    Port("api", 7444, "cloud", "REST behind HAProxy, TLS"),
    Port("est-service", 7445, "cloud", "enrolment behind HAProxy, TLS"),
    Port("kafka", 9093, "cloud", "Kafka brokers, TLS with client certificates"),
    Port("kafka-controller", 9094, "cloud", "KRaft controllers, TLS"),
    Port("redis", 6379, "cloud", "Redis, TLS only"),
    Port("s3", 7070, "cloud", "S3 gateway, TLS"),
    Port("aws", 5000, "cloud", "AWS stand-in of the demo (KMS, CloudWatch), loopback"),
    Port("ingest-metrics", 9120, "cloud", "Prometheus text of ingest, loopback"),
    Port("detect-metrics", 9121, "cloud", "Prometheus text of detect, loopback"),
    Port("project-metrics", 9122, "cloud", "Prometheus text of project, loopback"),
    Port("archive-metrics", 9123, "cloud", "Prometheus text of archive, loopback"),
    Port("api-metrics", 9124, "cloud", "Prometheus text of the REST server, loopback"),
    Port("cloud-haproxy-stats", 9125, "cloud", "Prometheus text of HAProxy, loopback"),
    Port("est-metrics", 9127, "cloud", "Prometheus text of the enrolment service, loopback"),
    Port("pull-crl-metrics", 9128, "cloud", "Prometheus text of pull-crl, loopback"),
    Port("deliver-metrics", 9129, "cloud", "Prometheus text of deliver, loopback"),
    Port("cloudwatch-metrics", 9126, "cloud", "Prometheus text of the CloudWatch feed, loopback"),
)

BY_NAME: Final = {port.name: port for port in PORTS}

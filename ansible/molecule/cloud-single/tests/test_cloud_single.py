"""What a user of the cloud's host finds after provisioning, and what an intruder does not."""

import base64
import re
from pathlib import Path

import pytest
from technician import SERVERS, SERVICES, main_pid, playbook, until
from testinfra.host import Host

PKI = "/etc/healthsync/pki"
TOPICS = "org.apache.kafka.tools.TopicCommand --bootstrap-server 192.0.2.1:9093"
FEED = "healthsync-firewall-feed"
EXPOSURE_MAX = 2.0
BACK_S_MAX = 90.0


@pytest.mark.parametrize("unit", [*SERVERS, *SERVICES, FEED])
def test_every_unit_runs_and_starts_with_the_machine(host: Host, unit: str) -> None:
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


@pytest.mark.parametrize("unit", ["kafka", "redis-server", "healthsync-s3", *SERVICES, FEED])
def test_a_unit_that_is_broken_into_reaches_little(host: Host, unit: str) -> None:
    line = host.check_output(f"systemd-analyze security --no-pager {unit}.service | tail -n 1")
    found = re.search(r"([0-9.]+) [A-Z]+", line.split(":", 1)[1])
    assert found is not None, line
    assert float(found[1]) <= EXPOSURE_MAX, line


def test_an_administrator_with_a_certificate_lists_the_topics(host: Host) -> None:
    said = host.check_output(
        f"java -cp '/opt/kafka/current/*' {TOPICS} --list --command-config"
        " /etc/kafka/admin.properties 2>/dev/null"
    )
    assert {"samples", "fhir", "alerts", "identity", "state"} <= set(said.split())


def test_kafka_refuses_whoever_shows_no_certificate(host: Host) -> None:
    with_ca = "openssl s_client -connect 192.0.2.1:9093 -CAfile /etc/healthsync/service-ca.pem"
    key = f"-cert {PKI}/admin.pem -key {PKI}/admin.key"
    ask = "(sleep 1; printf '\\0\\0\\0\\0'; sleep 1)"
    assert "certificate required" in host.run(f"{ask} | timeout 20 {with_ca} 2>&1").stdout
    assert "certificate required" not in host.run(f"{ask} | timeout 20 {with_ca} {key} 2>&1").stdout


def test_kafka_does_not_speak_plain(host: Host) -> None:
    # An ApiVersions request; a plain broker answers with the same correlation id.
    request = r"\0\0\0\013\0\022\0\0\0\0\0\007\377\377"
    plain = host.run(f"printf '{request}' | timeout 5 nc -q 3 192.0.2.1 9093 | od -An -tx1 -v")
    assert "00 00 00 07" not in plain.stdout
    first = plain.stdout.split()[:1]
    assert first in ([], ["15"]), "only a TLS alert, or nothing"


def test_redis_refuses_a_plain_connection_and_a_stranger(host: Host) -> None:
    assert "PONG" not in host.run("timeout 5 redis-cli -h 192.0.2.1 -p 6379 ping 2>&1").stdout
    tls = "redis-cli --tls --cacert /etc/healthsync/service-ca.pem -h 192.0.2.1 -p 6379"
    assert "NOAUTH" in host.run(f"{tls} ping 2>&1").stdout
    password = "$(cat /etc/healthsync/cloud/project/redis-project.password)"
    known = host.run(f'REDISCLI_AUTH="{password}" {tls} --user project ping')
    assert known.stdout.strip() == "PONG"
    admin = host.run(f'REDISCLI_AUTH="{password}" {tls} --user project config get dir 2>&1')
    assert "NOPERM" in admin.stdout


def test_a_client_reads_rest_through_haproxy(host: Host) -> None:
    curl = (
        "curl --silent --cacert /etc/healthsync/service-ca.pem"
        " --connect-to vitals.example.org:443:192.0.2.1:443"
    )
    said = host.check_output(f"{curl} https://vitals.example.org/fhir/metadata")
    assert '"CapabilityStatement"' in said
    code = host.check_output(
        f"{curl} --output /dev/null --write-out '%{{http_code}}'"
        " https://vitals.example.org/fhir/Patient"
    )
    assert code == "401", "nobody reads patients without a token"


def test_the_uplink_asks_for_a_gateway_certificate(host: Host) -> None:
    curl = "curl --silent --cacert /etc/healthsync/service-ca.pem https://localhost:8443/health"
    assert host.run(curl).rc != 0
    # A service's certificate is no gateway's.
    assert host.run(f"{curl} --cert {PKI}/admin.pem --key {PKI}/admin.key").rc != 0


@pytest.mark.parametrize(
    ("user", "other"),
    [
        ("detect", "/etc/healthsync/cloud/ingest/subject.key"),
        ("api", "/etc/healthsync/cloud/ingest/hpke.private"),
        ("ingest", "/etc/healthsync/cloud/api/jwt.private.pem"),
        ("api", "/etc/healthsync/pki/broker.key"),
        ("ingest", "/var/lib/healthsync/est/gateways/issuing.key"),
    ],
)
def test_no_service_reads_the_secrets_of_another(host: Host, user: str, other: str) -> None:
    assert host.file(other).exists
    assert host.run(f"runuser --user=healthsync-{user} -- cat {other}").rc != 0


def test_revocation_lists_reach_the_running_haproxy(host: Host) -> None:
    def is_told() -> bool:
        said = host.run("curl --silent http://127.0.0.1:9128/metrics").stdout
        return "\nhealthsync_crl_in_haproxy 1.0" in said

    until(is_told, "the lists in HAProxy", BACK_S_MAX)


def test_a_support_bundle_says_nothing_of_a_patient(host: Host) -> None:
    canary = "zyxadora-m999777333"
    redis = "redis-cli --tls --cacert /etc/healthsync/service-ca.pem -h 192.0.2.1 -p 6379"
    password = "$(cat /etc/healthsync/cloud/project/redis-project.password)"
    host.check_output(f'REDISCLI_AUTH="{password}" {redis} --user project set {canary} {canary}')
    host.check_output(f"touch /etc/healthsync/settings/{canary}.json")
    # A service that breaks the law and logs a name.
    host.check_output(f"systemd-run --wait --unit=healthsync-ingest-9 echo {canary}")
    journal = host.check_output("journalctl --unit=healthsync-ingest-9 --output=cat --no-pager")
    assert canary in journal

    script = Path(__file__).parents[3] / "roles" / "monitoring" / "files" / "support_bundle.py"
    text = base64.b64encode(script.read_bytes()).decode()
    host.check_output(f"echo {text} | base64 --decode | python3 -I - /root/bundle.tar.gz 1")
    whole = host.check_output("tar --extract --gzip --to-stdout --file=/root/bundle.tar.gz")
    names = host.check_output("tar --list --file=/root/bundle.tar.gz")
    try:
        assert "healthsync-ingest-9 info" in whole
        assert "metrics-9120.txt" in names
        for word in (canary, *canary.split("-")):
            assert word not in whole.lower()
    finally:
        host.check_output(f"rm /root/bundle.tar.gz /etc/healthsync/settings/{canary}.json")
        host.check_output(f'REDISCLI_AUTH="{password}" {redis} --user project del {canary}')


@pytest.mark.parametrize("unit", ["kafka", "redis-server", "healthsync-s3", "healthsync-ingest-2"])
def test_a_service_that_was_killed_comes_back(host: Host, unit: str) -> None:
    before = main_pid(host, unit)
    assert before > 1
    host.check_output(f"kill -9 {before}")
    until(
        lambda: host.service(unit).is_running and main_pid(host, unit) not in {before, 0},
        "another process",
        BACK_S_MAX,
    )


def test_everything_is_well_again(host: Host) -> None:
    assert host.run("healthsync-kafka-health 90").rc == 0
    assert host.run("healthsync-cloud-health 90").rc == 0


def test_the_health_check_notices_a_service_that_is_away(host: Host) -> None:
    host.check_output("systemctl stop healthsync-est.service")
    try:
        away = host.run("healthsync-cloud-health 0")
        assert away.rc == 1
        assert "healthsync-est is inactive" in away.stderr
    finally:
        host.check_output("systemctl start healthsync-est.service")


def test_a_secret_that_somebody_changed_comes_back(host: Host) -> None:
    look = "find /etc/healthsync/cloud -type f -printf '%u:%g %m %p\\n' -exec sha256sum {} +"
    before = sorted(host.check_output(look).splitlines())
    host.check_output(
        "cd /etc/healthsync/cloud && chmod 444 project/values.key && echo >>api/index.key"
        " && rm archive/s3.credentials"
    )
    assert sorted(host.check_output(look).splitlines()) != before
    done = playbook("cloud.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(host.check_output(look).splitlines()) == before
    assert host.run("healthsync-cloud-health 90").rc == 0

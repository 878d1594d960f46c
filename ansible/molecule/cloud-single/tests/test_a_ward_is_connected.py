"""A gateway gets its certificate by the playbook; a bedside line goes in, an alert comes out."""

from datetime import UTC, datetime, timedelta

import pytest
from technician import AUTHORITY, CA, RELEASE, Gateway, Page, pki, until
from testinfra.host import Host

from vitals.ports import BY_NAME

CLOUD = "192.0.2.1"
GUESSER = "192.0.2.66"
CERTIFICATES = "/var/lib/healthsync/certificate"

pytestmark = pytest.mark.usefixtures("enrolled")


@pytest.fixture(scope="module")
def enrolled(host: Host, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> None:
    if not gateway.reaches_the_cloud():
        gateway.enrol(host, CLOUD, tmp_path_factory.mktemp("enrolment"))


def test_the_playbook_gets_a_gateway_its_certificate(host: Host, gateway: Gateway) -> None:
    until(gateway.reaches_the_cloud, "the gateway reaches the cloud")
    assert gateway.name in pki(host, "list", "--folder", AUTHORITY)
    assert not gateway.host.file("/run/healthsync-enrolment.toml").exists


def test_a_bedside_line_goes_in_and_an_alert_comes_out(host: Host, gateway: Gateway) -> None:
    start = datetime.now(UTC) - timedelta(seconds=25)
    lines = [
        f'device=bed-7 mrn=CANARY7 name="Alda Rusk" bed=7 ward=W1 oxygen={value}%'
        f" time={(start + timedelta(seconds=at)).isoformat().replace('+00:00', 'Z')}"
        for at, value in enumerate([96] * 5 + [84] * 15)
    ]
    assert gateway.say(*lines) == ["ok"] * 20
    page = Page(host, CLOUD)
    page.sign_in()
    until(lambda: page.shows("84<90"), "the alert on the ward's page")


def test_no_topic_and_no_log_of_the_cloud_shows_the_name(host: Host) -> None:
    topics = host.run(
        "timeout 40 java -cp '/opt/kafka/current/*'"
        f" org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server {CLOUD}:9093"
        " --consumer.config /etc/kafka/admin.properties --from-beginning --timeout-ms 15000"
        " --include '.*' 2>/dev/null | cat -v"
    ).stdout
    # Of the four that speak of a reading; identities are sealed.
    for part in ('"resourceType":"Observation"', '"resourceType":"DetectedIssue"', '"84<90"'):
        assert part.replace('"', "") in topics.replace('"', ""), part
    journal = host.check_output("journalctl --no-pager --output=cat")
    for text in (topics, journal):
        assert "Alda" not in text
        assert "CANARY7" not in text


def test_a_certificate_past_half_of_its_life_is_renewed_without_anybody(
    host: Host, gateway: Gateway
) -> None:
    ward = gateway.host
    public = ward.check_output(f"openssl x509 -in {CERTIFICATES}/gateway.pem -noout -pubkey")
    # It began five minutes ago and ends in two.
    short = host.check_output(
        f"runuser --user=healthsync-est -- {RELEASE}/bin/python -c %s",
        f"""
from pathlib import Path
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from cloud.pki.folder import open_desk
desk = open_desk(Path("{AUTHORITY}"), leaf_days=7 / 1440)
given = desk.issue_directly("{gateway.name}", load_pem_public_key({public.encode()!r}))
print(given.public_bytes(Encoding.PEM).decode())
""",
    )
    ward.check_output(
        f"cd {CERTIFICATES} && umask 077 && (echo %s;"
        " awk '/BEGIN CERT/ {n++} n >= 2 || /PRIVATE/ {on = 1} on' gateway.pem) >given.pem"
        " && chown healthsync-edge: given.pem && mv given.pem gateway.pem",
        short.strip(),
    )
    serial = f"openssl x509 -in {CERTIFICATES}/gateway.pem -noout -serial"
    before = ward.check_output(serial)
    until(lambda: ward.check_output(serial) != before, "another certificate")
    until(gateway.reaches_the_cloud, "the gateway reaches the cloud with it")
    shown = gateway.ask("status")["certificate"]
    assert shown["left_share"] > 0.9
    assert shown["renewal"]["told"] is True


def test_a_gateway_whose_cloud_is_away_keeps_what_it_acknowledged(
    host: Host, gateway: Gateway
) -> None:
    until(lambda: gateway.waiting() == 0, "everything before is sent")
    host.check_output("systemctl stop haproxy")
    try:
        assert gateway.say("device=bed-8 mrn=CANARY8 bed=8 ward=W1 hr=72") == ["ok"]
        assert gateway.waiting() > 0
    finally:
        host.check_output("systemctl start haproxy")
    until(lambda: gateway.waiting() == 0, "everything is sent")


def test_who_tries_tokens_in_numbers_is_blocked_and_a_gateway_is_not(
    host: Host, gateway: Gateway
) -> None:
    ward, est = gateway.host, BY_NAME["est"].number
    ward.check_output(f"ip address replace {GUESSER}/24 dev eth0")
    try:
        request = (
            "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null"
            f" -subj /CN=ward-9 -outform der 2>/dev/null | base64 | curl --silent --max-time 10"
            f" --interface {GUESSER} --cacert {CA} --connect-to vitals.example.org::{CLOUD}:"
            " --header 'Content-Type: application/pkcs10' --data-binary @- --user ward-9:guessed"
            f" --write-out '%{{http_code}}' --output /dev/null"
            f" https://vitals.example.org:{est}/.well-known/est/simpleenroll"
        )
        answers = [ward.run(request).stdout for _ in range(5)]
        assert answers == ["401"] * 5
        until(lambda: GUESSER in host.check_output("healthsync firewall blocked"), "the block")
        assert ward.run(f"nc -z -w 2 -s {GUESSER} {CLOUD} {est}").rc != 0
        assert ward.run(f"nc -z -w 2 {CLOUD} {est}").rc == 0
    finally:
        ward.check_output(f"ip address delete {GUESSER}/24 dev eth0")
    assert gateway.say("device=bed-9 mrn=CANARY9 bed=9 ward=W1 hr=71") == ["ok"]
    until(lambda: gateway.waiting() == 0, "the gateway goes on")


def test_nothing_of_the_inside_is_reached_from_outside(host: Host, gateway: Gateway) -> None:
    for name in ("kafka", "redis", "s3", "ingest", "api"):
        port = BY_NAME[name].number
        assert host.run(f"ss --no-header --listening --tcp 'sport = :{port}'").stdout, name
        assert gateway.host.run(f"nc -z -w 1 {CLOUD} {port}").rc != 0, name


def test_an_operator_looks_at_the_counts_of_every_stage(host: Host) -> None:
    said = host.run("healthsync audit --json --config /etc/healthsync/cloud/audit.toml")
    assert said.rc in {0, 1}, said.stderr
    assert '"samples"' in said.stdout


def test_an_operator_pushes_a_policy(host: Host) -> None:
    packages = f"{RELEASE}/lib/python3*/site-packages"
    host.check_output(f"cp {packages}/cloud/policy/default.toml /root/policy.toml")
    config = "--config /etc/healthsync/cloud/operator.toml"
    said = host.run(f"healthsync cloud policy push {config} /root/policy.toml")
    assert said.rc == 0, said.stdout + said.stderr

"""What a site with two of everything is for: a host goes away, and no reading with it."""

import base64
import itertools
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from technician import AUTHORITY, SERVICES, Gateway, Page, main_pid, pki, playbook, until
from testinfra.host import Host

Cloud = Mapping[str, Host]

KAFKA = ("kafka-1", "kafka-2", "kafka-3")
APPS = ("app-1", "app-2")
SHARED = "192.0.2.100"
ON_BOTH = ({*SERVICES} - {"healthsync-est"}) | {"haproxy", "keepalived"}
NUMBERS = itertools.count(60)


@pytest.fixture(scope="module", autouse=True)
def enrolled(cloud: Cloud, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> None:
    if not gateway.reaches_the_cloud():
        gateway.enrol(cloud["app-1"], SHARED, tmp_path_factory.mktemp("enrolment"))


@pytest.fixture
def page(cloud: Cloud) -> Page:
    page = Page(cloud["kafka-3"], SHARED)
    page.sign_in()
    return page


def goes_through(gateway: Gateway, page: Page) -> None:
    """A reading that a device was told "ok" for is seen on the ward's page."""
    value = next(NUMBERS)
    assert gateway.say(f"device=bed-5 mrn=CANARY5 bed=5 ward=W1 heart_rate={value}") == ["ok"]
    until(lambda: re.search(rf"\b{value}\b", page.get("/ward/state")) is not None, f"{value}")


def has_address(host: Host) -> bool:
    return SHARED in host.check_output("ip -4 -brief address show dev eth0")


def described(host: Host) -> list[str]:
    address = host.check_output("hostname --all-ip-addresses").split()[0]
    text = host.check_output(
        "java -cp '/opt/kafka/current/*' org.apache.kafka.tools.TopicCommand"
        f" --bootstrap-server {address}:9093 --describe"
        " --command-config /etc/kafka/admin.properties 2>/dev/null"
    )
    return text.splitlines()


@pytest.mark.parametrize("name", APPS)
@pytest.mark.parametrize("unit", sorted(ON_BOTH))
def test_both_hosts_run_every_service(cloud: Cloud, name: str, unit: str) -> None:
    assert cloud[name].service(unit).is_running
    assert cloud[name].service(unit).is_enabled


def test_every_partition_lies_on_three_nodes_and_two_must_have_it(cloud: Cloud) -> None:
    lines = described(cloud["kafka-1"])
    partitions = [line for line in lines if "\tPartition: " in line]
    assert len(partitions) > 40
    for line in partitions:
        replicas = re.search(r"Replicas: ([0-9,]+)", line)
        assert replicas is not None
        assert sorted(replicas[1].split(",")) == ["1", "2", "3"], line
    topics = [line for line in lines if "ReplicationFactor:" in line]
    assert all("min.insync.replicas=2" in line for line in topics)


def test_a_line_from_the_bed_reaches_the_page_by_the_shared_address(
    gateway: Gateway, page: Page
) -> None:
    until(gateway.reaches_the_cloud, "the gateway reaches the cloud")
    goes_through(gateway, page)


@pytest.mark.parametrize("name", KAFKA)
def test_a_kafka_node_that_is_away_stops_nothing(
    cloud: Cloud, gateway: Gateway, page: Page, name: str
) -> None:
    host = cloud[name]
    host.check_output("systemctl stop kafka")
    try:
        goes_through(gateway, page)
    finally:
        host.check_output("systemctl start kafka")
    assert host.run("healthsync-kafka-health 120").rc == 0, "it has every copy again"


@pytest.fixture
def without_haproxy(cloud: Cloud) -> Iterator[Host]:
    cloud["app-1"].check_output("systemctl stop haproxy")
    yield cloud["app-1"]
    cloud["app-1"].check_output("systemctl start haproxy")


def test_the_shared_address_goes_where_haproxy_runs(
    cloud: Cloud, gateway: Gateway, page: Page, without_haproxy: Host
) -> None:
    until(lambda: has_address(cloud["app-2"]), "the second has it", 10)
    until(lambda: not has_address(without_haproxy), "the first gave it up", 10)
    until(gateway.reaches_the_cloud, "the gateway finds the second")
    goes_through(gateway, page)


def test_the_first_has_the_address_back_when_its_haproxy_runs(
    cloud: Cloud, gateway: Gateway, page: Page
) -> None:
    until(lambda: has_address(cloud["app-1"]), "the first has it again", 15)
    until(lambda: not has_address(cloud["app-2"]), "the second gave it up", 10)
    goes_through(gateway, page)


def test_a_host_of_services_that_is_away_stops_nothing(
    cloud: Cloud, gateway: Gateway, page: Page
) -> None:
    units = " ".join(f"healthsync-{name}" for name in ("ingest-1", "ingest-2", "detect", "project"))
    cloud["app-1"].check_output(f"systemctl kill --signal=SIGKILL {units}")
    cloud["app-1"].check_output(f"systemctl stop {units}")
    try:
        goes_through(gateway, page)
    finally:
        cloud["app-1"].check_output(f"systemctl start {units}")
    assert cloud["app-1"].run("healthsync-cloud-health 90").rc == 0


def test_certificates_are_rotated_while_readings_go_through(
    cloud: Cloud, gateway: Gateway, page: Page
) -> None:
    def serials() -> dict[str, str]:
        found = {}
        for name in (*KAFKA, *APPS):
            for line in (
                cloud[name]
                .check_output(
                    "cd /etc/healthsync/pki && for one in *.pem; do"
                    " echo $one $(openssl x509 -in $one -noout -serial); done"
                )
                .splitlines()
            ):
                file, serial = line.split()
                found[f"{name}/{file}"] = serial
        return found

    before, brokers = serials(), {name: main_pid(cloud[name], "kafka") for name in KAFKA}
    acknowledged = gateway.ask("spool status")["totals"]["readings_spooled"]
    done = playbook("rotate-certs.yml")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    after = serials()
    assert after.keys() == before.keys()
    # The administrator's is a tool's; it is renewed like the others.
    assert [name for name in after if after[name] == before[name]] == []
    assert all(main_pid(cloud[name], "kafka") != brokers[name] for name in KAFKA)
    goes_through(gateway, page)
    until(lambda: gateway.waiting() == 0, "everything is sent")
    assert gateway.ask("spool status")["totals"]["readings_spooled"] > acknowledged
    for name in APPS:
        assert cloud[name].run("healthsync-cloud-health 60").rc == 0


def test_the_authority_comes_back_from_its_copy(cloud: Cloud, tmp_path: Path) -> None:
    app = cloud["app-1"]
    before = pki(app, "list", "--json", "--folder", AUTHORITY)
    assert "ward-1" in before
    done = playbook("-e", f"hs_backup_folder={tmp_path}", "backup-restore.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    (copy,) = tmp_path.iterdir()
    assert copy.read_text().startswith("$ANSIBLE_VAULT;")
    assert copy.stat().st_mode & 0o777 == 0o600

    app.check_output(f"systemctl stop healthsync-est && rm -r {AUTHORITY}")
    done = playbook("-e", f"hs_restore_file={copy}", "backup-restore.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(pki(app, "list", "--json", "--folder", AUTHORITY)) == json.loads(before)
    assert app.file(f"{AUTHORITY}/issuing.key").mode == 0o600
    until(lambda: app.service("healthsync-est").is_running, "est runs")
    # Nothing secret on the way: neither in a log nor in what the playbook said.
    secret = app.check_output(f"base64 --wrap=0 {AUTHORITY}/issuing.key")
    line = base64.b64decode(secret).decode().splitlines()[1]
    assert line not in done.stdout + done.stderr
    assert app.run(f"journalctl --no-pager | grep --quiet --fixed-strings -- '{line}'").rc == 1


def test_a_damaged_copy_is_refused_and_what_is_there_stays(cloud: Cloud, tmp_path: Path) -> None:
    app = cloud["app-1"]
    before = pki(app, "list", "--json", "--folder", AUTHORITY)
    playbook("-e", f"hs_backup_folder={tmp_path}", "backup-restore.yml")
    (copy,) = tmp_path.iterdir()
    text = copy.read_text()
    middle = len(text) // 2
    copy.write_text(text[:middle] + ("1" if text[middle] != "1" else "2") + text[middle + 1 :])
    done = playbook("-e", f"hs_restore_file={copy}", "backup-restore.yml")
    assert done.returncode != 0
    assert pki(app, "list", "--json", "--folder", AUTHORITY) == before
    until(lambda: app.service("healthsync-est").is_running, "est runs")


def test_a_support_bundle_of_every_host(cloud: Cloud, tmp_path: Path) -> None:
    done = playbook("-e", f"hs_bundle_folder={tmp_path}", "collect-support-bundle.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    files = list(tmp_path.iterdir())
    assert len(files) == len(cloud) + 1, "the gateway's too"
    for file in files:
        whole = subprocess.run(
            ["tar", "--extract", "--gzip", "--to-stdout", f"--file={file}"],
            capture_output=True,
            check=True,
        ).stdout
        assert b"CANARY5" not in whole

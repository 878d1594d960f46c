"""What reaches a gateway that filters packets: asked from the bed, over a cable."""

import pytest
import testinfra
from testinfra.host import Host

from vitals.ports import BY_NAME

WARD = "healthsync-ward-2"
GATEWAY = "198.51.100.1"
BED = "nsenter --net=/run/netns/bed"
VERIFY = "healthsync firewall verify --policy /etc/healthsync/firewall.toml"


@pytest.fixture(scope="module")
def ward() -> Host:
    return testinfra.get_host(f"podman://{WARD}")


def test_a_device_is_heard(ward: Host) -> None:
    line = "printf 'device=monitor-1 reply=yes hr=72\\n'"
    answer = ward.run(f"{line} | {BED} nc -N -w 5 {GATEWAY} {BY_NAME['line'].number}")
    assert answer.stdout == "ok\n"


def test_a_device_reaches_nothing_else(ward: Host) -> None:
    # SSH listens on every address; only the filter keeps the bed from it.
    assert ward.run("nc -z -w 2 127.0.0.1 22").rc == 0
    assert ward.run(f"{BED} nc -z -w 2 {GATEWAY} 22").rc != 0


def test_the_kernel_has_what_the_policy_says(ward: Host) -> None:
    assert ward.run(VERIFY).rc == 0
    assert "table inet healthsync" in ward.check_output("nft list tables")


def test_it_is_loaded_with_the_machine_before_the_network(ward: Host) -> None:
    assert ward.service("healthsync-firewall").is_enabled
    before = ward.check_output("systemctl show --property Before --value healthsync-firewall")
    assert "network-pre.target" in before.split()


def test_what_somebody_took_away_is_noticed_and_comes_back(ward: Host) -> None:
    ward.check_output("nft delete table inet healthsync")
    assert ward.run(VERIFY).rc == 1
    ward.check_output("systemctl restart healthsync-firewall")
    assert ward.run(VERIFY).rc == 0
    assert ward.run(f"{BED} nc -z -w 2 {GATEWAY} 22").rc != 0


def test_the_comparison_is_a_metric(ward: Host) -> None:
    assert ward.service("healthsync-firewall-verify.timer").is_running
    metrics = ward.file("/var/lib/healthsync-firewall/firewall.prom")
    ward.check_output("systemctl start healthsync-firewall-verify")
    assert "\nhealthsync_firewall_drift 0\n" in metrics.content_string
    ward.check_output("nft add rule inet healthsync input accept")
    ward.check_output("systemctl start healthsync-firewall-verify")
    assert "\nhealthsync_firewall_drift 1\n" in metrics.content_string
    ward.check_output("systemctl restart healthsync-firewall")
    ward.check_output("systemctl start healthsync-firewall-verify")
    assert "\nhealthsync_firewall_drift 0\n" in metrics.content_string

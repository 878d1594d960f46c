"""What a technician would see at a gateway that the playbook just made: asked by what they type."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import testinfra
from technician import main_pid, until
from testinfra.host import Host

from vitals.ports import BY_NAME

ANSIBLE = Path(__file__).resolve().parents[3]
WARD = "healthsync-ward-1"
DEVICES = "198.51.100.1"
ELSEWHERE = ("127.0.0.1", "203.0.113.1")
CONFIG = "/etc/healthsync/edge.toml"
EXPOSURE_MAX = 2.0


@pytest.fixture(scope="module")
def ward() -> Host:
    return testinfra.get_host(f"podman://{WARD}")


def port(name: str) -> int:
    return BY_NAME[name].number


def say(ward: Host, line: str, host: str, number: int) -> Any:
    return ward.run(f"printf '{line}\\n' | nc -N -w 5 {host} {number}")


def status(ward: Host) -> Any:
    return json.loads(ward.run(f"healthsync edge status --json --config {CONFIG}").stdout)


def spooled(ward: Host) -> int:
    text = ward.check_output(f"healthsync edge spool status --json --config {CONFIG}")
    return int(json.loads(text)["totals"].get("readings_spooled", 0))


def test_a_bedside_line_is_acknowledged_and_lies_in_the_spool(ward: Host) -> None:
    before = spooled(ward)
    answer = say(ward, "device=monitor-1 reply=yes hr=72 spo2=97", DEVICES, port("line"))
    assert answer.stdout.strip() == "ok"
    assert spooled(ward) == before + 2
    now = status(ward)
    assert now["program"]["devices"]["remembered"] >= 1
    # No cloud in this scenario, and nobody enrolled: that and what follows from it is wrong.
    assert {one["code"] for one in now["wrong"]} - {"backlog"} == {"link-down", "not-enrolled"}


@pytest.mark.parametrize("command", ["tcpdump", "netstat", "htop", "nc", "ss"])
def test_what_the_runbook_speaks_of_can_be_typed(ward: Host, command: str) -> None:
    assert ward.exists(command)


def test_a_line_that_is_wrong_is_refused_in_words(ward: Host) -> None:
    answer = say(ward, "device=monitor-1 reply=yes heart_rate=78,5", DEVICES, port("line"))
    assert answer.stdout.startswith("rejected")


def test_a_device_may_speak_tls_and_only_1_3(ward: Host) -> None:
    where = f"{DEVICES}:{port('line-tls')}"
    call = f"timeout 10 openssl s_client -quiet -verify_quiet -connect {where}"
    line = "(printf 'device=monitor-2 reply=yes hr=80\\n'; sleep 2)"
    assert "ok" in ward.run(f"{line} | {call} -tls1_3").stdout.split()
    refused = ward.run(f"{line} | {call} -tls1_2")
    assert refused.rc != 0
    assert "ok" not in refused.stdout.split()


def test_hl7_is_acknowledged(ward: Host) -> None:
    message = (
        "MSH|^~\\\\&|T|T|GW|W|20261123||ORU^R01^ORU_R01|7|T|2.6\\r"
        "PID|||1^^^H^MR\\rOBR|1|||1^x\\rOBX|1|NM|8867-4^hr^LN||72|/min^^UCUM|||||F\\r"
    )
    answer = ward.run(
        f"printf '\\013{message}\\034\\r' | nc -N -w 5 {DEVICES} {port('mllp')} | tr '\\r' '\\n'"
    )
    assert "MSA|A" in answer.stdout


@pytest.mark.parametrize("name", ["line", "mllp", "line-tls", "mllp-tls"])
@pytest.mark.parametrize("host", ELSEWHERE)
def test_the_bedside_ports_are_closed_on_other_networks(ward: Host, name: str, host: str) -> None:
    assert ward.run(f"nc -z -w 2 {host} {port(name)}").rc != 0
    assert ward.run(f"nc -z -w 2 {DEVICES} {port(name)}").rc == 0


@pytest.mark.parametrize("name", ["line-proxy", "mllp-proxy", "uplink-local", "edge-metrics"])
def test_ports_of_the_machine_itself_are_closed_to_devices(ward: Host, name: str) -> None:
    assert ward.run(f"nc -z -w 2 {DEVICES} {port(name)}").rc != 0
    assert ward.run(f"nc -z -w 2 127.0.0.1 {port(name)}").rc == 0


def test_a_killed_program_comes_back_and_has_lost_nothing(ward: Host) -> None:
    kept, pid = spooled(ward), main_pid(ward, "healthsync-edge")
    assert kept > 0
    ward.check_output(f"kill -KILL {pid}")
    until(lambda: main_pid(ward, "healthsync-edge") not in {0, pid}, "a new process")
    until(
        lambda: (
            say(ward, "device=monitor-1 reply=yes hr=73", DEVICES, port("line")).stdout == "ok\n"
        ),
        "an answer of the new process",
    )
    assert spooled(ward) == kept + 1


def test_a_killed_haproxy_comes_back(ward: Host) -> None:
    pid = main_pid(ward, "haproxy")
    ward.check_output(f"kill -KILL {pid}")
    until(lambda: main_pid(ward, "haproxy") not in {0, pid}, "a new process")
    until(
        lambda: ward.run(f"nc -z -w 2 {DEVICES} {port('line-tls')}").rc == 0, "its port open again"
    )


def test_haproxy_reads_its_settings_without_complaint(ward: Host) -> None:
    done = ward.run("haproxy -c -f /etc/haproxy/haproxy.cfg")
    assert done.rc == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_the_program_tells_haproxy_of_a_certificate_by_its_socket(ward: Host) -> None:
    assert status(ward)["program"]["certificate"]["told"] is True
    socket = ward.file("/run/haproxy/edge.sock")
    assert (socket.user, socket.mode) == ("healthsync-edge", 0o600)


def test_the_unit_is_shut_in(ward: Host) -> None:
    text = ward.check_output("systemd-analyze security --no-pager healthsync-edge.service")
    (line,) = [line for line in text.splitlines() if "Overall exposure level" in line]
    exposure = float(line.split(":")[1].split()[0])
    print(f"exposure of healthsync-edge: {exposure}")
    assert exposure <= EXPOSURE_MAX, text


def test_the_running_program_has_no_capability_and_may_gain_none(ward: Host) -> None:
    lines = ward.check_output(f"cat /proc/{main_pid(ward, 'healthsync-edge')}/status").splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"].strip() == "1"
    assert fields["Seccomp"].strip() == "2"


def test_secrets_are_root_s_alone_and_the_state_is_the_program_s(ward: Host) -> None:
    assert ward.file("/etc/healthsync/device.pem").mode == 0o600
    config = ward.file(CONFIG)
    assert (config.user, config.group, config.mode) == ("root", "healthsync-edge", 0o640)
    state = ward.file("/var/lib/healthsync")
    assert (state.user, state.mode) == ("healthsync-edge", 0o750)
    assert ward.run("runuser -u nobody -- cat /var/lib/healthsync/spool.db").rc != 0


def test_ss_knows_the_ports_by_name(ward: Host) -> None:
    assert f"{DEVICES}:healthsync-line" in ward.check_output("ss --tcp --listening")


def test_a_wrong_configuration_is_refused_by_reload_and_the_program_goes_on(ward: Host) -> None:
    pid = main_pid(ward, "healthsync-edge")
    ward.check_output(f"cp --preserve {CONFIG} /run/edge.toml")
    try:
        ward.check_output(f"echo 'no_such_key = 1' | cat - /run/edge.toml >{CONFIG}")
        ward.check_output("systemctl reload healthsync-edge")
        log = "journalctl --unit healthsync-edge --output cat --lines 50"
        until(lambda: "reload-refused" in ward.check_output(log), "a refusal in the log")
    finally:
        ward.check_output(f"cp --preserve /run/edge.toml {CONFIG}")
    ward.check_output("systemctl reload healthsync-edge")
    assert main_pid(ward, "healthsync-edge") == pid


def test_a_variable_that_is_missing_is_named_before_anything_else(tmp_path: Any) -> None:
    play = tmp_path / "play.yml"
    play.write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.import_role: {name: healthsync_edge}\n"
    )
    done = subprocess.run(
        ["ansible-playbook", "--inventory", "localhost,", "--connection", "local", str(play)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "changed=0" in done.stdout
    for name in ("hs_edge_id", "hs_hpke_public_file", "hs_artifacts"):
        assert name in done.stdout + done.stderr


def test_enrolling_shows_nobody_the_token(ward: Host, tmp_path: Any) -> None:
    token = "canary-4711-token"
    enrolment = tmp_path / "enrolment.toml"
    enrolment.write_text(
        f'name = "another-ward"\ntoken = "{token}"\nest = "https://127.0.0.1:1"\n'
        'ca = "none"\nexpires = 2099-01-01T00:00:00Z\n'
    )
    done = subprocess.run(
        [
            *("ansible-playbook", "-vvv", "--diff", "--inventory"),
            f"{os.environ['MOLECULE_EPHEMERAL_DIRECTORY']}/inventory",
            *("--extra-vars", f"hs_enrolment_file={enrolment}", "enrol-gateway.yml"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ANSIBLE,
    )
    # The file is for another gateway: exit 78, and the reason is told.
    assert done.returncode != 0
    assert "enrol ended with 78" in done.stdout + done.stderr
    assert token not in done.stdout + done.stderr
    assert not ward.file("/run/healthsync-enrolment.toml").exists
    assert ward.run(f"grep --recursive --quiet {token} /var/log /var/lib/healthsync").rc == 1


def test_python_speaks_tls_1_3_with_one_suite(ward: Host) -> None:
    text = ward.check_output(
        "OPENSSL_CONF=/etc/healthsync/openssl.cnf /opt/healthsync/edge/current/bin/python -c "
        '\'import ssl; print([c["name"] for c in ssl.create_default_context().get_ciphers()'
        ' if c["protocol"] == "TLSv1.3"])\''
    )
    assert text == "['TLS_AES_256_GCM_SHA384']"

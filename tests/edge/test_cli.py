"""The commands say what is so, and their exit codes mean it."""

import json
import socket
import subprocess
from pathlib import Path

import jinja2
import pytest

from edge import config, status
from healthsync.cli import main
from healthsync.runtime.exits import Exit
from tests.edge.process import ROOT, Process
from vitals.errors import ConfigError


def _edge(process: Process, *words: str) -> int:
    return main(process.command(*words)[3:])


def test_a_running_gateway_without_a_link_is_degraded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = Process(tmp_path)
    with process.started():
        with socket.create_connection(("127.0.0.1", process.line_port)) as sock:
            sock.sendall(b"reply=yes heart_rate=78, oxygen=95%\n")
            assert sock.recv(3) == b"ok\n"
        assert _edge(process, "status", "--json") == Exit.DEGRADED
        picture = json.loads(capsys.readouterr().out)
        assert picture["wrong"] == ["no session with the cloud"]
        assert picture["live"]["readings_total"] == 2
        assert picture["spool"]["frames"] == 1
        assert picture["spool"]["totals"]["readings_spooled"] == 2
        assert _edge(process, "status") == Exit.DEGRADED
        assert "no session with the cloud" in capsys.readouterr().out
    assert _edge(process, "status") == Exit.FAILED
    assert _edge(process, "spool", "status") == Exit.OK
    assert "1 frames" in capsys.readouterr().out


def test_without_a_spool_the_spool_status_fails(tmp_path: Path) -> None:
    assert _edge(Process(tmp_path), "spool", "status") == Exit.FAILED


def test_all_in_order_is_in_order() -> None:
    live = {"link_up": 1.0, "dropped_frames_total": 0.0}
    assert status.judge({"oldest_s": None}, live) == (Exit.OK, [])
    assert status.judge({"oldest_s": 61.0}, live)[0] == Exit.DEGRADED
    assert status.judge({"oldest_s": None}, {**live, "dropped_frames_total": 1})[0] == 1
    assert status.judge(None, live)[0] == Exit.DEGRADED


def test_a_good_configuration_is_called_good(tmp_path: Path) -> None:
    assert _edge(Process(tmp_path), "check-config") == Exit.OK


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("line_port", "lime_port", "line_port"),
        ('"ward-1"', '"ward 1"', "edge_id"),
        ("edge_id", "#", "edge_id"),
        ('state_dir = "', 'site_zone = "Mars"\nstate_dir = "', "site_zone"),
        ("metrics_port = ", "connections_max = 0\nmetrics_port = ", "connections_max"),
        ("cloud.pub", "missing.pub", "missing.pub"),
    ],
)
def test_a_wrong_configuration_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    process = Process(tmp_path)
    text = process.config.read_text()
    assert old in text
    process.config.write_text(text.replace(old, new))
    assert _edge(process, "check-config") == Exit.CONFIG
    assert says in capsys.readouterr().err


def test_two_parts_cannot_share_a_port(tmp_path: Path) -> None:
    process = Process(tmp_path)
    text = process.config.read_text()
    process.config.write_text(text.replace(str(process.mllp_port), str(process.line_port)))
    with pytest.raises(ConfigError, match="mllp_port and line_port"):
        config.load(process.config)


def test_a_gateway_without_a_device_port_is_refused(tmp_path: Path) -> None:
    process = Process(tmp_path)
    lines = process.config.read_text().splitlines(keepends=True)
    kept = "".join(line for line in lines if not line.startswith(("line_port", "mllp_port")))
    process.config.write_text(kept)
    with pytest.raises(ConfigError, match="line_port"):
        config.load(process.config)


def test_a_taken_port_ends_the_start_with_words(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with socket.create_server(("127.0.0.1", process.line_port)):
        done = subprocess.run(
            process.command("run"), cwd=ROOT, capture_output=True, timeout=20, check=False
        )
    assert done.returncode == Exit.UNAVAILABLE
    assert b"port-taken" in done.stdout


VARIABLES = {
    "hs_edge_id": "ward-1",
    "hs_edge_ward": "W1",
    "hs_edge_site_zone": "Europe/Berlin",
    "hs_edge_state_dir": "/var/lib/healthsync",
    "hs_hpke_public": "/etc/healthsync/cloud.pub",
    "hs_edge_listen_host": "127.0.0.1",
    "hs_edge_line_port": 7010,
    "hs_edge_mllp_port": 2575,
    "hs_edge_uplink_port": 7020,
    "hs_metrics_port": 9110,
}
MORE = {
    "hs_edge_line_proxy_port": 7012,
    "hs_edge_mllp_proxy_port": 2577,
    "hs_edge_max_connections": 100,
}


@pytest.mark.parametrize("variables", [VARIABLES, VARIABLES | MORE])
def test_the_roles_template_makes_a_good_configuration(
    tmp_path: Path, variables: dict[str, object]
) -> None:
    template = ROOT / "ansible/roles/healthsync_edge/templates/edge.toml.j2"
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - TOML
    path = tmp_path / "edge.toml"
    path.write_text(environment.from_string(template.read_text()).render(variables))
    loaded = config.load(path)
    assert (loaded.line_port, loaded.metrics_port) == (7010, 9110)
    assert loaded.line_proxy_port == variables.get("hs_edge_line_proxy_port")


def test_the_gateway_needs_none_of_the_clouds_libraries() -> None:
    code = (
        "import sys, edge.main, edge.cli, edge.status;"
        "bad = {'confluent_kafka', 'redis', 'boto3', 'fhir', 'pyarrow', 'numpy', 'cloud'};"
        "sys.exit(bool(bad & set(sys.modules)))"
    )
    import sys

    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

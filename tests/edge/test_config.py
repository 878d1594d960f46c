"""The configuration is typed, documented key by key, and its wrongs are said in words."""

import re
import socket
from pathlib import Path

import jinja2
import msgspec
import pytest

from edge import check, config, reload
from edge.config import Certificate, Config, Known
from healthsync.cli import main
from healthsync.runtime.exits import Exit
from tests.edge.process import Process
from tests.edge.tty import ROOT
from vitals.errors import ConfigError

DOCUMENT = ROOT / "edge/CONFIG.md"
TEMPLATE = ROOT / "ansible/roles/healthsync_edge/templates/edge.toml.j2"


def _check(process: Process) -> int:
    return main(process.command("check-config")[3:])


def _with(process: Process, *lines: str) -> Config:
    text = "\n".join(lines) + "\n" + process.config.read_text()
    process.config.write_text(text)
    return config.load(process.config)


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("line_port", "lime_port", "did you mean `line_port`"),
        ('"ward-1"', '"ward 1"', "edge_id"),
        ("metrics_port = ", 'certificate.haproxy_socket = "/x"\nmetrics_port = ', "folder"),
        ('"ward-1"', f'"{"w" * 64}"', "edge_id"),
        ("edge_id", "#", "edge_id"),
        ('state_dir = "', 'site_zone = "Mars"\nstate_dir = "', "site_zone"),
        ('state_dir = "', 'site_zone = "../x"\nstate_dir = "', "site_zone"),
        ("metrics_port = ", "connections_max = 0\nmetrics_port = ", "connections_max"),
        ("metrics_port = ", "connections_max = 10001\nmetrics_port = ", "connections_max"),
        ("metrics_port = ", "spool_bytes_max = 1000\nmetrics_port = ", "spool_bytes_max"),
        ("metrics_port = ", "spool_age_max_days = 0\nmetrics_port = ", "spool_age_max_days"),
        ("metrics_port = ", 'spool_full = "drop"\nmetrics_port = ', "spool_full"),
        ("metrics_port = ", 'unknown_devices = "reject"\nmetrics_port = ', "unknown_devices"),
        ("metrics_port = ", 'unknown_devices = "refuse"\nmetrics_port = ', "no device at all"),
        ("metrics_port = ", 'known.addresses = ["10.0.0.300"]\nmetrics_port = ', "known.addresses"),
        ("metrics_port = ", 'known.adresses = ["10.0.0.3"]\nmetrics_port = ', "`addresses`"),
        ("metrics_port = ", 'known.devices = "N1"\nmetrics_port = ', "known.devices"),
        ("metrics_port = ", 'hl7_map = "/no/such/map.toml"\nmetrics_port = ', "/no/such/map.toml"),
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
    assert _check(process) == Exit.CONFIG
    assert says in capsys.readouterr().err


def test_a_key_of_another_size_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = Process(tmp_path)
    (tmp_path / "cloud.pub").write_bytes(bytes(31))
    assert _check(process) == Exit.CONFIG
    assert "31 bytes, not 32" in capsys.readouterr().err


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


# -- what was understood, and what is unwise -------------------------------------------------------


def test_check_config_prints_every_key_with_its_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = Process(tmp_path)
    _with(process, 'known.devices = ["a", "b"]', 'unknown_devices = "quarantine"')
    assert _check(process) == Exit.OK
    out = capsys.readouterr().out
    printed = dict(re.findall(r"^(\w+) += (.*)$", out, re.MULTILINE))
    assert set(printed) == set(Config.__struct_fields__)
    assert printed["edge_id"] == '"ward-1"'
    assert printed["site_zone"] == '"UTC"  (default)'
    assert printed["line_proxy_port"] == "closed  (default)"
    assert printed["known"] == "0 addresses, 2 devices, 0 certificates"
    assert out.endswith(f"good; edge ward-1, spool in {process.state}\n")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['listen_host = "0.0.0.0"'], "whoever reaches"),
        (['known.devices = ["N1-*"]'], "has no effect"),
        (['known.certificates = ["m-1"]', 'unknown_devices = "refuse"'], "never match"),
        (["spool_bytes_max = 1000000000000000"], "full before the quota"),
        (["quarantine_bytes_max = 1000000000000000"], "full before the quota"),
        (['state_dir_ = "/dev/shm/x"'], "survives a power cut"),
        (['link_certificate = "/no/such.pem"'], "FileNotFoundError"),
        (['certificate.folder = "/pki"'], "certificate.haproxy_socket is empty"),
        ([], "ward is empty"),
    ],
)
def test_what_is_unwise_is_said_and_allowed(tmp_path: Path, lines: list[str], says: str) -> None:
    process = Process(tmp_path)
    if lines and lines[0].startswith("state_dir_"):
        lines = []
        text = process.config.read_text().replace(str(process.state), "/dev/shm/healthsync-none")
        process.config.write_text(text)
    found = list(check.unwise(_with(process, *lines)))
    assert [one for one in found if says in one], found


def test_a_privileged_port_and_a_low_file_limit_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(tmp_path)
    text = process.config.read_text().replace(f"mllp_port = {process.mllp_port}", "mllp_port = 575")
    process.config.write_text(text)
    monkeypatch.setattr("resource.getrlimit", lambda _what: (1024, 10_063))
    found = list(check.unwise(config.load(process.config)))
    assert [one for one in found if "mllp_port = 575" in one]
    assert [one for one in found if "LimitNOFILE" in one]
    monkeypatch.setattr("resource.getrlimit", lambda _what: (1024, 10_064))
    assert not [one for one in check.unwise(config.load(process.config)) if "NOFILE" in one]


def test_the_nearest_mount_tells_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    near, far = tmp_path, tmp_path.parent
    lines = [f"x {near} tmpfs rw", f"x {far} ext4 rw", "x / ext4 rw", f"x {near}2 ramfs rw"]
    mounts.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr("edge.check._MOUNTS", mounts)
    loaded = config.load(Process(tmp_path).config)
    assert [one for one in check.unwise(loaded) if "is on tmpfs" in one]
    mounts.unlink()
    assert not [one for one in check.unwise(loaded) if "is on" in one]


def test_a_sensible_configuration_is_not_complained_of(tmp_path: Path) -> None:
    process = Process(tmp_path)
    loaded = _with(process, 'ward = "W1"', "spool_bytes_max = 100000000", "connections_max = 100")
    found = [one for one in check.unwise(loaded) if "tmpfs" not in one]
    assert found == [], "a private folder on loopback"
    folder = process.state
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert [one for one in check.unwise(loaded) if "written by everybody" in one]


# -- documents -----------------------------------------------------------------------------------


def _documented() -> dict[str, tuple[str, str]]:
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.*?) \| (live|restart) \|", DOCUMENT.read_text(), re.MULTILINE
    )
    return {key: (default, changes) for key, default, changes in rows}


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is None:
        return "closed"
    if isinstance(field.default, str):
        return f'`"{field.default}"`'
    return "`[]`" if field.default == () else f"`{field.default}`"


def test_every_key_is_documented_with_its_default_and_how_it_changes() -> None:
    wanted = {}
    for field in msgspec.structs.fields(Config):
        changes = "live" if field.name in reload.LIVE else "restart"
        if field.name in {"known", "certificate"}:
            parts = Known() if field.name == "known" else Certificate()
            for inner in msgspec.structs.fields(parts):
                wanted[f"{field.name}.{inner.name}"] = (_default(inner), changes)
        else:
            wanted[field.name] = (_default(field), changes)
    assert _documented() == wanted


def test_the_documents_example_is_good(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    path = tmp_path / "edge.toml"
    path.write_text(example)
    assert config.load(path).known.devices == ("N1-*",)


# -- the role's template ---------------------------------------------------------------------------

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
    "hs_edge_spool_bytes_max": 10**9,
    "hs_edge_spool_full": "refuse",
    "hs_edge_spool_age_max_days": 7,
    "hs_edge_quarantine_bytes_max": 10**8,
    "hs_edge_hl7_map": "/etc/healthsync/map.toml",
    "hs_edge_control_socket": "/run/healthsync/control.sock",
    "hs_edge_link_certificate": "/etc/healthsync/gateway.pem",
    "hs_edge_backlog_order": "newest-first",
    "hs_edge_settings_key": "/etc/healthsync/settings.pub",
    "hs_edge_unknown_devices": "quarantine",
    "hs_edge_known_addresses": ["10.20.0.0/24"],
    "hs_edge_known_devices": ["N1-*", "O'Hara's <1>"],
    "hs_edge_known_certificates": ["monitor-1"],
    "hs_edge_clock_stamp": "/etc/healthsync/image-stamp",
    "hs_edge_certificate_folder": "/var/lib/healthsync/pki",
    "hs_edge_certificate_haproxy_socket": "/run/haproxy/admin.sock",
}


def _rendered(folder: Path, variables: dict[str, object]) -> Config:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 - TOML
    path = folder / "edge.toml"
    path.write_text(environment.from_string(TEMPLATE.read_text()).render(variables))
    return config.load(path)


def test_the_roles_template_makes_a_good_configuration(tmp_path: Path) -> None:
    loaded = _rendered(tmp_path, dict(VARIABLES))
    assert (loaded.line_port, loaded.metrics_port) == (7010, 9110)
    assert loaded.line_proxy_port is None
    assert loaded.known == Known()


def test_the_roles_template_knows_every_key(tmp_path: Path) -> None:
    loaded = _rendered(tmp_path, VARIABLES | MORE)
    assert loaded.known == Known(("10.20.0.0/24",), ("N1-*", "O'Hara's <1>"), ("monitor-1",))
    for field in msgspec.structs.fields(Config):
        if not field.required and field.name not in {"uplink_port", "metrics_port", "listen_host"}:
            assert getattr(loaded, field.name) != field.default, field.name
    some = dict(VARIABLES | MORE)
    del some["hs_edge_known_addresses"], some["hs_edge_known_certificates"]
    assert _rendered(tmp_path, some).known.devices[0] == "N1-*"


def test_a_taken_port_is_no_matter_of_the_configuration(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with socket.create_server(("127.0.0.1", process.line_port)):
        assert _check(process) == Exit.OK

"""Our units are shut in: judged as text and by systemd's own measure, without starting them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
UNITS = [
    ROOT / "ansible/roles" / role / "templates" / f"{unit}.service.j2"
    for role, unit in (
        ("healthsync_edge", "healthsync-edge"),
        ("firewall", "healthsync-firewall"),
        ("firewall", "healthsync-firewall-feed"),
    )
]
EXPOSURE_MAX = 2.0

# Whatever a unit of ours does, it needs none of what these take away.
MUST = {
    "LimitCORE": "0",
    "LockPersonality": "yes",
    "NoNewPrivileges": "yes",
    "PrivateDevices": "yes",
    "PrivateTmp": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHome": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectSystem": "strict",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "UMask": "0077",
}
NAMED = ("CapabilityBoundingSet", "RestrictAddressFamilies", "SystemCallFilter")


@pytest.fixture(params=UNITS, ids=lambda path: path.name)
def unit(request: pytest.FixtureRequest) -> str:
    path: Path = request.param
    role = path.parents[1]
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    values: dict[str, Any] = {"hs_side": "edge"}
    for spec in specs.values():
        values |= {
            name: option["default"]
            for name, option in spec["options"].items()
            if "default" in option
        }
    environment = jinja2.Environment(  # noqa: S701 - a unit file, not HTML
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(path.read_text()).render(values)


def settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def changes_rules(found: dict[str, list[str]]) -> bool:
    return "User" not in found


def test_a_unit_may_do_only_what_it_needs(unit: str) -> None:
    found = settings(unit)
    assert {name: found.get(name) for name in MUST} == {
        name: [value] for name, value in MUST.items()
    }
    assert [name for name in NAMED if name not in found] == []


def test_a_service_runs_as_itself_and_comes_back(unit: str) -> None:
    found = settings(unit)
    if changes_rules(found):
        assert found["CapabilityBoundingSet"] == ["CAP_NET_ADMIN"]
        assert found["Type"] == ["oneshot"] or found["Restart"] == ["always"]
        return
    assert found["Type"] == ["notify"]
    assert found["User"][0].startswith("healthsync-")
    assert found["Restart"] == ["always"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert 0 < int(found["WatchdogSec"][0]) <= 60


def test_systemd_s_own_measure(unit: str, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is of the package systemd"
    path = tmp_path / "healthsync-measured.service"
    path.write_text(unit)
    done = subprocess.run(
        [
            *(program, "security", "--no-pager", "--offline=true"),
            f"--threshold={round(EXPOSURE_MAX * 10)}",
            str(path),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout

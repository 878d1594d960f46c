"""Settings of a person's desk reach a running gateway, are used, and are taken back when bad."""

import json
from pathlib import Path

import pytest

from onebox.values import EDGE_ID
from tests.system.box import Box, until

pytestmark = pytest.mark.system


def _push(box: Box, tmp_path: Path, document: str) -> None:
    path = tmp_path / "ward.toml"
    path.write_text(document)
    assert box.command("edge", "check-settings", str(path)).returncode == 0
    done = box.command(
        *("cloud", "settings", "sign", "--key", str(box.run_dir / "keys" / "settings.key")),
        *("--edge", EDGE_ID, "--settings", str(path)),
        *("--out", str(box.run_dir / "data" / "settings")),
    )
    assert done.returncode == 0, done.stderr


def _settings(box: Box) -> dict[str, object]:
    done = box.command(
        "edge", "status", "--json", "--config", str(box.run_dir / "config" / "edge.toml")
    )
    found: dict[str, object] = json.loads(done.stdout)["program"]["settings"]
    return found


def test_what_a_site_knows_of_a_device_is_pushed_used_and_taken_back_when_it_does_harm(
    box: Box, tmp_path: Path
) -> None:
    line = "device=bed-79 mrn=SYS000079 etco2=5 reply=yes\n"
    good = '[[device]]\nname = "bed-79"\nbed = "79"\nunits = { etco2 = "kPa" }\n'
    _push(box, tmp_path, good)
    until(lambda: _settings(box) == {"version": 1, "on_trial": True, "trouble": ""}, 15, "1 in use")
    assert box.say(line) == "ok\n"
    subject = box.subject("SYS000079")
    until(lambda: bool(box.entries(f"Observation?patient={subject}")), 15, "the pressure")
    [observation] = box.entries(f"Observation?patient={subject}")
    assert observation["valueQuantity"]["value"] == 38, "5 kPa"
    assert observation["valueQuantity"]["code"] == "mm[Hg]"

    _push(box, tmp_path, good + '[[device]]\nname = "bed-78"\nunits = { etco2 = "kPa" }\n')
    until(lambda: _settings(box)["version"] == 2, 15, "2 in use")
    many = "device=bed-78 etco2=38 reply=yes\n" * 40
    assert box.say(many).split() == ["ok"] * 40, "kept, without a value"
    until(lambda: _settings(box)["version"] != 2, 15, "2 taken back")
    found = _settings(box)
    assert "inputs were refused or impossible" in str(found["trouble"])
    assert box.say("device=bed-78 etco2=38 reply=yes\n") == "ok\n"

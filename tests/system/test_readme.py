"""Every command of the README's tables does what it says, against a running system."""

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.system.box import ROOT, Box

pytestmark = pytest.mark.system

README = (ROOT / "README.md").read_text()


def commands() -> Iterator[str]:
    for command in re.findall(r"^\|[^|]+\| `(.+)` \|$", README, re.MULTILINE):
        yield command.replace("\\|", "|")


WITH_DEMO = [
    c
    for c in commands()
    if not c.startswith("make ") and "run/mine" not in c and "onebox down" not in c
]


@pytest.mark.parametrize("command", WITH_DEMO)
def test_a_command_for_a_running_demo_works(box: Box, command: str) -> None:
    mine = command.replace("run/demo", str(box.run_dir)).replace("7010", str(box.info["line_port"]))
    environment = {**os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", mine],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-1500:]} {done.stderr[-1500:]}"


def test_up_and_down_are_driven_by_tests_of_their_own() -> None:
    text = (ROOT / "tests/system/test_onebox_command.py").read_text()
    assert '"onebox", "down"' in text
    rest = [c for c in commands() if c not in WITH_DEMO and not c.startswith("make ")]
    assert [c.split()[2] for c in rest] == ["down", "up"]


def test_every_make_target_named_in_the_readme_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets
    assert {"demo", "test", "check", "setup"} <= named


def test_setup_run_again_changes_nothing_and_is_quick() -> None:
    done = subprocess.run(
        ["make", "setup"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("up to date") + done.stdout.count("are there") == 5, done.stdout


@pytest.mark.parametrize("target", ["demo", "test", "check", "lock"])
def test_a_make_target_runs_what_it_says(target: str) -> None:
    """These run everything, this test too, or rewrite the locks: here only what they would do."""
    done = subprocess.run(
        ["make", "--dry-run", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    wanted = {
        "demo": "onebox demo --run-dir run/demo",
        "test": "-m pytest",
        "check": "lint-imports",
        "lock": "requirements/lock.sh",
    }
    assert wanted[target] in done.stdout
    assert "onebox/setup.sh" in done.stdout


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)#]+)\)", README))
def test_every_link_of_the_readme_leads_somewhere(target: str) -> None:
    assert (ROOT / target).exists()

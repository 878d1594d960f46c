"""What a host is installed from is whole: the wheel's files, the locks, the tars' script."""

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = ("vitals", "edge", "cloud", "firewall", "healthsync")


def test_every_file_of_a_package_comes_into_the_wheel() -> None:
    patterns = [*PROJECT["tool"]["setuptools"]["package-data"]["*"], "*.py"]
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout.split()
    assert len(listed) > 100
    left_out = [
        name
        for name in listed
        if not any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in patterns)
    ]
    assert left_out == []


def test_each_tool_of_provisioning_is_locked_by_hash_and_names_no_address() -> None:
    wanted = re.findall(
        r"^([a-z-]+)(?:\[\w+\])?(==[\d.]+)$",
        (ROOT / "requirements/provision.in").read_text(),
        re.MULTILINE,
    )
    assert len(wanted) >= 6
    lock = (ROOT / "requirements/provision.txt").read_text()
    for name, version in wanted:
        assert re.search(rf"^{name}{version} \\\n +--hash=sha256:", lock, re.MULTILINE), name
    assert "://" not in lock


def test_the_script_refuses_what_it_does_not_know() -> None:
    for script in ("artifacts.sh", "setup.sh", "molecule/run.sh", "molecule/shared/rootfs.sh"):
        done = subprocess.run(
            ["bash", str(ROOT / "ansible" / script), "--no-such-flag"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
        assert (done.returncode, done.stdout) == (64, ""), script
        assert done.stderr.startswith("usage:"), script

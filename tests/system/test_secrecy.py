"""What lies on disk and who may knock: nothing plain, nothing beyond loopback."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.system.box import Box, until

pytestmark = pytest.mark.system

CANARIES = {
    "mrn": "CANARY7X9Q2",
    "name": "Xyzzyanne Plughworth",
    "given": "Xyzzyanne",
    "birth": "1903-11-29",
    "rejected": "CANARYREJECT55",
}


def forms(canary: str) -> tuple[bytes, ...]:
    return canary.encode(), canary.lower().encode(), canary.encode("utf-16-le")


def test_nothing_of_ours_listens_beyond_loopback(box: Box) -> None:
    listing = subprocess.run(
        ["ss", "-H", "-l", "-n", "-t", "-u", "-p"],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    ).stdout
    pids = {str(pid) for pid in box.pids().values()} | {str(box.process.pid)}
    ours = [line for line in listing.splitlines() if pids & set(re.findall(r"pid=(\d+)", line))]
    assert len(ours) >= 15, "the check would see a listener if there was one"
    outside = [
        line
        for line in ours
        if not re.match(r"(127\.\d+\.\d+\.\d+|\[::ffff:127\.0\.0\.1\]|\[::1\]):", line.split()[4])
    ]
    assert outside == []


def test_no_plain_name_or_number_lies_in_any_file_of_the_run(box: Box) -> None:
    line = (
        f'device=bed-90 mrn={CANARIES["mrn"]} name="{CANARIES["name"]}" dob={CANARIES["birth"]}'
        " sex=female bed=90 ward=W1 heart_rate=70, oxygen=95% reply=yes\n"
    )
    assert box.say(line).strip() == "ok"
    box.say(f'device=bed-90 name="{CANARIES["rejected"]}" heart_rate=quick\n')
    box.subject(CANARIES["mrn"])
    box.rest(f"Patient?identifier={CANARIES['mrn']}")
    box.rest(f"Patient?identifier={CANARIES['mrn']}", None)
    until(lambda: "90" in str(box.entries(f"Patient?identifier={CANARIES['mrn']}")), 10, "identity")
    assert box.audit().returncode == 0
    searched = 0
    found = []
    for path in Path(box.run_dir).rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        searched += 1
        found += [
            f"{what} in {path.relative_to(box.run_dir)}"
            for what, canary in CANARIES.items()
            if any(form in data for form in forms(canary))
        ]
    assert searched > 100
    assert found == []
    assert CANARIES["name"] not in box.output.read_text()


def test_the_search_would_find_a_plain_value(tmp_path: Path) -> None:
    (tmp_path / "leak").write_bytes(b"..." + CANARIES["mrn"].encode() + b"...")
    assert any(CANARIES["mrn"].encode() in p.read_bytes() for p in tmp_path.rglob("*"))


def test_no_secret_of_a_run_stands_in_a_log(box: Box) -> None:
    secrets = [path.read_bytes().strip() for path in (box.run_dir / "keys").glob("*.password")] + [
        box.info["token"].encode()
    ]
    for log in (box.run_dir / "log").iterdir():
        data = log.read_bytes()
        assert not [s for s in secrets if s in data], log.name


def test_files_of_a_run_are_private(box: Box) -> None:
    assert (box.run_dir.stat().st_mode & 0o077) == 0

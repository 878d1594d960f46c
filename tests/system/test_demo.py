"""``make demo SECONDS=n`` as a newcomer runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.box import ROOT

pytestmark = pytest.mark.system


def test_the_demo_runs_by_itself_and_ends_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "healthsync.cli",
            "onebox",
            "demo",
            "--run-dir",
            str(tmp_path / "run"),
            "--seconds",
            "25",
            "--beds",
            "8",
        ],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said[-4000:] + done.stderr[-2000:]
    assert "ward page" in said
    assert "sign in" in said
    assert len(re.findall(r"^  curl ", said, re.MULTILINE)) == 3
    summaries = re.findall(r"readings/s +([\d.]+).*alerts +(\d+).*p50 +(\d+) ms", said)
    assert len(summaries) >= 5
    assert float(summaries[-1][0]) > 8
    assert int(summaries[-1][1]) >= 1, "the second bed's desaturation"
    assert "exactly once" in said

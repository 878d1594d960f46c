"""`healthsync firewall` as a person uses it: what it prints, and its exit codes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import firewall
from firewall.kernel import Kernel
from healthsync.runtime.exits import Exit
from tests.firewall.spaces import namespace, nft

OURS = Path(firewall.__file__).parent / "policies"
EDGE, CLOUD = OURS / "edge.toml", OURS / "cloud.toml"


class Shell:
    """Runs the command in a namespace of the test's own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.env: dict[str, str] = {}

    def __call__(
        self, *words: str, code: int = Exit.OK, stdin: str = "", policy: Path | None = EDGE
    ) -> str:
        given = ["--state", str(self.state)]
        if policy is not None:
            given += ["--policy", str(policy)]
        done = subprocess.run(
            [sys.executable, "-m", "healthsync.cli", "firewall", *words, *given],
            input=stdin,
            text=True,
            capture_output=True,
            timeout=60,
            env={**os.environ, **self.env},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def apply(self, policy: Path = EDGE) -> None:
        self("apply", "--supervisor", "none", policy=policy)
        self("confirm", policy=None)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with namespace():
        yield Shell(tmp_path / "state")


def test_from_plan_to_verify(shell: Shell, tmp_path: Path) -> None:
    assert "right; " in shell("check")
    assert "it is not there at all" in shell("plan", code=Exit.DEGRADED)
    assert "is in force for 60 s" in shell("apply", "--supervisor", "none")
    assert shell("plan") == "nothing to change\n"
    assert shell("confirm", policy=None) == "change 1 stays, and is loaded at boot\n"
    assert shell("verify") == "the kernel has what the policy says\n"
    assert "in force already" in shell("apply", "--supervisor", "none")
    nft("flush", "chain", "inet", "healthsync", "forward")
    metrics = tmp_path / "firewall.prom"
    said = json.loads(shell("verify", "--json", "--metrics", str(metrics), code=Exit.DEGRADED))
    assert len(said["drift"]) == 2
    assert "\nhealthsync_firewall_drift 2\n" in metrics.read_text()
    assert metrics.stat().st_mode & 0o777 == 0o644
    assert "loaded: change 1" in shell("load")
    shell("verify")


def test_too_late_and_busy_have_their_own_codes(shell: Shell) -> None:
    assert "no change waits" in shell("confirm", policy=None, code=Exit.DEGRADED)
    shell("apply", "--supervisor", "none")
    said = shell("apply", "--supervisor", "none", policy=CLOUD, code=Exit.UNAVAILABLE)
    assert "change 1 waits: confirm it or roll it back first" in said
    assert shell("rollback", policy=None) == "change 1 is taken back\n"
    assert nft("list", "tables") == ""


def test_a_wrong_policy_is_named_and_nothing_is_touched(shell: Shell, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(EDGE.read_text().replace('"line",', '"lime",'))
    for command in (["check"], ["plan"], ["apply"], ["render", "nft"], ["diff"], ["verify"]):
        said = shell(*command, policy=wrong, code=Exit.CONFIG)
        assert "wrong.toml: line" in said
        assert "there is no service 'lime'; known:" in said
    assert nft("list", "tables") == ""


def test_the_difference_to_what_was_confirmed(shell: Shell) -> None:
    assert shell("diff", code=Exit.DEGRADED).startswith("--- confirmed\n+++ policy\n")
    shell.apply()
    assert shell("diff") == "the policy is what was confirmed\n"
    said = shell("diff", policy=CLOUD, code=Exit.DEGRADED)
    assert '-    iifname "dev0" jump in_zone_device comment "in: device dev0"' in said
    assert '+    iifname "clu0" jump in_zone_cluster comment "in: cluster clu0"' in said


@pytest.mark.parametrize("language", ["nft", "iptables", "ip6tables"])
def test_it_renders_what_was_reviewed(shell: Shell, language: str) -> None:
    ending = {"nft": "nft", "iptables": "iptables-4", "ip6tables": "iptables-6"}[language]
    golden = Path(__file__).parent / "golden" / f"edge.{ending}"
    assert shell("render", language) == golden.read_text()


def test_a_source_is_blocked_for_a_while(shell: Shell) -> None:
    shell.apply()
    shell("block", "192.0.2.7", "--for", "10m")
    shell("block", "2001:db8::7")
    listed = shell("blocked").splitlines()
    assert [line.split("\t")[0] for line in listed] == ["192.0.2.7", "2001:db8::7"]
    assert "use 192.0.2.7 or 2001:db8::7" in shell("block", "ward", code=Exit.CONFIG)
    assert "up to 7d" in shell("block", "192.0.2.8", "--for", "8d", code=Exit.CONFIG)
    assert "use as 30s" in shell("block", "192.0.2.8", "--for", "soon", code=Exit.CONFIG)
    assert "give an address, or --feed" in shell("block", code=Exit.CONFIG)


def log(address: str, times: int) -> str:
    """Return what est says of as many tokens that it refused."""
    said = {"service": "est", "event": "refused", "code": "token-used", "address": address}
    return (json.dumps(said) + "\n") * times


def test_who_is_refused_again_and_again_is_blocked(shell: Shell) -> None:
    shell.apply(CLOUD)
    stdin = log("192.0.2.7", 5) + "noise\n" + log("2001:db8::9", 7) + log("192.0.2.8", 4)
    shell("block", "--feed", "--for", "10m", stdin=stdin, policy=CLOUD)
    with Kernel() as one:
        assert len(one.blocked("healthsync")) == 2
    assert "192.0.2.8" not in shell("blocked", policy=CLOUD)


def test_a_units_journal_is_followed_until_it_ends(shell: Shell, tmp_path: Path) -> None:
    shell.apply(CLOUD)
    said = tmp_path / "said"
    said.write_text(log("192.0.2.7", 5))
    journal = tmp_path / "journalctl"
    journal.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\ncat {said}\nexit 3\n')
    journal.chmod(0o755)
    shell.env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    follow = ("block", "--feed", "--journal", "healthsync-est")
    told = shell(*follow, policy=CLOUD, code=Exit.UNAVAILABLE)
    assert "192.0.2.7 is blocked for" in told
    assert "journalctl ended with 3" in told
    asked = (tmp_path / "asked").read_text().split()
    assert asked == ["--follow", "--lines=0", "--output=cat", "--unit=healthsync-est"]
    journal.chmod(0o644)
    shell.env = {"PATH": str(tmp_path)}
    assert "journalctl does not start" in shell(*follow, policy=CLOUD, code=Exit.UNAVAILABLE)


def test_without_a_firewall_nobody_can_be_blocked(shell: Shell) -> None:
    assert "the kernel refuses" in shell("block", "192.0.2.7", code=Exit.INTERNAL)
    # Who reads a log goes on: the firewall may be back in a moment.
    told = shell("block", "--feed", stdin=log("192.0.2.7", 5) + log("192.0.2.9", 5))
    assert "192.0.2.7 is not blocked" in told
    assert "192.0.2.9 is not blocked" in told


def test_whoever_is_not_root_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", sys.executable, "-m",
         "healthsync.cli", "firewall", "plan", "--policy", str(EDGE)],
        text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == Exit.USAGE, done.stderr
    assert "needs root" in done.stderr

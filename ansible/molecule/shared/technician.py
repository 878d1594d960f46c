"""What people type at a site that the playbooks made, for the scenarios' tests."""

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from vitals.ports import BY_NAME

ANSIBLE = Path(__file__).resolve().parents[2]
AUTHORITY = "/var/lib/healthsync/est/gateways"
RELEASE = "/opt/healthsync/cloud/current"
CA = "/etc/healthsync/service-ca.pem"
REST = BY_NAME["rest"].number
SERVERS = ("kafka", "redis-server", "haproxy", "healthsync-s3")
# Of the host that has the gateways' authority; others have no est.
SERVICES = (
    "healthsync-ingest-1",
    "healthsync-ingest-2",
    "healthsync-detect",
    "healthsync-project",
    "healthsync-archive",
    "healthsync-api",
    "healthsync-est",
    "healthsync-pull-crl",
)
PLAY_S_MAX = 1800
WAIT_S = 60.0


def until(look: Callable[[], bool], what: str, seconds: float = WAIT_S) -> None:
    """Ask again and again, bounded; fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.5)


def folder() -> Path:
    """Return the scenario's own folder: secrets, inventory, what it was provisioned with."""
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


def playbook(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook against the scenario's hosts."""
    return subprocess.run(
        ["ansible-playbook", "--inventory", str(folder() / "inventory"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PLAY_S_MAX,
        cwd=ANSIBLE,
    )


def pki(authority: Host, *arguments: str) -> str:
    """Type a command of the gateways' authority."""
    given = shlex.join([f"{RELEASE}/bin/healthsync", "cloud", "pki", *arguments])
    return authority.check_output(f"runuser --user=healthsync-est -- {given}")


def main_pid(host: Host, unit: str) -> int:
    """Return a unit's main process, 0 when it has none."""
    return int(host.check_output(f"systemctl show --property=MainPID --value {unit}"))


@dataclass(frozen=True)
class Gateway:
    """A ward's gateway, and the device network it has."""

    host: Host
    devices: str = "198.51.100.1"
    name: str = "ward-1"

    def ask(self, words: str) -> dict[str, Any]:
        """Return what a command says in JSON; its exit code is 1 when anything is wrong."""
        done = self.host.run(f"healthsync edge {words} --json --config /etc/healthsync/edge.toml")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def reaches_the_cloud(self) -> bool:
        """Tell whether it is enrolled and its link stands."""
        wrong = {one["code"] for one in self.ask("status")["wrong"]}
        return not wrong & {"link-down", "not-enrolled"}

    def waiting(self) -> int:
        """Return how many frames the cloud has not acknowledged yet."""
        return int(self.ask("spool status")["frames"])

    def say(self, *lines: str) -> list[str]:
        """Speak as bedside devices do; return the answers."""
        text = shlex.quote("".join(f"{line} reply=yes\n" for line in lines))
        call = f"nc -N -w 10 {self.devices} {BY_NAME['line'].number}"
        return self.host.check_output(f"printf %s {text} | {call}").split()

    def enrol(self, authority: Host, address: str, kept: Path) -> None:
        """Enrol it by the playbook, which must show nobody the token."""
        file = f"{AUTHORITY}/{self.name}.toml"
        est = f"https://{address}:{BY_NAME['est'].number}"
        options = ("--enrolment-file", file, "--est", est, "--server-ca", CA)
        pki(authority, "token", "--folder", AUTHORITY, *options, self.name)
        enrolment = kept / f"{self.name}.toml"
        enrolment.write_text(authority.check_output(f"cat {file}"))
        authority.check_output(f"rm {file}")
        token = re.search(r'token = "([^"]+)"', enrolment.read_text())
        assert token is not None
        done = playbook("-vvv", "-e", f"hs_enrolment_file={enrolment}", "enrol-gateway.yml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert token[1] not in done.stdout + done.stderr


@dataclass(frozen=True)
class Page:
    """The ward's page, as curl on one of the cloud's hosts sees it."""

    host: Host
    address: str
    cookies: str = "/root/signed-in.cookies"

    def get(self, path: str, *options: str) -> str:
        """Return what the cloud answers under its public name."""
        call = [
            *("curl", "--silent", "--show-error", "--fail-with-body", "--cacert", CA),
            *("--connect-to", f"vitals.example.org:{REST}:{self.address}:{REST}"),
            *("--cookie", self.cookies, "--cookie-jar", self.cookies),
            *options,
            f"https://vitals.example.org{path}",
        ]
        return self.host.check_output(shlex.join(call))

    def sign_in(self) -> None:
        """Sign in as the site's own user."""
        password = (folder() / "secrets" / "ward.password").read_text()
        self.get("/ward/signin", "--data", "user=ward", "--data", f"password={password}")

    def shows(self, text: str) -> bool:
        """Tell whether the page's whole state holds a text."""
        return text in self.get("/ward/state")

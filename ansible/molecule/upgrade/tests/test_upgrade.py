"""Another release, the way back when it is not well, and what has to survive all of it: one story.

It ends as it began, so that `molecule verify` can tell it again.
"""

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from technician import SERVERS, SERVICES, folder, playbook, until
from testinfra.host import Host

from vitals.ports import BY_NAME

HOST = "healthsync-upgrade-1"
LATER = "healthsync-upgrade-2"
CLOUD = "/opt/healthsync/cloud"
KEPT = "/var/lib/healthsync/upgrade.tar"
EXTRA = "/etc/systemd/system/healthsync-deliver.service"
SERVICES_PLAY = "PLAY [Change the services one host at a time]"
# One that falls over need not be watched for as long as a site would.
SOON = ("--extra-vars", "hs_cloud_healthy_within_s=30")
DRAINED_S_MAX = 60.0
# What readings.py writes: five vital signs, five times.
VITALS = 5
OBSERVATIONS = 25


@dataclass(frozen=True)
class Release:
    """A folder of tars, and what a host calls the release in it."""

    folder: Path

    @property
    def name(self) -> str:
        """Return the first digits of the tar's hash."""
        return hashlib.sha256((self.folder / "cloud.tar").read_bytes()).hexdigest()[:16]

    @property
    def path(self) -> str:
        """Return where it is installed."""
        return f"{CLOUD}/releases/{self.name}"


@dataclass(frozen=True)
class Done:
    """A run of upgrade.yml."""

    code: int
    text: str
    changed: int

    def says(self, words: str) -> bool:
        """Tell whether it said so, wherever the lines broke."""
        return words in " ".join(self.text.split())


@pytest.fixture(scope="module")
def host() -> Host:
    return testinfra.get_host(f"podman://{HOST}")


@pytest.fixture(scope="module")
def previous() -> Release:
    return Release(folder() / "previous")


@pytest.fixture(scope="module")
def this() -> Release:
    return Release(Path(os.environ["HEALTHSYNC_ARTIFACTS"]))


@pytest.fixture(scope="module")
def broken() -> Release:
    return Release(folder() / "broken")


def upgrade(release: Release, *options: str) -> Done:
    """Type what CLOUD.md says."""
    done = playbook("--extra-vars", f"hs_artifacts={release.folder}", *options, "upgrade.yml")
    text = done.stdout + done.stderr
    recap = re.search(rf"^{HOST} +: ok=\d+ +changed=(\d+) ", text, re.MULTILINE)
    assert recap is not None, text
    return Done(done.returncode, text, int(recap[1]))


def target(host: Host, link: str) -> str:
    return host.check_output(f"readlink {CLOUD}/{link}")


def releases(host: Host) -> set[str]:
    return set(host.check_output(f"ls {CLOUD}/releases").split())


def pids(host: Host, *units: str) -> dict[str, int]:
    """Return the main process of each unit."""
    names = " ".join(f"{unit}.service" for unit in units)
    found = host.check_output(f"systemctl show --property=MainPID --value {names}").split()
    return dict(zip(units, map(int, found), strict=True))


def runs(host: Host, release: Release) -> bool:
    """Tell whether every service is a process of this release, and the link says so."""
    for unit, pid in pids(host, *SERVICES).items():
        command = host.check_output(f"tr '\\0' ' ' </proc/{pid}/cmdline") if pid else "nothing"
        if not command.startswith(f"{release.path}/bin/python"):
            print(f"{unit} runs {command}")
            return False
    return target(host, "current") == release.path


def sums(host: Host, *paths: str) -> str:
    """Return what changes when any file there does."""
    return host.check_output(f"find {' '.join(paths)} -type f | sort | xargs sha256sum")


def readings(host: Host, word: str) -> Any:
    """Run readings.py by the release that the host runs."""
    script = base64.b64encode((Path(__file__).parent / "readings.py").read_bytes()).decode()
    python = f"OPENSSL_CONF=/etc/healthsync/openssl.cnf {CLOUD}/current/bin/python"
    return json.loads(host.check_output(f"echo {script} | base64 --decode | {python} -I - {word}"))


def drained(host: Host, subject: str) -> Any:
    """Wait until what was written about a subject came through; return how things stand."""
    state: Any = {}

    def is_through() -> bool:
        state.update(readings(host, "look"))
        through = state["samples"] == state["project"]
        # A transaction of detect's ends behind what it has read.
        through = through and all(
            state["detect"][at] >= end for at, end in state["samples"].items() if end
        )
        through = through and len(state["latest"].get(subject, [])) == VITALS
        return through and state["observations"].get(subject, 0) >= OBSERVATIONS

    until(is_through, "readings in Redis", DRAINED_S_MAX)
    return state


def has_kept(now: Any, before: Any) -> bool:
    """Tell whether nothing is lost, no service began anew, and every reading came exactly once."""
    return (
        all(now["samples"][at] >= end for at, end in before["samples"].items())
        and all(now["detect"][at] >= end for at, end in before["detect"].items())
        and all(now["project"][at] >= end for at, end in before["project"].items())
        and all(now["latest"].get(who) == what for who, what in before["latest"].items())
        and set(now["observations"]) == set(now["latest"])
        and set(now["observations"].values()) == {OBSERVATIONS}
    )


@contextmanager
def one_ingest_listens(host: Host) -> Iterator[None]:
    """Look all the time whether a gateway could be let in, by one of the two."""
    port = BY_NAME["ingest"].number
    look = f"nc -z -w 1 192.0.2.1 {port} || nc -z -w 1 192.0.2.1 {port + 10}"
    loop = f"while true; do {look} || date >>/run/nobody-listened; sleep 0.1; done"
    host.check_output("rm --force /run/nobody-listened")
    host.check_output(f"systemd-run --quiet --collect --unit=look-at-ingest bash -c '{loop}'")
    try:
        yield
    finally:
        host.check_output("systemctl stop look-at-ingest.service")
    assert not host.file("/run/nobody-listened").exists


@pytest.fixture(scope="module")
def written(host: Host) -> Any:
    """Write readings by the release before; return how things stood when they came through."""
    return drained(host, readings(host, "write")["subject"])


@pytest.fixture(scope="module")
def servers(host: Host) -> dict[str, int]:
    """Return the servers' processes at the beginning."""
    return pids(host, *SERVERS)


def is_well(host: Host) -> bool:
    done = host.run("healthsync-cloud-health 60")
    print(done.stderr)
    return done.rc == 0


def test_the_host_runs_the_release_before_and_is_well(
    host: Host, previous: Release, this: Release, written: Any, servers: dict[str, int]
) -> None:
    assert previous.name != this.name
    assert runs(host, previous)
    assert target(host, "well") == previous.path
    assert is_well(host)
    assert all(servers.values())
    assert sum(written["samples"].values()) > 0
    assert set(written["observations"].values()) == {OBSERVATIONS}


def test_a_look_beforehand_says_what_would_be_and_touches_nothing(
    host: Host, previous: Release, this: Release
) -> None:
    files = sums(host, f"{previous.path}/config", "/etc/systemd/system", "/usr/local/sbin")
    there, processes = releases(host), pids(host, *SERVICES, *SERVERS)
    done = upgrade(this, "--check", "--diff")
    assert done.code == 0, done.text
    assert this.name in there or done.says(f"{this.path} would be installed")
    assert releases(host) == there
    assert pids(host, *SERVICES, *SERVERS) == processes
    assert sums(host, f"{previous.path}/config", "/etc/systemd/system", "/usr/local/sbin") == files
    assert runs(host, previous)


def test_this_release_takes_over_and_nothing_is_lost(
    host: Host, previous: Release, this: Release, written: Any, servers: dict[str, int]
) -> None:
    config = sums(host, f"{previous.path}/config")
    # Acknowledged a moment before: the old release need not have got to it.
    late = readings(host, "write")
    with one_ingest_listens(host):
        done = upgrade(this)
    assert done.code == 0, done.text
    assert runs(host, this)
    assert target(host, "well") == this.path
    assert is_well(host)
    assert pids(host, *SERVERS) == servers, "nothing changed for the servers"
    now = drained(host, late["subject"])
    assert has_kept(now, written)
    assert has_kept(drained(host, readings(host, "write")["subject"]), now)
    assert {previous.name, this.name} <= releases(host)
    assert sums(host, f"{previous.path}/config") == config
    assert not host.file(KEPT).exists


def test_once_more_changes_nothing(host: Host, this: Release) -> None:
    processes = pids(host, *SERVICES, *SERVERS)
    done = upgrade(this)
    assert done.code == 0, done.text
    assert done.changed == 0, done.text
    assert pids(host, *SERVICES, *SERVERS) == processes


def test_a_release_that_is_still_there_is_gone_back_to_without_installing(
    host: Host, previous: Release, this: Release, servers: dict[str, int]
) -> None:
    before = readings(host, "look")
    installed = host.check_output(f"stat --format=%y {previous.path}/installed")
    done = upgrade(previous)
    assert done.code == 0, done.text
    assert host.check_output(f"stat --format=%y {previous.path}/installed") == installed
    assert runs(host, previous)
    assert target(host, "well") == previous.path
    assert is_well(host)
    assert pids(host, *SERVERS) == servers
    assert has_kept(drained(host, readings(host, "write")["subject"]), before)
    assert this.name in releases(host)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an inventory of one more host, to come after the first."""
    file = tmp_path_factory.mktemp("inventory") / "later.yml"
    file.write_text(f"healthsync_cloud:\n  hosts:\n    {LATER}:\n      ansible_host: {HOST}\n")
    return file


@pytest.fixture
def one_more_service(host: Host) -> Iterator[str]:
    """Ask for a service that the release before did not have here; take away what it leaves."""
    services = ["ingest", "detect", "project", "archive", "api", "est", "pull-crl", "deliver"]
    yield json.dumps({"hs_cloud_services": services, "hs_deliver_to": "https://127.0.0.1:1/fhir"})
    host.check_output(f"systemctl stop healthsync-deliver.service; rm --force {EXTRA}")


def test_a_release_that_falls_over_is_left_for_the_one_before(
    host: Host,
    previous: Release,
    broken: Release,
    servers: dict[str, int],
    later: Path,
    one_more_service: str,
) -> None:
    before = readings(host, "look")
    files = sums(host, f"{previous.path}/config", "/etc/systemd/system", "/usr/local/sbin")
    since = time.monotonic()
    # As few are kept as may be, and the one that runs was installed first of all.
    done = upgrade(
        broken,
        *SOON,
        *("--extra-vars", "hs_releases_kept=1", "--extra-vars", one_more_service),
        *("--inventory", str(later)),
    )
    print(f"{time.monotonic() - since:.0f} s")
    assert done.code != 0
    assert done.says(f"{HOST} runs {previous.name} again, and is well."), done.text
    assert done.says(f'{broken.name} failed at "Wait until every service is active'), done.text
    assert done.text.count(SERVICES_PLAY) == 1, "the host after it is not touched"
    assert runs(host, previous)
    assert target(host, "well") == previous.path
    assert host.run("healthsync-cloud-health 0").rc == 0
    assert (
        sums(host, f"{previous.path}/config", "/etc/systemd/system", "/usr/local/sbin") == files
    ), "units, health check and configuration are the earlier release's"
    assert not host.service("healthsync-deliver").is_running
    assert releases(host) == {previous.name, broken.name}
    assert pids(host, *SERVERS) == servers
    assert has_kept(drained(host, readings(host, "write")["subject"]), before)
    assert not host.file(KEPT).exists


def test_after_a_run_that_was_cut_off_settings_that_do_no_good_are_taken_back_too(
    host: Host, previous: Release, broken: Release, servers: dict[str, int]
) -> None:
    """Somebody lost patience, or the line: the link is set, and nobody judged what runs."""
    files = sums(host, f"{previous.path}/config", "/etc/systemd/system", "/usr/local/sbin")
    host.check_output(f"ln --symbolic --no-dereference --force {broken.path} {CLOUD}/current")
    host.check_output("systemctl restart --no-block healthsync-detect.service")
    # The same release as was well, and a policy that detect looks for in vain.
    done = upgrade(previous, *SOON, "--extra-vars", "hs_detect_policy_file=/nowhere.toml")
    assert done.code != 0
    assert done.says(f"{HOST} runs {previous.name} again, and is well."), done.text
    assert done.says(f'{previous.name} failed at "Wait until every service is active'), done.text
    assert runs(host, previous)
    assert is_well(host)
    assert sums(host, f"{previous.path}/config", "/etc/systemd/system", "/usr/local/sbin") == files
    assert releases(host) == {previous.name, broken.name}
    assert pids(host, *SERVERS) == servers


def test_a_rotation_of_certificates_does_not_change_the_release(
    host: Host, previous: Release, this: Release
) -> None:
    files = sums(host, "/etc/healthsync/pki", f"{previous.path}/config")
    done = playbook("--extra-vars", f"hs_artifacts={this.folder}", "rotate-certs.yml")
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert f"{HOST} runs release {previous.name}, and hs_artifacts holds {this.name}." in text
    assert sums(host, "/etc/healthsync/pki", f"{previous.path}/config") == files
    assert runs(host, previous)


def test_without_a_tar_nothing_is_done(host: Host, tmp_path: Path) -> None:
    processes = pids(host, *SERVICES, *SERVERS)
    done = upgrade(Release(tmp_path))
    assert done.code != 0
    assert done.says("cloud.tar is not there; run ansible/artifacts.sh first."), done.text
    assert done.changed == 0
    assert pids(host, *SERVICES, *SERVERS) == processes

"""The example inventories say all that the roles ask for, and what they render is accepted.

No host is asked: each host's variables are put together by Ansible as in a run, its templates are
rendered into a temporary folder, and the services' own readers judge them.
"""

import importlib.util
import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from healthsync.runtime.exits import Exit

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = ROOT / "ansible"
ROLES = ANSIBLE / "roles"
PLAYBOOK = ROOT / ".tools" / "provision" / "bin" / "ansible-playbook"
PLAYBOOKS = sorted(path.name for path in ANSIBLE.glob("*.yml"))
INVENTORIES = ("aws", "cluster")
RUN_S_MAX = 240


def run(home: Path, inventory: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert PLAYBOOK.exists(), "run ansible/setup.sh --without-podman first; make test does"
    return subprocess.run(
        [PLAYBOOK, "--inventory", ANSIBLE / "inventories" / inventory, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S_MAX,
        cwd=ANSIBLE,
        env={**os.environ, "ANSIBLE_HOME": str(home), "ANSIBLE_NOCOLOR": "1"},
    )


def judged(role: str) -> dict[str, Any]:
    """Return a task that compares a role's variables with what it documents."""
    spec = f"lookup('file', '{ROLES}/{role}/meta/argument_specs.yml') | from_yaml"
    return {
        "ansible.builtin.validate_argument_spec": {
            "argument_spec": f"{{{{ ({spec}).argument_specs.main.options }}}}"
        }
    }


def known(role: str) -> dict[str, Any]:
    """Return a task that makes a role's variables known: in check mode a gate does no more."""
    return {"ansible.builtin.include_role": {"name": role, "tasks_from": "healthy", "public": True}}


def template(source: str, target: str, **more: Any) -> dict[str, Any]:
    where = {"src": f"{ROLES}/{source}", "dest": f"{{{{ folder }}}}/{target}", "mode": "0600"}
    return {"ansible.builtin.template": where, "check_mode": False, **more}


def play(hosts: str, folder: Path, *tasks: dict[str, Any]) -> dict[str, Any]:
    place = {"path": "{{ folder }}", "state": "directory", "mode": "0700"}
    return {
        "hosts": hosts,
        "gather_facts": False,
        "connection": "local",
        "become": False,
        "vars_files": [str(ROLES / "pki" / "defaults" / "main.yml")],
        "vars": {
            "hs_side": "cloud",
            "hs_release": "/opt/healthsync/cloud/releases/0",
            "folder": f"{folder}/{{{{ inventory_hostname }}}}",
            "ansible_facts": {"hostname": "{{ inventory_hostname }}"},
        },
        "tasks": [{"ansible.builtin.file": place, "check_mode": False}, *tasks],
    }


def secrets_of(folder: Path) -> Path:
    """Return a site's folder of secrets, with those that variables are made of."""
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "kafka-cluster.id").write_text("A" * 22)
    for name in ("project", "api", "audit", "probe"):
        (secrets / f"redis-{name}.password").write_text("0" * 32)
    return secrets


def render(folder: Path, inventory: str) -> Path:
    """Return a folder with one of each host in it."""
    secrets = secrets_of(folder)
    each = {"loop": "{{ hs_cloud_units }}", "loop_control": {"loop_var": "unit"}}
    services = "healthsync_cloud/templates"
    plays = [
        play(
            "kafka",
            folder,
            known("kafka"),
            judged("kafka"),
            template("kafka/templates/server.properties.j2", "server.properties"),
        ),
        play(
            "healthsync_cloud",
            folder,
            known("healthsync_cloud"),
            judged("healthsync_cloud"),
            template(f"{services}/{{{{ unit.word }}}}.toml.j2", "{{ unit.name }}.toml", **each),
        ),
    ]
    book = folder / "play.yml"
    book.write_text(yaml.safe_dump(plays, sort_keys=False, width=1000))
    given = ["-e", f"hs_secrets_folder={secrets}", "-e", f"hs_pki_passphrase={'x' * 32}"]
    done = run(folder / "home", inventory, "--check", *given, str(book))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return folder


@pytest.fixture(scope="module", params=INVENTORIES)
def rendered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name: str = request.param
    return render(tmp_path_factory.mktemp(name), name)


@pytest.fixture
def check() -> Any:
    """Give what the role itself asks before it replaces a file."""
    path = ROLES / "healthsync_cloud" / "files" / "check_config.py"
    spec = importlib.util.spec_from_file_location("check_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize("inventory", [*INVENTORIES, "single"])
def test_every_playbook_is_understood(tmp_path: Path, inventory: str) -> None:
    done = run(tmp_path, inventory, "--syntax-check", *PLAYBOOKS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_would_take_what_the_inventory_gives_it(rendered: Path, check: Any) -> None:
    files = sorted(rendered.glob("app-*/*.toml"))
    words = {path.stem.removesuffix("-1").removesuffix("-2") for path in files}
    assert {"ingest", "detect", "project", "archive", "api", "est", "pull-crl"} <= words
    for path in files:
        assert check(path.stem.rstrip("-12"), str(path)) == Exit.OK, path.name


def test_two_hosts_of_services_are_two_members_of_each_group(rendered: Path) -> None:
    first, second = ((rendered / host / "detect.toml").read_text() for host in ("app-1", "app-2"))
    assert first != second


def test_three_nodes_make_one_quorum(rendered: Path) -> None:
    texts = [path.read_text() for path in sorted(rendered.glob("kafka-*/server.properties"))]
    assert len(texts) == 3
    voters = {line for text in texts for line in text.splitlines() if "quorum.voters" in line}
    (line,) = voters
    assert [one.split("@")[0] for one in line.split("=")[1].split(",")] == ["1", "2", "3"]
    assert all("min.insync.replicas=2\n" in text for text in texts)


def required(role: str) -> list[str]:
    spec = yaml.safe_load((ROLES / role / "meta" / "argument_specs.yml").read_text())
    main = spec["argument_specs"].get("main", {})
    options: dict[str, dict[str, Any]] = main.get("options", {})
    return sorted(name for name, option in options.items() if option.get("required"))


def test_a_role_that_lacks_a_variable_names_it_before_anything_is_done(tmp_path: Path) -> None:
    """Each host lacks one variable of one role."""
    lacking = {
        role: names
        for role in sorted(path.name for path in ROLES.iterdir())
        if (names := required(role))
    }
    given = defaultdict(lambda: "x", hs_secrets_folder=str(secrets_of(tmp_path)))
    groups: dict[str, Any] = {
        f"of_{role}": {
            "hosts": {
                f"{role}-lacks-{name}": {other: given[other] for other in names if other != name}
                for name in names
            }
        }
        for role, names in lacking.items()
    }
    first: dict[str, Any] = {"hosts": {"healthsync_cloud-lacks-hs_artifacts": {}}}
    groups |= dict.fromkeys(("kafka", "redis", "authority", "haproxy"), first)
    inventory, book = tmp_path / "hosts.yml", tmp_path / "play.yml"
    inventory.write_text(yaml.safe_dump(groups))
    facts = {"ansible_facts": {"virtualization_type": "kvm", "default_ipv4": {}}}
    local = {"connection": "local", "gather_facts": False, "vars": facts}
    plays = [{"hosts": f"of_{role}", "roles": [role], **local} for role in lacking]
    # One run each: a play that loses all its hosts is the last one.
    said = ""
    for play_of_role in plays:
        book.write_text(yaml.safe_dump([play_of_role]))
        said += run(tmp_path, str(inventory), "--check", str(book)).stdout
    hosts = [(role, name) for role, names in lacking.items() for name in names]
    assert len(hosts) > 20
    for role, name in hosts:
        host = f"{role}-lacks-{name}"
        (fatal,) = re.findall(rf"(?m)^fatal: \[{host}\]: .*$", said)
        assert name in fatal.replace(host, ""), fatal
        (counts,) = re.findall(rf"(?m)^{host} +: (ok=\d+ +changed=\d+)", said)
        assert re.fullmatch(r"ok=0 +changed=0", counts), host

"""Roles keep what they promise: every variable is documented, every notice is heard."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitals.ports import PORTS

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = ROOT / "ansible"
ROLES = [ANSIBLE / "roles" / name for name in ("common", "firewall", "haproxy", "healthsync_edge")]
EVERY_ROLE = sorted(path for path in ANSIBLE.glob("roles/*") if path.is_dir())
VARIABLE = re.compile(r"\bhs_[a-z0-9_]+\b")
FACTS = {"hs_side"}
"""Given by the play to every role; only the roles that read it name it in their specs."""


@pytest.fixture(params=ROLES, ids=lambda path: path.name)
def role(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) or {}


def options(role: Path) -> dict[str, dict[str, Any]]:
    """Return every option of every entry point; the same name means the same in all of them."""
    found: dict[str, dict[str, Any]] = {}
    for spec in read(role / "meta/argument_specs.yml")["argument_specs"].values():
        found |= spec.get("options", {})
    return found


def tasks(role: Path) -> Iterator[dict[str, Any]]:
    """Yield each task and handler, those in blocks too."""

    def within(listed: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for task in listed:
            yield task
            for part in ("block", "rescue", "always"):
                yield from within(task.get(part, []))

    for path in sorted([*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")]):
        yield from within(read(path) or [])


def own(role: Path) -> set[str]:
    """Return the names that the role gives values by itself."""
    names: set[str] = set()
    for task in tasks(role):
        names |= {str(task.get("register", ""))}
        names |= set(task.get("vars", {}))
        names |= set(task.get("ansible.builtin.set_fact", {}))
        names |= {str(task.get("loop_control", {}).get("loop_var", ""))}
    for path in role.glob("vars/*.yml"):
        names |= set(read(path))
    return names


def used(role: Path) -> set[str]:
    texts = [
        path.read_text()
        for part in ("tasks", "handlers", "templates", "vars")
        for path in (role / part).glob("*")
    ]
    return {name for text in texts for name in VARIABLE.findall(text)}


def test_every_variable_is_in_the_role_s_specification(role: Path) -> None:
    assert used(role) - set(options(role)) - own(role) - FACTS == set()


def test_every_option_is_used(role: Path) -> None:
    written = used(role) | set(VARIABLE.findall((role / "defaults/main.yml").read_text()))
    # What it hands on is asked for at its own beginning.
    for task in tasks(role):
        for call in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
            if call in task:
                written |= used(ANSIBLE / "roles" / task[call]["name"])
    assert set(options(role)) - written == set()


def test_every_option_says_what_it_is(role: Path) -> None:
    for name, option in options(role).items():
        assert str(option.get("description", "")).strip().endswith("."), f"{name}: a sentence"
        assert "type" in option, name
        assert not (option.get("required") and "default" in option), f"{name}: required or default"


def test_every_role_says_what_it_does(role: Path) -> None:
    for name, spec in read(role / "meta/argument_specs.yml")["argument_specs"].items():
        assert spec.get("short_description"), name
        assert (role / "tasks" / f"{name}.yml").exists(), f"{name}: entry point without tasks"


def test_defaults_are_those_of_the_specification(role: Path) -> None:
    documented = {
        name: option["default"] for name, option in options(role).items() if "default" in option
    }
    assert read(role / "defaults/main.yml") == documented


def test_every_notice_has_a_handler(role: Path) -> None:
    heard = set()
    for task in (task for other in EVERY_ROLE for task in tasks(other)):
        listen = task.get("listen", [])
        heard |= {task["name"], *([listen] if isinstance(listen, str) else listen)}
    for task in tasks(role):
        notices = task.get("notify", [])
        for notice in [notices] if isinstance(notices, str) else notices:
            wanted = re.compile(re.sub(r"\\\{\\\{.*?\\\}\\\}", ".+", re.escape(notice)))
            assert any(wanted.fullmatch(name) for name in heard), f"nobody hears {notice!r}"


def test_every_handler_is_called(role: Path) -> None:
    called = set()
    for task in (task for other in EVERY_ROLE for task in tasks(other)):
        notices = task.get("notify", [])
        called |= {notices} if isinstance(notices, str) else set(notices)
    called |= {
        notice.replace("{{ hs_side }}", side) for notice in called for side in ("edge", "cloud")
    }
    for path in role.glob("handlers/*.yml"):
        for handler in read(path) or []:
            listen = handler.get("listen", [])
            names = {handler["name"], *([listen] if isinstance(listen, str) else listen)}
            assert names & called, f"{handler['name']!r} is never notified"


def test_secrets_stay_out_of_the_output(role: Path) -> None:
    secrets = {name for name, option in options(role).items() if option.get("no_log")}
    for task in tasks(role):
        if "block" in task:
            continue
        acted = {key: value for key, value in task.items() if key not in {"when", "vars", "name"}}
        if secrets & set(VARIABLE.findall(str(acted))):
            assert task.get("no_log") is True, task["name"]


def test_a_file_that_a_program_reads_is_judged_before_it_replaces_the_old_one() -> None:
    judged = {
        "healthsync_edge": "edge.toml.j2",
        "haproxy": "{{ hs_haproxy_side }}.cfg.j2",
        "common": "sshd.conf.j2",
    }
    for name, source in judged.items():
        (task,) = [
            task["ansible.builtin.template"]
            for task in tasks(ANSIBLE / "roles" / name)
            if task.get("ansible.builtin.template", {}).get("src") == source
        ]
        assert "%s" in task["validate"], source


PORT_NUMBERS = {str(port.number): port.name for port in PORTS}


def _texts() -> Iterator[Path]:
    parts = ["edge.yml", "enrol-gateway.yml", "inventories/single", "molecule/edge", "plugins"]
    parts += ["molecule/shared", *(f"roles/{role.name}" for role in ROLES)]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *parts],
        cwd=ANSIBLE,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    ).stdout.split()
    assert len(listed) > 40
    for name in listed:
        path = ANSIBLE / name
        if path.suffix in {".yml", ".j2", ".py"} and path.exists():
            yield path


def test_offline_no_package_server_is_asked_however_old_the_lists_are() -> None:
    """By ``cache_valid_time`` alone apt's module refreshes them, whatever ``update_cache`` says."""
    asking = {
        f"{each.name}: {task['name']}": given["cache_valid_time"]
        for each in EVERY_ROLE
        for task in tasks(each)
        if "cache_valid_time" in (given := task.get("ansible.builtin.apt", {}))
    }
    assert len(asking) > 4
    for where, said in asking.items():
        assert re.fullmatch(r"\{\{ 0 if hs_offline \| bool else \d+ \}\}", str(said)), where


def test_no_port_s_number_is_written_twice() -> None:
    repeated = [
        f"{path.relative_to(ROOT)}: {number} is {PORT_NUMBERS[number]}"
        for path in _texts()
        for number in re.findall(r"(?<![\d.])\d{3,5}(?![\d.])", path.read_text())
        if number in PORT_NUMBERS
    ]
    assert repeated == []


def test_the_page_names_what_there_is_to_type() -> None:
    page = (ANSIBLE / "README.md").read_text()
    names = [*(path.name for path in ROLES), "edge.yml", "enrol-gateway.yml"]
    names += ["setup.sh", "artifacts.sh", "lint.sh"]
    assert [name for name in names if f"`{name}`" not in page] == []
    assert [name for name in names if not list(ANSIBLE.glob(f"**/{name}"))] == []

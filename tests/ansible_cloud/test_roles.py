"""The cloud's roles as text: variables documented, units hardened, ports the table's."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import pytest
import yaml

from onebox.layout import REPOSITORY
from vitals import ports

ANSIBLE = REPOSITORY / "ansible"
ROLES = ANSIBLE / "roles"
OURS = ("pki", "kafka", "redis", "s3", "healthsync_cloud", "monitoring", "address")
PLAYBOOKS = (
    "cloud.yml",
    "site.yml",
    "upgrade.yml",
    "rotate-certs.yml",
    "backup-restore.yml",
    "collect-support-bundle.yml",
)

HARDENED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "LockPersonality": "yes",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "SystemCallArchitectures": "native",
    "Restart": "always",
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def specs(role: str) -> dict[str, Any]:
    """Return every option of every entry point of a role."""
    found: dict[str, Any] = {}
    for entry in read(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"].values():
        found |= entry.get("options", {})
    return found


def loaded(role: str, name: str) -> dict[str, Any]:
    path = ROLES / role / name / "main.yml"
    return (read(path) or {}) if path.exists() else {}


def included(role: str) -> set[str]:
    """Return the roles that a role includes."""
    text = "".join(path.read_text() for path in (ROLES / role / "tasks").glob("*.yml"))
    return set(re.findall(r"include_role:\n\s+name: (\w+)", text))


def used(text: str) -> set[str]:
    """Return the project's variables that a text reads, templates and bare conditions alike."""
    without_comments = re.sub(r"(?m)^\s*#.*$", "", text)
    return set(re.findall(r"\bhs_[a-z0-9_]+\b", without_comments))


def local(text: str) -> set[str]:
    """Return what a task file makes itself: registered, set, or a loop's variable."""
    return {
        *re.findall(r"register: (hs_\w+)", text),
        *re.findall(r"loop_var: (hs_\w+)", text),
        *re.findall(r"(?m)^\s{4,}(hs_\w+):", text),
    }


@pytest.mark.parametrize("role", OURS)
def test_every_variable_of_a_role_is_an_option_of_it(role: str) -> None:
    texts = {
        path: path.read_text()
        for folder in ("tasks", "templates", "handlers")
        for path in (ROLES / role / folder).glob("*")
    }
    known = set(specs(role)) | set(loaded(role, "vars"))
    for other in included(role):
        known |= set(specs(other)) if other in OURS else {"hs_side", "hs_release"}
    for text in texts.values():
        known |= local(text)
    wanted = set().union(*(used(text) for text in texts.values()))
    optional = {"hs_settings_folder", "hs_hpke_private_older"}
    assert not wanted - known - optional


@pytest.mark.parametrize("role", OURS)
def test_what_is_documented_is_what_is_set(role: str) -> None:
    options, defaults = specs(role), loaded(role, "defaults")
    assert not set(defaults) - set(options), "a default without documentation"
    for name, option in options.items():
        assert option.get("description"), name
        if option.get("required"):
            assert name not in defaults, f"{name} is required and has a default"
        elif "default" in option:
            assert name in defaults, f"{name}: the documented default is not set"
            said, is_set = (" ".join(str(x).split()) for x in (option["default"], defaults[name]))
            assert said == is_set, name


def test_secrets_are_never_shown() -> None:
    for role in OURS:
        for name, option in specs(role).items():
            if name.endswith(("_password", "_passphrase", "_secret_key")):
                assert option.get("no_log") is True, name


def units() -> Iterator[Path]:
    for role in OURS:
        for pattern in ("*.service.j2", "*.service.conf.j2", "node-exporter.conf.j2"):
            yield from (ROLES / role / "templates").glob(pattern)


@pytest.mark.parametrize("unit", sorted(units()), ids=lambda path: path.name)
def test_every_unit_is_hardened(unit: Path) -> None:
    lines = [line for line in unit.read_text().splitlines() if not line.startswith("#")]
    keys = dict(line.split("=", 1) for line in lines if "=" in line)
    assert {key: keys.get(key) for key in HARDENED} == HARDENED
    assert "SystemCallFilter=@system-service" in lines
    assert "SystemCallFilter=~@privileged @resources" in lines


def table() -> list[dict[str, Any]]:
    return list(loaded("healthsync_cloud", "vars")["hs_cloud_table"])


def test_every_service_of_the_port_table_has_a_unit_and_its_port() -> None:
    by_port_name = {port.name for port in ports.PORTS if port.side == "cloud"}
    not_ours = {"uplink", "est", "rest", "kafka", "kafka-controller", "redis", "s3", "aws"}
    not_ours |= {"cloud-haproxy-stats"}
    asked = set()
    for unit in table():
        for value in (unit.get("port", ""), unit["metrics"]):
            asked |= set(re.findall(r"lookup\('healthsync_port', '([a-z-]+)'\)", value))
    assert asked == by_port_name - not_ours


def test_every_word_of_the_command_line_has_a_unit_a_template_and_a_check() -> None:
    from cloud.cli import SERVICES

    words = {unit["word"] for unit in table()}
    assert words == set(SERVICES)
    for word in words:
        assert (ROLES / "healthsync_cloud" / "templates" / f"{word}.toml.j2").exists()
    checks = (ROLES / "healthsync_cloud" / "files" / "check_config.py").read_text()
    handlers = (ROLES / "healthsync_cloud" / "handlers" / "main.yml").read_text()
    for word in words:
        assert f'    "{word}": (' in checks
        assert f"- name: Restart {word}\n" in handlers


def test_no_two_units_of_a_host_want_the_same_port() -> None:
    environment = jinja2.Environment()  # noqa: S701 - settings, not HTML
    environment.globals["lookup"] = lambda _, name: ports.BY_NAME[name].number
    wanted = [
        int(environment.from_string(value).render())
        for unit in table()
        for value in (unit.get("port"), unit["metrics"])
        if value is not None
    ]
    others = {port.number for port in ports.PORTS if port.side == "cloud"}
    assert len(set(wanted)) == len(wanted)
    # What lies beside the table's numbers is on none of them.
    beside = set(wanted) - others
    assert len(beside) == 2


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_what_a_playbook_names_exists(name: str) -> None:
    text = (ANSIBLE / name).read_text()
    plays = yaml.safe_load(text)
    for other in re.findall(r"import_playbook: (\S+)", text):
        assert (ANSIBLE / other).exists()
    roles = {role for play in plays for role in play.get("roles", [])}
    roles |= set(re.findall(r"(?:include|import)_role:\n\s+name: (\w+)", text))
    for role in roles:
        assert (ROLES / role / "tasks").is_dir(), role
    for role, entry in re.findall(r"name: (\w+)\n\s+tasks_from: (\w+)", text):
        assert (ROLES / role / "tasks" / f"{entry}.yml").exists(), (role, entry)


@pytest.mark.parametrize("inventory", ["cluster", "aws"])
def test_an_inventory_gives_everything_that_is_required(inventory: str) -> None:
    folder = ANSIBLE / "inventories" / inventory
    groups, common = read(folder / "hosts.yml"), read(folder / "group_vars" / "all" / "main.yml")
    hosts: dict[str, dict[str, Any]] = {}
    for group in groups.values():
        for host, values in group["hosts"].items():
            hosts.setdefault(host, {}).update(values or {})
    from_vault = {"hs_pki_passphrase"}
    by_group = {
        "kafka": ["pki", "kafka"],
        "redis": ["pki", "redis"],
        "healthsync_cloud": ["pki", "healthsync_cloud"],
        "s3": ["s3"],
        "haproxy": ["address"],
    }
    for group, roles in by_group.items():
        for host in groups.get(group, {"hosts": {}})["hosts"]:
            for role in roles:
                required = {name for name, option in specs(role).items() if option.get("required")}
                missing = required - set(common) - set(hosts[host]) - from_vault
                assert not missing, (host, role)
    numbers = [hosts[host]["hs_kafka_node_id"] for host in groups["kafka"]["hosts"]]
    assert sorted(numbers) == [1, 2, 3]
    assert len(groups["haproxy"]["hosts"]) == 2
    assert list(groups["authority"]["hosts"]) == [
        host for host, values in hosts.items() if "est" in values.get("hs_cloud_services", [])
    ]


def test_nothing_secret_lies_in_the_inventories() -> None:
    for path in (ANSIBLE / "inventories").rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"(?i)(password|passphrase|secret_key): *[^\s{]", text), path
            assert "PRIVATE KEY" not in text, path

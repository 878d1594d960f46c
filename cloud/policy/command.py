"""``healthsync cloud policy``: check, diff, push; for the person who answers for the alarms.

Exit codes. check, push: 0 done, 78 refused with the reason and what next; push: 69 Kafka did not
take it. diff: 0 nothing rings otherwise, 1 something does.
"""

import argparse
import getpass
import re
import sys
from pathlib import Path
from typing import Final

from cloud.policy.check import warnings
from cloud.policy.config import OperatorConfig
from cloud.policy.default import DEFAULT
from cloud.policy.differ import as_text, differences
from cloud.policy.model import Policy
from cloud.policy.seal import publish, seal
from cloud.policy.text import load
from cloud.records import NewPolicy
from cloud.settings import kafka_config
from healthsync.runtime import config as config_
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from vitals import topics
from vitals.errors import ConfigError

_USER: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")


def register(parser: argparse.ArgumentParser) -> None:
    """Add ``check``, ``diff`` and ``push``."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="COMMAND")

    def add(name: str, text: str, run: object) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    config, strict = "operator.toml: Kafka, and ingest's subject key", "refuse warnings too"
    check = add("check", "say what is wrong with a policy", _check).add_argument
    check("file", type=Path, metavar="FILE")
    check("--strict", action="store_true", help=strict)
    check("--seal", action="store_true", help="print what push would publish; needs --config")
    check("--config", type=Path, metavar="CONFIG", help=config)
    diff = add("diff", "what NEW rings otherwise than OLD, and for whom", _diff).add_argument
    diff("old", type=Path, metavar="OLD")
    diff("new", type=Path, metavar="NEW")
    diff("--config", type=Path, metavar="CONFIG", help="to compare a sealed with an unsealed one")
    push = add("push", "check, seal, and put a policy in force", _push).add_argument
    push("file", type=Path, metavar="FILE")
    push("--config", type=Path, required=True, metavar="CONFIG", help=config)
    push("--who", metavar="USER", help="who answers for it; default: the signed-in user")
    push("--strict", action="store_true", help=strict)


def _check(options: argparse.Namespace) -> int:
    policy = _load(options.file, strict=options.strict)
    if not options.seal:
        print(f"{options.file}: good; {_counts(policy)}")
        return Exit.OK
    if options.config is None:
        raise ConfigError("--seal needs ingest's subject key; give --config operator.toml")
    sys.stdout.write(publish(_sealed(policy, options.config, options.file)).text)
    return Exit.OK


def _diff(options: argparse.Namespace) -> int:
    old, new = load(options.old), load(options.new)
    if options.config is not None:
        old = _sealed(old, options.config, options.old)
        new = _sealed(new, options.config, options.new)
    rows = differences(old, new)
    print(as_text(rows))
    return Exit.DEGRADED if rows else Exit.OK


def _push(options: argparse.Namespace) -> int:
    from cloud.policy.push import PushFailed, push

    who = user(options.who)
    settings = config_.load(options.config, OperatorConfig)
    policy = _load(options.file, strict=options.strict)
    made = publish(_sealed(policy, options.config, options.file))
    record = NewPolicy(made.version, made.text, who, now_ms())
    try:
        partitions = push(kafka_config(settings.kafka), record)
    except PushFailed as error:
        print(f"healthsync: {error}", file=sys.stderr)
        return Exit.UNAVAILABLE
    listed = ", ".join(map(str, partitions))
    print(f"policy {made.version} is in {topics.COMMANDS.name}, partitions {listed}")
    return Exit.OK


def _load(path: Path, *, strict: bool) -> Policy:
    """Return a checked policy after its warnings; raise ConfigError for them when strict."""
    policy = load(path)
    found = warnings(policy, DEFAULT, now_ms())
    for line in found:
        print(f"{path}: warning: {line}", file=sys.stderr)
    if found and strict:
        raise ConfigError(f"{path}: {len(found)} warnings; mend them, or leave out --strict")
    return policy


def _sealed(policy: Policy, config: Path, path: Path) -> Policy:
    key = config_.read_key(config_.load(config, OperatorConfig).subject_key)
    return seal(policy, key, str(path))


def user(given: str | None) -> str:
    """Return who answers for it: a sign-in name as ``given``, or whoever is signed in here."""
    try:
        who = getpass.getuser() if given is None else given
    except (KeyError, OSError):
        raise ConfigError("nobody is signed in here; give --who USER") from None
    if not _USER.fullmatch(who):
        raise ConfigError("--who: a user's sign-in name, letters, digits and . _ @ - only")
    return who


def _counts(policy: Policy) -> str:
    return (
        f"{len(policy.rules)} rules, {len(policy.trends)} trends, {len(policy.wards)} wards,"
        f" {len(policy.beds)} beds, {len(policy.patients)} patients"
    )

"""``healthsync cloud alert``: answer an alert, or set one patient's limit, from a terminal.

For whoever has no ward system that does it, and for trying out: one record of ``commands``, in the
partition of its subject. Detect applies it within a second, and what comes of it is a step of the
episode (``DetectedIssue/EPISODE``, the ward page). What means nothing there, such as an episode
that has ended, changes nothing.

Exit codes: 0 Kafka has it, 69 Kafka did not take it, 78 refused with the reason.
"""

import argparse
import math
import re
import secrets
import sys
from datetime import datetime
from pathlib import Path
from typing import Final

from cloud.fhir.ids import ID_CHARS_MAX, is_subject
from cloud.policy.command import user
from cloud.policy.config import OperatorConfig
from cloud.records import Command
from cloud.settings import kafka_config
from healthsync.runtime import config as config_
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from vitals import topics
from vitals.enrolment import EDGE_NAME
from vitals.errors import ConfigError

WHY_CHARS_MAX: Final = 200
"""A sentence: it is repeated in every later step of the log."""

_SPAN_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_EPISODE: Final = re.compile(rf"[A-Za-z0-9.-]{{1,{ID_CHARS_MAX}}}")
_RULE: Final = re.compile(r"[a-z0-9_]{1,32}(\.[a-z0-9_]{1,32}){1,3}")
_ID_BYTES: Final = 16


def register(parser: argparse.ArgumentParser) -> None:
    """Add ``acknowledge``, ``shelve``, ``unshelve``, ``clear`` and ``limit``."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=_run, episode="", until=None, rule="", limit=None)
        option = command.add_argument
        option("--config", type=Path, required=True, metavar="FILE", help="operator.toml")
        option("--subject", default="", metavar="ID", help="the patient's pseudonym")
        option("--gateway", default="", metavar="NAME", help="or a gateway, to answer its alert")
        option("--who", metavar="USER", help="who answers for it; default: the signed-in user")
        option("--why", default="", metavar="TEXT", help="in a few words, and no patient's name")
        return command

    until = "2026-11-23T10:00:00Z, or 15m, 2h from now"
    for name, text in (
        ("acknowledge", "somebody looks after it: it no longer rings"),
        ("shelve", "silence it for a while; the policy says for how long at most"),
        ("unshelve", "end a shelving"),
        ("clear", "end the episode; what is still true is raised anew"),
    ):
        command = add(name, text)
        command.add_argument("--episode", required=True, metavar="ID", help="of the alert")
        if name == "shelve":
            command.add_argument("--until", required=True, metavar="TIME", help=until)
    limit = add("limit", "set the limit of a rule for one patient, or take that back")
    limit.add_argument("--rule", required=True, help="such as spo2.low.high")
    limit.add_argument("--until", metavar="TIME", help=f"{until}; default: until changed again")
    which = limit.add_mutually_exclusive_group(required=True)
    which.add_argument("--limit", type=float, metavar="NUMBER", help="in the vital's unit")
    which.add_argument("--as-policy", action="store_true", help="what the policy says holds again")


def until_ms(text: str, at_ms: int) -> int:
    """Return a time that lies ahead of ``at_ms``; raise ConfigError."""
    found = _SPAN.fullmatch(text)
    if found is not None:
        ends_ms = at_ms + int(found[1]) * _SPAN_MS[found[2]]
    else:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            when = None
        if when is None or when.tzinfo is None:
            raise ConfigError(
                f"--until {text[:40]!r}: a time with its zone such as 2026-11-23T10:00:00Z, or 15m,"
                " 2h from now"
            )
        ends_ms = round(when.timestamp() * 1000)
    if ends_ms <= at_ms:
        raise ConfigError(f"--until {text}: that is over; name a time that lies ahead")
    return ends_ms


def made(options: argparse.Namespace, at_ms: int, ident: str) -> Command:
    """Return the command of a command line; raise ConfigError."""
    subject, episode = options.subject, options.episode
    if options.gateway:
        if subject or options.what == "limit" or not EDGE_NAME.fullmatch(options.gateway):
            raise ConfigError("--gateway: its name, instead of --subject, and no limit")
        subject = options.gateway
    elif not is_subject(subject):
        raise ConfigError(
            "--subject: a patient's pseudonym, 32 hex digits, as in DetectedIssue.patient; for"
            " a gateway's alert, --gateway and its name"
        )
    if options.what == "limit":
        if not _RULE.fullmatch(options.rule):
            raise ConfigError("--rule: vital, direction and priority, such as spo2.low.high")
        if options.limit is not None and not math.isfinite(options.limit):
            raise ConfigError("--limit: a number in the vital's unit, such as 88")
    elif not _EPISODE.fullmatch(episode):
        raise ConfigError(f"--episode: the alert's id, 1 to {ID_CHARS_MAX} of A-Z a-z 0-9 . -")
    if len(options.why) > WHY_CHARS_MAX or not options.why.isprintable():
        raise ConfigError(f"--why: one line of at most {WHY_CHARS_MAX} characters")
    return Command(
        ident,
        options.what,
        subject,
        user(options.who),
        at_ms,
        options.why,
        episode,
        None if options.until is None else until_ms(options.until, at_ms),
        options.rule,
        options.limit,
    )


def _run(options: argparse.Namespace) -> int:
    from cloud.policy.push import PushFailed, send

    settings = config_.load(options.config, OperatorConfig)
    command = made(options, now_ms(), secrets.token_hex(_ID_BYTES))
    try:
        partition = send(kafka_config(settings.kafka), command)
    except PushFailed as error:
        print(f"healthsync: {error}", file=sys.stderr)
        return Exit.UNAVAILABLE
    print(f"command {command.id} is in {topics.COMMANDS.name}, partition {partition}")
    return Exit.OK

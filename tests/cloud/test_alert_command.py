"""``healthsync cloud alert`` as a person meets it; with Kafka in tests/system/test_alarms.py."""

from pathlib import Path
from typing import Any

import pytest

from cloud import alert_command
from cloud.alert_command import WHY_CHARS_MAX, until_ms
from cloud.policy import push as push_
from cloud.policy.push import PushFailed
from cloud.records import Command
from healthsync.cli import main
from healthsync.runtime.exits import Exit
from onebox import ports
from tests.cloud.policy.test_command import Desk
from vitals.errors import ConfigError

NOW = 1_790_000_000_000  # 2026-09-21T14:13:20Z
SUBJECT, EPISODE = "0123456789abcdef" * 2, "e" * 32


class Terminal:
    """Runs the command; what would go to Kafka is kept."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = Desk(folder).config
        self.sent: list[Command] = []
        monkeypatch.setattr(alert_command, "now_ms", lambda: NOW)
        monkeypatch.setattr(push_, "send", self._send)

    def _send(self, _base: Any, command: Command) -> int:
        self.sent.append(command)
        return 7

    def run(self, what: str, *words: str, subject: str = SUBJECT, who: str = "lee.k") -> int:
        fixed = ["--config", str(self.config), "--subject", subject, "--who", who]
        return main(["cloud", "alert", what, *fixed, *words])


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("acknowledge", "--episode", EPISODE, "--why", "with the patient"),
            Command("", "acknowledge", SUBJECT, "lee.k", NOW, "with the patient", EPISODE),
        ),
        (
            ("shelve", "--episode", EPISODE, "--until", "2m"),
            Command("", "shelve", SUBJECT, "lee.k", NOW, "", EPISODE, NOW + 120_000),
        ),
        (
            ("unshelve", "--episode", EPISODE),
            Command("", "unshelve", SUBJECT, "lee.k", NOW, "", EPISODE),
        ),
        (
            ("clear", "--episode", "set.by-hand"),
            Command("", "clear", SUBJECT, "lee.k", NOW, "", "set.by-hand"),
        ),
        (
            ("limit", "--rule", "spo2.low.high", "--limit", "88", "--until", "4h"),
            Command(
                "", "limit", SUBJECT, "lee.k", NOW, "", "", NOW + 14_400_000, "spo2.low.high", 88.0
            ),
        ),
        (
            ("limit", "--rule", "spo2.low.high", "--as-policy"),
            Command("", "limit", SUBJECT, "lee.k", NOW, rule="spo2.low.high"),
        ),
    ],
)
def test_what_a_command_line_becomes(
    terminal: Terminal,
    words: tuple[str, ...],
    expected: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert terminal.run(*words) == Exit.OK
    (sent,) = terminal.sent
    assert len(bytes.fromhex(sent.id)) == 16
    assert capsys.readouterr().out == f"command {sent.id} is in commands, partition 7\n"
    assert Command(**{f: getattr(sent, f) for f in sent.__struct_fields__} | {"id": ""}) == expected


def test_every_command_has_an_id_of_its_own(terminal: Terminal) -> None:
    for _ in range(3):
        terminal.run("unshelve", "--episode", EPISODE)
    assert len({one.id for one in terminal.sent}) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("acknowledge", "--episode", "a/b"), "--episode: the alert's id"),
        (("acknowledge", "--episode", "a" * 65), "--episode: the alert's id"),
        (("acknowledge", "--episode", EPISODE, "--why", "a\nb"), "--why: one line"),
        (("acknowledge", "--episode", EPISODE, "--why", "a" * 201), "--why: one line"),
        (("shelve", "--episode", EPISODE, "--until", "0m"), "that is over"),
        (("shelve", "--episode", EPISODE, "--until", "soon"), "a time with its zone"),
        (("shelve", "--episode", EPISODE, "--until", "2027-01-01T00:00:00"), "its zone"),
        (("limit", "--rule", "spo2", "--limit", "88"), "such as spo2.low.high"),
        (("limit", "--rule", "spo2.low.high", "--limit", "nan"), "--limit: a number"),
    ],
)
def test_what_is_refused_is_refused_with_what_to_write_instead(
    terminal: Terminal, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert terminal.run(*words) == Exit.CONFIG
    assert said in capsys.readouterr().err
    assert terminal.sent == []


def test_the_caps_are_reached(terminal: Terminal) -> None:
    why = "a" * WHY_CHARS_MAX
    assert terminal.run("clear", "--episode", "a" * 64, "--why", why) == Exit.OK


@pytest.mark.parametrize("subject", ["", "ward-gw-1", SUBJECT.upper(), SUBJECT + "0"])
def test_a_subject_is_a_pseudonym(
    terminal: Terminal, subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert terminal.run("clear", "--episode", EPISODE, subject=subject) == Exit.CONFIG
    assert "32 hex digits" in capsys.readouterr().err


def test_a_gateways_alert_is_answered_by_its_name(terminal: Terminal) -> None:
    words = ("--episode", EPISODE, "--gateway", "ward-gw-1")
    assert terminal.run("acknowledge", *words, subject="") == Exit.OK
    (command,) = terminal.sent
    assert command.subject == "ward-gw-1"


@pytest.mark.parametrize("name", ["ward gw", "-x", "a" * 64])
def test_a_gateway_has_a_gateways_name(terminal: Terminal, name: str) -> None:
    words = ("--episode", EPISODE, f"--gateway={name}")
    assert terminal.run("acknowledge", *words, subject="") == Exit.CONFIG


def test_an_alert_is_a_patients_or_a_gateways(terminal: Terminal) -> None:
    words = ("--episode", EPISODE, "--gateway", "ward-gw-1")
    assert terminal.run("acknowledge", *words) == Exit.CONFIG
    assert terminal.sent == []


@pytest.mark.parametrize("who", ["", "Ada Ng"])
def test_nobody_silences_without_a_name(terminal: Terminal, who: str) -> None:
    assert terminal.run("acknowledge", "--episode", EPISODE, who=who) == Exit.CONFIG
    assert terminal.sent == []


@pytest.mark.parametrize(
    "words",
    [
        ("shelve", "--episode", EPISODE),
        ("acknowledge",),
        ("limit", "--rule", "spo2.low.high"),
        ("limit", "--rule", "spo2.low.high", "--limit", "88", "--as-policy"),
    ],
)
def test_what_a_command_needs_is_asked_for(terminal: Terminal, words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        terminal.run(*words)
    assert terminal.sent == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW + 90_000),
        ("1d", NOW + 86_400_000),
        ("2026-09-21T14:13:21Z", NOW + 1000),
        ("2026-09-21T16:13:21+02:00", NOW + 1000),
    ],
)
def test_a_time_is_read_with_its_zone_or_as_so_long_from_now(text: str, expected: int) -> None:
    assert until_ms(text, NOW) == expected


def test_a_time_that_is_just_over_is_refused() -> None:
    with pytest.raises(ConfigError, match="that is over"):
        until_ms("2026-09-21T14:13:20Z", NOW)


def test_kafka_that_does_not_answer_is_said(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(_base: Any, _command: Command) -> int:
        raise PushFailed("Kafka has not taken the command (no answer); send it again")

    monkeypatch.setattr(push_, "send", refused)
    assert terminal.run("clear", "--episode", EPISODE) == Exit.UNAVAILABLE
    assert "send it again" in capsys.readouterr().err


def test_a_broker_that_is_not_there_is_said_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (port,) = ports.free(1)
    monkeypatch.setattr(
        alert_command, "kafka_config", lambda _: {"bootstrap.servers": f"127.0.0.1:{port}"}
    )
    monkeypatch.setattr(push_, "DELIVERY_TIMEOUT_MS", 500)
    fixed = ["--config", str(Desk(tmp_path).config), "--subject", SUBJECT, "--who", "lee.k"]
    assert main(["cloud", "alert", "clear", *fixed, "--episode", EPISODE]) == Exit.UNAVAILABLE
    said = capsys.readouterr()
    assert "_MSG_TIMED_OUT" in said.err
    assert said.out == ""

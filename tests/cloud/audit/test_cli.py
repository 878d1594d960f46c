import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud.audit import cli
from cloud.audit.errors import Unreachable
from cloud.audit.evidence import EpochName, Evidence, Held, Spooled

E = EpochName("ward-3", "e" * 32)


def evidence(archived: int) -> Evidence:
    def held(readings: int) -> Held:
        made = Held()
        for seq in range(readings):
            made.add(0, seq, 1)
        return made

    spool = {E: Spooled(readings_spooled=3, readings_acked=3)}
    return Evidence(
        spool, {E: held(archived)}, {E: held(3)}, {E: held(3)}, {}, {"samples": 0}, spool, False
    )


@pytest.fixture
def audit(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., int]:
    now = [0.0]

    def run(rounds: list[Evidence | Exception], *options: str) -> int:
        def gather() -> Evidence:
            found = rounds.pop(0) if len(rounds) > 1 else rounds[0]
            if isinstance(found, Exception):
                raise found
            return found

        def sleep(seconds: float) -> None:
            now[0] += seconds

        monkeypatch.setattr("healthsync.runtime.config.load", lambda _path, _kind: None)
        monkeypatch.setattr(cli, "_gatherer", lambda _settings, _stack: gather)
        monkeypatch.setattr("time.monotonic", lambda: now[0])
        monkeypatch.setattr("time.sleep", sleep)
        parser = argparse.ArgumentParser()
        cli.register(parser)
        chosen = parser.parse_args(["--config", str(Path("x.toml")), *options])
        return int(chosen.run(chosen))

    return run


def test_agreement_is_0(audit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit([evidence(3)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("agrees")


def test_difference_is_1(audit: Any) -> None:
    assert audit([evidence(2)]) == 1


def test_a_stage_that_cannot_be_read_is_2(audit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit([Unreachable("kafka", "_TRANSPORT")]) == 2
    assert "kafka cannot be read" in capsys.readouterr().err


def test_waiting_asks_again_until_all_agree(audit: Any) -> None:
    assert (
        audit([evidence(1), Unreachable("redis", "x"), evidence(2), evidence(3)], "--wait", "30")
        == 0
    )


def test_waiting_ends(audit: Any) -> None:
    assert audit([evidence(1)], "--wait", "30") == 1
    assert audit([Unreachable("s3", "x")], "--wait", "30") == 2


def test_json_is_one_object(audit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    audit([evidence(3)], "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "agrees"
    assert said["lines"][0]["archive"] == 3

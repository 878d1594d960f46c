import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud.audit import cli
from cloud.audit.compare import Line, Verdict
from cloud.audit.errors import Unreachable
from cloud.audit.evidence import EpochName, Evidence, Spooled
from cloud.audit.ranges import KINDS, Named
from cloud.audit.since import frame_name, since
from cloud.audit.trace import InArchive, InKafka, InSpool, Trace
from tests.cloud.audit.stages import produced, taken
from vitals import limits

E = EpochName("ward-3", "e" * 32)
BEGAN_MS = 1_790_000_000_000


def evidence(archived: int) -> Evidence:
    records = [(0, seq, 1) for seq in range(3)]
    spool = {E: Spooled(readings_spooled=3, readings_acked=3, highest_seq=2, began_ms=BEGAN_MS)}
    return Evidence(
        spool,
        {E: taken(records[:archived])},
        {E: taken(records)},
        {E: produced(records)},
        {},
        {"samples": 0},
        spool,
        False,
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
        monkeypatch.setattr(cli, "_gatherer", lambda _settings, _since_ms, _stack: gather)
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
    assert said["lines"][0]["ranges"] == []


def test_every_field_of_the_json_is_in_the_readme() -> None:
    readme = (Path(cli.__file__).parent / "README.md").read_text()
    words = set(re.findall(r"[a-z_]+", "".join(re.findall(r"`[^`]*`", readme))))
    for kind in (Verdict, Line, Named, Trace, InSpool, InKafka, InArchive):
        for field in msgspec.structs.fields(kind):
            assert field.name in words, f"{kind.__name__}.{field.name}"
    assert set(KINDS) <= words


def test_since_leaves_older_epochs_out_of_table_and_verdict(
    audit: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit([evidence(2)], "--since", "2026-09-21T14:13:20Z") == 1  # the moment it began
    assert audit([evidence(2)], "--since", "2026-09-21T14:13:21Z") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "agrees: 0 epochs, 0 readings archived"


def test_an_epoch_with_frames_in_the_spool_or_of_no_known_time_is_never_left_out() -> None:
    one = evidence(3)
    assert one.since(BEGAN_MS) == {E}
    assert one.since(BEGAN_MS + 1) == set()
    one.spool_after[E].frames_waiting = 1
    assert one.since(BEGAN_MS + 1) == {E}
    one.spool_after[E].frames_waiting = one.spool_after[E].began_ms = 0
    assert one.since(BEGAN_MS + 1) == {E}
    one.samples[E].newest_ms = BEGAN_MS
    assert one.since(BEGAN_MS) == {E}
    assert one.since(BEGAN_MS + 1) == set()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 910_000),
        ("2m", 880_000),
        ("0h", 1_000_000),
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01T01:00:01+01:00", 1_000),
    ],
)
def test_a_time_is_read_with_its_zone_or_as_so_long_ago(text: str, expected: int) -> None:
    assert since(lambda: 1_000_000)(text) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "2w", "-2h", "2026-11-23T10:00:00", "yesterday"])
def test_another_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="2026-11-23T10:00:00Z"):
        since(lambda: 0)(text)


def test_a_frames_name_is_read() -> None:
    assert frame_name(f"ward-3/{'e' * 32}/17") == (E, 17)
    assert str(frame_name(f"ward-3/{'e' * 32}/17")) == f"ward-3/{'e' * 32}/17"
    assert frame_name(f"w/{'0' * 32}/{limits.EPOCH_FRAMES_MAX}").seq == limits.EPOCH_FRAMES_MAX


@pytest.mark.parametrize(
    "text",
    ["", "ward-3", f"ward-3/{'e' * 32}", f"ward-3/{'e' * 31}/1", f"/{'e' * 32}/1", "w/e/1"]
    + [f"w/{'e' * 32}/{seq}" for seq in ("x", "-1", "1/2", limits.EPOCH_FRAMES_MAX + 1)],
)
def test_another_name_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        frame_name(text)

"""Configuration, the command line, and what the process ends with."""

import io
from pathlib import Path
from typing import Any

import pytest

from cloud import cli
from cloud.brokers import Deserted
from cloud.deliver import main
from cloud.deliver.address import parse
from cloud.deliver.config import Config
from cloud.deliver.consume import Failed, Loop
from cloud.provision import GRANTS
from healthsync import cli as whole_cli
from healthsync.runtime.clock import now_ms
from healthsync.runtime.config import load
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from healthsync.runtime.stop import Stop
from tests.cloud.deliver.deliver_process import plain, settings
from tests.cloud.deserted import deserted
from vitals.errors import ConfigError

FILE = """
to = "https://fhir.example.org/r4"
[kafka]
bootstrap = "127.0.0.1:9093"
ca = "/etc/healthsync/ca.pem"
cert = "/etc/healthsync/deliver.pem"
key = "/etc/healthsync/deliver.key"
[metrics]
port = 9129
"""
README = Path(main.__file__).parent / "README.md"


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "deliver.toml"
    path.write_text(text)
    return path


def test_the_least_configuration_and_its_defaults(tmp_path: Path) -> None:
    config = load(written(tmp_path), Config)
    assert (config.ca, config.oauth, config.give_up_s, config.answer_s) == (None, None, 0, 30)
    assert config.identity() == "deliver-0"


def test_the_configuration_of_the_readme(tmp_path: Path) -> None:
    text = README.read_text().split("```toml\n")[1].split("```")[0]
    config = load(written(tmp_path, text), Config)
    assert config.oauth is not None
    assert config.oauth.scope == "system/Observation.cu system/DetectedIssue.cu"
    # what stands there commented out is the default
    more = "\n".join(line.removeprefix("# ") for line in text.splitlines())
    assert load(written(tmp_path, more), Config).oauth != config.oauth


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("answer_s = 0.5", "answer_s"),
        ("answer_s = 301", "answer_s"),
        ("give_up_s = -1", "give_up_s"),
        ("instance = -1", "instance"),
        ("giveup_s = 1", "did you mean `give_up_s`"),
    ],
)
def test_a_value_out_of_range_or_unknown_is_refused(tmp_path: Path, line: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        load(written(tmp_path, f"{line}\n{FILE}"), Config)


@pytest.mark.parametrize(
    ("further", "words"),
    [
        (["--to", "http://fhir.example.org/r4"], ["--to", "https://"]),
        (["--to", "https://a:secret@fhir.example.org"], ["--to", "[oauth]"]),
        (["--to", ""], ["--to", "https://"]),
        (["--to", "https://fhir.example.org/r4"], ["Kafka client"]),
        ([], ["Kafka client"]),
    ],
)
def test_a_wrong_start_ends_with_78_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], further: list[str], words: list[str]
) -> None:
    """With a right address the next thing missing is Kafka's certificate."""
    arguments = ["cloud", "deliver", "--config", str(written(tmp_path)), *further]
    assert whole_cli.main(arguments) == Exit.CONFIG
    said = capsys.readouterr().err
    assert all(word in said for word in words)
    assert "secret" not in said


def test_to_stands_instead_of_the_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def made(_settings: object, base: Any, *_rest: object) -> None:
        asked.append(base.host)
        raise ConfigError("enough")

    monkeypatch.setattr(main, "made", made)
    for to in (None, "https://other.example.org"):
        with pytest.raises(ConfigError, match="enough"):
            main.run(written(tmp_path), to)
    assert asked == ["fhir.example.org", "other.example.org"]


def test_authorities_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pem", written(tmp_path)):
        with pytest.raises(ConfigError, match="no authorities"):
            main.made(
                Config("x", settings("", "x", 0).kafka, settings("", "x", 0).metrics, ca=path),
                parse("https://fhir.example.org"),
                plain("127.0.0.1:1"),
                Log("deliver", now_ms, io.StringIO()),
            )


@pytest.fixture
def loop() -> Any:
    """A loop whose Kafka is not there: it makes its clients, and closes them."""
    log = Log("deliver", now_ms, io.StringIO())
    config = settings("127.0.0.1:1", "https://fhir.example.org", 0)
    kafka = plain("127.0.0.1:1") | {"log_level": 0}
    return main.made(config, parse(config.to), kafka, log)


@pytest.mark.parametrize("attribute", ["_watch", "_letters"])
def test_a_client_that_calls_nobody_any_more_ends_the_process(loop: Loop, attribute: str) -> None:
    if attribute == "_watch":
        loop._watch = deserted()
    else:
        loop._letters.watch = deserted()
    with pytest.raises(Deserted):
        loop.step()
    assert main.serve(loop, Stop(), Log("deliver", now_ms, io.StringIO())) == Exit.RESTART


def test_a_defect_in_a_lane_ends_the_process_with_its_trace(loop: Loop) -> None:
    out = io.StringIO()
    lane = loop._new_lane(0)
    lane.start()
    lane.failure = ValueError("SpO2 61.5")
    loop._lanes[0] = lane
    with pytest.raises(Failed):
        loop.step()
    assert main.serve(loop, Stop(), Log("deliver", now_ms, out)) == Exit.INTERNAL
    assert '"ValueError"' in out.getvalue()
    assert "61.5" not in out.getvalue()


def test_it_may_read_fhir_and_write_its_letters_and_no_more() -> None:
    ours = {(grant.what, grant.kind, grant.name) for grant in GRANTS if grant.who == "deliver"}
    assert ours == {
        ("READ", "TOPIC", "fhir"),
        ("DESCRIBE", "TOPIC", "fhir"),
        ("READ", "GROUP", "deliver"),
        ("DESCRIBE", "GROUP", "deliver"),
        ("WRITE", "TOPIC", "undelivered"),
        ("DESCRIBE", "TOPIC", "undelivered"),
    }


def test_other_services_take_no_further_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert [name for name, service in cli.SERVICES.items() if service.options] == ["deliver"]
    with pytest.raises(SystemExit):
        whole_cli.main(["cloud", "detect", "--config", "x", "--to", "https://a.example"])
    assert "--to" in capsys.readouterr().err

"""``healthsync cloud policy`` as a person meets it."""

from pathlib import Path

import jinja2
import pytest

from cloud.policy.config import OperatorConfig
from cloud.policy.seal import open_published
from healthsync.cli import main
from healthsync.runtime.config import load
from healthsync.runtime.exits import Exit
from tests.cloud.policy.files import DEFAULT_TEXT

TEMPLATES = Path(__file__).parents[3] / "ansible" / "roles" / "healthsync_cloud" / "templates"
PATIENT = '\n[[patient]]\nmrn = "MRN-CANARY"\n'


class Desk:
    """A folder with a configuration and policies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        key = folder / "subject.key"
        key.write_bytes(b"k" * 32)
        key.chmod(0o600)
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # noqa: S701 - it renders TOML, not HTML
        )
        values = {
            "hs_key_subject": key,
            "hs_kafka_bootstrap": "127.0.0.1:9093",
            **{f"hs_kafka_{name}": f"/etc/healthsync/{name}" for name in ("ca", "cert", "key")},
        }
        self.config = folder / "operator.toml"
        self.config.write_text(environment.get_template("operator.toml.j2").render(values))

    def file(self, name: str, *changes: tuple[str, str], tail: str = "") -> str:
        text = DEFAULT_TEXT
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = self.folder / name
        path.write_text(text + tail)
        return str(path)

    def run(self, *words: str) -> int:
        return main(["cloud", "policy", *words])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_template_gives_a_configuration(desk: Desk) -> None:
    found = load(desk.config, OperatorConfig)
    assert found.kafka.bootstrap == "127.0.0.1:9093"
    assert found.subject_key == desk.folder / "subject.key"


def test_a_good_policy_is_counted(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert desk.run("check", desk.file("p.toml", tail=PATIENT), "--strict") == Exit.OK
    said = capsys.readouterr()
    assert said.out.endswith("p.toml: good; 7 rules, 1 trends, 0 wards, 0 beds, 1 patients\n")
    assert said.err == ""


def test_a_bad_policy_is_refused(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    bad = desk.file("p.toml", ("limit = 90", "limit = 0"), tail=PATIENT)
    assert desk.run("check", bad) == Exit.CONFIG
    assert "rule spo2.low.high: no value is ever beyond 0" in capsys.readouterr().err
    assert desk.run("check", str(desk.folder / "gone.toml")) == Exit.CONFIG


def test_a_warning_is_said_and_refused_when_strict(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    looser = desk.file("p.toml", ("limit = 90", "limit = 88"))
    assert desk.run("check", looser) == Exit.OK
    assert "warning: rule spo2.low.high: limit 88 is looser" in capsys.readouterr().err
    assert desk.run("check", looser, "--strict") == Exit.CONFIG
    assert "1 warnings; mend them" in capsys.readouterr().err
    words = ["push", looser, "--config", str(desk.config), "--strict"]
    assert desk.run(*words) == Exit.CONFIG


def test_what_would_be_published_is_shown(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    file = desk.file("p.toml", tail=PATIENT)
    assert desk.run("check", file, "--seal") == Exit.CONFIG
    assert "give --config operator.toml" in capsys.readouterr().err
    assert desk.run("check", file, "--seal", "--config", str(desk.config)) == Exit.OK
    said = capsys.readouterr()
    assert "CANARY" not in said.out + said.err
    assert len(open_published(said.out).patients) == 1


def test_an_open_key_is_refused(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    (desk.folder / "subject.key").chmod(0o644)
    assert desk.run("check", desk.file("p.toml"), "--seal", "--config", str(desk.config)) == 78
    assert "open to others" in capsys.readouterr().err


def test_a_difference_is_an_exit_code(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = desk.file("old.toml"), desk.file("new.toml", ("limit = 90", "limit = 91"))
    assert desk.run("diff", old, old) == 0
    assert capsys.readouterr().out == "no alarm differs\n"
    assert desk.run("diff", old, new) == 1
    assert "limit 90 -> 91" in capsys.readouterr().out


def test_a_sealed_policy_is_compared_with_the_one_it_came_from(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    own = PATIENT + '[[patient.rule]]\nvital = "spo2"\ndirection = "low"\npriority = "high"\n'
    file = desk.file("p.toml", tail=own + "limit = 85\n")
    config = str(desk.config)
    desk.run("check", file, "--seal", "--config", config)
    published = desk.folder / "published.toml"
    published.write_text(capsys.readouterr().out)
    assert desk.run("diff", str(published), file, "--config", config) == 0
    assert desk.run("diff", str(published), file) == 1


@pytest.mark.parametrize("who", ["", "Ada Ng", "a" * 65, "a\nb"])
def test_who_pushes_is_a_sign_in_name(
    desk: Desk, who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["push", desk.file("p.toml"), "--config", str(desk.config), "--who", who]
    assert desk.run(*words) == Exit.CONFIG
    assert "--who: a user's sign-in name" in capsys.readouterr().err


def test_the_readmes_example_is_a_good_policy(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = Path(__file__).parents[3] / "cloud" / "policy" / "README.md"
    example = readme.read_text().split("```\n")[1]
    head, _, layers = example.partition("[[ward]]")
    version = head.splitlines()[0]
    file = desk.file("p.toml", ('version = "default-2"', version), tail=f"\n[[ward]]{layers}")
    assert desk.run("check", file) == Exit.OK
    assert "1 wards, 1 beds, 1 patients" in capsys.readouterr().out
    assert desk.run("diff", desk.file("old.toml"), file) == 1
    assert "ward Respiratory  spo2.low.high" in capsys.readouterr().out

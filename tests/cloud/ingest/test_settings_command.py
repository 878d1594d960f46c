"""A document's way from a person's machine to the folder that ingest reads."""

from pathlib import Path

import pytest

from cloud.ingest.pushes import Pushes
from edge.pushed import understand
from healthsync.cli import main
from healthsync.runtime.exits import Exit
from vitals.settings import DOCUMENT_BYTES_MAX


class Desk:
    """Keys, a document and ingest's folder."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.folder = folder / "keys", folder / "pushed"
        self.document = folder / "ward.toml"
        self.document.write_text('ward = "W3"\n')
        assert self.run("keygen", "--out", str(self.keys)) == Exit.OK

    def run(self, *words: str) -> int:
        return main(["cloud", "settings", *words])

    def sign(self, *more: str, edge: str = "ward-1") -> int:
        key, document = str(self.keys / "settings.key"), str(self.document)
        words = ["--key", key, "--edge", edge, "--settings", document, "--out", str(self.folder)]
        return self.run("sign", *words, *more)

    def show(self, path: Path) -> int:
        return self.run("show", str(path), "--public", str(self.keys / "settings.pub"))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_keys_are_made_once_and_the_private_one_is_private(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    private = desk.keys / "settings.key"
    assert private.stat().st_mode & 0o777 == 0o600
    before = private.read_bytes()
    assert desk.run("keygen", "--out", str(desk.keys)) == Exit.CONFIG
    assert private.read_bytes() == before
    said = capsys.readouterr()
    assert "is there already" in said.err
    assert before.hex() not in said.out + said.err


def test_each_signing_is_a_version_higher(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    for version in (1, 2, 3):
        assert desk.sign() == Exit.OK
        found = Pushes(desk.folder).of("ward-1")
        assert found is not None
        assert found.version == version
        assert understand(found.document).ward == "W3"
    assert desk.sign("--version", "9") == Exit.OK
    assert desk.sign("--version", "9") == Exit.CONFIG
    assert "is not above 9" in capsys.readouterr().err
    assert desk.sign("--version", "0", edge="ward-2") == Exit.CONFIG
    assert [path.name for path in desk.folder.iterdir()] == ["ward-1.json"]


def test_what_was_signed_is_shown_and_what_was_changed_is_told(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.sign()
    path = desk.folder / "ward-1.json"
    capsys.readouterr()
    assert desk.show(path) == Exit.OK
    shown = capsys.readouterr().out
    assert "for ward-1, version 1" in shown
    assert "signature: good" in shown
    assert shown.endswith('ward = "W3"\n')
    other = path.rename(desk.folder / "ward-2.json")
    assert desk.show(other) == Exit.DEGRADED
    assert "not of this gateway's key" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"ward =", "not valid TOML"),
        (b"\xff", "not valid TOML"),
        (b"#" * (DOCUMENT_BYTES_MAX + 1), "more than"),
    ],
)
def test_what_no_gateway_could_read_is_not_signed(
    desk: Desk, capsys: pytest.CaptureFixture[str], document: bytes, says: str
) -> None:
    desk.document.write_bytes(document)
    assert desk.sign() == Exit.CONFIG
    assert says in capsys.readouterr().err
    assert not desk.folder.exists()


@pytest.mark.parametrize("edge", ["", "../ward-1", "a/b"])
def test_a_name_is_no_path(desk: Desk, edge: str) -> None:
    assert desk.sign(edge=edge) == Exit.CONFIG
    assert not desk.folder.exists()


def test_a_key_that_others_can_read_is_not_used(desk: Desk) -> None:
    (desk.keys / "settings.key").chmod(0o644)
    assert desk.sign() == Exit.CONFIG


def test_a_damaged_file_is_not_written_over_by_chance(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.folder.mkdir()
    (desk.folder / "ward-1.json").write_text("{}")
    assert desk.sign() == Exit.CONFIG
    assert "remove it and give --version" in capsys.readouterr().err
    assert desk.sign("--version", "5") == Exit.OK
    assert desk.show(desk.folder / "missing.json") == Exit.CONFIG

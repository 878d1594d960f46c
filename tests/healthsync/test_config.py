"""Configuration: wrong files are refused with where, what and what to do."""

from pathlib import Path

import msgspec
import pytest

from healthsync.runtime import config
from vitals.errors import ConfigError


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bootstrap: str


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    port: int
    kafka: Inner
    state_dir: Path = Path("/tmp/x")


GOOD = 'port = 7010\n[kafka]\nbootstrap = "127.0.0.1:9093"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "edge.toml"


def test_a_right_file_becomes_its_struct(file: Path) -> None:
    file.write_text('state_dir = "/var/lib/x"\n' + GOOD, encoding="utf-8")
    loaded = config.load(file, Settings)
    assert loaded == Settings(7010, Inner("127.0.0.1:9093"), Path("/var/lib/x"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("port", "prot"), "did you mean `port`"),
        (GOOD.replace("bootstrap =", "bootstap ="), "did you mean `bootstrap`"),
        ("zzzzzz = 1\n" + GOOD, "`zzzzzz`; remove it"),
        (GOOD.replace("7010", '"7010"'), r"\$\.port"),
        ("state_dir = 5\n" + GOOD, r"Path.*\$\.state_dir"),
        ("port = 7010\n", "kafka"),
        ("port = \n", "not valid TOML"),
        ("port = 1\nport = 2\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_named_with_its_key_and_the_next_step(
    file: Path, text: str, said: str
) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said) as caught:
        config.load(file, Settings)
    assert str(caught.value).startswith(f"{file}: ")


def test_a_missing_file_says_which_option_to_give(file: Path) -> None:
    with pytest.raises(ConfigError, match="--config FILE"):
        config.load(file, Settings)


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UnicodeDecodeError"):
        config.load(file, Settings)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="IsADirectoryError"):
        config.load(tmp_path, Settings)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_private_key_file_is_read_whole(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "subject.key"
    file.write_bytes(bytes(range(32)))
    file.chmod(mode)
    assert config.read_key(file) == bytes(range(32))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610, 0o601])
def test_a_key_file_open_to_others_is_refused_with_its_mode(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "subject.key"
    file.write_bytes(bytes(32))
    file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"mode {mode:03o}\); chmod 600"):
        config.read_key(file)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused_and_never_shown(tmp_path: Path, size: int) -> None:
    file = tmp_path / "subject.key"
    file.write_bytes(b"K" * size)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=f"{size} bytes, not 32") as caught:
        config.read_key(file)
    assert "KK" not in str(caught.value)


def test_a_missing_key_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        config.read_key(tmp_path / "none.key")

"""Configuration files: TOML into typed structs; unknown keys are errors with the nearest name."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import TypeVar, get_args

import msgspec

from vitals.errors import ConfigError

T = TypeVar("T", bound=msgspec.Struct)


def _names(kind: object) -> set[str]:
    """Return every field name of a struct and of the structs inside it."""
    found: set[str] = set()
    for inner in get_args(kind):
        found |= _names(inner)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            found.add(field.encode_name)
            found |= _names(field.type)
    return found


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def load(path: Path, kind: type[T]) -> T:
    """Return ``path`` as ``kind`` (declare it with ``forbid_unknown_fields=True``).

    Raises ConfigError that names the file, the key and the next step.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give --config FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return convert(raw, kind, str(path))


def convert(raw: object, kind: type[T], path: str) -> T:
    """Return what was read from ``path`` as ``kind``; raise ConfigError as `load` does."""
    try:
        return msgspec.convert(raw, kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        hint = ""
        unknown = re.search(r"unknown field `([^`]+)`", str(error))
        if unknown:
            near = difflib.get_close_matches(unknown[1], _names(kind), n=1)
            hint = f"; did you mean `{near[0]}`?" if near else "; remove it"
        raise ConfigError(f"{path}: {error}{hint}") from error


def read_key(path: Path, size: int = 32) -> bytes:
    """Return a raw key file of ``size`` bytes that others cannot read; raise ConfigError."""
    try:
        mode = path.stat().st_mode & 0o777
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: key file cannot be read ({type(error).__name__})") from error
    if mode & 0o077:
        raise ConfigError(f"{path}: key file is open to others (mode {mode:03o}); chmod 600 it")
    if len(data) != size:
        raise ConfigError(f"{path}: key file has {len(data)} bytes, not {size}")
    return data

"""A policy as TOML: read with a bound and a place for each complaint, written in one way only.

Law: the same policy is always the same bytes, and nothing but the policy is in them: no comment,
nothing of the file it was read from. What is read has been checked.
"""

import json
import math
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from cloud.policy.bounds import TEXT_BYTES_MAX
from cloud.policy.check import check
from cloud.policy.model import Policy
from healthsync.runtime.config import convert
from vitals.errors import ConfigError


def load(path: Path) -> Policy:
    """Return the checked policy of a file; raise ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(TEXT_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    return read(data, str(path))


def read(data: bytes, path: str) -> Policy:
    """Return the checked policy in ``data``, which ``path`` names in errors; raise ConfigError."""
    if len(data) > TEXT_BYTES_MAX:
        raise ConfigError(
            f"{path}: has more than {TEXT_BYTES_MAX} bytes; limits that many patients share belong"
            " to a ward"
        )
    try:
        raw = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8; save it as UTF-8") from error
    except RecursionError:
        raise ConfigError(f"{path}: not valid TOML: nested too deep") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    _ensure_finite(raw, path, "")
    return check(convert(raw, Policy, path), path)


def write(policy: Policy) -> str:
    """Return the policy as TOML; ``version`` is the first line."""
    lines: list[str] = []
    _table(msgspec.to_builtins(policy, builtin_types=(datetime,)), "", lines)
    return "\n".join(lines) + "\n"


def _ensure_finite(value: object, path: str, at: str) -> None:
    """Refuse nan and inf, which TOML has: no value is ever below nan."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _ensure_finite(inner, path, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _ensure_finite(inner, path, f"{at}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: {at}: {value} is no number; give a plain one")


def _table(table: dict[str, Any], name: str, lines: list[str]) -> None:
    """Write a table: its values, then its tables, then its arrays of tables."""
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    arrays = {key: value for key, value in table.items() if _is_array_of_tables(value)}
    for key, value in table.items():
        if key not in tables and key not in arrays and value is not None:
            lines.append(f"{key} = {_value(value)}")
    for key, value in tables.items():
        inner = f"{name}.{key}" if name else key
        lines += ["", f"[{inner}]"]
        _table(value, inner, lines)
    for key, values in arrays.items():
        inner = f"{name}.{key}" if name else key
        for value in values:
            lines += ["", f"[[{inner}]]"]
            _table(value, inner, lines)


def _is_array_of_tables(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], dict)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        # A JSON string is a TOML one, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)

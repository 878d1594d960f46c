"""Policies for tests: the packaged default as a file, with some of it changed."""

import copy
import tomllib
from importlib import resources
from typing import Any, Final

from cloud.policy.model import Policy
from healthsync.runtime.config import convert

DEFAULT_TEXT: Final = resources.files("cloud.policy").joinpath("default.toml").read_text()
_DEFAULT: Final = tomllib.loads(DEFAULT_TEXT)

SUBJECTS: Final = tuple(f"{number:032x}" for number in range(6_000))

HR_MEDIUM, HR_HIGH, HR_LOW = "rule.1", "rule.2", "rule.3"
SPO2, TEMPERATURE = "rule.0", "rule.6"


def raw(changes: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return default.toml's tables with values set by path (``rule.0.limit``)."""
    tables: dict[str, Any] = copy.deepcopy(_DEFAULT)
    for path, value in (changes or {}).items():
        at: Any = tables
        *way, last = path.split(".")
        for word in way:
            at = at[int(word)] if isinstance(at, list) else at.setdefault(word, {})
        at[int(last) if isinstance(at, list) else last] = value
    return tables | more


def built(changes: dict[str, Any] | None = None, **more: Any) -> Policy:
    """Return such a policy, unchecked."""
    return convert(raw(changes, **more), Policy, "file")


def change(
    vital: str = "spo2", side: str = "low", priority: str = "high", **f: Any
) -> dict[str, Any]:
    """Return a layer's change of a rule."""
    return {"vital": vital, "direction": side, "priority": priority, **f}


def ward(name: str = "ICU", *gateways: str, **f: Any) -> dict[str, Any]:
    """Return a ward's table."""
    return {"name": name, "gateways": list(gateways or ["gw-1"]), **f}

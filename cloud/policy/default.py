"""The policy that holds until another is pushed: default.toml, which says why."""

from importlib import resources
from typing import Final

from cloud.policy.model import Policy
from cloud.policy.seal import open_published, publish
from cloud.policy.text import read


def _load() -> Policy:
    data = resources.files("cloud.policy").joinpath("default.toml").read_bytes()
    return open_published(publish(read(data, "default.toml")).text)


DEFAULT: Final = _load()
"""Checked, and with the version of its text, as one that was pushed."""

"""Renders the Ansible roles' templates with one run's values; an unknown name is an error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from onebox.ca import write_private
from onebox.layout import TEMPLATES


def template(role: str, name: str, values: Mapping[str, Any], to: Path) -> Path:
    """Write ``ansible/roles/<role>/templates/<name>.j2`` rendered to ``to`` (0600); return it."""
    loader = jinja2.FileSystemLoader(TEMPLATES / role / "templates")
    environment = jinja2.Environment(  # noqa: S701 - configuration files, not HTML
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    write_private(to, environment.get_template(f"{name}.j2").render(values).encode())
    return to

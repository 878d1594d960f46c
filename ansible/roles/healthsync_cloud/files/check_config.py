"""Tells whether a service would take a configuration file: `check_config.py SERVICE FILE`.

Run by the release's own Python before the file replaces another. Exit 0: it would; 78: the reason
and what next on standard error. Secrets that the file names are not opened.
"""

import importlib
import sys
from pathlib import Path
from typing import Final

from healthsync.runtime.config import load
from healthsync.runtime.exits import Exit
from vitals.errors import ConfigError

KINDS: Final = {
    "ingest": ("cloud.ingest.config", "IngestConfig"),
    "detect": ("cloud.detect.config", "Config"),
    "project": ("cloud.project.settings", "Config"),
    "archive": ("cloud.archive.config", "ArchiveConfig"),
    "api": ("cloud.api.settings", "Config"),
    "est": ("cloud.pki.config", "EstConfig"),
    "pull-crl": ("cloud.revocation.config", "PullConfig"),
    "cloudwatch": ("cloud.cloudwatch.config", "CloudWatchConfig"),
    "deliver": ("cloud.deliver.config", "Config"),
    "operator": ("cloud.policy.config", "OperatorConfig"),
    "audit": ("cloud.audit.config", "AuditConfig"),
}


def main(service: str, path: str) -> int:
    """Return the exit code."""
    module, name = KINDS[service]
    try:
        load(Path(path), getattr(importlib.import_module(module), name))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return Exit.CONFIG
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

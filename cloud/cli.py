"""``healthsync cloud SERVICE --config FILE``: one word, one service, imported only when asked."""

import argparse
import importlib
from pathlib import Path
from typing import Final

SERVICES: Final = {
    "ingest": "opens frames from gateways and writes them to Kafka",
    "detect": "Kafka samples to FHIR and alerts, exactly once",
    "project": "Kafka to Redis",
    "archive": "Kafka to encrypted Parquet on S3",
    "api": "FHIR R4 REST and the ward station",
    "cloudwatch": "the services' metrics to CloudWatch",
    "est": "enrolment and renewal of gateways' certificates",
    "pull-crl": "the list of revoked gateways to HAProxy",
}

_FOLDERS: Final = {"est": "pki", "pull-crl": "revocation"}


def register(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand a service."""
    services = parser.add_subparsers(dest="service", required=True, metavar="SERVICE")
    for name, text in SERVICES.items():
        sub = services.add_parser(name, help=text, description=text)
        sub.add_argument("--config", type=Path, required=True, metavar="FILE")
        sub.set_defaults(run=_run)
    from cloud.ingest import settings_command
    from cloud.pki import command as pki_command

    text = "signed settings for gateways: keygen, sign, show"
    settings_command.register(services.add_parser("settings", help=text, description=text))
    text = "certificates of gateways: init, token, list, approve, revoke, crl"
    pki_command.register(services.add_parser("pki", help=text, description=text))


def _run(options: argparse.Namespace) -> int:
    module = importlib.import_module(f"cloud.{_FOLDERS.get(options.service, options.service)}.main")
    return int(module.run(options.config))

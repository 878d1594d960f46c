"""``healthsync cloud SERVICE --config FILE``: one word, one service, imported only when asked."""

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple


class Service(NamedTuple):
    """A word of the command line."""

    text: str
    module: str
    """Has ``run(config)``."""
    options: Mapping[str, str] = {}
    """Further options, each with its help: keywords of ``run``, None when not given."""


SERVICES: Final = {
    "ingest": Service("opens frames from gateways and writes them to Kafka", "cloud.ingest.main"),
    "detect": Service("Kafka samples to FHIR and alerts, exactly once", "cloud.detect.main"),
    "project": Service("Kafka to Redis", "cloud.project.main"),
    "archive": Service("Kafka to encrypted Parquet on S3", "cloud.archive.main"),
    "api": Service("FHIR R4 REST and the ward station", "cloud.api.main"),
    "deliver": Service(
        "Kafka FHIR Bundles to any FHIR R4 server",
        "cloud.deliver.main",
        {"to": "the server's base URL, instead of the configuration's"},
    ),
    "cloudwatch": Service("the services' metrics to CloudWatch", "cloud.cloudwatch.main"),
    "est": Service("enrolment and renewal of gateways' certificates", "cloud.pki.main"),
    "pull-crl": Service("the list of revoked gateways to HAProxy", "cloud.revocation.main"),
}


def register(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand a service."""
    services = parser.add_subparsers(dest="service", required=True, metavar="SERVICE")
    for name, service in SERVICES.items():
        sub = services.add_parser(name, help=service.text, description=service.text)
        sub.add_argument("--config", type=Path, required=True, metavar="FILE")
        for word, help_ in service.options.items():
            sub.add_argument(f"--{word}", metavar=word.upper(), help=help_)
        sub.set_defaults(run=_run)
    from cloud import alert_command, fhir_command
    from cloud.ingest import settings_command
    from cloud.pki import command as pki_command
    from cloud.policy import command as policy_command

    text = "signed settings for gateways: keygen, sign, show"
    settings_command.register(services.add_parser("settings", help=text, description=text))
    text = "certificates of gateways: init, token, list, approve, revoke, crl"
    pki_command.register(services.add_parser("pki", help=text, description=text))
    text = "alarm policies: check, diff, push"
    policy_command.register(services.add_parser("policy", help=text, description=text))
    text = "one alert or limit: acknowledge, shelve, unshelve, clear, limit"
    alert_command.register(services.add_parser("alert", help=text, description=text))
    text = "readings of `healthsync edge decode` to FHIR R4, for trying out"
    fhir_command.register(services.add_parser("fhir", help=text, description=fhir_command.ABOUT))


def _run(options: argparse.Namespace) -> int:
    service = SERVICES[options.service]
    module = importlib.import_module(service.module)
    further = {word: getattr(options, word) for word in service.options}
    return int(module.run(options.config, **further))

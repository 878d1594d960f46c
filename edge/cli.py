"""``healthsync edge run|check-config|status|watch|enrol|floor|decode|spool``."""

import argparse
from pathlib import Path

from healthsync.runtime.exits import Exit
from vitals.errors import ConfigError


def _run(options: argparse.Namespace) -> int:
    from edge import main

    return main.run(options.config)


def _check(options: argparse.Namespace) -> int:
    from edge import check, reload

    config = reload.load(options.config).config
    for line in check.understood(config):
        print(line)
    for warning in check.unwise(config):
        print(f"unwise: {warning}")
    print(f"{options.config}: good; edge {config.edge_id}, spool in {config.state_dir}")
    return Exit.OK


def _status(options: argparse.Namespace) -> int:
    from edge import config, status

    return status.show(config.load(options.config), as_json=options.json)


def _watch(options: argparse.Namespace) -> int:
    from edge import config, watch

    return watch.watch(
        config.load(options.config),
        reveal=options.reveal,
        who=options.who,
        once=options.once,
        as_json=options.json,
    )


def _enrol(options: argparse.Namespace) -> int:
    from edge import config, enrol

    return enrol.run(config.load(options.config), options.file)


def _floor(options: argparse.Namespace) -> int:
    from edge import clock_floor, config

    print(clock_floor.written(clock_floor.read(config.load(options.config))))
    return Exit.OK


def _check_settings(options: argparse.Namespace) -> int:
    import sys

    from edge import pushed
    from vitals.settings import DOCUMENT_BYTES_MAX

    if options.file == "-":
        document = sys.stdin.buffer.read(DOCUMENT_BYTES_MAX + 1)
    else:
        try:
            with Path(options.file).open("rb") as file:
                document = file.read(DOCUMENT_BYTES_MAX + 1)
        except OSError as error:
            raise ConfigError(f"{options.file}: cannot be read ({type(error).__name__})") from error
    for line in pushed.understood(pushed.understand(document)):
        print(line)
    return Exit.OK


def _decode(options: argparse.Namespace) -> int:
    from edge import decode_command

    return decode_command.run(options)


def _decode_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--protocol",
        choices=("line", "jsonl", "hl7"),
        help="default: hl7 when the input starts with MSH or 0x0B, else line (JSON or not)",
    )
    add("--ack", action="store_true", help="show the answers that would be sent as well")
    add("--config", type=Path, metavar="FILE", help="edge.toml: its ward, site_zone and hl7_map")
    add("--received", metavar="TIME", help="time of receipt, as 2026-11-23T10:00:00Z; default: now")
    add("file", nargs="?", default="-", metavar="FILE", help="raw bytes; - is standard input")
    command.epilog = "exits 0 when all was taken, 1 when something was rejected, 64 without input"
    command.set_defaults(run=_decode)


def register(parser: argparse.ArgumentParser) -> None:
    """Add this part's commands."""
    from edge import spool_command

    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, run: object, *, json: bool = False) -> None:
        command = commands.add_parser(name, help=text, description=text)
        _options(command, run, json=json)

    add("run", "collect, spool and send, in the foreground", _run)
    add("check-config", "check a configuration file and the key it names", _check)
    add("status", "one screen: devices, spool, link, counters", _status, json=True)
    add("watch", "live table of the devices, values hidden; q ends", _watch, json=True)
    watch = commands.choices["watch"]
    watch.add_argument("--reveal", action="store_true", help="show values; logged with your name")
    watch.add_argument("--who", default="", metavar="NAME", help="who asks, for the log")
    watch.add_argument("--once", action="store_true", help="print the table once")
    add("enrol", "get this gateway's certificate with a one-time token (ENROL.md)", _enrol)
    how = commands.choices["enrol"].add_mutually_exclusive_group(required=True)
    how.add_argument("--file", type=Path, metavar="ENROLMENT.toml", help="destroyed after success")
    text = "only make a self-signed one where there is none, so that HAProxy can start"
    how.add_argument("--placeholder", action="store_true", help=text)
    commands.choices["enrol"].epilog = (
        "exits 0 when a certificate is installed, 2 when it is refused or the server is not to be"
        " trusted, 69 when the same command should be given again later, 78 when the configuration"
        " or the file is wrong"
    )
    add("floor", "print the time that is certainly past (ENROL.md)", _floor)
    text = "show what a device's bytes would become; nothing is stored"
    _decode_options(commands.add_parser("decode", help=text, description=text))
    text = "check a document before it is signed and pushed (SETTINGS.md); says what it means"
    check = commands.add_parser("check-settings", help=text, description=text)
    check.add_argument("file", metavar="FILE", help="TOML; - is standard input")
    check.set_defaults(run=_check_settings)
    spool_command.register(commands)


def _options(command: argparse.ArgumentParser, run: object, *, json: bool) -> None:
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="edge.toml")
    if json:
        command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)

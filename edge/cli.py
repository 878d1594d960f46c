"""``healthsync edge run|check-config|status|spool``."""

import argparse
from pathlib import Path

from healthsync.runtime.exits import Exit


def _run(options: argparse.Namespace) -> int:
    from edge import main

    return main.run(options.config)


def _check(options: argparse.Namespace) -> int:
    from edge import config

    checked = config.load(options.config)
    config.public_key(checked)
    print(f"{options.config}: good; edge {checked.edge_id}, spool in {checked.state_dir}")
    return Exit.OK


def _status(options: argparse.Namespace) -> int:
    from edge import config, status

    return status.show(config.load(options.config), as_json=options.json)


def _spool_status(options: argparse.Namespace) -> int:
    from edge import config, status

    return status.show_spool(config.load(options.config), as_json=options.json)


def register(parser: argparse.ArgumentParser) -> None:
    """Add this part's commands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, run: object, *, json: bool = False) -> None:
        command = commands.add_parser(name, help=text, description=text)
        _options(command, run, json=json)

    add("run", "collect, spool and send, in the foreground", _run)
    add("check-config", "check a configuration file and the key it names", _check)
    add("status", "one screen: devices, spool, link, counters", _status, json=True)
    spool = commands.add_parser("spool", help="look at the spool on disk")
    actions = spool.add_subparsers(dest="action", required=True, metavar="ACTION")
    action = actions.add_parser("status", help="frames, bytes, age and counters per epoch")
    _options(action, _spool_status, json=True)


def _options(command: argparse.ArgumentParser, run: object, *, json: bool) -> None:
    command.add_argument("--config", type=Path, required=True, metavar="FILE", help="edge.toml")
    if json:
        command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)

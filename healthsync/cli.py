"""The console command: ``healthsync edge|cloud|onebox|demo ...``.

Each part registers its own subcommands and is imported only when asked for, so that a gateway
needs none of the cloud's libraries.
"""

import argparse
import faulthandler
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from healthsync import __version__
from healthsync.runtime.exits import Exit
from vitals.errors import ConfigError

PARTS: Final = {
    "edge": ("edge.cli", "the ward gateway: collector, spool, uplink"),
    "cloud": ("cloud.cli", "the cloud services: ingest, detect, project, archive, api"),
    "firewall": ("firewall.command", "the host's own firewall: plan, apply, confirm, verify"),
    "onebox": ("onebox.cli", "the whole system on one machine with real servers"),
    "simulate": ("simulators.cli", "bedside devices: replay of recorded patients"),
    "audit": ("cloud.audit.cli", "compare the counts at every stage"),
    "whatif": ("cloud.whatif.command", "what another alarm policy would have rung"),
    "score": ("cloud.detect.scores.command", "NEWS2, qSOFA or shock index of JSON lines"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None and sys.stderr is not None:
        # A process that the kernel ends (SIGSEGV, SIGBUS) says where it was: files and lines.
        faulthandler.enable(file=sys.stderr.fileno(), all_threads=True)
    codes = "; ".join(f"{code.value} {code.name.lower()}" for code in Exit)
    parser = argparse.ArgumentParser(prog="healthsync", epilog=f"exit codes: {codes}")
    parser.add_argument("--version", action="version", version=f"healthsync {__version__}")
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module, text) in PARTS.items():
        sub = parts.add_parser(name, help=text, description=text)
        if name == wanted:
            try:
                importlib.import_module(module).register(sub)
            except ModuleNotFoundError as error:
                print(
                    f"healthsync {name}: {error.name} is not installed; install"
                    f" iot-health-sync[{name}]",
                    file=sys.stderr,
                )
                return Exit.USAGE
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        print(f"healthsync: {error}", file=sys.stderr)
        return Exit.CONFIG


if __name__ == "__main__":
    sys.exit(main())

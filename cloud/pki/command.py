"""``healthsync cloud pki``: for the person who answers for which gateways may call.

Exit codes: 0 done, 78 refused with the reason and what next.
"""

import argparse
import json
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509

from cloud.pki import authority, certificates, desk
from cloud.pki.folder import open_desk
from healthsync.runtime import whole
from healthsync.runtime.exits import Exit
from vitals.errors import ConfigError

_TOML_QUOTED: Final = str.maketrans({"\\": "\\\\", '"': '\\"'})


def register(parser: argparse.ArgumentParser) -> None:
    """Add ``init``, ``token``, ``list``, ``approve``, ``revoke`` and ``crl``."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="COMMAND")

    def add(
        name: str, text: str, run: Callable[[argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=lambda options: _in_words(run, options))
        command.add_argument("--folder", type=Path, required=True, help="the authority's folder")
        return command

    init = add("init", "make a root and an issuing authority", _init).add_argument
    init("--passphrase-file", type=Path, required=True, metavar="FILE", help="- : standard input")
    init("--title", default="Health Sync", help="in both authorities' names")
    token = add("token", "make a one-time token for one gateway", _token).add_argument
    token("name", metavar="NAME", help="the gateway's edge_id")
    token("--hours", type=float, default=desk.TOKEN_HOURS, help="until it ends (default 24)")
    token("--enrolment-file", type=Path, metavar="FILE", help="write what the gateway needs")
    token("--est", metavar="URL", help="https://HOST:PORT of the enrolment port, for that file")
    token("--server-ca", type=Path, metavar="PEM", help="who signs that port, for that file")
    show = add("list", "certificates, or what waits for approval", _list).add_argument
    show("--pending", action="store_true", help="only what waits")
    show("--json", action="store_true", help="for scripts")
    approve = add("approve", "let a gateway renew one that ended", _approve).add_argument
    approve("name", metavar="NAME")
    approve("fingerprint", metavar="FINGERPRINT", help="as edge status on the gateway shows it")
    revoke = add("revoke", "revoke a gateway, or one certificate", _revoke).add_argument
    revoke("who", metavar="NAME|SERIAL")
    crl = add("crl", "write the revocation lists", _crl).add_argument
    crl("--out", type=Path, required=True, metavar="FILE", help="HAProxy's crl-file")


def _in_words(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Run a command; raise ConfigError for what disk and store refuse."""
    try:
        return run(options)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise ConfigError(
            f"the store in {options.folder} refuses ({error}); nothing was changed, try again"
        ) from error


def _init(options: argparse.Namespace) -> int:
    if str(options.passphrase_file) == "-":
        passphrase = sys.stdin.buffer.read(4096)
    else:
        passphrase = options.passphrase_file.read_bytes()
    now = datetime.now(UTC)
    made = authority.init(options.folder, now, passphrase.strip(b"\r\n"), options.title)
    open_desk(options.folder)
    print(f"issuing authority until {made.certificate.not_valid_after_utc:%Y-%m-%d}")
    print(f"{options.folder}/ca.pem is HAProxy's ca-file")
    print(f"move {options.folder}/root to a medium that is kept offline; it is not needed here")
    return Exit.OK


def _token(options: argparse.Namespace) -> int:
    file = options.enrolment_file
    if file is not None and (options.est is None or options.server_ca is None):
        raise ConfigError("an enrolment file needs --est and --server-ca too")
    server_ca = "" if options.server_ca is None else _certificates(options.server_ca)
    if options.est is not None:
        _ensure_address(options.est)
    token, expires = open_desk(options.folder).token(options.name, options.hours)
    until = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    if file is None:
        print(token)
        print(f"for {options.name}, once, until {until}; it is not shown again", file=sys.stderr)
        return Exit.OK
    lines = [
        f'name = "{options.name}"',
        f'token = "{token}"',
        f'est = "{options.est.translate(_TOML_QUOTED)}"',
        f"expires = {until}",
        f'ca = """\n{server_ca.strip()}\n"""',
    ]
    whole.write(file, ("\n".join(lines) + "\n").encode())
    print(f"{file}: for {options.name}, once, until {until}; keep it as a password")
    return Exit.OK


def _certificates(path: Path) -> str:
    """Return the certificates in a file and nothing else of it (a key, say); raise ConfigError."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: no certificate in PEM; give who signs the EST port") from error
    return certificates.pem(*found).decode("ascii")


def _ensure_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme == "https" and parts.hostname and parts.port and not parts.path
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"--est {url[:200]}: give https://HOST:PORT of the enrolment port")


def _list(options: argparse.Namespace) -> int:
    counter = open_desk(options.folder)
    rows: list[dict[str, Any]]
    if options.pending:
        rows = [
            {
                "name": one.name,
                "fingerprint": one.fingerprint,
                "old_serial": one.old_serial,
                "asked": _time(one.asked_ms),
                "state": "waits" if one.approved_ms is None else "approved",
            }
            for one in counter.pending()
        ]
    else:
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        rows = [
            {
                "name": one.name,
                "serial": one.serial,
                "ends": _time(one.not_after_ms),
                "by": one.how,
                "state": "revoked"
                if one.revoked_ms is not None
                else "ended"
                if one.not_after_ms <= now_ms
                else "good",
            }
            for one in counter.list_issued()
        ]
    if options.json:
        print(json.dumps(rows, indent=1))
        return Exit.OK
    for row in rows:
        print("  ".join(str(value) for value in row.values()))
    if not rows:
        print("nothing waits" if options.pending else "no certificate was issued yet")
    return Exit.OK


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _approve(options: argparse.Namespace) -> int:
    open_desk(options.folder).approve(options.name, options.fingerprint)
    print(f"{options.name} gets its certificate when it asks next")
    return Exit.OK


def _revoke(options: argparse.Namespace) -> int:
    gone = open_desk(options.folder).revoke(options.who)
    for serial in gone:
        print(f"revoked {serial}")
    if not gone:
        print("all of it was revoked before")
    return Exit.OK


def _crl(options: argparse.Namespace) -> int:
    whole.write(options.out, open_desk(options.folder).lists(), mode=0o644)
    return Exit.OK

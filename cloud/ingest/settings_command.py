"""``healthsync cloud settings``: keys, signing and showing of what is pushed to gateways.

Law: for a person's own machine. The private half never leaves its folder, is made once and is never
overwritten; ingest gets signed files alone. What a document means is the gateway's to judge
(``healthsync edge check-settings``); here it has to be TOML of a size that a gateway takes.
"""

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloud.ingest import pushes
from healthsync.runtime import config as files
from healthsync.runtime import whole
from healthsync.runtime.exits import Exit
from vitals import settings
from vitals.errors import ConfigError, SettingsForged

PRIVATE_NAME: Final = "settings.key"
PUBLIC_NAME: Final = "settings.pub"


def register(parser: argparse.ArgumentParser) -> None:
    """Add ``keygen``, ``sign`` and ``show``."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="COMMAND")

    def add(name: str, text: str, run: object) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    text = "make the key pair that gateways are told by settings_key"
    add("keygen", text, _keygen).add_argument("--out", type=Path, required=True, metavar="FOLDER")
    sign = add("sign", "sign settings for one gateway, one version higher", _sign).add_argument
    sign("--key", type=Path, required=True, metavar="FILE", help=f"{PRIVATE_NAME} of keygen")
    sign("--edge", required=True, metavar="NAME", help="edge_id of the gateway")
    sign("--settings", type=Path, required=True, metavar="FILE", help="TOML; edge/SETTINGS.md")
    sign("--out", type=Path, required=True, metavar="FOLDER", help="ingest's settings_folder")
    sign("--version", type=int, metavar="N", help="default: one more than the file there has")
    show = add("show", "print signed settings, and whether the signature holds", _show).add_argument
    show("file", type=Path, metavar="FILE")
    show("--public", type=Path, required=True, metavar="FILE", help=f"{PUBLIC_NAME} of keygen")


def _keygen(options: argparse.Namespace) -> int:
    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    options.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = options.out / PRIVATE_NAME
    if path.exists():
        raise ConfigError(f"{path}: is there already; a new key is told to every gateway anew")
    _write(path, private.private_bytes_raw(), 0o600)
    _write(options.out / PUBLIC_NAME, public.public_bytes_raw(), 0o644)
    print(f"{path}: key {settings.key_id(public)}; give gateways {PUBLIC_NAME} as settings_key")
    return Exit.OK


def _sign(options: argparse.Namespace) -> int:
    private = Ed25519PrivateKey.from_private_bytes(files.read_key(options.key))
    document = _read(options.settings, settings.DOCUMENT_BYTES_MAX)
    try:
        tomllib.loads(document.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{options.settings}: not valid TOML ({error})") from error
    path = options.out / f"{options.edge}.json"
    if path.parent != options.out or not options.edge:
        raise ConfigError("--edge is the name of a gateway, as in its edge_id")
    before = 0
    if path.exists():
        try:
            before = pushes.read(_read(path, pushes.FILE_BYTES_MAX)).version
        except ValueError as error:
            if options.version is None:
                raise ConfigError(f"{path}: {error}; remove it and give --version") from error
    version = before + 1 if options.version is None else options.version
    if version <= before:
        raise ConfigError(f"--version {version} is not above {before}, which gateways have")
    try:
        made = settings.sign(options.edge, version, document, private)
    except ValueError as error:
        raise ConfigError(f"{options.settings}: {error}") from error
    _write(path, pushes.write(made), 0o644)
    print(f"{path}: version {version} for {options.edge}, key {made.key}")
    return Exit.OK


def _show(options: argparse.Namespace) -> int:
    try:
        found = pushes.read(_read(options.file, pushes.FILE_BYTES_MAX))
        public = Ed25519PublicKey.from_public_bytes(_read(options.public, settings.KEY_BYTES))
    except ValueError as error:
        raise ConfigError(f"{options.file}: {error}") from error
    edge, verdict, code = options.file.stem, "good", Exit.OK
    try:
        settings.verify(edge, found, public)
    except SettingsForged as error:
        verdict, code = str(error), Exit.DEGRADED
    print(f"# for {edge}, version {found.version}, key {found.key}; signature: {verdict}")
    sys.stdout.write(found.document.decode())
    return code


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: has more than {bytes_max} bytes")
    return data


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, data, mode=mode)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({type(error).__name__})") from error

"""The AWS stand-in of one machine: moto's KMS and CloudWatch over TLS, in a process of its own.

Real KMS keys outlive the machine they are used from. moto keeps its in memory, so this process
gives its one key the same id and material at every start, from a file only the owner can read:
what was wrapped before a restart opens after it.
"""

import argparse
import ssl
import sys
from pathlib import Path
from typing import Final

from moto.kms.models import Key, kms_backends
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from healthsync.runtime import tls
from healthsync.runtime.notify import notify

ACCOUNT: Final = "123456789012"


class QuietHandler(MotoRequestHandler):  # type: ignore[misc]  # moto has no types
    """Logs no request: its lines are not JSON and name what was asked for."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Write nothing."""


def keep_key(region: str, key_id: str, material: bytes) -> None:
    """Give the region's KMS one symmetric key with this id and 32-byte material."""
    key = Key(
        policy=None,
        key_usage="ENCRYPT_DECRYPT",
        key_spec="SYMMETRIC_DEFAULT",
        description="archive",
        account_id=ACCOUNT,
        region=region,
    )
    key.id = key_id
    key.arn = f"arn:aws:kms:{region}:{ACCOUNT}:key/{key_id}"
    key.key_material = material
    kms_backends[ACCOUNT][region].keys[key_id] = key


def context(cert: Path, key: Path) -> ssl.SSLContext:
    """Return the server's TLS context."""
    return tls.server(cert, key)


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--region", required=True)
    parser.add_argument("--key-id", required=True)
    parser.add_argument("--key-material", type=Path, required=True)
    parser.add_argument("--cert", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    options = parser.parse_args()
    keep_key(options.region, options.key_id, options.key_material.read_bytes())
    server = make_server(
        "127.0.0.1",
        options.port,
        DomainDispatcherApplication(create_backend_app),
        threaded=True,
        request_handler=QuietHandler,
        ssl_context=context(options.cert, options.key),
    )
    notify("READY=1")
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())

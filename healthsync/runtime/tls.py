"""TLS contexts: version 1.3 only, certificates always verified.

Python's ssl module (3.11-3.14) cannot choose TLS 1.3 cipher suites by call. The system
configuration does: every service runs with OPENSSL_CONF pointing at the rendered
``healthsync-openssl.cnf``, whose only suite is TLS_AES_256_GCM_SHA384; `require_suite` checks
the outcome of a handshake.
"""

import ssl
from pathlib import Path
from typing import Final

SUITE: Final = "TLS_AES_256_GCM_SHA384"


def client(ca: Path | None, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return a context that verifies servers and may show a certificate.

    ``ca``: the authorities that count; None: the system's.
    """
    context = ssl.create_default_context(
        ssl.Purpose.SERVER_AUTH, cafile=None if ca is None else str(ca)
    )
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if cert is not None:
        context.load_cert_chain(cert, key)
    return context


def server(cert: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """Return a context for a server; with ``client_ca`` a client certificate is required."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(cert, key)
    if client_ca is not None:
        context.load_verify_locations(cafile=str(client_ca))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def require_suite(negotiated: tuple[str, str, int] | None) -> None:
    """Raise ssl.SSLError unless the handshake chose the one permitted suite."""
    if negotiated is None or negotiated[0] != SUITE:
        got = negotiated[0] if negotiated else "nothing"
        raise ssl.SSLError(f"handshake chose {got}, not {SUITE}; is OPENSSL_CONF set?")

"""Hypercorn under Trio with our own TLS: 1.3 only, HAProxy's certificate only.

Law: nobody but the holder of the client certificate named `PEER` gets past the handshake; a
client that stops reading is dropped by the kernel, so that no task waits for it for ever.
"""

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from starlette.applications import Starlette

from cloud.settings import Listen
from healthsync.runtime import tls

PEER: Final = "haproxy"

# Unsent or unacknowledged bytes older than this close the connection (tcp(7) TCP_USER_TIMEOUT).
UNREAD_MS_MAX: Final = 10_000

# HAProxy keeps connections to us for the next request.
KEEP_ALIVE_S: Final = 65
GRACE_S: Final = 2
BACKLOG: Final = 512


class PeerChecked(ssl.SSLObject):
    """A TLS session whose peer must be HAProxy, and whose cipher the one permitted."""

    def do_handshake(self) -> None:
        """Finish the handshake; raise ssl.SSLError for another peer."""
        super().do_handshake()
        tls.require_suite(self.cipher())
        certificate: dict[str, Any] = self.getpeercert() or {}
        names = [
            value
            for part in certificate.get("subject", ())
            for name, value in part
            if name == "commonName"
        ]
        if names != [PEER]:
            raise ssl.SSLError("the client certificate is not HAProxy's")


class ServerConfig(HypercornConfig):  # type: ignore[misc] # hypercorn has no stubs here
    """Hypercorn's configuration with our sockets and TLS context."""

    def __init__(self, listen: Listen) -> None:
        """Take where to listen."""
        super().__init__()
        self._listen = listen
        self.bind = [f"{listen.host}:{listen.port}"]
        self.certfile, self.keyfile = str(listen.cert), str(listen.key)
        self.keep_alive_timeout = KEEP_ALIVE_S
        self.keep_alive_max_requests = 1_000_000
        self.graceful_timeout = GRACE_S
        self.backlog = BACKLOG
        self.include_server_header = False
        # requests and errors are logged by us, as JSON and without a path
        self.accesslog = None
        self.errorlog = None

    def create_ssl_context(self) -> ssl.SSLContext:
        """Return the context of every connection."""
        context = tls.server(self._listen.cert, self._listen.key, self._listen.client_ca)
        context.sslobject_class = PeerChecked
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _create_sockets(self, binds: list[str], *args: Any) -> list[socket.socket]:
        sockets: list[socket.socket] = super()._create_sockets(binds, *args)
        for listener in sockets:
            # accepted connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS_MAX)
        return sockets


async def run(
    app: Starlette,
    listen: Listen,
    until: Callable[[], Awaitable[None]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``until`` returns; raises OSError when the address cannot be had.

    Started in a nursery, it is started when connections are taken.
    """
    await serve(app, ServerConfig(listen), shutdown_trigger=until, task_status=task_status)

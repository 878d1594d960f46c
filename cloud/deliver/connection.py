"""One HTTP/1.1 connection, kept between requests; every wait is bounded.

Law: nothing but the answer's status, ``Retry-After`` and body leaves here; no redirection is
followed. A server that trickles an answer is given up by `check`, which another thread calls: a
socket's own timeout begins anew with every byte.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from cloud.deliver import metrics
from cloud.deliver.address import Address
from cloud.deliver.answer import Answer

CONNECT_S_MAX: Final = 5.0

# 700 entries of a transaction-response with locations and outcomes are some 300 KB.
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024


class Unanswered(Exception):
    """No answer that can be used. Says why in a closed word, with ``Retry-After`` if there was."""

    def __init__(self, reason: str, retry_after: str = "") -> None:
        """``reason``: certificate, tls, timeout, connect, network, http, size or token-..."""
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


def _reason_of(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "connect"
    return "network" if isinstance(error, OSError) else "http"


class Connection:
    """To one server. Used by one thread; `check` and `abort` by any."""

    def __init__(
        self,
        to: Address,
        context: ssl.SSLContext,
        answer_s: float,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect when first asked."""
        self._to = to
        self._context = context
        self._answer_s = answer_s
        self._monotonic_s = monotonic_s
        kind = http.client.HTTPSConnection if to.secure else http.client.HTTPConnection
        self._http = kind(to.host, to.port, timeout=answer_s)
        self._http.auto_open = 0  # connecting is `_open`'s, with its own bounds
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._until_s: float | None = None
        self._aborted = False

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Return the answer; raise Unanswered. What was asked may have been done all the same."""
        began_s = self._monotonic_s()
        with self._lock:
            self._until_s, self._aborted = began_s + self._answer_s, False
        try:
            reused = self._http.sock is not None
            try:
                return self._exchange(method, path, headers, body)
            except ConnectionError:
                # RemoteDisconnected too: a server ends an idle connection when it likes.
                if not reused or self._aborted:
                    raise
                self.close()
                return self._exchange(method, path, headers, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise Unanswered("timeout" if self._aborted else _reason_of(error)) from error
        except BaseException:
            self.close()
            raise
        finally:
            with self._lock:
                self._until_s = None
            metrics.REQUEST.labels(method).observe(self._monotonic_s() - began_s)

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        if self._http.sock is None:
            self._open()
        self._http.request(method, path, body, dict(headers))
        response = self._http.getresponse()
        content = response.read(ANSWER_BYTES_MAX + 1)
        if len(content) > ANSWER_BYTES_MAX:
            raise Unanswered("size")
        if response.length or self._aborted:
            raise http.client.IncompleteRead(content)
        return Answer(response.status, response.headers.get("Retry-After", ""), content)

    def _open(self) -> None:
        to = self._to
        sock = socket.create_connection((to.host, to.port), min(CONNECT_S_MAX, self._answer_s))
        self._keep(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(self._answer_s)
        if to.secure:
            # In two steps, so that a handshake that never ends can be aborted.
            secure = self._context.wrap_socket(
                sock, server_hostname=to.host, do_handshake_on_connect=False
            )
            self._keep(secure)
            secure.do_handshake()

    def _keep(self, sock: socket.socket) -> None:
        self._http.sock = sock
        with self._lock:
            self._sock = sock

    def check(self) -> None:
        """Abort a request that has taken longer than it may."""
        with self._lock:
            overdue = self._until_s is not None and self._monotonic_s() >= self._until_s
        if overdue:
            self.abort()

    def abort(self) -> None:
        """Make the request under way fail now."""
        with self._lock:
            self._aborted = True
            sock = self._sock
        if sock is None:
            return
        try:
            # Not SSLSocket's own: it would forget its session under the thread that reads.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            return  # it had ended by itself

    def close(self) -> None:
        """End the connection; the next request opens a new one."""
        with self._lock:
            self._sock = None
        self._http.close()

"""One HTTP call to the authority: straight to its EST port, or through the gateway's own HAProxy.

Law: blocking, meant for a command or a thread; one deadline bounds the whole call, the answer is
bounded in bytes. Over TLS not a byte of the request leaves before suite, chain, name and time of
the server were found right; the time is the caller's, not the system's. Closes its socket.
"""

import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import h11
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge.est import NotNow, NotTrusted, ensure_not_ended
from healthsync.runtime import tls
from vitals.enrolment import BODY_BYTES_MAX
from vitals.errors import ConfigError

CALL_S_MAX: Final = 20.0
"""For name, connection, handshake, request and answer together."""

ANSWER_BYTES_MAX: Final = 64 * 1024
"""A chain of eight certificates in base64 is under 16 KiB."""

_RECEIVE_BYTES: Final = 16 * 1024
_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME (OpenSSL, x509_vfy.h); Python's ssl has no name for it."""
_DER: Final = 2
"""_ssl.ENCODING_DER."""

DEFAULT_PORT: Final = 443

PKCS10: Final = (
    ("content-type", "application/pkcs10"),
    ("content-transfer-encoding", "base64"),
)
"""Headers of a request for a certificate (RFC 7030 section 4.2.1)."""


class Server(NamedTuple):
    """An EST server and how it is known. ``ca`` is PEM; empty: plain HTTP on loopback."""

    host: str
    port: int
    ca: str = ""


class Answer(NamedTuple):
    """What came back."""

    status: int
    retry_after: bytes | None
    body: bytes


def server(url: str, ca: str) -> Server:
    """Return the server of ``https://host[:port]``; raise ConfigError."""
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError:
        raise ConfigError("est is no address; write it as https://host:port") from None
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "https" or not parts.hostname or extra:
        raise ConfigError("est must be https://host:port and nothing else")
    return Server(parts.hostname, port, ca)


def context(ca: str) -> ssl.SSLContext:
    """Return TLS 1.3 that verifies all but the time; raise ConfigError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        made.load_verify_locations(cadata=ca)
    except (ssl.SSLError, ValueError):
        raise ConfigError("ca is no certificate in PEM; ask for a new enrolment file") from None
    made.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return made


class _Deadline:
    """Seconds that are left of one call."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def limit(self, sock: socket.socket) -> None:
        sock.settimeout(self.left_s())

    def left_s(self) -> float:
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def call(
    at: Server,
    method: str,
    path: str,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    *,
    now_ms: int,
    seconds: float = CALL_S_MAX,
) -> Answer:
    """Return the answer, whatever its status; raise NotNow, NotTrusted or ConfigError."""
    if len(body) > BODY_BYTES_MAX:
        raise NotTrusted("request-too-large", f"over {BODY_BYTES_MAX} bytes; report it")
    deadline = _Deadline(seconds)
    wrap = context(at.ca) if at.ca else None
    try:
        raw = socket.create_connection((at.host, at.port), timeout=deadline.left_s())
        with raw:
            if wrap is None:
                return _exchange(raw, deadline, at, method, path, headers, body)
            deadline.limit(raw)
            with wrap.wrap_socket(raw, server_hostname=at.host) as sock:
                _ensure_known(sock, now_ms)
                return _exchange(sock, deadline, at, method, path, headers, body)
    except ssl.SSLCertVerificationError as error:
        step = "this server is not the one that the enrolment file names; nothing was sent to it"
        raise NotTrusted("server-unknown", step) from error
    except ssl.SSLError as error:
        step = "no TLS 1.3 with AES-256-GCM there; nothing was sent to it"
        raise NotTrusted("server-tls", step) from error
    except TimeoutError as error:
        raise NotNow("no-answer", f"no answer within {seconds:.0f} s; is the line up?") from error
    except OSError as error:
        raise NotNow("unreachable", "address, route, firewall; then the same again") from error
    except h11.ProtocolError as error:
        raise NotTrusted(
            "answer-garbage", "what answers speaks no HTTP; is this the port?"
        ) from error


def _ensure_known(sock: ssl.SSLSocket, now_ms: int) -> None:
    """OpenSSL has verified chain and name; raise for the suite and for certificates that ended."""
    tls.require_suite(sock.cipher())
    ensure_not_ended([x509.load_der_x509_certificate(one) for one in _chain(sock)], now_ms)


def _chain(sock: Any) -> list[bytes]:
    """Return the verified chain in DER; public from Python 3.13 on."""
    if hasattr(sock, "get_verified_chain"):
        return list(sock.get_verified_chain())
    return [one.public_bytes(_DER) for one in sock._sslobj.get_verified_chain()]


def _exchange(
    sock: socket.socket,
    deadline: _Deadline,
    at: Server,
    method: str,
    path: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
) -> Answer:
    """Send one request and return its answer; raise OSError or h11.ProtocolError."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_RECEIVE_BYTES)
    host = f"[{at.host}]" if ":" in at.host else at.host
    head = [
        ("host", f"{host}:{at.port}"),
        ("connection", "close"),
        ("content-length", str(len(body))),
        *headers,
    ]
    sent = http.send(h11.Request(method=method, target=path, headers=head))
    sent = (sent or b"") + (http.send(h11.Data(data=body)) or b"")
    sent += http.send(h11.EndOfMessage()) or b""
    deadline.limit(sock)
    sock.sendall(sent)
    status, retry_after, got = 0, None, b""
    ended = False
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError:
            if ended:  # hung up before the end of its answer
                raise ConnectionResetError from None
            raise
        match event:
            case h11.NEED_DATA:
                deadline.limit(sock)
                part = sock.recv(_RECEIVE_BYTES)
                ended = not part
                http.receive_data(part)
            case h11.Response():
                status = event.status_code
                retry_after = dict(event.headers).get(b"retry-after")
            case h11.Data():
                got += bytes(event.data)
                if len(got) > ANSWER_BYTES_MAX:
                    step = f"the answer is over {ANSWER_BYTES_MAX} bytes; is this the EST server?"
                    raise NotTrusted("answer-too-large", step)
            case h11.EndOfMessage():
                return Answer(status, retry_after, got)
            case h11.ConnectionClosed():
                raise ConnectionResetError
            case _:
                pass  # 1xx


def pem(certificates: Sequence[x509.Certificate]) -> str:
    """Return certificates as PEM, one after the other."""
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)

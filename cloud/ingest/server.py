"""The listening side: TLS from HAProxy only, one websocket a gateway, halting, stopping.

Who closes what: `Server` opens the listeners and closes them; each connection's task closes its
own stream. A connection that fails in any way (TLS, HTTP, websocket, gateway) ends alone.

The gateway's name is the header X-Edge-Id. It is believed because only a peer with HAProxy's
certificate gets this far, and HAProxy sets the header from the certificate it verified.
"""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import trio
import trio_websocket

from cloud.ingest import metrics
from cloud.ingest.config import Listen
from cloud.ingest.delivered import Delivered
from cloud.ingest.delivery import Delivery
from cloud.ingest.gateway import Gateway
from cloud.ingest.keys import CloudKeys
from cloud.ingest.pushes import Pushes
from cloud.ingest.revoked import Revoked, serial
from cloud.ingest.session import IngestSession
from cloud.ingest.unpack import Unpacker
from healthsync.runtime import tls
from healthsync.runtime.log import Log
from vitals import limits
from vitals.enrolment import EDGE_NAME

PATH: Final = "/uplink"
EDGE_HEADER: Final = b"x-edge-id"
SERIAL_HEADER: Final = b"x-edge-serial"
NOT_AFTER_HEADER: Final = b"x-edge-not-after"

# TLS and HTTP upgrade from a loopback HAProxy; a stuck peer must not hold a task.
HANDSHAKE_S_MAX: Final = 10.0

# Messages read ahead of the session; frames wait in the gateway's own bounded channel.
QUEUED_MESSAGES: Final = 16

# How often the producer's queue is looked at.
HALT_CHECK_S: Final = 0.05

# How often the folder of settings is looked at for connected gateways.
SETTINGS_CHECK_S: Final = 5.0

# How often sessions are held against the list of revoked certificates, and their end.
REVOKED_CHECK_S: Final = 5.0

# Sessions on one process; HAProxy balances over several.
SESSIONS_MAX: Final = 2_000


def common_name(certificate: dict[str, Any] | None) -> str:
    """Return the subject's common name of `SSLSocket.getpeercert`'s answer, or ""."""
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    return ""


def edge_name(headers: list[tuple[bytes, bytes]]) -> str | None:
    """Return the one well-formed X-Edge-Id, or None if it is missing, doubled or malformed."""
    found = [value for name, value in headers if name.lower() == EDGE_HEADER]
    if len(found) != 1:
        return None
    name = found[0].decode("ascii", "replace")
    return name if EDGE_NAME.fullmatch(name) else None


class Certificate(NamedTuple):
    """What HAProxy says of the certificate a session was opened with."""

    serial: int | None
    not_after_ms: int | None


def certificate(headers: list[tuple[bytes, bytes]]) -> Certificate:
    """Return serial number and end, None for what is missing or malformed.

    HAProxy writes the end as ``YYMMDDhhmmssZ`` (ASN.1 UTCTime; two digits mean 2000 to 2049).
    """
    found = {name.lower(): value for name, value in headers}
    text = found.get(NOT_AFTER_HEADER, b"").decode("ascii", "replace")
    try:
        end = datetime.strptime(text, "%y%m%d%H%M%SZ").replace(tzinfo=UTC)
        not_after_ms = int(end.timestamp() * 1000)
    except ValueError:
        not_after_ms = None
    return Certificate(serial(found.get(SERIAL_HEADER, b"")), not_after_ms)


class Server:
    """Serves gateways until `stop`; `run` is its life."""

    def __init__(
        self,
        listen: Listen,
        keys: CloudKeys,
        unpacker: Unpacker,
        delivery: Delivery,
        now_ms: Callable[[], int],
        log: Log,
        pushes: Pushes | None = None,
        revoked: Revoked | None = None,
    ) -> None:
        """Everything is injected; files of ``listen`` are read here."""
        self._listen = listen
        self._context = tls.server(listen.cert, listen.key, listen.client_ca)
        self._keys = keys
        self._pushes = pushes or Pushes(None)
        self._revoked = revoked or Revoked(None, log)
        self._certificates: dict[Gateway, Certificate] = {}
        self._delivered = Delivered()
        self._unpacker = unpacker
        self._delivery = delivery
        self._now_ms = now_ms
        self._log = log
        self._gateways: set[Gateway] = set()
        self._by_name: dict[str, Gateway] = {}
        self._credit = limits.CREDIT_FRAMES
        self._accepting, self._watching = trio.CancelScope(), trio.CancelScope()
        self.over = trio.Event()
        """Set when `run` has ended every session."""

    def stop(self) -> None:
        """Take no more connections, end every session with "going-away"."""
        self._accepting.cancel()
        self._watching.cancel()
        for gateway in self._gateways:
            gateway.stop()

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve; returns when `stop` was called and every session is over. Reports the port."""
        listeners = await trio.open_tcp_listeners(self._listen.port, host=self._listen.host)
        async with trio.open_nursery() as sessions:
            with self._accepting:
                task_status.started(listeners[0].socket.getsockname()[1])
                sessions.start_soon(self._watch_queue)
                sessions.start_soon(self._watch_sessions)
                await trio.serve_listeners(self._connection, listeners, handler_nursery=sessions)
        self.over.set()

    async def _watch_queue(self) -> None:
        while not self._accepting.cancel_called:
            wanted = self._credit
            if self._delivery.crowded:
                wanted = 0
            elif self._delivery.relaxed:
                wanted = limits.CREDIT_FRAMES
            if wanted != self._credit:
                self._credit = wanted
                self._log.warning("credit", frames=wanted, sessions=len(self._gateways))
                for gateway in self._gateways:
                    gateway.set_credit(wanted)
            await trio.sleep(HALT_CHECK_S)

    async def _watch_sessions(self) -> None:
        with self._watching:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_for_settings)
                nursery.start_soon(self._look_at_certificates)

    async def _look_for_settings(self) -> None:
        while True:
            for edge, gateway in list(self._by_name.items()):
                settings = self._pushes.of(edge)
                if settings is not None:
                    gateway.push(settings)
            await trio.sleep(SETTINGS_CHECK_S)

    async def _look_at_certificates(self) -> None:
        while True:
            await trio.sleep(REVOKED_CHECK_S)
            self._revoked.look()
            for gateway, shown in list(self._certificates.items()):
                reason = self._unfit(shown)
                if reason is not None:
                    gateway.end(*reason)

    def _unfit(self, shown: Certificate) -> tuple[str, str] | None:
        """Return why a session with this certificate must end, as `Gateway.end` takes it."""
        if shown.serial is not None and shown.serial in self._revoked:
            return "revoked", f"certificate {shown.serial:x} is revoked"
        if shown.not_after_ms is not None and shown.not_after_ms <= self._now_ms():
            return "going-away", "its certificate has run out; a newer one may call again"
        return None

    async def _connection(self, stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, self._context, server_side=True, https_compatible=True)
        try:
            async with trio.open_nursery() as nursery:
                await self._handshake(secure, nursery)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError, OSError):
            self._log.info("connection-broken")
        except* (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed):
            self._log.info("connection-closed")
        except* trio.TooSlowError:
            self._log.warning("connection-too-slow")
        except* Exception as errors:  # noqa: BLE001 - one gateway's defect ends one session
            for error in errors.exceptions:
                self._log.crash("session-crash", error)
        finally:
            await trio.aclose_forcefully(secure)

    async def _handshake(self, secure: "trio.SSLStream[Any]", nursery: trio.Nursery) -> None:
        with trio.fail_after(HANDSHAKE_S_MAX):
            await secure.do_handshake()
            tls.require_suite(secure.cipher())
            if common_name(secure.getpeercert()) != self._listen.client_name:
                self._log.warning("client-refused", expected=self._listen.client_name)
                return
            request = await trio_websocket.wrap_server_stream(
                nursery,
                secure,
                message_queue_size=QUEUED_MESSAGES,
                max_message_size=limits.SESSION_MESSAGE_BYTES_MAX,
                receive_buffer_size=64 * 1024,
            )
            edge = edge_name(request.headers)
            if request.path != PATH or edge is None:
                await request.reject(404 if edge is not None else 403)
                return
            shown = certificate(request.headers)
            self._revoked.look()
            unfit = self._unfit(shown)
            if unfit is not None:
                self._log.warning("certificate-refused", edge=edge, detail=unfit[1])
                metrics.REFUSED.labels(unfit[0]).inc()
                await request.reject(403)
                return
            if len(self._gateways) >= SESSIONS_MAX or self._accepting.cancel_called:
                await request.reject(503)
                return
            websocket = await request.accept()
        await self._serve(websocket, edge, shown)

    async def _serve(self, websocket: Any, edge: str, shown: Certificate) -> None:
        state = IngestSession(edge, self._keys, self._credit, self._delivered)
        gateway = Gateway(state, websocket, self._unpacker, self._delivery, self._now_ms, self._log)
        older = self._by_name.get(edge)
        if older is not None:
            # A cut line looks alive for a minute: the one that calls now is the one that lives.
            metrics.SUPERSEDED.inc()
            older.end("superseded", "a newer session of this gateway")
        self._by_name[edge] = gateway
        self._gateways.add(gateway)
        self._certificates[gateway] = shown
        settings = self._pushes.of(edge)
        if settings is not None:
            gateway.push(settings)
        metrics.SESSIONS.set(len(self._gateways))
        self._log.info("session-began", edge=edge, sessions=len(self._gateways))
        try:
            await gateway.serve()
            with trio.move_on_after(HANDSHAKE_S_MAX):
                await websocket.aclose()
        finally:
            self._gateways.discard(gateway)
            del self._certificates[gateway]
            if self._by_name.get(edge) is gateway:
                del self._by_name[edge]
            metrics.SESSIONS.set(len(self._gateways))
            self._log.info("session-over", edge=edge, sessions=len(self._gateways))

"""EST over HTTP (RFC 7030) in front of the desk.

Law: who asks is what HAProxy says of the connection (``X-Way``, ``X-Edge-Id``, ``X-Edge-Serial``;
it deletes them when they come from outside, and nobody else gets through our TLS). Which token was
wrong how is said to the log alone. Nothing of a request but names, numbers and codes is logged.
"""

import base64
import binascii
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID
from prometheus_client import Counter, Gauge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloud.pki import request as request_
from cloud.pki.desk import Desk
from cloud.pki.errors import Refused, Waiting
from healthsync.runtime.log import Log
from vitals import enrolment

CERTS: Final = "application/pkcs7-mime; smime-type=certs-only"
BUSY_RETRY_S: Final = 5
_CREDENTIALS_CHARS_MAX: Final = 1024

ISSUED = Counter("healthsync_est_issued_total", "Certificates given out", ["how"])
REFUSED = Counter("healthsync_est_refused_total", "Requests refused", ["code"])
PENDING = Gauge("healthsync_est_pending", "Renewals that an operator has to approve")

T = TypeVar("T")


def certs_only(*certificates: x509.Certificate) -> bytes:
    """Return certificates as EST carries them: PKCS#7 in base64."""
    return base64.encodebytes(pkcs7.serialize_certificates(list(certificates), Encoding.DER))


class _TooLarge(Exception):
    pass


class App:
    """The three operations and the list."""

    def __init__(self, desk: Desk, log: Log) -> None:
        """The desk blocks on the disk: it is asked in one thread."""
        self._desk, self._log = desk, log
        self._one = trio.CapacityLimiter(1)

    def build(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route(f"{enrolment.PATH}cacerts", self._cacerts, methods=["GET"]),
                Route(f"{enrolment.PATH}simpleenroll", self._enrol, methods=["POST"]),
                Route(f"{enrolment.PATH}simplereenroll", self._renew, methods=["POST"]),
                Route("/crl", self._crl, methods=["GET"]),
            ]
        )

    async def _ask(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, limiter=self._one)

    async def _cacerts(self, _request: Request) -> Response:
        both = (self._desk.issuing.certificate, self._desk.issuing.root)
        return _certs(certs_only(*both))

    async def _crl(self, _request: Request) -> Response:
        try:
            return Response(await self._ask(self._desk.lists), media_type="application/x-pem-file")
        except sqlite3.Error:
            return _busy()

    async def _enrol(self, request: Request) -> Response:
        def call(der: bytes) -> tuple[str, Callable[[], bytes]]:
            name, token = _credentials(request)
            return name, partial(self._desk.enrol, name, token, der, _address(request))

        return await self._serve(request, "token", call)

    async def _renew(self, request: Request) -> Response:
        def call(der: bytes) -> tuple[str, Callable[[], bytes]]:
            if request.headers.get("x-way") == "uplink":
                name = request.headers.get("x-edge-id", "")
                serial = request.headers.get("x-edge-serial", "")
                return name, partial(self._desk.renew, name, serial, der)
            old = _base64(request.headers.get("x-renewal-certificate"))
            signature = _base64(request.headers.get("x-renewal-signature"))
            return "", partial(self._desk.renew_ended, old, signature, der)

        return await self._serve(request, "renewal", call)

    async def _serve(
        self,
        request: Request,
        how: str,
        prepare: Callable[[bytes], tuple[str, Callable[[], bytes]]],
    ) -> Response:
        name = ""
        try:
            der = request_.decode(await _body(request))
            name, call = prepare(der)
            made = await self._ask(call)
        except _TooLarge:
            return _text(413, f"too-large: at most {enrolment.BODY_BYTES_MAX} bytes")
        except Waiting as waiting:
            self._log.warning("awaiting-approval", edge=_shown(waiting.name))
            await self._count_pending()
            return Response(status_code=202, headers={"Retry-After": str(waiting.retry_s)})
        except Refused as refused:
            return self._refuse(refused, name, _address(request))
        except sqlite3.Error as error:
            self._log.error("store", error=type(error).__name__)
            return _busy()
        leaf = x509.load_der_x509_certificate(made)
        ISSUED.labels(how).inc()
        edge = str(leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        self._log.info("issued", how=how, edge=edge, serial=f"{leaf.serial_number:x}")
        await self._count_pending()
        return _certs(certs_only(leaf, self._desk.issuing.certificate))

    async def _count_pending(self) -> None:
        try:
            waiters = await self._ask(self._desk.pending)
        except sqlite3.Error:
            return  # the next one counts
        PENDING.set(sum(one.approved_ms is None for one in waiters))

    def _refuse(self, refused: Refused, name: str, address: str) -> Response:
        REFUSED.labels(refused.code).inc()
        # By the address `healthsync firewall block --feed` finds who tries tokens in numbers.
        edge = _shown(name)
        self._log.warning("refused", code=refused.code, edge=edge, address=address)
        if refused.code.startswith("token-"):
            answer = _text(401, f"token-refused: {refused.step}")
            answer.headers["WWW-Authenticate"] = 'Basic realm="est"'
            return answer
        answer = _text(refused.status, f"{refused.code}: {refused.step}")
        if refused.retry_s:
            answer.headers["Retry-After"] = str(refused.retry_s)
        return answer


def _address(request: Request) -> str:
    """Return where a request came from, as HAProxy says."""
    return request.headers.get("x-forwarded-for", "")[:64]


def _shown(name: str) -> str:
    return name if enrolment.EDGE_NAME.fullmatch(name) else ""


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > enrolment.BODY_BYTES_MAX:
            raise _TooLarge
    return body


def _credentials(request: Request) -> tuple[str, str]:
    said = request.headers.get("authorization", "")[:_CREDENTIALS_CHARS_MAX]
    kind, _, text = said.partition(" ")
    try:
        decoded = base64.b64decode(text, validate=True).decode("ascii")
    except (ValueError, binascii.Error):
        decoded = ""
    name, colon, token = decoded.partition(":")
    if kind.lower() != "basic" or not colon or not enrolment.EDGE_NAME.fullmatch(name):
        raise Refused("token-unknown", "send gateway name and token by HTTP Basic")
    return name, token


def _base64(text: str | None) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refused("proof-wrong", "send certificate and signature in base64") from error


def _certs(body: bytes) -> Response:
    return Response(body, headers={"Content-Type": CERTS, "Content-Transfer-Encoding": "base64"})


def _text(status: int, text: str) -> Response:
    return Response(text, status_code=status, media_type="text/plain")


def _busy() -> Response:
    answer = _text(503, "busy: ask again")
    answer.headers["Retry-After"] = str(BUSY_RETRY_S)
    return answer

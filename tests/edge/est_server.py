"""A small certificate authority that speaks EST over TLS, and misbehaves as told.

Not the cloud's: made of `cryptography` and the standard library, so that the gateway's half is
tested against another reading of the same standard.
"""

import base64
import hashlib
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs7,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vitals.enrolment import PROOF_MARK

TOKEN = "a-token-that-is-used-once"
DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """A root and an issuing authority below it. ``begins``: of both."""

    def __init__(self, name: str = "Test", begins: datetime | None = None) -> None:
        self.begins = begins or datetime.now(UTC) - DAY
        self.root_key, self.key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self.root = self._authority(f"{name} root", f"{name} root", self.root_key, self.root_key, 1)
        self.issuing = self._authority(
            f"{name} issuing", f"{name} root", self.key, self.root_key, 0
        )

    def _authority(
        self, name: str, issuer: str, key: Key, by: Key, length: int
    ) -> x509.Certificate:
        builder = self._builder(name, issuer, key.public_key(), by, self.begins, 3650 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(True, length), critical=True)
        return builder.add_extension(_usage(authority=True), critical=True).sign(
            by, hashes.SHA256()
        )

    def _builder(
        self, name: str, issuer: str, public: Any, by: Key, begins: datetime, life: timedelta
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(issuer))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + life)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
            )
        )

    def issue(
        self,
        name: str,
        public: Any,
        begins: datetime | None = None,
        life: timedelta = 30 * DAY,
        *,
        server: bool = False,
        host: str = "localhost",
    ) -> x509.Certificate:
        issuer = self.issuing.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        begins = begins or datetime.now(UTC) - timedelta(minutes=5)
        builder = (
            self._builder(name, str(issuer), public, self.key, begins, life)
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if server:
            names = x509.SubjectAlternativeName([x509.DNSName(host)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def bundle(self, folder: Path, name: str = "server", **how: Any) -> Path:
        """Write a server's key, certificate and issuer; return the file."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.issue(name, key.public_key(), server=True, **how)
        path = folder / f"{name}.bundle.pem"
        path.write_bytes(key_pem(key) + pem(certificate, self.issuing))
        return path


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        not authority, False, False, False, False, authority, authority, False, False
    )


def key_pem(key: Key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def certs_only(*certificates: x509.Certificate) -> bytes:
    return base64.encodebytes(pkcs7.serialize_certificates(list(certificates), Encoding.DER))


Reply = tuple[int, dict[str, str], bytes]


class EstServer:
    """Answers as it should until ``answer`` is set; remembers what it was asked."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.issued: dict[bytes, x509.Certificate] = {}
        self.revoked: set[int] = set()
        self.token_used_by: bytes | None = None
        self.approved = False
        self.life = 30 * DAY
        self.begins: datetime | None = None
        self.answer: Callable[[str], Reply | None] = lambda _path: None
        self.certify: Callable[[Any, bytes], Reply] = self.certificate
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.port = 0
        self.uplink_ok = True
        """What /health says, as the cloud's HAProxy would."""

    @property
    def asked(self) -> list[str]:
        return [path for path, _, _ in self.seen]

    def reply(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        self.seen.append((path, headers, body))
        told = self.answer(path)
        if told is not None:
            return told
        if path == "/health":
            return (200 if self.uplink_ok else 503), {}, b""
        what = path.removeprefix("/.well-known/est/")
        if what == "cacerts":
            both = (self.authority.issuing, self.authority.root)
            return 200, {"content-type": "application/pkcs7-mime"}, certs_only(*both)
        request = x509.load_der_x509_csr(base64.b64decode(body))
        if not request.is_signature_valid:
            return 400, {}, b"csr-signature: sign it"
        digest = hashlib.sha256(base64.b64decode(body)).digest()
        if what == "simpleenroll":
            return self._enrol(request, digest, headers)
        if "x-renewal-certificate" in headers:
            refused = self._old_key(headers, digest)
            if refused is not None:
                return refused
        return self.certify(request, digest)

    def _enrol(self, request: Any, digest: bytes, headers: dict[str, str]) -> Reply:
        said = base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode()
        if said != f"ward-1:{TOKEN}" or self.token_used_by not in {None, digest}:
            return 401, {}, b"token-refused: ask for another"
        self.token_used_by = digest
        return self.certify(request, digest)

    def _old_key(self, headers: dict[str, str], digest: bytes) -> Reply | None:
        old = x509.load_der_x509_certificate(base64.b64decode(headers["x-renewal-certificate"]))
        if old.serial_number in self.revoked:
            return 403, {}, b"certificate-revoked: ask why"
        public = old.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        signature = base64.b64decode(headers["x-renewal-signature"])
        public.verify(signature, PROOF_MARK + digest, ec.ECDSA(hashes.SHA256()))
        return None if self.approved else (202, {"retry-after": "10"}, b"")

    def certificate(self, request: Any, digest: bytes) -> Reply:
        if digest not in self.issued:
            name = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
            self.issued[digest] = self.authority.issue(
                name, request.public_key(), self.begins, self.life
            )
        return 200, {}, certs_only(self.issued[digest], self.authority.issuing)

    @contextmanager
    def serving(
        self, bundle: Path | None, change: Callable[[ssl.SSLContext], None] = lambda _context: None
    ) -> Iterator["EstServer"]:
        """Serve on 127.0.0.1 while in the block; without a bundle in clear."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5

            def do_GET(self) -> None:
                self._say(outer.reply(self.path, self._heads(), b""))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self._say(outer.reply(self.path, self._heads(), body))

            def _heads(self) -> dict[str, str]:
                return {name.lower(): value for name, value in self.headers.items()}

            def _say(self, reply: Reply) -> None:
                self.send_response(reply[0])
                for name, value in reply[1].items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(reply[2])))
                self.end_headers()
                self.wfile.write(reply[2])

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def finish_request(self, request: Any, address: Any) -> None:
                if context is not None:  # here, so that a bad handshake ends one thread
                    request = context.wrap_socket(request, server_side=True)
                try:
                    super().finish_request(request, address)
                finally:
                    request.close()

            def handle_error(self, *_: object) -> None:
                pass  # a peer that hangs up is what is tested

        context = None
        if bundle is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(bundle)
            change(context)
        with Server(("127.0.0.1", 0), Handler) as server:
            self.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

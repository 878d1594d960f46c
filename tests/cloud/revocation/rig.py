"""Gateway certificates under a root and an issuing authority, revocation lists, a real HAProxy."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.revocation.main import BUFFER_BYTES
from healthsync.runtime.haproxy import Runtime
from onebox import ports
from onebox.ca import Authority
from onebox.render import template

Key = ec.EllipticCurvePrivateKey


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Leaf(NamedTuple):
    """A gateway's certificate on disk."""

    certificate: x509.Certificate
    cert: Path
    key: Path


class Gateways:
    """A root, an issuing authority, and what it issues; everything in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.root_key = ec.generate_private_key(ec.SECP384R1())
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._sign("root", self.root_key.public_key(), "root", self.root_key, ca=True)
        self.issuing = self._sign("issuing", self.key.public_key(), "root", self.root_key, ca=True)
        self.ca = folder / "gateways-ca.pem"
        self.ca.write_bytes(
            self.issuing.public_bytes(Encoding.PEM) + self.root.public_bytes(Encoding.PEM)
        )
        self.number = 0
        self.crl = folder / "gateways.crl"
        self.crl.write_bytes(self.lists())

    def _sign(
        self,
        subject: str,
        public: ec.EllipticCurvePublicKey,
        issuer: str,
        key: Key,
        *,
        ca: bool,
        days: float = 30,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now - timedelta(days=2))
            .not_valid_after(self.now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False),
                critical=True,
            )
        )
        if not ca:
            usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
            builder = builder.add_extension(usage, critical=False)
        return builder.sign(key, hashes.SHA256())

    def leaf(self, name: str, days: float = 30) -> Leaf:
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._sign(name, key.public_key(), "issuing", self.key, ca=False, days=days)
        stem = f"{name}-{made.serial_number:x}"
        cert, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert.write_bytes(made.public_bytes(Encoding.PEM) + self.issuing.public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Leaf(made, cert, key_file)

    def lists(self, *serials: int, hours: float = 24, number: int | None = None) -> bytes:
        """Return the issuing authority's list and the root's, PEM."""
        self.number = self.number + 1 if number is None else number
        return self._list("issuing", self.key, serials, self.number, hours) + self._list(
            "root", self.root_key, (), 1, 24 * 365
        )

    def _list(
        self, issuer: str, key: Key, serials: tuple[int, ...], number: int, hours: float
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(issuer))
            .last_update(self.now - timedelta(hours=30))
            .next_update(self.now + timedelta(hours=hours))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
        )
        for serial in serials:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(serial)
                .revocation_date(self.now)
                .build()
            )
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Trusted(Protocol):
    """Whose gateways HAProxy lets in."""

    @property
    def ca(self) -> Path: ...

    @property
    def crl(self) -> Path: ...


class Proxy:
    """A HAProxy of the cloud side, rendered from the role's template."""

    def __init__(self, folder: Path, gateways: Trusted, **servers: int) -> None:
        self.folder = folder
        services = Authority(folder, "services", datetime.now(UTC))
        self.services = services
        server = services.issue("haproxy-server", server=True)
        client = services.issue("haproxy", server=False)
        self.ca = services.ca_file
        self.port, self.est, rest, stats = ports.free(4)
        self.stats = stats
        self.socket = folder / "haproxy.sock"
        values = {
            "hs_haproxy_maxconn": 200,
            "hs_haproxy_threads": 1,
            "hs_haproxy_user": "",
            "hs_haproxy_socket": self.socket,
            "hs_haproxy_stats_port": stats,
            "hs_haproxy_crt": server.bundle,
            "hs_haproxy_client_crt": client.bundle,
            "hs_service_ca": services.ca_file,
            "hs_gateway_ca": gateways.ca,
            "hs_gateway_crl": gateways.crl,
            "hs_s3_gateway_socket": "",
            "hs_uplink_port": self.port,
            "hs_est_port": self.est,
            "hs_rest_port": rest,
            "hs_listen_host": "127.0.0.1",
            "hs_api_servers": [],
        }
        for name in ("ingest", "est"):
            port = servers.get(name)
            entry = {"name": f"{name}-1", "host": "127.0.0.1", "port": port}
            values[f"hs_{name}_servers"] = [] if port is None else [entry]
        self.values = values
        self.config = template("haproxy", "cloud.cfg", values, folder / "haproxy.cfg")

    def runtime(self) -> Runtime:
        return Runtime(str(self.socket), BUFFER_BYTES)

    @contextlib.contextmanager
    def running(self, mode: str = "-db") -> Iterator[subprocess.Popen[bytes]]:
        """Run it: ``-db`` as one process, ``-W`` with a master that reloads on SIGUSR2."""
        with (self.folder / "haproxy.log").open("ab") as log:
            process = subprocess.Popen(
                ["/usr/sbin/haproxy", mode, "-f", str(self.config)], stdout=log, stderr=log
            )
        try:
            deadline = time.monotonic() + 20
            while not self.socket.exists():
                assert process.poll() is None, (self.folder / "haproxy.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            process.terminate()
            process.wait(20)

    def handshake(self, leaf: Leaf | None, path: str = "/health", port: int = 0) -> str:
        """Return what openssl says of a handshake and one request."""
        given = () if leaf is None else ("-cert", leaf.cert, "-key", leaf.key)
        done = subprocess.run(
            [
                "openssl",
                "s_client",
                "-connect",
                f"127.0.0.1:{port or self.port}",
                "-servername",
                "localhost",
                "-CAfile",
                self.ca,
                "-ign_eof",
                *given,
            ],
            input=f"GET {path} HTTP/1.0\r\n\r\n",
            capture_output=True,
            text=True,
            timeout=15,
            check=False,
        )
        return done.stdout + done.stderr

"""Gateway certificates under a root and an issuing authority, revocation lists, a real HAProxy."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud.pki import certificates
from cloud.pki.certificates import Issuer, Revocation, key_pem, pem
from cloud.revocation.main import BUFFER_BYTES
from healthsync.runtime.haproxy import Runtime
from onebox import ports
from onebox.ca import Authority
from onebox.render import template


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
        self._began = self.now - timedelta(days=2)
        self._root = Issuer(certificates.named("root"), ec.generate_private_key(ec.SECP384R1()))
        self._by = Issuer(certificates.named("issuing"), ec.generate_private_key(ec.SECP256R1()))
        root, self._issuing = (
            certificates.authority(one.name, one.key.public_key(), self._root, 1, self._began, 30)
            for one in (self._root, self._by)
        )
        self.ca = folder / "gateways-ca.pem"
        self.ca.write_bytes(pem(self._issuing, root))
        self._number = 0
        self.crl = folder / "gateways.crl"
        self.crl.write_bytes(self.lists())

    def leaf(self, name: str, days: float = 20) -> Leaf:
        """Return a certificate that ends in ``days``, perhaps before now."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        public = key.public_key()
        made = certificates.leaf(name, public, self._by, usages, self._began, 2 + days)
        stem = f"{name}-{made.serial_number:x}"
        cert, key_file = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert.write_bytes(pem(made, self._issuing))
        key_file.write_bytes(key_pem(key))
        return Leaf(made, cert, key_file)

    def lists(self, *serials: int, hours: float = 24, number: int | None = None) -> bytes:
        """Return the issuing authority's list, due in ``hours``, and the root's, PEM."""
        self._number = self._number + 1 if number is None else number
        began, life = self._began, timedelta(days=2, hours=hours)
        entries = [Revocation(serial, self.now) for serial in serials]
        mine = certificates.revocation_list(self._by, entries, self._number, began, life)
        year = timedelta(days=365)
        return mine + certificates.revocation_list(self._root, (), 1, began, year)


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

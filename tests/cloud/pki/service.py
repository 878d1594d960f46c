"""`healthsync cloud est` as a process of its own, and calls to it as HAProxy makes them."""

import base64
import http.client
import json
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from cloud.pki import authority
from cloud.pki.folder import open_desk
from onebox import ports, scrape
from onebox.ca import Authority
from onebox.render import template


class Service:
    """`healthsync cloud est` as a process, and what HAProxy is to it."""

    def __init__(self, folder: Path) -> None:
        now = datetime.now(UTC)
        self.folder = folder / "pki"
        self.issuing = authority.init(self.folder, now, b"a long passphrase")
        self.desk = open_desk(self.folder)
        services = Authority(folder, "services", now)
        self.ca = services.ca_file
        mine, self.haproxy = (
            services.issue("est", server=True),
            services.issue("haproxy", server=False),
        )
        self.other = services.issue("ingest", server=True)
        self.port, self.metrics = ports.free(2)
        values = {
            "hs_pki_folder": self.folder,
            "hs_listen_host": "127.0.0.1",
            "hs_listen_port": self.port,
            "hs_tls_cert": mine.cert,
            "hs_tls_key": mine.key,
            "hs_tls_client_ca": services.ca_file,
            "hs_metrics_port": self.metrics,
        }
        config = template("healthsync_cloud", "est.toml", values, folder / "est.toml")
        openssl = template("common", "healthsync-openssl.cnf", {}, folder / "openssl.cnf")
        self.log = folder / "est.log"
        command = [sys.executable, "-m", "healthsync.cli", "cloud", "est", "--config", str(config)]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env={"OPENSSL_CONF": str(openssl), "PATH": "/usr/bin"},
            )
        deadline = time.monotonic() + 30
        while b'"serving"' not in self.log.read_bytes():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def ask(
        self, method: str, path: str, body: bytes = b"", who: str = "haproxy", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        context = ssl.create_default_context(cafile=str(self.ca))
        shown = self.haproxy if who == "haproxy" else self.other
        context.load_cert_chain(shown.cert, shown.key)
        client = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            client.request(method, path, body or None, sent)
            answer = client.getresponse()
            given = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answer.read(), given
        finally:
            client.close()

    def enrol(
        self, name: str, token: str, body: bytes, address: str = "10.0.0.1"
    ) -> tuple[int, bytes, dict[str, str]]:
        basic = base64.b64encode(f"{name}:{token}".encode()).decode()
        return self.ask(
            "POST",
            "/.well-known/est/simpleenroll",
            body,
            X_Way="est",
            X_Forwarded_For=address,
            Authorization=f"Basic {basic}",
        )

    def metric(self, name: str) -> float:
        url = f"http://127.0.0.1:{self.metrics}/metrics"
        return scrape.total(scrape.scrape(url), name)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(20) == 0

"""The gateway's HAProxy, from the role's template, and a cloud's with mutual TLS before it."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jinja2

from edge import est_call
from edge.est import EstError
from edge.haproxy_socket import HaproxySocket
from healthsync.runtime.haproxy import HaproxyError
from onebox import ports
from tests.edge.est_server import Authority, pem
from tests.edge.tty import ROOT

TEMPLATE = ROOT / "ansible/roles/haproxy/templates/edge.cfg.j2"

CLOUD = """
global
    maxconn 100
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites TLS_AES_256_GCM_SHA384
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    timeout tunnel 1h
frontend uplink
    bind 127.0.0.1:{port} ssl crt {crt} ca-file {ca} verify required alpn http/1.1
    http-request del-header x-edge-id
    http-request del-header x-edge-serial
    http-request set-header X-Edge-Id %[ssl_c_s_dn(cn)]
    http-request set-header X-Edge-Serial %[ssl_c_serial,hex]
    use_backend ingest if {{ path /uplink }}
    default_backend est
backend est
    server est 127.0.0.1:{est}
backend ingest
    server ingest 127.0.0.1:{ingest}
"""


class Proxies(NamedTuple):
    """Ports and the socket of the gateway's HAProxy."""

    uplink_port: int
    socket: str
    admin: HaproxySocket


def _up(admin: HaproxySocket, uplink_port: int, *, passing: bool) -> bool:
    at = est_call.Server("127.0.0.1", uplink_port)
    try:
        admin.serial()
        return not passing or est_call.call(at, "GET", "/health", now_ms=0).status == 200
    except (HaproxyError, EstError):
        return False


@contextmanager
def running(
    folder: Path,
    *,
    bundle: Path,
    servers: Authority,
    gateways: Authority,
    est_port: int,
    ingest_port: int = 1,
    socket: str | None = None,
    uplink_port: int | None = None,
    passing: bool = True,
) -> Iterator[Proxies]:
    """Run both while in the block. ``passing``: wait until a request gets through."""
    cloud_port, uplink, line, mllp, a, b, stats = ports.free(7)
    uplink = uplink_port or uplink
    address = socket or str(folder / "admin.sock")
    ca = folder / "gateways.pem"
    ca.write_bytes(pem(gateways.root, gateways.issuing))
    service_ca = folder / "services.pem"
    service_ca.write_bytes(pem(servers.root))
    crt = servers.bundle(folder, "cloud")
    cloud = folder / "cloud.cfg"
    cloud.write_text(
        CLOUD.format(port=cloud_port, crt=crt, ca=ca, est=est_port, ingest=ingest_port)
    )
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML
    )
    edge = folder / "edge.cfg"
    edge.write_text(
        environment.from_string(TEMPLATE.read_text()).render(
            hs_haproxy_maxconn=100,
            hs_haproxy_threads=1,
            hs_haproxy_user="",
            hs_haproxy_socket=address,
            hs_edge_uplink_port=uplink,
            hs_service_ca=service_ca,
            hs_gateway_crt=bundle,
            hs_device_crt=crt,
            hs_cloud_servers=[
                {"name": "c1", "host": "127.0.0.1", "port": cloud_port, "tls_name": "localhost"}
            ],
            hs_edge_listen_host="127.0.0.1",
            hs_edge_line_tls_port=line,
            hs_edge_mllp_tls_port=mllp,
            hs_edge_line_proxy_port=a,
            hs_edge_mllp_proxy_port=b,
            hs_haproxy_stats_port=stats,
        )
    )
    children = []
    with (folder / "haproxy.log").open("wb") as log:
        for file in (cloud, edge):
            words = ["haproxy", "-db", "-f", str(file)]
            children.append(subprocess.Popen(words, stdout=log, stderr=log))
    admin = HaproxySocket(address, str(bundle))
    try:
        for _ in range(200):
            if _up(admin, uplink, passing=passing):
                break
            time.sleep(0.025)
        else:
            raise AssertionError((folder / "haproxy.log").read_text())
        yield Proxies(uplink, address, admin)
    finally:
        for child in children:
            child.kill()
            child.wait()

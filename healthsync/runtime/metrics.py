"""Prometheus text on loopback. Names are ``healthsync_<service>_<what>_<unit>``."""

from prometheus_client import REGISTRY, start_http_server


def serve(port: int) -> None:
    """Serve every registered metric on 127.0.0.1:``port`` from a daemon thread."""
    start_http_server(port, addr="127.0.0.1", registry=REGISTRY)

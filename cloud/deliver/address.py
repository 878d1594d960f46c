"""Where a server is: HTTPS, or plain HTTP on this machine only.

Law: pure. No request with a token or a patient's values can be addressed to another machine in
the clear; an address carries no credentials.
"""

import ipaddress
from typing import Final, NamedTuple
from urllib.parse import urlsplit

PORTS: Final = {"https": 443, "http": 80}


class Address(NamedTuple):
    """A server and a path on it, which ends without a slash; empty: its root."""

    secure: bool
    host: str
    port: int
    path: str

    def of(self, relative: str) -> str:
        """Return what stands in a request's first line for ``relative``; empty: the base."""
        return f"{self.path}/{relative}" if relative else self.path or "/"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse(url: str) -> Address:
    """Return an http or https URL as an address; raise ValueError that says what to change."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError("not a URL; write https://HOST/PATH") from error
    host = parts.hostname or ""
    if parts.scheme not in PORTS or not host:
        raise ValueError("not an http or https URL; write https://HOST/PATH")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError("characters that no URL has; percent-encode them")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials do not belong in a URL; see [oauth]")
    if parts.query or parts.fragment:
        raise ValueError("a base URL has neither query nor fragment; remove them")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("http:// is for this machine only (localhost, 127.0.0.1); write https://")
    return Address(
        parts.scheme == "https", host, port or PORTS[parts.scheme], parts.path.rstrip("/")
    )

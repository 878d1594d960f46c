"""One headless Chromium with one page, driven over its DevTools protocol.

Law: a fresh profile, no network but the page's own, and the end is by its own pid. The
certificate is not waved through: the page trusts only the key that Python has verified against
the box's CA. What the page complains of and every address it asks for are kept.
"""

import base64
import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.parse
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Message, Ping, Request, TextMessage

from tests.system.box import until

CHROMIUM: Final = "/usr/bin/chromium"
START_S: Final = 30.0
ANSWER_S: Final = 15.0

FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)


def key_pin(url: str, context: ssl.SSLContext) -> str:
    """Return the SHA-256 of the server's public key, once the context has verified it."""
    where = urllib.parse.urlsplit(url)
    address = where.hostname or "", where.port or 443
    with (
        socket.create_connection(address, 5) as plain,
        context.wrap_socket(plain, server_hostname=address[0]) as sock,
    ):
        certificate = x509.load_der_x509_certificate(sock.getpeercert(binary_form=True) or b"")
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


class Page:
    """The one page of a browser of its own; calls block until they are answered."""

    def __init__(self, profile: Path, pin: str) -> None:
        """Start Chromium in a profile that does not exist yet; trust the pinned key only."""
        self.complaints: list[str] = []
        """Console errors and warnings, exceptions, failed and refused loads."""
        self.asked: list[str] = []
        """Every address that the page asked for."""
        profile.mkdir()
        self._number = 0
        self._parts: list[str] = []
        self._socket: socket.socket | None = None
        self._wire = WSConnection(ConnectionType.CLIENT)
        with (profile.parent / f"{profile.name}.log").open("wb") as out:
            self._process = subprocess.Popen(
                [
                    CHROMIUM,
                    *FLAGS,
                    f"--user-data-dir={profile}",
                    f"--ignore-certificate-errors-spki-list={pin}",
                    "about:blank",
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            self._connect(profile / "DevToolsActivePort")
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _connect(self, port_file: Path) -> None:
        until(lambda: port_file.is_file() and b"\n" in port_file.read_bytes(), START_S, "Chromium")
        port = int(port_file.read_text().split()[0])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
        client.request("GET", "/json/list")
        targets = json.loads(client.getresponse().read())
        client.close()
        page = next(target for target in targets if target["type"] == "page")
        path = urllib.parse.urlsplit(page["webSocketDebuggerUrl"]).path
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self._socket.sendall(self._wire.send(Request(host=f"127.0.0.1:{port}", target=path)))
        assert isinstance(self._next(), AcceptConnection)

    def close(self) -> None:
        """End the browser and whatever it started."""
        if self._socket is not None:
            self._socket.close()
        if self._process.poll() is None:
            self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with suppress(ProcessLookupError):
            # its own group, which it leads: nobody else's processes are in there
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    # The protocol ------------------------------------------------------------------------

    def _next(self) -> Any:
        """Return the wire's next event, reading what is needed."""
        assert self._socket is not None
        while True:
            for event in self._wire.events():
                if isinstance(event, Ping):
                    self._socket.sendall(self._wire.send(event.response()))
                else:
                    return event
            data = self._socket.recv(1 << 20)
            assert data, "Chromium hung up"
            self._wire.receive_data(data)

    def _message(self) -> dict[str, Any]:
        while True:
            event = self._next()
            assert isinstance(event, Message), event
            assert not isinstance(event, BytesMessage)
            assert isinstance(event, TextMessage)
            self._parts.append(event.data)
            if event.message_finished:
                text = "".join(self._parts)
                self._parts.clear()
                message: dict[str, Any] = json.loads(text)
                return message

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; keep what is told meanwhile."""
        assert self._socket is not None
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        self._socket.sendall(self._wire.send(TextMessage(json.dumps(request))))
        deadline = time.monotonic() + ANSWER_S
        while True:
            message = self._message()
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._keep(message.get("method", ""), message.get("params", {}))
            assert time.monotonic() < deadline, f"{method} was not answered"

    def _keep(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.asked.append(params["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:1000])
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning"}:
            self.complaints.append(json.dumps(params["args"])[:1000])
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            entry = params["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    # What a person does ------------------------------------------------------------------

    def value(self, script: str) -> Any:
        """Return what an expression is worth in the page, a promise's outcome included."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str, seconds: float) -> float:
        """Poll until an expression is true; return how long it took, in seconds."""
        began = time.monotonic()
        until(lambda: self.value(f"Boolean({script})") is True, seconds, script)
        return time.monotonic() - began

    def go(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'", 10)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Make the window this many CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def click(self, selector: str) -> None:
        """Click in the middle of an element, with the mouse."""
        spot = self.value(
            f"(() => {{ const r = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return {x: r.x + r.width / 2, y: r.y + r.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **spot)

    def type(self, selector: str, text: str) -> None:
        """Put the focus on a field by a click and type."""
        self.click(selector)
        self.call("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """Save what is to be seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

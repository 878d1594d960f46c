"""A small FHIR R4 server in a process of its own, that can be told to misbehave.

``fhir_server.py PORT DATABASE [--tls CERT KEY] [--client PUBLIC.pem]``

It stores by id what a transaction or a PUT brings, commits before it answers, and gives a new
version when the content is another. Like HAPI it refuses ids that are digits only (400), and a
transaction that names a resource twice. A resource whose status is no FHIR code is refused with
422 and an outcome that repeats its value. With ``--client`` every request but metadata and
discovery needs a token, which ``/token`` gives for a valid assertion.

``POST /_control`` sets rules, the first of which that fits a request is followed:
``{"on": regex of "METHOD path", "has": text in its body, "times": n, "do": what, "after": bool,
...}``. With ``after`` the request is done first, and only its answer goes wrong.
"""

import argparse
import json
import re
import secrets
import socket
import sqlite3
import ssl
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt

STATUSES = {"registered", "preliminary", "final", "amended", "corrected", "cancelled"}
BASE = "/fhir"


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class World:
    """What all threads share."""

    def __init__(self, database: Path, client: str, url: str) -> None:
        self.lock = threading.Lock()
        self.db = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        self.db.execute("pragma synchronous=off")
        self.db.execute("create table if not exists r(url primary key, body, version)")
        self.db.execute("create table if not exists w(n integer primary key, url, body)")
        self.client = client
        self.url = url
        self.rules: list[dict[str, Any]] = []
        self.seen: list[dict[str, Any]] = []
        self.tokens: dict[str, float] = {}
        self.jtis: set[str] = set()
        self.life_s: object = 300
        self.max_bytes = 10_000_000

    def store(self, entries: list[tuple[str, bytes]]) -> list[int]:
        made = []
        self.db.execute("begin immediate")
        for url, body in entries:
            found = self.db.execute("select body, version from r where url=?", (url,)).fetchone()
            self.db.execute("insert into w(url, body) values(?, ?)", (url, body))
            if found is None:
                self.db.execute("insert into r values(?, ?, 1)", (url, body))
            elif found[0] != body:
                self.db.execute(
                    "update r set body=?, version=? where url=?", (body, found[1] + 1, url)
                )
            made.append(201 if found is None else 200)
        self.db.execute("commit")
        return made


def checked(url: str, resource: dict[str, Any]) -> None:
    kind, _, ident = url.partition("/")
    if resource.get("resourceType") != kind or resource.get("id") != ident:
        raise Refused(400, "HAPI-0420: resource body ID does not match the request URL")
    if ident.isdigit():
        raise Refused(400, "HAPI-0960: clients may only assign IDs which contain a non-numeric")
    if resource.get("status") not in STATUSES:
        raise Refused(422, f"unknown status; value was {resource.get('valueQuantity')}")


def fits(rule: dict[str, Any], line: str, body: bytes) -> bool:
    has = rule.get("has", "").encode() in body
    return bool(rule["times"]) and has and re.fullmatch(rule["on"], line) is not None


def entries_of(body: bytes) -> list[tuple[str, bytes]]:
    try:
        bundle = json.loads(body)
    except ValueError:
        raise Refused(400, "HAPI-0450: failed to parse request body as JSON") from None
    if bundle.get("resourceType") != "Bundle" or bundle.get("type") != "transaction":
        raise Refused(400, "HAPI-0527: unable to process: not a transaction")
    found: dict[str, bytes] = {}
    for entry in bundle["entry"]:
        url = entry["request"]["url"]
        if entry["request"]["method"] != "PUT":
            raise Refused(400, "only PUT here")
        if url in found:
            raise Refused(400, "HAPI-0535: transaction bundle contains multiple resources with ID")
        checked(url, entry["resource"])
        found[url] = json.dumps(entry["resource"]).encode()
    return list(found.items())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    world: World

    def log_message(self, *args: object) -> None:
        pass

    def answer(
        self, status: int, body: object = None, headers: dict[str, str] | None = None
    ) -> None:
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def outcome(self, refused: Refused) -> None:
        issue = {"severity": "error", "code": "processing", "diagnostics": refused.text}
        self.answer(refused.status, {"resourceType": "OperationOutcome", "issue": [issue]})

    def do_GET(self) -> None:
        self.handle_any()

    def do_PUT(self) -> None:
        self.handle_any()

    def do_POST(self) -> None:
        self.handle_any()

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path == "/_control":
            self.control(json.loads(body))
            return
        if self.path == "/_seen":
            self.answer(200, self.world.seen)
            return
        line = f"{self.command} {self.path}"
        with self.world.lock:
            self.world.seen.append(
                {
                    "line": line,
                    "authorization": self.headers.get("Authorization", ""),
                    "headers": dict(self.headers.items()),
                    "bytes": len(body),
                    "port": self.client_address[1],
                }
            )
            rule = next((r for r in self.world.rules if fits(r, line, body)), None)
            if rule is not None:
                rule["times"] -= 1
        if rule is None:
            self.serve(body)
            return
        if rule.get("after"):
            kept, self.wfile = self.wfile, Nowhere()  # type: ignore[assignment]
            self.serve(body)
            self.wfile = kept
        if rule["do"] == "late":
            time.sleep(rule["seconds"])
            self.serve(body)
            return
        self.misbehave(rule)

    def control(self, wanted: dict[str, Any]) -> None:
        world = self.world
        with world.lock:
            world.rules = wanted.get("rules", world.rules)
            world.life_s = wanted.get("life_s", world.life_s)
            world.max_bytes = wanted.get("max_bytes", world.max_bytes)
            if wanted.get("forget_tokens"):
                world.tokens.clear()
            if wanted.get("forget_seen"):
                world.seen.clear()
            if wanted.get("forget_all"):
                world.db.execute("delete from r")
                world.db.execute("delete from w")
                world.seen.clear()
                world.tokens.clear()
        self.answer(200)

    def misbehave(self, rule: dict[str, Any]) -> None:
        do = rule["do"]
        self.close_connection = True
        if do == "status":
            self.close_connection = False
            body = rule.get("body", "").encode()
            self.answer(rule["status"], body, rule.get("headers"))
        elif do == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif do == "hang":
            time.sleep(rule["seconds"])
        elif do == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        elif do == "noise":
            self.wfile.write(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
        elif do == "trickle":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            try:
                for _ in range(1000):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.05)
            except OSError:
                return
        elif do == "flood":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            try:
                for _ in range(rule["mebibytes"]):
                    self.wfile.write(b" " * 1024 * 1024)
            except OSError:
                return
        elif do == "close-after":
            # answers properly, then ends the connection without having said so
            self.serve(b"")
        else:
            raise AssertionError(do)

    def serve(self, body: bytes) -> None:
        try:
            self.serve_or_refuse(body)
        except Refused as refused:
            self.outcome(refused)

    def serve_or_refuse(self, body: bytes) -> None:
        if self.path == "/token":
            self.token(body)
        elif self.path == f"{BASE}/metadata":
            self.answer(200, {"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"})
        elif self.path == f"{BASE}/.well-known/smart-configuration":
            self.answer(200, {"token_endpoint": f"{self.world.url}/token"})
        elif not self.path.startswith(BASE):
            self.answer(404, b"<html>no such page; the patient's value 93</html>")
        else:
            self.authorised()
            if len(body) > self.world.max_bytes:
                raise Refused(413, "too large")
            self.fhir(body)

    def authorised(self) -> None:
        if not self.world.client:
            return
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.world.tokens.get(token, 0) < time.time():
            raise Refused(401, "who are you")

    def fhir(self, body: bytes) -> None:
        world = self.world
        if self.command == "POST" and self.path == BASE:
            entries = entries_of(body)
            with world.lock:
                made = world.store(entries)
            answers = [{"response": {"status": f"{status} OK"}} for status in made]
            self.answer(
                200, {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}
            )
        elif self.command == "PUT":
            url = self.path.removeprefix(f"{BASE}/")
            try:
                resource = json.loads(body)
            except ValueError:
                raise Refused(400, "not JSON") from None
            checked(url, resource)
            with world.lock:
                (status,) = world.store([(url, json.dumps(resource).encode())])
            self.answer(status)
        else:
            raise Refused(405, "not here")

    def token(self, body: bytes) -> None:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        try:
            claims = jwt.decode(
                form["client_assertion"],
                self.world.client,
                algorithms=["ES384", "RS384"],
                audience=f"{self.world.url}/token",
                options={"require": ["iss", "sub", "aud", "exp", "jti"]},
            )
            header = jwt.get_unverified_header(form["client_assertion"])
        except (jwt.InvalidTokenError, KeyError):
            self.answer(401, {"error": "invalid_client", "error_description": "free text"})
            return
        right = (
            form.get("grant_type") == "client_credentials"
            and form.get("client_assertion_type")
            == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            and form.get("scope")
            and claims["iss"] == claims["sub"] == "deliver-test"
            and claims["exp"] <= time.time() + 300
            and claims["jti"] not in self.world.jtis
            and header["kid"] == "key-1"
            and header["typ"] == "JWT"
        )
        if not right:
            self.answer(400, {"error": "invalid_request"})
            return
        self.world.jtis.add(claims["jti"])
        token = secrets.token_urlsafe(24)
        self.world.tokens[token] = time.time() + 3600
        granted = {"access_token": token, "token_type": "bearer", "expires_in": self.world.life_s}
        self.answer(200, granted | {"scope": form["scope"]})


class Nowhere:
    def write(self, data: bytes) -> int:
        return len(data)

    def flush(self) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is not None:
            # here, in the connection's own thread: a handshake must not hold up the others
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("database", type=Path)
    parser.add_argument("--tls", nargs=2, type=Path)
    parser.add_argument("--client", type=Path)
    options = parser.parse_args()
    server = Server(("127.0.0.1", options.port), Handler)
    if options.tls:
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(*options.tls)
    scheme = "https" if options.tls else "http"
    client = options.client.read_text() if options.client else ""
    Handler.world = World(options.database, client, f"{scheme}://localhost:{options.port}")
    server.serve_forever()


if __name__ == "__main__":
    main()

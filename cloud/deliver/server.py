"""The FHIR server, as one partition's thread sees it: three questions, each with its token.

Law: a token that is refused is replaced once a request; nothing is tried again here.
"""

import ssl
import threading
from typing import Final

from cloud.deliver.address import Address
from cloud.deliver.answer import LOGIN, Answer, is_r4
from cloud.deliver.connection import Connection
from cloud.deliver.tokens import Tokens

JSON: Final = "application/fhir+json"


class Server:
    """Owns the connection; `close` ends it."""

    def __init__(self, base: Address, connection: Connection, tokens: Tokens | None) -> None:
        """Connect when first asked."""
        self._base = base
        self.connection = connection
        self._tokens = tokens

    def transact(self, bundle: bytes) -> Answer:
        """POST a transaction Bundle; raise Unanswered."""
        return self._send("POST", "", bundle)

    def put(self, url: str, body: bytes) -> Answer:
        """PUT a resource; raise Unanswered."""
        return self._send("PUT", url, body)

    def is_r4(self) -> bool:
        """Tell whether a FHIR R4 server answers at the base URL; raise Unanswered."""
        return is_r4(self._send("GET", "metadata", None))

    def _send(self, method: str, relative: str, body: bytes | None) -> Answer:
        path = self._base.of(relative)
        headers = {"Accept": JSON}
        if body is not None:
            # Without it a server sends every resource back.
            headers |= {"Content-Type": JSON, "Prefer": "return=minimal"}
        if self._tokens is None:
            return self.connection.request(method, path, headers, body)
        token = self._tokens.current()
        answer = self.connection.request(method, path, headers | _bearer(token), body)
        if answer.status == LOGIN:
            token = self._tokens.renewed(token)
            answer = self.connection.request(method, path, headers | _bearer(token), body)
        return answer


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class OneRequest:
    """`tokens.Ask`: each request on a connection of its own, which `check` bounds."""

    def __init__(self, context: ssl.SSLContext, answer_s: float) -> None:
        """Connect when asked."""
        self._context = context
        self._answer_s = answer_s
        self._lock = threading.Lock()
        self._under_way: Connection | None = None

    def __call__(
        self, to: Address, method: str, path: str, headers: dict[str, str], body: bytes | None
    ) -> Answer:
        """Return the answer; raise Unanswered."""
        connection = Connection(to, self._context, self._answer_s)
        with self._lock:
            self._under_way = connection
        try:
            return connection.request(method, path, headers, body)
        finally:
            with self._lock:
                self._under_way = None
            connection.close()

    def check(self) -> None:
        """Abort a request that has taken longer than it may."""
        with self._lock:
            connection = self._under_way
        if connection is not None:
            connection.check()

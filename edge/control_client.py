"""Asks a running gateway over its control socket (CONTROL.md); plain blocking sockets.

Law: every wait is bounded; an answer that is an error, cut or no JSON raises `Unanswered` with
words for the technician. `Stream` is closed by whoever opened it.
"""

import json
from pathlib import Path
from typing import Any, Final

from edge.control_path import connect

TIMEOUT_S: Final = 5.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of one answer: `edge.survey.ROWS_MAX` rows with 64 vital signs each stay below."""

_RECEIVE_BYTES: Final = 64 * 1024


class Unanswered(Exception):
    """The gateway can not be reached, refused, or broke off; the text says which."""


class Stream:
    """One connection: `send` requests, `next` answers."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        """Connect; raise Unanswered."""
        try:
            self._sock = connect(path, timeout_s)
        except FileNotFoundError:
            raise Unanswered("no control socket; is the gateway running?") from None
        except ConnectionRefusedError:
            raise Unanswered("the control socket is of a gateway that has ended") from None
        except PermissionError:
            raise Unanswered(
                "the control socket is not yours to open; use sudo, or the gateway's own user"
            ) from None
        except OSError as error:
            raise Unanswered(f"the control socket: {type(error).__name__}") from error
        self._held = b""

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def fileno(self) -> int:
        """Return the descriptor, for select."""
        return self._sock.fileno()

    def send(self, request: dict[str, Any]) -> None:
        """Ask; raise Unanswered."""
        try:
            self._sock.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise Unanswered("the gateway hung up") from error

    def next(self) -> dict[str, Any]:
        """Wait for one answer; raise Unanswered."""
        while (answer := self.taken()) is None:
            self.receive()
        return answer

    def receive(self) -> None:
        """Take what is there, or wait for it; raise Unanswered."""
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except TimeoutError:
            raise Unanswered("the gateway does not answer; is it stuck?") from None
        except OSError as error:
            raise Unanswered(f"the gateway hung up ({type(error).__name__})") from error
        if not data:
            raise Unanswered("the gateway hung up")
        self._held += data
        if len(self._held) > ANSWER_BYTES_MAX:
            raise Unanswered("the answer is too long to be one of a gateway")

    def taken(self) -> dict[str, Any] | None:
        """Return an answer that is wholly there, or None; raise Unanswered for an error."""
        line, end, rest = self._held.partition(b"\n")
        if not end:
            return None
        self._held = rest
        try:
            answer = json.loads(line)
        except ValueError:
            raise Unanswered("the answer is no JSON; whose socket is it?") from None
        if not isinstance(answer, dict):
            raise Unanswered("the answer is no JSON object; whose socket is it?")
        if "error" in answer and len(answer) == 1:
            raise Unanswered(str(answer["error"]))
        return answer


def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one request; raise Unanswered."""
    with Stream(path) as stream:
        stream.send(request)
        return stream.next()

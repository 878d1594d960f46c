"""A bedside listener: a real TCP server on loopback that keeps what it hears, with times."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

WAIT_S = 15.0


class Listener:
    """Accepts connections on a thread each; ``lines`` holds (connection number, line).

    ``cut_after`` closes the first connection after so many lines; ``answer`` makes replies.
    """

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        cut_after: int = 0,
        answer: Callable[[int, str], str] | None = None,
    ) -> None:
        self._answer = answer
        self.lines: list[tuple[int, str]] = []
        self.closed = 0
        self._context, self._cut_after = context, cut_after
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(number, sock))
            self._threads.append(thread)
            thread.start()
            number += 1

    def _serve(self, number: int, sock: socket.socket) -> None:
        try:
            with sock:
                sock.settimeout(WAIT_S)
                if self._context is None:
                    self._read(number, sock)
                else:
                    with self._context.wrap_socket(sock, server_side=True) as secure:
                        self._read(number, secure)
        except OSError:
            pass
        self.closed += 1

    def _read(self, number: int, sock: socket.socket) -> None:
        heard = 0
        with sock.makefile("r", encoding="utf-8", newline="\n") as file:
            for line in file:
                self.lines.append((number, line))
                heard += 1
                if self._answer is not None:
                    sock.sendall(self._answer(number, line).encode())
                if self._cut_after and heard >= self._cut_after and number == 0:
                    return

    def texts(self) -> list[str]:
        return [line for _, line in self.lines]

    def wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + WAIT_S
        while not ready():
            assert time.monotonic() < until, self.lines
            time.sleep(0.01)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._accepting.join(WAIT_S)
        for thread in self._threads:
            thread.join(WAIT_S)


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def make(
        context: ssl.SSLContext | None = None,
        cut_after: int = 0,
        answer: Callable[[int, str], str] | None = None,
    ) -> Listener:
        made.append(Listener(context, cut_after, answer))
        return made[-1]

    yield make
    for one in made:
        one.close()

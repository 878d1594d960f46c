"""A stand-in for ingest: speaks vitals.session on loopback and opens what it gets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio_websocket
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from vitals import epoch, frame, session
from vitals.columns import Columns
from vitals.frame import Header, Lane
from vitals.reading import Rejected


class Opener:
    """Opens frames with the cloud's private key."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self._openers: dict[str, frame.FrameOpener] = {}

    def learn(self, wrapped: epoch.WrappedEpoch) -> None:
        self._openers[wrapped.epoch] = frame.FrameOpener(epoch.unwrap(wrapped, self._private))

    def open(self, data: bytes) -> tuple[Header, Columns | list[Rejected]]:
        header, body = self._openers[frame.read_header(data).epoch].open(data)
        if header.lane == Lane.QUARANTINE:
            return header, frame.read_rejects(body)
        return header, frame.read_readings(body)


class Ingest:
    """Records what arrives; acks at once unless told otherwise."""

    def __init__(self, private: X25519PrivateKey, credit: int = 64) -> None:
        self.opener = Opener(private)
        self.credit = credit
        self.acking = True
        self.answering = True
        self.sessions: list[list[tuple[str, int, int]]] = []
        """Per session: (epoch, seq, floor) in order of arrival."""
        self.hellos: list[session.Hello] = []
        self.frames: list[tuple[Header, Columns | list[Rejected]]] = []
        self.websocket: Any = None
        self.streams: list[Any] = []
        self.port = 0

    async def _serve(self, request: Any) -> None:
        websocket = self.websocket = await request.accept()
        self.streams.append(websocket._stream)
        seen: list[tuple[str, int, int]] = []
        self.sessions.append(seen)
        try:
            while True:
                await self._message(websocket, await websocket.get_message(), seen)
        except trio_websocket.ConnectionClosed:
            pass

    async def _message(self, websocket: Any, raw: bytes, seen: list[tuple[str, int, int]]) -> None:
        message = session.decode_edge(raw)
        if not self.answering:
            return
        match message:
            case session.Hello():
                self.hellos.append(message)
                for wrapped in message.epochs:
                    self.opener.learn(wrapped)
                await websocket.send_message(session.encode(session.Welcome(1, self.credit, 0)))
            case session.Epoch():
                self.opener.learn(message.epoch)
            case session.Ping():
                pong = session.Pong(message.sent_ms, message.sent_ms + 40, message.sent_ms + 40)
                await websocket.send_message(session.encode(pong))
            case session.Data():
                header, body = self.opener.open(message.frame)
                seen.append((header.epoch, header.seq, message.floor))
                self.frames.append((header, body))
                if self.acking:
                    await self.ack(header.epoch, [(header.seq, header.seq)])
            case _:
                pass

    async def ack(self, of: str, ranges: list[tuple[int, int]]) -> None:
        await self.websocket.send_message(session.encode(session.Ack(of, ranges)))


@asynccontextmanager
async def serving(ingest: Ingest, port: int = 0) -> AsyncIterator[Ingest]:
    """Serve on 127.0.0.1 while in the block; `ingest.port` says where."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        server = trio_websocket.WebSocketServer(ingest._serve, listeners)
        ingest.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(server.run)
        yield ingest
        nursery.cancel_scope.cancel()
    for stream in ingest.streams:  # trio_websocket leaves them open when it is cancelled
        stream.socket.close()


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Wait for something another process or task does: a bounded poll."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - nothing there tells a test
            await trio.sleep(0.005)

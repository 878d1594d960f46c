"""The technician's socket: one JSON object a line in, one a line out (CONTROL.md).

Law: never in the way of collection. Requests, answers, connections and times are bounded; a
client that does not read is cut off; a survey of many devices lets others run in between. Values
of patients leave only for a request that says who asks, and that is logged first, with the uid
that the kernel vouches for. If the socket can not be opened, that is logged and nothing else
fails. `serve` closes every socket it opened and removes its file.
"""

import re
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import trio

from edge.control_path import Listening
from edge.devices import Devices
from edge.survey import ROWS_MAX, Skew, Survey
from healthsync.runtime.log import Log

REQUEST_BYTES_MAX: Final = 4096
"""One request; the longest useful one is about 100 bytes."""

CLIENTS_MAX: Final = 8
"""Technicians, scripts and monitors at once; beyond it a newcomer is told so."""

IDLE_S_MAX: Final = 60.0
"""Between two requests of one connection."""

SEND_S_MAX: Final = 5.0
"""For one answer to be taken; a client that does not read it is cut off."""

WATCH_S_MIN: Final = 0.5
WATCH_S_MAX: Final = 60.0
"""Seconds between two snapshots of one stream."""

DEVICES_A_TURN: Final = 200
"""Devices looked at before other tasks get their turn: about a millisecond."""

ROWS_A_TURN: Final = 50
"""Rows made likewise."""

_WHO: Final = re.compile(r"[^\W_][\w.@+ -]{0,63}")
_PEER: Final = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of a client; exactly one of the first three is set."""

    get: Literal["status", "devices"] | None = None
    do: Literal["reload"] | None = None
    watch: Annotated[float, msgspec.Meta(ge=WATCH_S_MIN, le=WATCH_S_MAX)] | None = None
    reveal: bool = False
    who: str = ""
    rows: Annotated[int, msgspec.Meta(ge=1, le=ROWS_MAX)] = ROWS_MAX


class BadRequest(Exception):
    """What is wrong with a request, and what would be right."""


_decoder = msgspec.json.Decoder(Request)
_encoder = msgspec.json.Encoder()


def parse(line: bytes) -> Request:
    """Return the checked request; raise BadRequest."""
    try:
        request = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec names the field and the kind, never the content.
        said = str(error) if isinstance(error, msgspec.ValidationError) else "not JSON"
        raise BadRequest(f'{said}; ask like {{"get":"status"}} (edge/CONTROL.md)') from None
    asked = [one for one in (request.get, request.do, request.watch) if one is not None]
    if len(asked) != 1:
        raise BadRequest("give one of get, do and watch")
    if request.reveal and (request.do or request.get == "status"):
        raise BadRequest("reveal goes with get devices and with watch")
    if request.reveal and not _WHO.fullmatch(request.who):
        raise BadRequest("reveal needs who: your name, at most 64 letters, digits and . @ + -")
    return request


class Control:
    """What the requests are answered from; the parts are given as callables."""

    def __init__(
        self,
        devices: Devices,
        skew: Skew,
        status: Callable[[], dict[str, Any]],
        reload: Callable[[], Awaitable[dict[str, Any]]],
        log: Log,
        now_ms: Callable[[], int],
    ) -> None:
        """Nothing is opened before `serve`."""
        self._devices, self._skew = devices, skew
        self._status, self._reload = status, reload
        self._log, self._now_ms = log, now_ms
        self._clients = 0

    async def serve(
        self, path: Path, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Answer at ``path`` until cancelled; return at once when it can not be opened."""
        try:
            listening = Listening(path)
        except OSError as error:
            self._log.error(
                "control-socket-not-opened", error=type(error).__name__, errno=error.errno
            )
            task_status.started()
            return
        try:
            listener = trio.socket.from_stdlib_socket(listening.sock)
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    sock, _ = await self._accept(listener)
                    nursery.start_soon(self._client, sock)
        finally:
            listening.close()

    async def _accept(self, listener: trio.socket.SocketType) -> tuple[trio.socket.SocketType, Any]:
        while True:
            try:
                return await listener.accept()
            except OSError as error:  # out of descriptors: the devices need them more
                self._log.warning("control-not-accepted", errno=error.errno)
                await trio.sleep(1.0)

    async def _client(self, sock: trio.socket.SocketType) -> None:
        with sock:
            self._clients += 1
            try:
                if self._clients > CLIENTS_MAX:
                    await _send(sock, {"error": f"{CLIENTS_MAX} clients are connected; try later"})
                else:
                    await self._talk(sock)
            except (OSError, trio.TooSlowError):
                pass  # it has gone, or does not read: nobody is left to tell
            except Exception as error:  # noqa: BLE001 - a defect here ends one client
                self._log.crash("control-crashed", error)
            finally:
                self._clients -= 1

    async def _talk(self, sock: trio.socket.SocketType) -> None:
        held = b""
        while True:
            with trio.fail_after(IDLE_S_MAX):
                while b"\n" not in held:
                    if len(held) > REQUEST_BYTES_MAX:
                        await _send(sock, {"error": f"at most {REQUEST_BYTES_MAX} bytes a line"})
                        return
                    data = await sock.recv(REQUEST_BYTES_MAX)
                    if not data:
                        return
                    held += data
            line, _, held = held.partition(b"\n")
            try:
                request = parse(line)
            except BadRequest as bad:
                await _send(sock, {"error": str(bad)})
                continue
            if request.watch is not None:
                await self._stream(sock, request, request.watch)
                return
            await self._answer(sock, request)

    async def _answer(self, sock: trio.socket.SocketType, request: Request) -> None:
        if request.do is not None:
            self._log.info("reload-asked", uid=_uid(sock))
            await _send(sock, await self._reload())
            return
        if request.reveal:
            self._log.warning("values-revealed", who=request.who, uid=_uid(sock))
        await _send(sock, await self._snapshot(request))

    async def _stream(self, sock: trio.socket.SocketType, request: Request, pause_s: float) -> None:
        uid, sent = _uid(sock), 0
        if request.reveal:
            self._log.warning("values-revealed", who=request.who, uid=uid)
        try:
            while True:
                await _send(sock, await self._snapshot(request))
                sent += 1
                # Whatever it says now, its end included, ends the stream.
                with trio.move_on_after(pause_s):
                    await sock.recv(REQUEST_BYTES_MAX)
                    return
        finally:
            if request.reveal:
                self._log.warning("values-hidden", who=request.who, uid=uid, snapshots=sent)

    async def _snapshot(self, request: Request) -> dict[str, Any]:
        now_ms = self._now_ms()
        survey = Survey(now_ms, self._skew, request.rows)
        devices = list(self._devices)
        for at in range(0, len(devices), DEVICES_A_TURN):
            survey.look(devices[at : at + DEVICES_A_TURN])
            await trio.lowlevel.checkpoint()
        answer: dict[str, Any] = {"at_ms": now_ms}
        if request.get != "devices":
            answer["status"] = self._status() | {"devices": survey.counts()}
        if request.get != "status":
            answer["counts"] = survey.counts()
            answer["rows"] = rows = []
            for found in survey.worst():
                rows.append(survey.row(found, reveal=request.reveal))
                if len(rows) % ROWS_A_TURN == 0:
                    await trio.lowlevel.checkpoint()
        return answer


def _uid(sock: trio.socket.SocketType) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(raw)[1])


async def _send(sock: trio.socket.SocketType, answer: dict[str, Any]) -> None:
    data = memoryview(_encoder.encode(answer) + b"\n")
    with trio.fail_after(SEND_S_MAX):
        while data:
            data = data[await sock.send(data) :]

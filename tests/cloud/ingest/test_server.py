"""The real listener on loopback: TLS, certificates, headers, one frame through."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import msgspec
import pytest
import trio
import trio_websocket

from cloud.ingest import server as server_
from cloud.ingest.config import Listen
from cloud.ingest.delivery import Parcel
from cloud.ingest.revoked import Revoked
from cloud.ingest.server import Certificate, Server, certificate, common_name, edge_name
from cloud.ingest.unpack import Batch, Record, Unpacker
from cloud.records import Instruction, Presence
from healthsync.runtime.log import Log
from tests.cloud.ingest.frames import NOW, Edge, Keys
from tests.cloud.revocation.rig import Gateways
from tests.healthsync.certs import Authority
from vitals import session
from vitals.limits import CREDIT_FRAMES


class Sink:
    """Takes everything at once."""

    crowded = False
    relaxed = True

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.offered: list[Record] = []

    async def send(self, batch: Batch, done: Callable[[Parcel], None]) -> None:
        self.batches.append(batch)
        done(Parcel(batch, done, lambda _parcel: None, lambda _message: True, 0.0))

    def offer(self, records: Sequence[Record], done: Callable[[bool], None]) -> None:
        self.offered += records
        done(True)


class Bench:
    def __init__(self, folder: Path, keys: Keys, unpacker: Unpacker) -> None:
        self.authority = Authority(folder)
        self.sink, self.log = Sink(), StringIO()
        self.crl = folder / "gateways.crl"
        self.now_ms = NOW
        cert, key = self.authority.issue("ingest")
        listen = Listen("127.0.0.1", 0, cert, key, self.authority.ca)
        self.server = Server(
            listen,
            keys.cloud,
            unpacker,
            self.sink,  # type: ignore[arg-type] # as much of Delivery as the server uses
            lambda: self.now_ms,
            Log("ingest", lambda: NOW, self.log),
            revoked=Revoked(self.crl, Log("ingest", lambda: NOW, self.log)),
        )
        self.port = 0

    @asynccontextmanager
    async def gateway(
        self,
        client: str = "haproxy",
        edge: str = "ward-3",
        path: str = "/uplink",
        **shown: str,
    ) -> AsyncIterator[trio_websocket.WebSocketConnection]:
        context = ssl.create_default_context(cafile=self.authority.ca)
        context.load_cert_chain(*self.authority.issue(client))
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", self.port, ssl_context=context)
        headers = [(b"X-Edge-Id", edge.encode())] if edge else []
        for name, value in shown.items():
            headers.append((f"X-Edge-{name.replace('_', '-')}".encode(), value.encode()))
        async with stream, trio.open_nursery() as nursery:
            with trio.fail_after(0.5):
                websocket = await trio_websocket.wrap_client_stream(
                    nursery, stream, "localhost", path, extra_headers=headers
                )
            yield websocket
            nursery.cancel_scope.cancel()

    def run(self, test: Callable[[], Awaitable[None]]) -> None:
        async def body() -> None:
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    self.port = await nursery.start(self.server.run)
                    await test()
                    self.server.stop()
                    await self.server.over.wait()

        trio.run(body)


@pytest.fixture
def bench(tmp_path: Path, keys: Keys, unpacker: Unpacker) -> Bench:
    return Bench(tmp_path, keys, unpacker)


async def greet(websocket: trio_websocket.WebSocketConnection, edge: Edge) -> session.CloudMessage:
    await websocket.send_message(session.encode(session.Hello(1, edge.name, "", [edge.wrapped])))
    heard = session.decode_cloud(await websocket.get_message())
    assert heard is not None
    return heard


def test_a_frame_goes_through_tls_and_websocket_and_is_acknowledged(
    bench: Bench, edge: Edge
) -> None:
    async def test() -> None:
        async with bench.gateway() as websocket:
            expected = session.Welcome(1, CREDIT_FRAMES, NOW, [], [edge.wrapped.key_id])
            assert await greet(websocket, edge) == expected
            await websocket.send_message(session.encode(session.Data(edge.simple(0), 0)))
            heard = session.decode_cloud(await websocket.get_message())
            assert heard == session.Ack(edge.epoch, [(0, 0)])

    bench.run(test)
    assert [batch.seq for batch in bench.sink.batches] == [0]


def presences(bench: Bench) -> list[tuple[int, Presence]]:
    """Return (partition, presence) of what was offered, in order."""
    found = []
    for record in bench.sink.offered:
        said = msgspec.json.decode(record.value, type=Instruction)
        assert isinstance(said, Presence)
        assert (record.topic, record.key) == ("commands", said.edge.encode())
        found.append((record.partition, said))
    return found


def test_a_session_is_told_to_every_partition_from_its_welcome_to_its_end(
    bench: Bench, edge: Edge
) -> None:
    async def test() -> None:
        async with bench.gateway() as websocket:
            await trio.sleep(0.1)
            assert presences(bench) == [], "nobody knows yet who this is"
            await greet(websocket, edge)
            began = [(partition, Presence("ward-3", True, NOW)) for partition in range(8)]
            assert presences(bench) == began
            async with bench.gateway(edge="ward-4"):
                pass  # leaves before it said hello
        with trio.fail_after(5):
            while len(bench.sink.offered) < 16:  # noqa: ASYNC110 - the server sets no event
                await trio.sleep(0.01)
        ended = [(partition, Presence("ward-3", False, NOW)) for partition in range(8)]
        assert presences(bench) == began + ended

    bench.run(test)


def test_of_two_sessions_of_one_gateway_only_the_last_end_is_told(bench: Bench, edge: Edge) -> None:
    async def test() -> None:
        async with bench.gateway() as older:
            await greet(older, edge)
            async with bench.gateway() as newer:
                await greet(newer, edge)
                heard = session.decode_cloud(await older.get_message())
                assert isinstance(heard, session.Close)
                bench.server.stop()
                await bench.server.over.wait()

    bench.run(test)
    assert [said.connected for _, said in presences(bench)][::8] == [True, True, False]


def test_stopping_says_going_away_and_closes(bench: Bench, edge: Edge) -> None:
    async def test() -> None:
        async with bench.gateway() as websocket:
            await greet(websocket, edge)
            bench.server.stop()
            heard = session.decode_cloud(await websocket.get_message())
            assert isinstance(heard, session.Close)
            assert heard.reason == "going-away"
            with pytest.raises(trio_websocket.ConnectionClosed):
                await websocket.get_message()

    bench.run(test)


def _revoke(bench: Bench, folder: Path, *serials: int) -> None:
    gateways = Gateways(folder)
    bench.crl.write_bytes(gateways.lists(*serials))


def test_a_revoked_certificate_is_refused_and_its_open_session_ended_the_others_go_on(
    bench: Bench, edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_, "REVOKED_CHECK_S", 0.05)

    async def test() -> None:
        async with (
            bench.gateway(Serial="0A0B") as websocket,
            bench.gateway(edge="ward-4", Serial="0A0C") as other,
        ):
            await greet(websocket, edge)
            _revoke(bench, tmp_path, 0xA0B)
            heard = session.decode_cloud(await websocket.get_message())
            assert isinstance(heard, session.Close)
            assert heard.reason == "revoked"
            await trio.sleep(0.2)
            assert not other.closed
            assert await refused(bench, "haproxy", "ward-3", "/uplink", Serial="a0b")
            async with bench.gateway(Serial="0D"):
                pass

    bench.run(test)
    assert "a0b" in bench.log.getvalue()


def test_a_session_ends_with_its_certificate(
    bench: Bench, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_, "REVOKED_CHECK_S", 0.05)
    end = datetime(2027, 3, 1, tzinfo=UTC)

    async def test() -> None:
        async with bench.gateway(Serial="0A", Not_After="270301000000Z") as websocket:
            await greet(websocket, edge)
            bench.now_ms = int(end.timestamp() * 1000)
            heard = session.decode_cloud(await websocket.get_message())
            assert isinstance(heard, session.Close)
            assert heard.reason == "going-away"
        assert await refused(
            bench, "haproxy", "ward-3", "/uplink", Serial="0A", Not_After="270301000000Z"
        )

    bench.run(test)


def test_what_haproxy_says_of_a_certificate_is_read_and_nonsense_is_nothing() -> None:
    good = [(b"X-Edge-Serial", b"00FF"), (b"X-Edge-Not-After", b"270301000000Z")]
    end = datetime(2027, 3, 1, tzinfo=UTC)
    assert certificate(good) == Certificate(255, int(end.timestamp() * 1000))
    bad = [(b"X-Edge-Serial", b"xx"), (b"X-Edge-Not-After", b"tomorrow")]
    assert certificate(bad) == certificate([]) == Certificate(None, None)


def test_a_list_that_cannot_be_read_leaves_what_was_known(tmp_path: Path) -> None:
    said = StringIO()
    file = tmp_path / "list"
    file.write_bytes(Gateways(tmp_path).lists(7))
    revoked = Revoked(file, Log("ingest", lambda: NOW, said))
    assert 7 in revoked
    file.write_bytes(b"-----BEGIN X509 CRL-----\nnonsense\n-----END X509 CRL-----\n")
    revoked.look()
    assert 7 in revoked
    assert "revocation-list-unreadable" in said.getvalue()
    file.unlink()
    revoked.look()
    assert 7 in revoked


async def refused(bench: Bench, client: str, edge: str, path: str, **shown: str) -> list[Exception]:
    """Return why a gateway did not get in."""
    why: list[Exception] = []
    try:
        async with bench.gateway(client, edge, path, **shown):
            pytest.fail("let in")
    except* (trio_websocket.ConnectionRejected, trio.TooSlowError, trio.BrokenResourceError) as e:
        why += e.exceptions
    return why


def test_only_haproxys_certificate_is_let_in(bench: Bench) -> None:
    async def test() -> None:
        assert await refused(bench, "ward-3", "ward-3", "/uplink")

    bench.run(test)
    assert "client-refused" in bench.log.getvalue()
    assert "session-began" not in bench.log.getvalue()


def test_a_client_without_a_certificate_gets_nowhere(bench: Bench) -> None:
    async def test() -> None:
        context = ssl.create_default_context(cafile=bench.authority.ca)
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", bench.port, ssl_context=context)
        try:
            await stream.do_handshake()  # TLS 1.3: the refusal comes with the first read
            heard: bytes | bytearray = b""
            # An alert, or the end alone: which arrives depends on the client's OpenSSL.
            with suppress(trio.BrokenResourceError):
                await stream.send_all(b"GET /uplink HTTP/1.1\r\nHost: ingest\r\n\r\n")
                heard = await stream.receive_some(1)
            assert heard == b""
        finally:
            await trio.aclose_forcefully(stream)

    bench.run(test)


@pytest.mark.parametrize(
    ("edge", "path", "status"), [("", "/uplink", 403), ("a/b", "/uplink", 403), ("e", "/", 404)]
)
def test_a_request_without_name_or_path_is_rejected(
    bench: Bench, edge: str, path: str, status: int
) -> None:
    async def test() -> None:
        (error,) = await refused(bench, "haproxy", edge, path)
        assert isinstance(error, trio_websocket.ConnectionRejected)
        assert error.status_code == status

    bench.run(test)


def test_hello_of_another_name_than_the_header_is_closed(bench: Bench, other_edge: Edge) -> None:
    async def test() -> None:
        async with bench.gateway() as websocket:
            heard = await greet(websocket, other_edge)
            assert isinstance(heard, session.Close)
            assert heard.reason == "identity"

    bench.run(test)


def test_a_crowded_producer_halts_every_gateway(bench: Bench, edge: Edge) -> None:
    async def test() -> None:
        async with bench.gateway() as websocket:
            await greet(websocket, edge)
            bench.sink.crowded, bench.sink.relaxed = True, False
            heard = session.decode_cloud(await websocket.get_message())
            assert heard == session.Credit(0)
            bench.sink.crowded, bench.sink.relaxed = False, True
            heard = session.decode_cloud(await websocket.get_message())
            assert heard == session.Credit(CREDIT_FRAMES)

    bench.run(test)


def test_one_gateway_that_breaks_off_does_not_disturb_another(bench: Bench, edge: Edge) -> None:
    async def test() -> None:
        async with bench.gateway() as websocket:
            await greet(websocket, edge)
            raw = await trio.open_tcp_stream("127.0.0.1", bench.port)
            await raw.send_all(b"\x16\x03junk")
            await raw.aclose()
            await websocket.send_message(session.encode(session.Data(edge.simple(0), 0)))
            assert isinstance(session.decode_cloud(await websocket.get_message()), session.Ack)

    bench.run(test)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ([(b"X-Edge-Id", b"ward-3")], "ward-3"),
        ([(b"x-edge-id", b"a"), (b"x-edge-id", b"b")], None),
        ([], None),
        ([(b"x-edge-id", b"")], None),
        ([(b"x-edge-id", b"-a")], None),
        ([(b"x-edge-id", "wärd".encode())], None),
        ([(b"x-edge-id", b"a" * 65)], None),
    ],
)
def test_the_name_comes_from_exactly_one_sound_header(
    headers: list[tuple[bytes, bytes]], name: str | None
) -> None:
    assert edge_name(headers) == name


def test_the_common_name_is_read_from_the_subject_only() -> None:
    certificate = {
        "subject": ((("organizationName", "x"),), (("commonName", "haproxy"),)),
        "issuer": ((("commonName", "ca"),),),
    }
    assert common_name(certificate) == "haproxy"
    assert common_name({"issuer": ((("commonName", "haproxy"),),)}) == ""
    assert common_name(None) == ""


def test_of_two_sessions_of_one_gateway_the_newer_wins(bench: Bench, edge: Edge) -> None:
    async def test() -> None:
        async with bench.gateway() as older:
            await greet(older, edge)
            async with bench.gateway() as newer:
                await greet(newer, edge)
                heard = session.decode_cloud(await older.get_message())
                assert isinstance(heard, session.Close)
                assert heard.reason == "superseded"
                await newer.send_message(session.encode(session.Data(edge.simple(0), 0)))
                heard = session.decode_cloud(await newer.get_message())
                assert heard == session.Ack(edge.epoch, [(0, 0)])

    bench.run(test)


def test_a_gateway_that_lost_its_answers_is_told_what_arrived(bench: Bench, edge: Edge) -> None:
    async def test() -> None:
        async with bench.gateway() as first:
            await greet(first, edge)
            await first.send_message(session.encode(session.Data(edge.simple(0), 0)))
            await first.get_message()
        async with bench.gateway() as second:
            welcome = await greet(second, edge)
            assert isinstance(welcome, session.Welcome)
            assert welcome.resume == [(edge.epoch, [(0, 0)])]

    bench.run(test)

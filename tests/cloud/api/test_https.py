"""A real hypercorn with real TLS: who gets in, and a stream to its end."""

import json
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.lowlevel

from cloud import https
from cloud.records import LiveUpdate
from cloud.settings import Listen
from tests.healthsync.certs import Authority


@pytest.fixture
def listen(tmp_path: Path) -> Listen:
    authority = Authority(tmp_path, "authority")
    for name in ("api", https.PEER, "detect"):
        authority.issue(name)
    (tmp_path / "strange").mkdir()
    Authority(tmp_path / "strange", "stranger").issue(https.PEER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return Listen(
        "127.0.0.1",
        port,
        tmp_path / "api.pem",
        tmp_path / "api.key",
        authority.ca,
    )


def client(listen: Listen, name: str | None, directory: str = ".") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(listen.client_ca))
    if name is not None:
        at = listen.client_ca.parent / directory / name
        context.load_cert_chain(f"{at}.pem", f"{at}.key")
    return context


def serve(ward: Any, listen: Listen, script: Any) -> None:
    async def run() -> None:
        stop = trio.Event()
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ward.hub.run)
                async with trio.open_nursery() as serving:
                    await serving.start(https.run, ward.app, listen, stop.wait)
                    await script(f"https://localhost:{listen.port}")
                    ward.hub.close()
                    stop.set()
                nursery.cancel_scope.cancel()

    trio.run(run)


def test_only_haproxys_certificate_gets_in(ward: Any, listen: Listen) -> None:
    old = client(listen, https.PEER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    async def script(base: str) -> None:
        async with httpx.AsyncClient(verify=client(listen, https.PEER)) as right:
            answer = await right.get(f"{base}/fhir/metadata")
            assert answer.status_code == 200
            assert "server" not in answer.headers
        for context in (
            client(listen, None),
            client(listen, "detect"),
            client(listen, https.PEER, "strange"),
            old,
        ):
            async with httpx.AsyncClient(verify=context) as wrong:
                with pytest.raises(httpx.TransportError):
                    await wrong.get(f"{base}/fhir/metadata")

    serve(ward, listen, script)


def test_a_stream_is_live_until_the_server_stops_and_leaves_nobody_behind(
    ward: Any, listen: Listen, make: Any, names: Any
) -> None:
    heard: list[str] = []

    def station(base: str) -> None:
        header = {"Authorization": f"Bearer {ward.token()}"}
        update = LiveUpdate(names[0], [make("spo2", 97)])
        with (
            httpx.Client(verify=client(listen, https.PEER)) as page,
            page.stream("GET", f"{base}/ward/events", headers=header) as answer,
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                heard.append(line)
                if not line.startswith("data"):
                    continue
                if json.loads(line[6:]).get("beds"):
                    break
                trio.from_thread.run_sync(ward.hub.receive, [update])

    async def script(base: str) -> None:
        ward.hub.set_live(live=True)
        await trio.to_thread.run_sync(station, base)
        gauge = "healthsync_api_sse_clients"
        while ward.registry.get_sample_value(gauge) != 0:  # noqa: ASYNC110 - the kernel tells
            await trio.sleep(0.01)

    serve(ward, listen, script)
    assert "event: state" in heard
    assert any('"spo2"' in line for line in heard)

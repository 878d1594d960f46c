"""Who may speak: one listing is enough, and what the policy does to the rest."""

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from edge import collect, metrics, proxy
from edge.admission import Admission
from edge.config import Known
from tests.edge.gateway import Gateway, caller, hear, running
from tests.edge.ingest import until

NETS = [ipaddress.ip_network("10.20.0.0/16"), ipaddress.ip_network("fd00::/8")]


def _serve(gateway: Gateway, talk: Any, *, proxied: bool = False) -> None:
    async def main() -> None:
        port = gateway.collector.listen("line", "127.0.0.1", 0, proxied=proxied)
        async with running(gateway):
            await talk(port)

    trio.run(main)


@pytest.mark.parametrize(
    ("address", "certificate", "welcome"),
    [
        ("10.20.255.255", "", True),
        ("10.21.0.0", "", False),
        ("fd00::7", "", True),
        ("fe80::1", "", False),
        ("proxy", "", False),
        ("192.0.2.1", "monitor-7", True),
        ("192.0.2.1", "monitor-8", False),
        ("192.0.2.1", "", False),
    ],
)
def test_an_address_or_a_certificate_makes_welcome(
    address: str, certificate: str, welcome: bool
) -> None:
    for policy in ("quarantine", "refuse"):
        admission = Admission(policy, NETS, (), ("monitor-7", ""))
        assert admission.caller(address, certificate).welcome is welcome
    assert Admission("accept", NETS).caller(address, certificate).welcome


def test_device_names_are_matched_whole_and_in_their_case() -> None:
    admission = Admission("quarantine", (), ("bed-*", "vent-?"))
    for name, known in (
        ("bed-12", True),
        ("a-bed-12", False),
        ("BED-12", False),
        ("vent-12", False),
    ):
        assert admission.known(name) is known


def test_the_door_is_shut_only_where_no_name_could_open_it() -> None:
    stranger = Admission("refuse", NETS).caller("192.0.2.1")
    assert Admission("refuse", NETS).shuts_out(stranger)
    assert not Admission("refuse", NETS, ("bed-*",)).shuts_out(stranger)
    assert not Admission("quarantine", NETS).shuts_out(stranger)
    friend = Admission("refuse", NETS).caller("10.20.1.1")
    assert not Admission("refuse", NETS).shuts_out(friend)


def test_a_stranger_is_told_so_at_the_door(tmp_path: Path) -> None:
    known = Known(addresses=("10.20.0.0/16",))
    gateway = Gateway(tmp_path, unknown_devices="refuse", known=known)
    before = metrics.STRANGERS_REFUSED._value.get()

    async def talk(port: int) -> None:
        stream = await caller(port)
        assert await hear(stream, 999) == f"refused: {collect.STRANGER}\n".encode()

    _serve(gateway, talk)
    assert metrics.STRANGERS_REFUSED._value.get() == before + 1


def test_behind_the_proxy_the_certificate_opens_the_door(tmp_path: Path) -> None:
    known = Known(certificates=("monitor-7",))
    gateway = Gateway(tmp_path, unknown_devices="refuse", known=known)

    def header(name: bytes) -> bytes:
        tlv = b"\x22" + len(name).to_bytes(2, "big") + name
        tlv = b"\x20" + (5 + len(tlv)).to_bytes(2, "big") + b"\x05\0\0\0\0" + tlv
        body = socket.inet_aton("192.0.2.1") * 2 + b"\0\1\0\2" + tlv
        return proxy.SIGNATURE + b"\x21\x11" + len(body).to_bytes(2, "big") + body

    async def talk(port: int) -> None:
        friend, stranger = await caller(port), await caller(port)
        await friend.send_all(header(b"monitor-7") + b"reply=yes hr=78\n")
        assert await hear(friend, 3) == b"ok\n"
        await stranger.send_all(header(b"monitor-8") + b"reply=yes hr=78\n")
        assert await hear(stranger, 999) == f"refused: {collect.STRANGER}\n".encode()

    _serve(gateway, talk, proxied=True)


def test_a_refused_strangers_line_is_answered_counted_and_not_kept(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, unknown_devices="refuse", known=Known(devices=("bed-*",)))

    async def talk(port: int) -> None:
        stream = await caller(port)
        await stream.send_all(b"reply=yes device=bed-1 hr=78\ndevice=x hr=79\n")
        said = (await hear(stream, 60)).split(b"\n")
        assert said[0] == b"ok"
        assert said[1].startswith(b"rejected unknown-device")
        assert gateway.committer._spool.frames == 1

    _serve(gateway, talk)


def test_what_all_hold_together_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "HELD_BYTES_MAX", 10_000)
    gateway = Gateway(tmp_path)

    async def talk(port: int) -> None:
        first, second = await caller(port), await caller(port)
        await first.send_all(b"a" * 6000)
        await until(lambda: gateway.collector._held == 6000)
        await second.send_all(b"b" * 4000)
        await until(lambda: gateway.collector._held == 10_000)
        assert len(gateway.collector._connections) == 2, "at the bound nobody is ended"
        await second.send_all(b"b")
        assert await hear(second, 1) == b""
        await until(lambda: gateway.collector._held == 6000)
        await first.send_all(b"\n")
        await until(lambda: gateway.collector._held == 0)

    _serve(gateway, talk)


def test_a_dead_peer_is_found_by_tcp(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)

    async def talk(port: int) -> None:
        await caller(port)
        await until(lambda: len(gateway.collector._connections) == 1)
        (connection,) = gateway.collector._connections.values()
        with socket.socket(fileno=os.dup(connection.fd)) as same:
            of = same.getsockopt
            assert of(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert of(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == collect.KEEPALIVE_S
            assert of(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == collect.UNACKED_MS_MAX

    _serve(gateway, talk)

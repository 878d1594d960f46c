"""Writes captures: classic pcap, Ethernet, IPv4, TCP, websocket. Correct enough to reassemble."""

import struct
from pathlib import Path

_CLIENT, _GATEWAY = bytes([10, 20, 0, 13]), bytes([10, 20, 0, 1])
SYN, ACK, PSH = 0x02, 0x10, 0x08


def _sum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Conversation:
    """One TCP connection of a device (or of the gateway's own program) to ``port``."""

    def __init__(self, port: int, *, opened: bool = True, client: int = 40_001) -> None:
        self.packets: list[bytes] = []
        self._ports = (client, port)
        self._sent = [1000, 5000]
        if opened:
            self._packet(0, SYN)
            self._packet(1, SYN | ACK)
            self._packet(0, ACK)

    def say(self, data: bytes, *, segment: int = 1400) -> None:
        """Send from the client, cut into segments."""
        self._talk(0, data, segment)

    def answer(self, data: bytes, *, segment: int = 1400) -> None:
        """Send from the server."""
        self._talk(1, data, segment)

    def _talk(self, side: int, data: bytes, segment: int) -> None:
        for at in range(0, len(data), segment):
            self._packet(side, PSH | ACK, data[at : at + segment])

    def _packet(self, side: int, flags: int, data: bytes = b"") -> None:
        source, target = (_CLIENT, _GATEWAY) if side == 0 else (_GATEWAY, _CLIENT)
        ports = self._ports if side == 0 else self._ports[::-1]
        seq, ack = self._sent[side], self._sent[1 - side]
        self._sent[side] += len(data) + (1 if flags & SYN else 0)
        head = struct.pack(">HHIIBBHHH", *ports, seq, ack, 5 << 4, flags, 65535, 0, 0)
        pseudo = source + target + struct.pack(">BBH", 0, 6, len(head) + len(data))
        tcp = head[:16] + struct.pack(">H", _sum(pseudo + head + data)) + head[18:] + data
        ip = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0, source, target
        )
        ip = ip[:10] + struct.pack(">H", _sum(ip)) + ip[12:]
        self.packets.append(b"\2" * 6 + b"\4" * 6 + b"\x08\x00" + ip + tcp)


def write(path: Path, *conversations: Conversation) -> Path:
    """Write the packets, one a millisecond."""
    data = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    packets = [packet for one in conversations for packet in one.packets]
    for at, packet in enumerate(packets):
        data.append(struct.pack("<IIII", 1_795_428_000, at * 1000, len(packet), len(packet)))
        data.append(packet)
    path.write_bytes(b"".join(data))
    return path


UPGRADE = (
    b"GET /uplink HTTP/1.1\r\nHost: 127.0.0.1:7020\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def websocket(payload: bytes, mask: bytes = b"\x11\x22\x33\x44") -> bytes:
    """Return one binary message of a client (RFC 6455 section 5.2)."""
    size = len(payload)
    head = b"\x82" + (bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size))
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + masked

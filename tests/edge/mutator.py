"""Damaged input by the million, and what must hold of whatever it becomes.

Law: the same seed gives the same bytes. A round is a connection: inputs of one protocol, damaged
or not, cut into chunks anywhere. No input raises; what is held of the unfinished is bounded; what
is accepted is in range, seals and opens as what it was; every answer is one well-framed whole. A
part of the rounds is fed twice, in chunks and at once: where the network cuts changes nothing.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b

# ections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import edge
from edge.admission import Caller
from edge.bedside import LineTalk
from edge.collect import RECEIVE_BYTES
from edge.entry import Entry
from edge.hl7_map import load
from edge.hl7_repeat import Repeats
from edge.hl7_talk import Hl7Talk
from edge.mllp import block
from edge.refusal import Reason
from edge.seal import Sealed, Sealing
from edge.setting import Setting
from vitals import columns, frame, limits
from vitals.codes import VITALS
from vitals.frame import Lane

Protocol = Literal["line", "hl7"]
NOW: Final = 1_795_428_000_000
SESSION_INPUTS: Final = 40
"""Inputs of one connection: it ends, perhaps in mid line, and another begins."""
TWIN_EVERY: Final = 8
"""Every so many connections are fed twice: enough to meet each kind of damage."""
REFUSED_EVERY: Final = 7
"""Entries between two that the disk refuses."""
CLOCK_EVERY: Final = 50
"""Connections after which the gateway's clock is set back by half an hour."""
LONG_EVERY: Final = 400
"""Inputs between two that are made longer than the protocol allows: they cost a megabyte."""

SEAL_ENTRIES: Final = 1000
"""Entries sealed together: some windows of commit, and no more of them held than that."""

Cut = Callable[[bytes], Iterator[bytes]]

_FULL: Final = Reason.SPOOL_FULL
_packed: Final = msgspec.msgpack.Encoder().encode

_EDGE: Final = Path(edge.__file__).parent
_HL7: Final = Path(__file__).with_name("data") / "hl7"
_OWN_ID: Final = re.compile(rb"\d{13}-\d+")
"""The number that an acknowledgement gets of its own: another one for each twin."""

_LONGEST: Final = {"line": limits.LINE_BYTES_MAX, "hl7": limits.HL7_MESSAGE_BYTES_MAX}
_HELD: Final = {"line": limits.LINE_BYTES_MAX + 2, "hl7": limits.HL7_MESSAGE_BYTES_MAX + 1}
"""What an unfinished line or block may hold: its limit, and its CR and next byte, or its mark."""

_GARBAGE: Final = (
    b"\x00",
    b"\x07",
    b"\x1b[2J",
    b"\x7f",
    b"\x85",
    b"\xff\xfe",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x80",
    "\u202e".encode(),
    "\u00a0".encode(),
    "\u2028".encode(),
    "\u0663".encode(),
    "\u00b2".encode(),
    "\ufeff".encode(),
)
"""Control bytes, bytes that are no UTF-8, and characters that pass for others."""

_NUMBERS: Final = (b"-1", b"1e999", b"NaN", b"-0", b"8388607", b"9" * 40, b"0.0000000001", b"+.5")
_LINE_WORDS: Final = (
    *(b"\n", b"\r\n", b"\r", b",", b" ", b"=", b'"', b'\\"', b"\\u0000", b"{", b"}", b":", b"@"),
    *(b"null", b"true", b"[[", b"time=", b"device=", b"mrn=", b"reply=yes ", b"reply=no ", b"bp="),
    *(b"status=test ", b"\\ud800", b'":"', b"hr=", b" time=9999-12-31T23:59:59-23:59 "),
    *(b"time=0001-01-01T00:00:00+23:59 ", b"time=2026-11-23T10:00:00.999999999Z ", b"=78kPa "),
)
_HL7_WORDS: Final = (
    *(b"|", b"^", b"~", b"\\", b"&", b"\r", b"\n", b"\x0b", b"\x1c", b"\x1c\r", b"\r\x0b", b'""'),
    *(
        b"MSH|",
        b"\rOBX|1|NM|",
        b"\rOBR|1|",
        b"\rPID|||",
        b"\rMSA|AA|",
        b"\\X0D\\",
        b"\\E\\",
        b"\\F\\",
    ),
    *(
        b"MSH|^~\\&|",
        b"MSH||||||",
        b"|UNICODE UTF-8",
        b"|8859/1",
        b"|ASCII",
        b"|AL",
        b"|NE",
        b"|ER",
    ),
    *(
        b"99991231235959.9999-2359",
        b"00010101",
        b"20261123100000+0000",
        b"147842^MDC^MDC",
        b"1.1.1.1",
    ),
    *(b"ORU^R40", b"ORU^R01", b"196616^MDC_EVT_ALARM^MDC", b"1.65536.1.1", b"QUES~INV", b"\\.br\\"),
)


_MORE_LINES: Final = (
    b"hr=78\n",
    b"oxygen=95%\r\n",
    b"device=bed-3 mrn=M2 hr=78 time=2026-11-23T10:00:00Z\n",
    b"device=bed-4 temp=98.6F@oral, temp=36.9@skin, rr=16 rpm\n",
    b"status=test reply=yes pulse=80 cvp=8 o2=2.5lpm pi=1.25\n",
    b"sys=120mmHg dia=80mmHg map=93mmHg art=118/76(90)\n",
    b'name="Ada \\"Q\\" Ng", dob=19700101 sex=f ward="W 2" hr=? loc=C\n',
    b'{"device":"bed-5","mrn":"M3","hr":78.4,"reply":true,"time":"2026-11-23T10:00:00.5+01:00"}\n',
    b'{"name":"\\u00c5da","spo2":95,"temp":"37@ear","mrn":null}\n',
    "device=b\u00e9d name=\u674e\u660e hr=78 temp=36.9\u00b0C\n".encode(),
)
"""More of what is taken: each kind of field, unit, time and text at least once."""


def line_seeds() -> list[bytes]:
    """Return the lines of PROTOCOL.md that are taken, and those that are refused."""
    page = (_EDGE / "PROTOCOL.md").read_text(encoding="utf-8")
    seeds = list(_MORE_LINES)
    for kind, block_ in re.findall(r"```(line|refused)\n(.*?)```", page, re.DOTALL):
        for line in block_.splitlines():
            said = line.rpartition(" -> ")[0] if kind == "refused" else line
            seeds.append(said.encode() + b"\n")
    return seeds


def hl7_seeds() -> list[bytes]:
    """Return every sample of tests/edge/data/hl7, framed."""
    return [
        block(path.read_bytes().replace(b"\r\n", b"\r").replace(b"\n", b"\r"))
        for path in sorted(_HL7.glob("*/*.hl7*"))
    ]


class Mutator:
    """Makes inputs of one protocol: one in eight as it should be, the others damaged."""

    def __init__(self, protocol: Protocol, seed: int) -> None:
        self._dice = random.Random(f"{protocol}-{seed}")
        self._seeds = line_seeds() if protocol == "line" else hl7_seeds()
        self._words = _LINE_WORDS if protocol == "line" else _HL7_WORDS
        self._longest = _LONGEST[protocol]
        self._made = 0

    def input(self) -> bytes:
        """Return the next input."""
        dice = self._dice
        self._made += 1
        data = bytearray(dice.choice(self._seeds))
        if dice.random() < 0.125:
            return bytes(data)
        for _ in range(int(dice.random() ** 4 * 8) + 1):
            self._damage(data)
        if self._made % LONG_EVERY == 0:
            self._lengthen(data)
        return bytes(data)

    def _damage(self, data: bytearray) -> None:
        dice = self._dice
        size = len(data)
        at = int(dice.random() * (size + 1))
        match int(dice.random() * 10):
            case 0 if at < size:
                data[at] ^= 1 << int(dice.random() * 8)
            case 1 if at < size:
                data[at] = int(dice.random() * 256)
            case 2:
                del data[at : at + 1 + int(dice.random() * dice.random() * 80)]
            case 3:
                data[at:at] = data[at : at + 1 + int(dice.random() * 200)]
            case 4:
                other = dice.choice(self._seeds)
                cut = int(dice.random() * len(other))
                data[at:] = other[cut:]
            case 5:
                data[at:at] = dice.choice(_GARBAGE)
            case 6:
                data[at : at + int(dice.random() * 4)] = dice.choice(_NUMBERS)
            case 7:
                data[at:at] = dice.choice(self._words) * (1 + int(dice.random() ** 8 * 400))
            case 8:
                del data[at:]
            case _:
                data[at:at] = dice.choice(self._words)

    def _lengthen(self, data: bytearray) -> None:
        """Repeat something up to a little over the limit of a line or message."""
        dice = self._dice
        at = int(dice.random() * (len(data) + 1))
        part = bytes(data[at : at + 40]) or b"x"
        wanted = int(self._longest * dice.choice((0.5, 1.0, 1.0, 1.2)))
        data[at:at] = part * (wanted // len(part))

    def chunks(self, data: bytes) -> Iterator[bytes]:
        """Cut the bytes anywhere: at once, byte by byte, or into pieces."""
        dice = self._dice
        size, at = len(data), 0
        kind = dice.random()
        longest = size if kind < 0.4 else 1 + int(dice.random() * 3) if kind < 0.45 else size // 2
        longest = max(1, longest, size // 2000)  # long ones in at most some thousand pieces
        while at < size:
            step = 1 + int(dice.random() * longest) if kind >= 0.4 else size
            yield from _reads(data[at : at + step])
            at += step


class Sealer:
    """Seals what was accepted, opens it again, and compares."""

    def __init__(self) -> None:
        self._sealing = Sealing("ward-1", X25519PrivateKey.generate().public_key(), NOW)

    def seal(self, entries: list[Entry]) -> None:
        """Raise AssertionError, or what sealing raised, unless it is all there."""
        readings = [one for entry in entries for one in entry.readings]
        alerts = [one for entry in entries for one in entry.alerts]
        rejects = [one for entry in entries for one in entry.rejected]
        opened = [self._open(sealed) for sealed in self._sealing.seal(entries, NOW)]
        wanted = len(readings), len(alerts), len(rejects)
        assert tuple(sum(one[at] for one in opened) for at in range(3)) == wanted

    def _open(self, sealed: Sealed) -> tuple[int, int, int]:
        header, body = self._sealing.opener().open(sealed.data)
        assert header.seq == sealed.seq
        if sealed.lane == Lane.QUARANTINE:
            return 0, 0, len(frame.read_rejects(body))
        content = frame.read_readings(body)
        return len(content), len(content.alerts), 0


def judge(entry: Entry) -> None:
    """Raise AssertionError unless an entry is what the rest of the gateway may rely on."""
    source = entry.source
    assert source is not None or not (entry.readings or entry.alerts)
    if source is not None:
        assert 0 < len(source.device) <= limits.TEXT_CHARS_MAX
        alerts = [(0, one) for one in entry.alerts]
        columns.check(columns.gather([source], [0] * len(entry.readings), entry.readings, alerts))
    for reading in entry.readings:
        vital = VITALS[reading.vital]
        assert reading.value is None or vital.low <= reading.value <= vital.high
        assert (reading.value is None) == bool(reading.reason)
    for reject in entry.rejected:
        assert Reason(reject.reason)
        assert len(reject.raw) <= limits.QUARANTINE_RAW_BYTES_MAX
        assert len(reject.raw) <= reject.raw_bytes


def answered(entry: Entry, protocol: Protocol, failure: Reason | None = None) -> bytes:
    """Return the answer of an entry of that fate; raise AssertionError if it is badly framed."""
    if entry.answer is None:
        return b""
    said = entry.answer(failure)
    if protocol == "line":
        assert said.endswith(b"\n")
        assert said.count(b"\n") == 1
        assert said.decode().removesuffix("\n").isprintable()
        assert failure is None or said != b"ok\n"
    elif said:
        assert said.startswith(b"\x0b")
        assert said.endswith(b"\x1c\r")
        assert said.count(b"\x0b") == said.count(b"\x1c\r") == said.count(b"\x1c") <= 2
        # A repeat holds nothing: its answer is the first one's, whatever the disk does now.
        lost = failure is not None and (entry.readings or entry.alerts or entry.rejected)
        assert not lost or not re.search(rb"MSA\|[AC]A\|", said)
    return _OWN_ID.sub(b"", said)


def _reads(data: bytes) -> Iterator[bytes]:
    """Cut bytes as seldom as the collector does."""
    for at in range(0, len(data), RECEIVE_BYTES):
        yield data[at : at + RECEIVE_BYTES]


class Fuzz:
    """Runs rounds of one protocol; the gateway's shared state lasts from first to last."""

    def __init__(self, protocol: Protocol, seed: int) -> None:
        self._protocol = protocol
        self._mutator = Mutator(protocol, seed)
        self._sealer = Sealer()
        self._shared = self._setting()
        self._talk: Callable[[Caller, Setting], LineTalk | Hl7Talk]
        self._talk = LineTalk if protocol == "line" else Hl7Talk
        self._sessions = 0
        self._unsealed: list[Entry] = []
        self.inputs = self.accepted = self.rejected = 0

    def _setting(self) -> Setting:
        return Setting("W1", vendor=load(_EDGE / "hl7-map.example.toml"))

    def session(self) -> None:
        """Feed one connection from begin to end; raise what it should not have."""
        self._sessions += 1
        inputs = [self._mutator.input() for _ in range(SESSION_INPUTS)]
        self.inputs += len(inputs)
        if self._sessions % TWIN_EVERY:
            self._feed(self._shared, inputs, self._cut)
            return
        cut = self._feed(self._setting(), inputs, self._cut)
        whole = self._feed(self._setting(), inputs, _reads)
        assert cut == whole

    def _cut(self, data: bytes) -> Iterator[bytes]:
        return self._mutator.chunks(data)

    def _feed(self, setting: Setting, inputs: Sequence[bytes], cut: Cut) -> tuple[int, bytes]:
        """Return how many entries the inputs became, and a digest of what they say."""
        setting.repeats = Repeats()  # else nearly every message is a repeat of another round's
        talk = self._talk(Caller("10.0.0.9"), setting)
        told, count = blake2b(), 0
        for number, data in enumerate(inputs):
            now = NOW + 1000 * (self._sessions % CLOCK_EVERY * SESSION_INPUTS + number)
            for part in cut(data):
                made = talk.receive(part, now)
                assert talk.held_bytes() <= _HELD[self._protocol]
                assert talk.half() == (talk.held_bytes() > 0)
                for entry in made:
                    count += 1
                    told.update(self._answer(entry, None if count % REFUSED_EVERY else _FULL))
                self._keep(made)
        left = talk.leave(now)
        if left is not None:
            told.update(self._answer(left, None))
            self._keep([left])
        self._seal()
        return count, told.digest()

    def _answer(self, entry: Entry, fate: Reason | None) -> bytes:
        judge(entry)
        said = answered(entry, self._protocol, fate)
        return _packed((entry.source, entry.readings, entry.rejected, entry.alerts, said))

    def _keep(self, entries: list[Entry]) -> None:
        self._unsealed += entries
        if len(self._unsealed) >= SEAL_ENTRIES:
            self._seal()

    def _seal(self) -> None:
        entries, self._unsealed = self._unsealed, []
        self._sealer.seal(entries)
        self.accepted += sum(1 for entry in entries if entry.readings or entry.alerts)
        self.rejected += sum(1 for entry in entries if entry.rejected)

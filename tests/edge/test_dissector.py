"""The Wireshark dissector shows how input is made, and nothing of a patient unless asked to."""

import random
import re
import subprocess
from pathlib import Path

import pytest

from tests.edge.pcap import UPGRADE, UPGRADED, Conversation, websocket, write
from tests.edge.tty import ROOT
from vitals import frame, limits, session
from vitals.frame import Header, Lane
from vitals.ports import BY_NAME
from vitals.session import Data

LUA = ROOT / "edge/wireshark/healthsync.lua"
LINE = (
    b'device=bed-12 mrn=M000123 name="Ada \\"N\\" Ng, x" heart_rate=78, oxygen=95%,'
    b" temperature=36.9C@oral time=2026-11-23T10:00:00Z\n"
)
SECRETS = ("M000123", "Ada", "Ng", "95%", "36.9")


def _tshark(capture: Path, *words: str) -> str:
    # Names are resolved nowhere and the user's own settings are not read.
    done = subprocess.run(
        ["tshark", "-n", "-C", "Classic", "-X", f"lua_script:{LUA}", "-r", str(capture), *words],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=60,
        check=False,
        env={"HOME": str(capture.parent), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    assert "lua" not in done.stderr.lower(), done.stderr
    assert "error" not in done.stderr.lower(), done.stderr
    return done.stdout


def _fields(capture: Path, filter_: str, *names: str, shown: bool = False) -> list[list[str]]:
    words = ["-o", "hsline.show_patient:TRUE"] if shown else []
    words += ["-Y", filter_, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=;"]
    for name in names:
        words += ["-e", name]
    return [line.split("\t") for line in _tshark(capture, *words).splitlines()]


@pytest.fixture
def line_capture(tmp_path: Path) -> Path:
    talk = Conversation(BY_NAME["line"].number)
    talk.say(LINE + b'{"device":"bed-7","spo2": 91 , "name":"Bo"}\n', segment=37)
    talk.answer(b"ok\nrejected bad-unit temperature: write C or F\n")
    return write(tmp_path / "line.pcap", talk)


def test_a_line_is_a_tree_of_fields_across_segments(line_capture: Path) -> None:
    names = ("form", "device", "key", "value_length", "fields")
    assert _fields(line_capture, "hsline.form", *(f"hsline.{name}" for name in names)) == [
        [
            *("text", "bed-12", "device;mrn;name;heart_rate;oxygen;temperature;time"),
            *("6;7;17;2;3;10;20", "7"),
        ],
        ["json", "bed-7", "device;spo2;name", "7;2;4", "3"],
    ]


def test_answers_show_their_reason_and_field(line_capture: Path) -> None:
    assert _fields(
        line_capture, "hsline.answer", "hsline.answer", "hsline.reason", "hsline.field"
    ) == [["ok;rejected", "bad-unit", "temperature"]]


def test_nothing_of_a_patient_is_shown_by_default(line_capture: Path) -> None:
    for words in (("-V",), (), ("-T", "json")):
        text = _tshark(line_capture, *words)
        if words == ("-T", "json"):
            text = re.sub(r'"tcp\.(payload|segment|segment_data)[^\n]*', "", text)
        for secret in SECRETS:
            assert secret not in text, (words, secret)
    values = _fields(line_capture, "hsline.value", "hsline.value")
    assert values == [["bed-12;2026-11-23T10:00:00Z"], ["bed-7"]]


def test_values_are_shown_when_asked_for(line_capture: Path) -> None:
    [[text], [json]] = _fields(line_capture, "hsline.value", "hsline.value", shown=True)
    assert text.startswith('bed-12;M000123;Ada \\"N\\" Ng, x;78;95%;36.9C@oral;')
    assert json == "bed-7;91;Bo"


def test_a_field_that_may_be_a_name_is_not_shown_as_a_key(tmp_path: Path) -> None:
    talk = Conversation(BY_NAME["line"].number)
    talk.say('Ångström=7 Ada_Ng_of_the_seventh_bed=7 Ada {"hr":70,"sp o2":1}\n'.encode())
    talk.say(b'{"hr":70,"spo2":9}\n')
    capture = write(tmp_path / "keys.pcap", talk)
    text, json = _fields(capture, "hsline.key", "hsline.key", "hsline.value_length")
    assert set(text[0].split(";")) == {"?"}
    assert json == ["hr;spo2", "2;1"]
    assert "Ada" not in _tshark(capture, "-V")


def test_a_line_without_an_end_does_not_hold_the_rest(tmp_path: Path) -> None:
    talk = Conversation(BY_NAME["line"].number)
    talk.say(b"x" * (3 * limits.LINE_BYTES_MAX) + b"\nhr=1\n")
    capture = write(tmp_path / "long.pcap", talk)
    assert len(_fields(capture, "hsline.too_long", "frame.number")) >= 2, "as it comes"
    assert "hr" in _fields(capture, "hsline.key", "hsline.key")[-1][0]


MESSAGE = (
    b"\x0bMSH|^~\\&|MON|W|GW|W|20261123||ORU^R01^ORU_R01|MSG77|P|2.6\r"
    b"PID|||M000123^^^H^MR||Ng^Ada\rOBR|1\rOBX|1|NM|147842^MDC_ECG||78\rOBX|2|NM|150456^X||95\r"
    b"\x1c\r"
)


def test_messages_are_counted_with_type_id_and_acknowledgement(tmp_path: Path) -> None:
    talk = Conversation(BY_NAME["mllp"].number)
    talk.say(MESSAGE + b"junk" + MESSAGE.replace(b"MSG77", b"MSG78"), segment=50)
    talk.answer(b"\x0bMSH|^~\\&|||||||ACK^R01|A1|P|2.6\rMSA|AA|MSG77\r\x1c\r")
    capture = write(tmp_path / "mllp.pcap", talk)
    names = ("hsmllp.type", "hsmllp.control_id", "hsmllp.obx", "hsmllp.segments")
    sent = _fields(capture, "hsmllp.type && tcp.dstport == 2575", *names, "hsmllp.messages")
    joined = [";".join(row[at] for row in sent) for at in range(4)]
    assert joined == ["ORU^R01^ORU_R01;ORU^R01^ORU_R01", "MSG77;MSG78", "2;2", "5;5"]
    assert sum(int(row[4]) for row in sent) == 2
    answers = _fields(capture, "hsmllp.ack", "hsmllp.ack", "hsmllp.acked_id", "hsmllp.type")
    assert answers == [["AA", "MSG77", "ACK^R01"]]
    assert _fields(capture, "hsmllp.noise", "frame.number")
    text = _tshark(capture, "-V")
    assert "M000123" not in text
    assert "Ada" not in text
    shown = _tshark(capture, "-V", "-o", "hsline.show_patient:TRUE")
    assert "M000123" in shown, "the built-in dissector has the content"


def _frame(seq: int, count: int = 40) -> bytes:
    header = Header(
        1, "ward-1", "ab" * 16, seq, "k1", Lane.BACKLOG, 1_795_428_000_250, 1_795_428_001_999, count
    )
    return frame.FrameSealer(bytes(32)).seal(header, b"body" * 100)


@pytest.mark.parametrize("opened", [True, False])
def test_frames_show_their_clear_header(tmp_path: Path, opened: bool) -> None:
    talk = Conversation(BY_NAME["uplink-local"].number, opened=opened)
    if opened:
        talk.say(UPGRADE, segment=50)
        talk.answer(UPGRADED)
    frames = [_frame(3), _frame(2**32 - 1, 20_000)]
    for one in frames:
        talk.say(websocket(session.encode(Data(one, 70_000))), segment=60)
    capture = write(tmp_path / "uplink.pcap", talk)
    assert len(_fields(capture, "http.request.uri", "http.upgrade")) == opened
    names = ("edge", "epoch", "seq", "key_id", "lane", "count", "version", "sealed")
    rows = _fields(capture, "hsframe.seq", *(f"hsframe.{name}" for name in names))
    size = int.from_bytes(frames[0][4:6], "big")
    assert rows[0] == [
        *("ward-1", "ab" * 16, "3", "k1", "1", "40", "1"),
        str(len(frames[0]) - 6 - size),
    ]
    assert [row[2] for row in rows] == ["3", "4294967295"]
    [first, _] = _fields(capture, "hsframe.seq", "hsframe.first", "hsframe.last")
    assert ".250000000" in first[0]
    assert ".999000000" in first[1]


def test_noise_raises_no_error_in_it(tmp_path: Path) -> None:
    dice = random.Random(20261124)
    talks = []
    good = {
        "line": LINE,
        "mllp": MESSAGE,
        "uplink-local": websocket(session.encode(Data(_frame(1), 2))),
        "upgrade": UPGRADE,
    }
    ports = {name: port.number for name, port in BY_NAME.items()}
    for at, name in enumerate(["line", "mllp", "uplink-local", "upgrade"] * 40):
        talk = Conversation(ports.get(name, 7020), client=41_000 + at)
        for _ in range(5):
            data = bytearray(good[name])
            for _ in range(dice.randrange(1, 8)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            talk.say(bytes(data) + dice.randbytes(dice.randrange(30)))
        talks.append(talk)
    capture = write(tmp_path / "noise.pcap", *talks)
    for shown in ("TRUE", "FALSE"):
        text = _tshark(capture, "-V", "-o", f"hsline.show_patient:{shown}")
        assert "Lua Error" not in text


def test_its_numbers_are_the_projects() -> None:
    text = LUA.read_text(encoding="utf-8")
    assert f"LINE_BYTES_MAX = {limits.LINE_BYTES_MAX} " in text
    assert f"FIELDS_MAX = {limits.LINE_FIELDS_MAX} " in text
    ports = ", ".join(str(BY_NAME[name].number) for name in ("line", "mllp", "uplink-local"))
    assert f"PORT_LINE, PORT_MLLP, PORT_UPLINK = {ports} " in text

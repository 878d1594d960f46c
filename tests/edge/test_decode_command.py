"""`healthsync edge decode` says what the gateway would make of the bytes, and stores nothing."""

import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import decode_command
from edge.admission import Caller
from edge.bedside import LineTalk
from edge.entry import Entry
from edge.hl7_talk import Hl7Talk
from edge.mllp import block
from edge.setting import Setting
from edge.told import NO_ADDRESS, tell
from healthsync.runtime.exits import Exit
from tests.edge.decoding import HEART, NOW, OXYGEN, READING, RECEIVED, Decode, oru
from vitals import limits

ROOT = Path(__file__).parents[2]


@pytest.fixture
def decode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Decode:
    return Decode(tmp_path, capsys)


def test_the_seeds_own_line_is_two_readings(decode: Decode) -> None:
    heart, oxygen = decode(b"heart_rate=78, oxygen=95%\n")
    assert heart == READING
    assert list(heart) == list(READING)
    assert oxygen == READING | {"vital": "spo2", "value": 95, "unit": "%"}
    assert (decode.code, decode.errors) == (Exit.OK, "")


def test_who_where_and_when_are_told(decode: Decode) -> None:
    (told,) = decode(
        b'device=bed-12 mrn=M1 name="Ada Ng" bed=3 temp=98.64F@oral'
        b" time=2026-11-23T11:00:01.25+01:00\n"
    )
    assert told == READING | {
        "device": "bed-12",
        "patient": "M1",
        "bed": "3",
        "vital": "temperature",
        "value": 37.0,
        "unit": "Cel",
        "site": "oral",
        "time": "2026-11-23T10:00:01.250Z",
        "time_source": "device",
    }


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("hr=--", "missing", "no-value"),
        ("hr=-1", "missing", "sentinel"),
        ("hr=999", "implausible", "out-of-range"),
        ("hr=-- status=test", "test", "no-value"),
    ],
)
def test_no_value_is_null_with_its_status_and_reason(
    decode: Decode, line: str, status: str, reason: str
) -> None:
    (told,) = decode(line.encode() + b"\n")
    assert told == READING | {"value": None, "status": status, "reason": reason}
    assert decode.code == Exit.OK


@pytest.mark.parametrize(
    ("line", "value"),
    [("hr=78.5", 78), ("hr=79.5", 80), ("temp=36.96", 37.0), ("pi=1.005", 1.0), ("acvpu=C", 1)],
)
def test_numbers_are_those_that_are_stored(decode: Decode, line: str, value: float) -> None:
    (told,) = decode(line.encode() + b"\n")
    assert told["value"] == value


def test_a_refusal_is_told_with_its_field_and_makes_the_exit_code(decode: Decode) -> None:
    first, refused, last = decode(b"hr=78\nhr=seventy\nhr=79\n")
    assert (first["value"], last["value"]) == (78, 79)
    assert refused == {
        "kind": "rejected",
        "reason": "bad-number",
        "field": "heart_rate",
        "detail": "write a decimal number such as 36.9",
    }
    assert decode.code == Exit.DEGRADED


def test_an_unended_line_is_refused(decode: Decode) -> None:
    _, half = decode(b"hr=78\nhr=7")
    assert (half["reason"], half["field"], decode.code) == ("half-line", None, 1)


def test_json_lines_are_told_per_line_whatever_the_protocol_is_called(decode: Decode) -> None:
    data = b'{"device":"a","hr":78}\nhr=79\n'
    expected = [READING | {"device": "a"}, READING | {"device": "a", "value": 79}]
    for options in ([], ["--protocol", "line"], ["--protocol", "jsonl"]):
        assert decode(data, *options) == expected


def test_each_line_is_followed_by_its_answer_when_asked(decode: Decode) -> None:
    told = decode(b"hr=78\ndevice=a\nhr=x\n\nreply=no hr=79\nhalf", "--ack")
    kinds = [(one["kind"], one.get("text", "")[:24]) for one in told]
    assert kinds == [
        ("reading", ""),
        ("ack", "ok"),
        ("ack", "ok"),
        ("rejected", ""),
        ("ack", "rejected bad-number hear"),
        ("reading", ""),
        ("ack", "ok"),
        ("rejected", ""),
        ("ack", "rejected half-line -: en"),
    ]


def test_empty_input_is_nothing(decode: Decode) -> None:
    for data in (b"", b"\n", b"\r\n\r\n", b" \n"):
        assert decode(data) == []
        assert decode.code == Exit.OK


@pytest.mark.parametrize(
    ("head", "protocol"),
    [
        (b"MSH|", "hl7"),
        (b"\r\n \tMSH|", "hl7"),
        (b"\xef\xbb\xbfMSH|", "hl7"),
        (b"\x0bMSH|", "hl7"),
        (b"\x0b", "hl7"),
        (b"MSX", "line"),
        (b"MS=", "line"),
        (b"M", None),
        (b"MS", None),
        (b"", None),
        (b"\r\n", None),
        (b"h", "line"),
        (b"{", "line"),
        (b" " * decode_command.CHUNK_BYTES, "line"),
    ],
)
def test_the_protocol_is_told_by_the_first_bytes(head: bytes, protocol: str | None) -> None:
    assert decode_command._detect(head) == protocol


# The same as the gateway ---------------------------------------------------------------------


def _entries(chunks: list[bytes], protocol: str | None = None) -> list[Entry]:
    return list(decode_command.decoded(chunks, protocol, Setting(), lambda: NOW))


def _plain(entries: list[Entry]) -> list[tuple[object, ...]]:
    return [(e.source, e.readings, e.rejected, e.alerts) for e in entries]


_PARTS = (b"device=a mrn=M1 ", b"hr=78", b"hr=x", b"\n", b"\r\n", b"\xff", b'{"hr":1}', b"M",
          b"time=2026-11-23T10:00:00Z ", b"temp=36,9")  # fmt: skip
_LINES = st.lists(st.sampled_from(_PARTS), max_size=20).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(_LINES.filter(lambda data: decode_command._detect(data) == "line"), st.integers(1, 9))
def test_lines_come_to_the_same_as_on_a_connection(data: bytes, step: int) -> None:
    talk = LineTalk(Caller(NO_ADDRESS), Setting())
    entries = [*talk.receive(data, NOW)]
    last = talk.leave(NOW)
    expected = _plain([*entries, *([last] if last else [])])
    assert _plain(_entries([data])) == expected
    assert _plain(_entries([data[i : i + step] for i in range(0, len(data), step)])) == expected


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_messages_come_to_the_same_as_on_a_connection(step: int) -> None:
    messages = [oru("A1", HEART, OXYGEN), oru("A2", "OBX|1|NM|147842|1|x|/min", HEART)]
    talk = Hl7Talk(Caller(NO_ADDRESS), Setting())
    expected = _plain([*talk.receive(b"".join(map(block, messages)), NOW)])
    assert any(entry[2] for entry in expected)
    for data in (b"".join(map(block, messages)), b"".join(messages)):
        chunks = [data[i : i + step] for i in range(0, len(data), step)]
        got = _plain(_entries(chunks))
        assert got == expected


def test_a_steadily_wrong_clock_is_corrected_here_too() -> None:
    times = iter(range(NOW, NOW + 10_000, 1000))
    now = [NOW]

    def tick() -> int:
        return now[0]

    def lines() -> Iterator[bytes]:
        for at in times:
            now[0] = at
            said = (at - 600_000) // 1000 % 60
            minute = (at - 600_000) // 60_000 % 60
            hour = (at - 600_000) // 3_600_000 % 24
            yield f"device=a hr=78 time=2026-11-23T{hour:02}:{minute:02}:{said:02}Z\n".encode()

    *_, last = decode_command.decoded(lines(), None, Setting(), tick)
    (told,) = tell(last, ack=False)
    assert told["time_source"] == "corrected"


def test_a_big_file_is_read_in_bounded_memory() -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 65_536
        yield b"\nhr=78\n"

    tracemalloc.start()
    try:
        *_, last = decode_command.decoded(chunks(), None, Setting(), lambda: NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [r.value for r in last.readings] == [78]
    assert peak < 1024 * 1024


def test_an_endless_message_is_held_to_its_limit() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"MSH|^~\\&|a\r"
        for _ in range(100):
            yield b"x" * 65_536

    tracemalloc.start()
    try:
        (entry,) = decode_command.decoded(chunks(), None, Setting(), lambda: NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert entry.rejected[0].reason == "hl7-too-long"
    assert peak < 6 * limits.HL7_MESSAGE_BYTES_MAX


# The command ---------------------------------------------------------------------------------


def _config(path: Path, **more: str) -> Path:
    settings_ = {
        "edge_id": "ward-1",
        "state_dir": str(path / "state"),
        "hpke_public": str(path / "cloud.pub"),
        "site_zone": "Europe/Berlin",
        **more,
    }
    config = path / "edge.toml"
    lines = [f'{name} = "{value}"' for name, value in settings_.items()]
    config.write_text("\n".join([*lines, "line_port = 7010", ""]))
    return config


def test_the_gateways_file_gives_its_zone_and_nothing_is_made(
    decode: Decode, tmp_path: Path
) -> None:
    config = _config(tmp_path)
    (told,) = decode(b"hr=78 time=2026-11-23T11:00:04\n", "--config", str(config))
    assert (told["time"], told["time_source"]) == ("2026-11-23T10:00:04.000Z", "device")
    (told,) = decode(b"hr=78 time=2026-11-23T10:00:04\n")
    assert told["time"] == "2026-11-23T10:00:04.000Z"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["edge.toml", "input"]


def test_the_gateways_map_of_local_codes_is_used(decode: Decode, tmp_path: Path) -> None:
    codes = tmp_path / "codes.toml"
    codes.write_text('[[code]]\ncode = "101"\nsystem = "99X"\nvital = "heart_rate"\n')
    config = _config(tmp_path, hl7_map=str(codes))
    message = oru("A1", "OBX|1|NM|101^HR^99X|1.1.1.1|78|/min")
    (told,) = decode(message, "--config", str(config))
    assert (told["vital"], told["value"]) == ("heart_rate", 78)
    assert [one["kind"] for one in decode(message)] == ["rejected"]


def test_who_is_admitted_is_not_asked(decode: Decode, tmp_path: Path) -> None:
    config = _config(tmp_path, unknown_devices="refuse")
    with config.open("a") as out:
        out.write('[known]\ndevices = ["bed-*"]\n')
    assert len(decode(b"device=other hr=78\n", "--config", str(config))) == 1


def test_a_wrong_configuration_is_named(decode: Decode, tmp_path: Path) -> None:
    config = _config(tmp_path, site_zone="Mars")
    assert decode(b"hr=78\n", "--config", str(config)) == []
    assert decode.code == Exit.CONFIG
    assert "site_zone" in decode.errors


def test_a_file_that_can_not_be_read_is_named(decode: Decode, tmp_path: Path) -> None:
    for name in (tmp_path / "none", tmp_path):
        assert decode.on(str(name)) == []
        assert decode.code == Exit.USAGE
        assert str(name) in decode.errors


def test_a_time_of_receipt_that_is_none_is_refused(decode: Decode) -> None:
    assert decode.on("--received", "yesterday") == []
    assert decode.code == Exit.USAGE
    assert "--received" in decode.errors


def test_without_a_time_of_receipt_it_is_now(decode: Decode, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"hr=78\n")
    (told,) = decode.on(str(tmp_path / "input"))
    assert told["time"] >= "2026-"
    assert told["time_source"] == "received"


def test_lines_are_told_as_they_are_typed() -> None:
    class Typed(io.RawIOBase):
        def __init__(self) -> None:
            self.lines = [b"hr=78\n", b"hr=79\n", b""]

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            line = self.lines.pop(0)
            buffer[: len(line)] = line
            return len(line)

    with io.BufferedReader(Typed()) as stream:
        assert list(decode_command.chunks(stream)) == [b"hr=78\n", b"hr=79\n"]


def _command(*options: str) -> list[str]:
    return [sys.executable, "-m", "healthsync.cli", "edge", "decode", *options]


def test_standard_input_is_read_without_a_file_or_for_a_dash() -> None:
    for options in ([], ["-"]):
        done = subprocess.run(
            _command("--received", RECEIVED, *options),
            input=b"hr=78\n", cwd=ROOT, capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        assert (json.loads(done.stdout), done.returncode, done.stderr) == (READING, 0, b"")


def test_a_line_is_answered_before_the_next_is_typed() -> None:
    with subprocess.Popen(
        _command("--received", RECEIVED), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hr=78\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == READING
        process.stdin.close()
        assert process.wait(20) == Exit.OK


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    read, write = os.pipe()
    with subprocess.Popen(
        _command(), cwd=ROOT, stdin=subprocess.PIPE, stdout=write, stderr=subprocess.PIPE
    ) as process:
        os.close(write)
        os.close(read)
        _, errors = process.communicate(b"hr=78\n" * 10, timeout=20)
    assert (process.returncode, errors) == (Exit.OK, b"")

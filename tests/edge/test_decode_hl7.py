"""`healthsync edge decode` on HL7 v2: several messages a file, framed or not, and their answers."""

from pathlib import Path
from typing import Any

import pytest

from edge.entry import Entry
from edge.mllp import block
from edge.told import tell
from healthsync.runtime.exits import Exit
from tests.edge.decoding import HEART, OXYGEN, Decode, Told, oru


@pytest.fixture
def decode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Decode:
    return Decode(tmp_path, capsys)


def _values(told: Told) -> list[tuple[str, Any]]:
    return [(one["vital"], one["value"]) for one in told if one["kind"] == "reading"]


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("end", [b"\r", b"\r\n", b"\n"])
@pytest.mark.parametrize("protocol", [[], ["--protocol", "hl7"]])
def test_several_messages_of_a_file_framed_or_not(
    decode: Decode, framed: bool, end: bytes, protocol: list[str]
) -> None:
    messages = [oru("A1", HEART), oru("A2", OXYGEN)]
    messages = [m.replace(b"\r", end) for m in messages]
    told = decode(b"".join(map(block, messages) if framed else messages), *protocol)
    assert _values(told) == [("heart_rate", 78), ("spo2", 95)]
    assert {(one["patient"], one["time"], one["time_source"]) for one in told} == {
        ("M7", "2026-11-23T10:00:00.000Z", "device")
    }
    assert decode.code == Exit.OK


def test_an_answer_of_hl7_is_shown_without_framing(decode: Decode) -> None:
    told = decode(oru("A1", HEART) + oru("A2", "OBX|1|NM|1^X^L|1|2|3"), "--ack")
    acks = [one["text"] for one in told if one["kind"] == "ack"]
    assert next(ack.split("\r")[1] for ack in acks) == "MSA|AA|A1"
    assert len(acks) == 2
    for ack in acks:
        assert ack.startswith("MSH|^~\\&|")
        assert not {"\x0b", "\x1c", "\n"} & set(ack)
    assert [one["kind"] for one in told] == ["reading", "ack", "rejected", "ack"]
    assert decode.code == 1


def test_two_answers_of_one_message_are_two_objects() -> None:
    def answer(failure: object) -> bytes:
        return block(b"MSH|1\rMSA|CA|1\r") + block(b"MSH|2\rMSA|AA|1\r")

    entry = Entry(None, (), (), 0, message=True, answer=answer)
    assert list(tell(entry, ack=True)) == [
        {"kind": "ack", "text": "MSH|1\rMSA|CA|1\r"},
        {"kind": "ack", "text": "MSH|2\rMSA|AA|1\r"},
    ]
    assert list(tell(entry, ack=False)) == []
    assert list(tell(Entry(None, (), (), 0, message=True), ack=True)) == []


def test_a_cut_off_block_is_refused(decode: Decode) -> None:
    told = decode(block(oru("A1", HEART)) + b"\x0bMSH|^~\\&|half")
    assert _values(told) == [("heart_rate", 78)]
    assert told[-1]["reason"] == "hl7-framing"
    assert decode.code == 1


def test_lines_taken_for_hl7_are_refused_as_no_message(decode: Decode) -> None:
    (told,) = decode(b"hr=78\nhr=79\n", "--protocol", "hl7")
    assert (told["kind"], told["reason"]) == ("rejected", "hl7-no-msh")

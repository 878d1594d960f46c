"""No bytes raise, none cost more than their length, and what is valid means what it says."""

import os
import random
import time
import tracemalloc
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.entry import Entry
from edge.hl7_map import load
from edge.hl7_repeat import Repeats
from edge.mllp import block
from edge.normalize import SENTINELS
from edge.refusal import Reason
from tests.edge.hl7_messages import (
    DATA,
    EXAMPLE_MAP,
    GOOD,
    NOW,
    STAMP,
    message,
    report,
    setting,
    talk,
)
from vitals import columns, limits
from vitals.codes import VITALS, Status, Vital

MUTANTS = int(os.environ.get("HEALTHSYNC_FUZZ_INPUTS", "4000"))
"""Inputs of one run; the long run sets a million."""

SAMPLES = [
    path.read_bytes().replace(b"\r\n", b"\r").replace(b"\n", b"\r")
    for path in sorted(DATA.glob("*/*.hl7*"))
]
VENDOR = load(EXAMPLE_MAP)


def _sound(entries: list[Entry]) -> None:
    """Check that entries can be sealed, and answer them."""
    for entry in entries:
        if entry.source is not None:
            rows = [(0, reading) for reading in entry.readings]
            packed = columns.pack([entry.source], rows, [(0, one) for one in entry.alerts])
            columns.decode(columns.encode(packed))
            assert len(entry.source.device) <= limits.TEXT_CHARS_MAX
        for reading in entry.readings:
            vital = VITALS[reading.vital]
            assert reading.value is None or vital.low <= reading.value <= vital.high
            assert (reading.value is None) == bool(reading.reason)
        for reject in entry.rejected:
            assert len(reject.raw) <= limits.QUARANTINE_RAW_BYTES_MAX
        if entry.answer is not None:
            for failure in (Reason.SPOOL_FULL, None):
                said = entry.answer(failure)
                assert said.count(b"\x0b") == said.count(b"\x1c\r") <= 2


def _mutants(seed: int, count: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    special = [b"|", b"^", b"~", b"\\", b"&", b"\r", b"\x0b", b"\x1c", b"\x00", b"\xff", b"MSH|"]
    for _ in range(count):
        raw = bytearray(dice.choice(SAMPLES))
        for _ in range(dice.randint(1, 6)):
            at = dice.randrange(len(raw) + 1)
            match dice.randrange(5):
                case 0:
                    raw[at : at + dice.randint(1, 20)] = b""
                case 1:
                    raw[at:at] = dice.choice(special) * dice.randint(1, 3)
                case 2:
                    raw[at:at] = dice.randbytes(dice.randint(1, 8))
                case 3:
                    other = dice.choice(SAMPLES)
                    cut = dice.randrange(len(other))
                    raw[at:at] = other[cut : cut + dice.randint(1, 80)]
                case _:
                    raw[at : at + 1] = b"%d" % dice.randint(-99999, 999999)
        yield bytes(raw)


def test_damaged_messages_are_answered_never_raised() -> None:
    under = setting(vendor=VENDOR)
    one = talk(under)
    for raw in _mutants(11, MUTANTS):
        under.repeats = Repeats()  # else a message like the one before is a conflict with it
        _sound(one.receive(block(raw), NOW))
    assert one.held_bytes() <= limits.HL7_MESSAGE_BYTES_MAX + 1


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_behind_a_header_are_answered_never_raised(noise: bytes) -> None:
    _sound(talk().receive(block(message(*GOOD) + noise), NOW))
    _sound(talk().receive(block(b"MSH|^~\\&" + noise), NOW))
    _sound(talk().receive(block(noise), NOW))


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x0b\x1c"), max_size=12)
FIELD = st.one_of(
    TEXT,
    st.sampled_from(
        [
            "147842^MDC_ECG_HEART_RATE^MDC",
            "150456^MDC_CO2_ET^MDC",
            "196616^MDC_EVT_ALARM^MDC",
            "68481^MDC_ATTR_EVENT_PHASE^MDC",
            "67860",
            "1.1.1.1",
            "1.0.0.0.1",
            "264864",
            "NM",
            "78",
            "-1",
            STAMP,
            "²",
            "٣",
            '""',
            "QUES~INV",
            "X",
            "\\X41\\",
            "a&b^c~d",
        ]
    ),
)
SEGMENT = st.tuples(
    st.sampled_from(["OBX", "OBR", "PID", "PV1", "NTE", "MSH", ""]), st.lists(FIELD, max_size=30)
).map(lambda found: "|".join((found[0], *found[1])))


@settings(max_examples=400, deadline=None)
@given(st.lists(SEGMENT, max_size=12), st.sampled_from(["ORU^R01", "ORU^R40", "ACK"]))
def test_segments_of_any_content_are_answered_never_raised(segments: list[str], kind: str) -> None:
    raw = message(*segments, kind=kind)
    _sound(talk(setting(vendor=VENDOR)).receive(block(raw), NOW))


UNITS = {"/min": "/min^^UCUM", "%": "%", "Cel": "268192", "mm[Hg]": "266016^MDC_DIM_MMHG^MDC"}
ROWS = st.lists(
    st.tuples(
        st.sampled_from([v for v in VITALS if v.mdc and v.unit in UNITS]),
        st.integers(0, 10_000),
        st.booleans(),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(ROWS)
def test_a_valid_message_means_what_a_plain_model_says(
    rows: list[tuple[Vital, int, bool]],
) -> None:
    segments, model = [], []
    seen: dict[int, int] = {}
    for entry, thousandth, missing in rows:
        value = round(entry.low + (entry.high - entry.low) * thousandth / 10_000, 3)
        text = "" if missing else str(value)
        segments.append(f"OBX|1|NM|{entry.mdc[0]}^^MDC|1.1.1.1|{text}|{UNITS[entry.unit]}|||||R")
        channel = seen.get(entry.index, 0)
        seen[entry.index] = channel + 1
        kept = None if missing or value in SENTINELS else value
        status = Status.MISSING if kept is None else Status.OK
        model.append((entry.index, kept, status, channel))
    (part,) = report(message(*GOOD[:2], *segments)).parts
    assert [(r.vital, r.value, r.status, r.channel) for r in part.readings] == model


def test_a_megabyte_of_rows_is_refused_before_it_holds_up_the_others() -> None:
    row = b"OBX|1|NM|1|1|1\r"
    raw = message("OBR|1") + row * ((limits.HL7_MESSAGE_BYTES_MAX - 200) // len(row))
    began = time.process_time()
    (entry,) = talk().receive(block(raw), NOW)
    assert entry.rejected[0].reason == "hl7-too-many"
    assert time.process_time() - began < 0.25


def test_memory_is_bounded_whatever_comes() -> None:
    one = talk(setting(vendor=VENDOR))
    tracemalloc.start()
    try:
        for number in range(40):
            texts = [
                f"OBX|1|NM|{number}-{at}^{'x' * 150}|1.1|1|{at}^{'u' * 100}" for at in range(300)
            ]
            one.receive(block(message("OBR|1", *texts, msh=f"|{number}|P|2.6")), NOW)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 8 * 1024 * 1024

"""``healthsync cloud fhir``: what the cloud would make of readings, as FHIR R4; nothing is sent.

Law: the same templates as detect's, fed from the lines of ``healthsync edge decode``. A line that
is wrong is told on stderr by its number, with what to do, and changes nothing of the others. What
is told names fields, never their content. Memory is bounded, whatever comes.

Readings of one device, patient and time that follow each other are one Bundle, as one message of
a device is one record: so the halves of a blood pressure meet. Detect has pseudonyms by ingest's
key. Here is no key, so an id is the head of a plain hash of the name, by which anybody who can
guess a record number finds it: for trying out, never for data that leaves the house.
"""

import argparse
import hashlib
import sys
from datetime import datetime, timedelta
from typing import BinaryIO, Final, NamedTuple, TextIO

import msgspec

from healthsync.runtime.exits import Exit
from healthsync.runtime.lines import add_file, numbered, read
from vitals import limits
from vitals.codes import BY_NAME, Site, Status
from vitals.columns import CHANNEL_MAX, TIME_MS_MAX, scaled
from vitals.pseudonym import SUBJECT_HEX
from vitals.reading import Reading

LINE_BYTES_MAX: Final = 16 * 1024
"""Room for every field many times over; a longer line is nothing that decode writes."""

GROUP_MAX: Final = limits.FRAME_READINGS_MAX
"""Readings of one Bundle here: as many as one frame may hold."""

ABOUT: Final = (
    "Reads the JSON lines of `healthsync edge decode` and prints a FHIR R4 transaction Bundle a"
    " message. Patients and devices get ids that are plain hashes of their names: for trying out"
    " only, anybody who can guess a name finds its id. exits 0 when all was taken, 1 when a line"
    " was wrong or told of a refusal, 64 without input"
)

_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_SITES: Final = {site.name.lower(): site for site in Site if site}
_STATUSES: Final = {status.name.lower(): status for status in Status}
_WITHOUT: Final = (Status.MISSING, Status.IMPLAUSIBLE)


class Wrong(Exception):
    """A line that gives no reading; says why and what to do."""


class Line(msgspec.Struct):
    """What is read of a line. Its writer may add fields; those are left alone."""

    kind: str
    device: str | None = None
    patient: str | None = None
    vital: str | None = None
    value: float | None = None
    unit: str | None = None
    site: str | None = None
    channel: int = 0
    time: str | None = None
    status: str = "ok"


class Taken(NamedTuple):
    """A reading with its pseudonyms."""

    subject: str
    device: str
    reading: Reading


_decoder: Final = msgspec.json.Decoder(Line)


def register(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--ndjson", action="store_true", help="one resource a line, no Bundles")
    add_file(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Convert one input; return OK when all of it was taken, DEGRADED when a line was not."""
    ndjson: bool = options.ndjson
    return read(options.file, lambda stream: convert(stream, sys.stdout, sys.stderr, ndjson=ndjson))


def convert(stream: BinaryIO, out: TextIO, errors: TextIO, *, ndjson: bool) -> int:
    """Write what the lines give, each Bundle as soon as it is known to be complete."""
    code = Exit.OK
    group: list[Taken] = []
    alerts = 0
    for number, line in numbered(stream, LINE_BYTES_MAX):
        taken = None
        try:
            said = _said(line)
            alerts += said.kind == "device_alert"
            if said.kind == "reading":
                taken = _taken(said)
            elif said.kind == "rejected":
                raise Wrong("the gateway refused this input; correct it at the device")  # noqa: TRY301
        except Wrong as wrong:
            code = Exit.DEGRADED
            print(f"healthsync: line {number}: {wrong}", file=errors)
        if group and (taken is None or len(group) == GROUP_MAX or not _together(group[0], taken)):
            _write(group, out, ndjson=ndjson)
            group = []
        if taken is not None:
            group.append(taken)
    if group:
        _write(group, out, ndjson=ndjson)
    if alerts:
        print(
            f"healthsync: {alerts} alarms of devices are not printed: detect makes them alerts",
            file=errors,
        )
    return code


def _said(line: bytes) -> Line:
    if len(line.rstrip(b"\r\n")) > LINE_BYTES_MAX:
        raise Wrong(f"over {LINE_BYTES_MAX} bytes; give lines of `healthsync edge decode`")
    try:
        said = _decoder.decode(line)
    except msgspec.ValidationError as error:
        # The path in it is of our own field names; its values are never shown.
        field = str(error).rpartition("$.")[2].rstrip("`") if "$." in str(error) else "the object"
        raise Wrong(f"{field}: missing, or of another kind than decode writes") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Wrong("no JSON object; give lines of `healthsync edge decode`") from error
    if said.kind not in {"reading", "device_alert", "rejected", "ack"}:
        raise Wrong("kind: not reading, device_alert, rejected or ack")
    return said


def _taken(said: Line) -> Taken:
    vital = BY_NAME.get(said.vital or "")
    if vital is None:
        raise Wrong("vital: no such vital sign; `vitals/codes.py` has their names")
    if said.unit not in {None, vital.unit}:
        raise Wrong(f"unit: {vital.name} is in {vital.unit}; convert the value")
    status = _STATUSES.get(said.status)
    if status is None:
        raise Wrong(f"status: write one of {', '.join(_STATUSES)}")
    if said.site is not None and said.site not in _SITES:
        raise Wrong(f"site: write one of {', '.join(_SITES)}, or null")
    if not 0 <= said.channel <= CHANNEL_MAX:
        raise Wrong(f"channel: write a number from 0 to {CHANNEL_MAX}")
    value = said.value
    if value is not None:
        if status in _WITHOUT:
            raise Wrong(f"value: a reading that is {said.status} has none; write null")
        if not vital.low <= value <= vital.high:
            raise Wrong(
                f"value: {vital.name} is {vital.low:g} to {vital.high:g} {vital.unit}; write null"
                " and status implausible"
            )
        value = (scaled(vital.index, value) or 0) / 10**vital.decimals
    time_ms = _time_ms(said.time)
    site = _SITES.get(said.site or "", Site.NONE)
    device = said.device or ""
    subject = pseudonym("patient", said.patient) if said.patient else pseudonym("bedside", device)
    reading = Reading(vital.index, value, time_ms, time_ms, status, site, said.channel)
    return Taken(subject, pseudonym("device", device), reading)


def _time_ms(text: str | None) -> int:
    try:
        at = datetime.fromisoformat(text or "")
        time_ms = (at - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, TypeError, OverflowError) as error:  # TypeError: without a zone
        raise Wrong("time: write UTC as 2026-11-23T10:00:00.000Z") from error
    if not 0 <= time_ms <= TIME_MS_MAX:
        raise Wrong("time: write one after 1970")
    return time_ms


def pseudonym(kind: str, name: str) -> str:
    """Return the id that stands for a name here: 128 bits of plain SHA-256, 32 hex digits."""
    return hashlib.sha256(f"healthsync/try-out/{kind}/{name}".encode()).hexdigest()[:SUBJECT_HEX]


def _together(first: Taken, other: Taken) -> bool:
    return first[:2] == other[:2] and first.reading.time_ms == other.reading.time_ms


def _write(group: list[Taken], out: TextIO, *, ndjson: bool) -> None:
    from cloud.fhir import chart, resources  # 0.2 s and 30 MB that no other command needs

    subject, device, _ = group[0]
    built = chart.of({}).rows(subject, device, [taken.reading for taken in group])
    if ndjson:
        out.writelines(one.body.decode() + "\n" for one in built)
    else:
        entries = [(f"Observation/{one.id}", one.body) for one in built]
        out.write(resources.transaction(entries).decode() + "\n")
    out.flush()

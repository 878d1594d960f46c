"""The JSON lines of ``healthsync edge decode`` (edge/PROTOCOL.md) into a `Ward`.

Law: a line is taken whole or the input is refused, by the line's number: a report of alarms over
data with silent holes would flatter every policy. Fields that are not known are passed over, as
decode's objects only grow. Who it is stays inside: patients and devices are hashed, beds are
called as their monitors call them.

A decoded reading does not say when it arrived, so it arrives when it was measured.
"""

import hashlib
import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, BinaryIO, Final

import msgspec

from cloud.whatif.errors import DataWrong
from cloud.whatif.ward import NO_VALUE, Bed, Origin, Row, Ward
from healthsync.runtime.lines import numbered
from vitals.codes import BY_NAME, Site, Status
from vitals.columns import CHANNEL_MAX, TIME_MS_MAX, VALUE_MAX, scaled

LINE_BYTES_MAX: Final = 64 * 1024
"""Room for every field of a decoded object many times over."""

LABEL_CHARS_MAX: Final = 32
"""Of a bed's name, which a device may have filled with anything."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_STATUS: Final = {status.name.lower(): int(status) for status in Status}
_SITE: Final = {site.name.lower(): int(site) for site in Site}
_VITAL: Final = {name: vital.index for name, vital in BY_NAME.items()}
_PASSED: Final = frozenset({"rejected", "ack", "device_alert"})
_HEX: Final = 32


class _Line(msgspec.Struct, frozen=True, gc=False):
    """What is read of one decoded object."""

    kind: str
    device: str | None = None
    patient: str | None = None
    bed: str | None = None
    vital: str = ""
    value: float | None = None
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    status: str = "ok"
    site: str | None = None
    channel: int = 0


_decoder: Final = msgspec.json.Decoder(_Line)


def read(stream: BinaryIO, name: str, gateway: str, ward: Ward) -> None:
    """Take every reading of ``stream``; raise DataWrong with its line.

    ``gateway``: whose a policy's ward layers are, or empty.
    """
    beds: dict[tuple[str | None, str | None, str | None], tuple[Bed, int]] = {}
    for number, data in numbered(stream, LINE_BYTES_MAX):
        if len(data) > LINE_BYTES_MAX:
            raise _wrong(name, number, f"is longer than {LINE_BYTES_MAX} bytes")
        try:
            line = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            field = error.args[0] if isinstance(error, msgspec.ValidationError) else "not JSON"
            raise _wrong(name, number, str(field)) from None
        if line.kind in _PASSED:
            ward.passed += 1
            continue
        row = _row(line, name, number)
        who = (line.patient, line.device, line.bed)
        found = beds.get(who)
        if found is None:
            found = beds[who] = _bed(line, gateway, ward)
        ward.add(found[0], row, found[1])


def _bed(line: _Line, gateway: str, ward: Ward) -> tuple[Bed, int]:
    device = line.device or ""
    # As ingest has it: a patient wherever they lie, or a device that names none.
    who = f"patient/{line.patient}" if line.patient else f"device/{device}"
    label = _printable(line.bed or line.device or "no name")
    source = ward.source(Origin(_hash(f"device/{device}"), gateway))
    return ward.bed(_hash(who), label), source


def _hash(text: str) -> str:
    # Not keyed, so it is never shown: events are counted here, and nothing of them leaves.
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_HEX]


def _printable(text: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown[:LABEL_CHARS_MAX]


def _row(line: _Line, name: str, number: int) -> Row:
    if line.kind != "reading":
        raise _wrong(name, number, "its kind is none of reading, device_alert, rejected, ack")
    vital = _VITAL.get(line.vital)
    if vital is None:
        raise _wrong(name, number, "its vital is not in vitals/codes.py")
    status, site = _STATUS.get(line.status), _SITE.get(line.site or "none")
    if status is None or site is None:
        raise _wrong(name, number, "its status or site is not known")
    if line.time is None:
        raise _wrong(name, number, "has no time")
    time_ms = (line.time - _EPOCH) // _MS
    if not 0 < time_ms <= TIME_MS_MAX:
        raise _wrong(name, number, "its time is before 1970")
    if not 0 <= line.channel <= CHANNEL_MAX:
        raise _wrong(name, number, f"its channel is outside 0 to {CHANNEL_MAX}")
    value = None
    if line.value is not None:
        value = scaled(vital, line.value) if math.isfinite(line.value) else VALUE_MAX + 1
        if value is None or not -VALUE_MAX <= value <= VALUE_MAX:
            raise _wrong(name, number, "its value is out of range")
    return Row(
        time_ms,
        time_ms,
        vital,
        NO_VALUE if value is None else value,
        status,
        site,
        line.channel,
    )


def _wrong(name: str, number: int, what: str) -> DataWrong:
    return DataWrong(
        f"{name}: line {number}: {what}; give lines as `healthsync edge decode` prints them,"
        " or take this one out"
    )

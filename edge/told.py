"""What the gateway made of its input, as JSON objects for a technician (edge/PROTOCOL.md).

Law: pure. Numbers, words and times are those that would be stored; the objects' fields only grow.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from edge.bedside import reply
from edge.entry import Entry
from edge.mllp import END, START
from vitals.codes import VITALS, Absence, Site, Status, TimeSource, decimal_scale
from vitals.columns import Source, scaled
from vitals.reading import DeviceAlert, Reading, Rejected

NO_ADDRESS: Final = "-"
"""Address of a caller that has none."""
_NAMELESS: Final = f"addr-{NO_ADDRESS}"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Told = dict[str, str | int | float | None]


def tell(entry: Entry, *, ack: bool) -> Iterator[Told]:
    """Yield what one line or message came to: readings, alerts, refusals, perhaps its answer."""
    if entry.source is not None:
        for reading in entry.readings:
            yield _reading(entry.source, reading)
        for alert in entry.alerts:
            yield _alert(entry.source, alert)
    for rejected in entry.rejected:
        yield _rejected(rejected)
    if ack:
        for text in _answers(entry):
            yield {"kind": "ack", "text": text}


def _who(source: Source) -> Told:
    patient = source.patient
    return {
        "device": None if source.device == _NAMELESS else source.device,
        "patient": (patient.mrn or None) if patient is not None else None,
        "bed": (patient.bed or None) if patient is not None else None,
    }


def _word(word: str) -> str:
    return word.lower().replace("_", "-")


def _time(ms: int) -> str:
    at = _EPOCH + timedelta(milliseconds=ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(vital: int, value: float | None) -> int | float | None:
    """Return the value as it will be stored."""
    number = scaled(vital, value)
    scale = decimal_scale(VITALS[vital])
    return number if number is None or scale == 1 else number / scale


def _reading(source: Source, reading: Reading) -> Told:
    vital = VITALS[reading.vital]
    return {
        "kind": "reading",
        **_who(source),
        "vital": vital.name,
        "value": _number(reading.vital, reading.value),
        "unit": vital.unit,
        "site": Site(reading.site).name.lower() if reading.site else None,
        "channel": reading.channel,
        "time": _time(reading.time_ms),
        "time_source": TimeSource(reading.time_source).name.lower(),
        "status": Status(reading.status).name.lower(),
        "reason": _word(Absence(reading.reason).name) if reading.reason else None,
    }


def _alert(source: Source, alert: DeviceAlert) -> Told:
    vital = alert.vital
    unit = None if vital is None else VITALS[vital].unit
    name = None if vital is None else VITALS[vital].name
    value, low, high = (
        number if vital is None else _number(vital, number)
        for number in (alert.value, alert.low, alert.high)
    )
    return {
        "kind": "device_alert",
        **_who(source),
        "event": alert.event,
        "name": alert.name,
        "phase": alert.phase or None,
        "state": alert.state or None,
        "inactivation": alert.inactivation or None,
        "priority": alert.priority or None,
        "type": alert.kind or None,
        "id": alert.id or None,
        "source": alert.source or None,
        "vital": name,
        "value": value,
        "low": low,
        "high": high,
        "unit": unit,
        "time": _time(alert.time_ms),
        "received": _time(alert.received_ms),
        "time_source": TimeSource(alert.time_source).name.lower(),
        "status": Status(alert.status).name.lower(),
    }


def _rejected(rejected: Rejected) -> Told:
    return {
        "kind": "rejected",
        "reason": rejected.reason,
        "field": rejected.field or None,
        "detail": rejected.detail,
    }


def _answers(entry: Entry) -> Iterator[str]:
    if not entry.message:
        yield reply(entry).decode().removesuffix("\n")
        return
    if entry.answer is None:
        return
    for block in entry.answer(None).split(START)[1:]:
        yield block.partition(END)[0].decode(errors="replace")

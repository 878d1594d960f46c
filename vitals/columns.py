"""Readings as columns: the body of a frame and the value of a ``samples`` record.

One `Columns` holds rows (one reading each) from several sources. A source is an entry of
``sources``: in a frame the device as it named itself with its patient, in a ``samples`` record
the pseudonymous subject and device. Values are integers scaled by 10**decimals of their vital;
times are milliseconds, delta-coded along the column; msgpack outside, zstd around it in frames.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import mul, sub
from typing import Final, cast

import msgspec
from msgspec.structs import astuple

from vitals import limits
from vitals.codes import VITALS, Absence, Site, Status, TimeSource, decimal_scale
from vitals.errors import UNREADABLE, FrameMalformed
from vitals.reading import DeviceAlert, Patient, Reading

TIME_MS_MAX: Final = 253_402_300_799_999
"""The end of the year 9999: what a datetime can hold."""
CHANNEL_MAX: Final = 65_535
"""Sensors of one kind on one device."""
VALUE_MAX: Final = 2**31 - 1
"""A scaled value fits a 32-bit column."""

_CODED = re.compile(r"[A-Za-z0-9._-]{0,64}")
"""What a device alert may say in letters: no name of a person fits by accident of a space."""

_SCALE = tuple(decimal_scale(vital) for vital in VITALS)


class Source(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Where rows come from. Clear names stand only in frames, pseudonyms only downstream."""

    device: str
    """In a frame: the device's own name. Downstream: its pseudonym (32 hex digits)."""
    subject: str = ""
    """Downstream only: 32 hex digits."""
    patient: Patient | None = None
    """In frames only."""


class Columns(msgspec.Struct, omit_defaults=True):
    """Rows as parallel columns, all of one length; build with `pack`, read with `rows`."""

    sources: list[Source]
    source: list[int]
    vital: list[int]
    value: list[int | None]
    time: list[int]
    """First absolute milliseconds, then differences to the row before."""
    received: list[int]
    """First absolute milliseconds, then differences to the row before."""
    status: list[int] = []
    """Empty when every status is OK."""
    site: list[int] = []
    """Empty when every site is NONE."""
    channel: list[int] = []
    """Empty when every channel is 0."""
    time_source: list[int] = []
    """Empty when every time is of RECEIVED."""
    reason: list[int] = []
    """Empty when every reading has a value: `vitals.codes.Absence`."""
    alerts: list[tuple[int, DeviceAlert]] = []
    """(source index, alert of the device itself); beside the rows, not counted by ``len``."""

    def __len__(self) -> int:
        return len(self.vital)

    def rows(self) -> "Iterable[tuple[int, Reading]]":
        """Yield (source index, reading) in order."""
        count = len(self.vital)
        zeros = [0] * count
        return (
            (
                source,
                Reading(
                    vital,
                    None if value is None else value / _SCALE[vital],
                    time,
                    received,
                    status,
                    site,
                    channel,
                    time_source,
                    reason,
                ),
            )
            for (
                source,
                vital,
                value,
                time,
                received,
                status,
                site,
                channel,
                time_source,
                reason,
            ) in zip(
                self.source,
                self.vital,
                self.value,
                accumulate(self.time),
                accumulate(self.received),
                self.status or zeros,
                self.site or zeros,
                self.channel or zeros,
                self.time_source or zeros,
                self.reason or zeros,
                strict=True,
            )
        )

    def times_ms(self) -> list[int]:
        """Return the absolute times of measurement."""
        return list(accumulate(self.time))

    def received_times_ms(self) -> list[int]:
        """Return the absolute times of receipt."""
        return list(accumulate(self.received))


def _deltas(numbers: Sequence[int]) -> list[int]:
    return [*numbers[:1], *map(sub, numbers[1:], numbers)]


def sparse(numbers: Sequence[int]) -> list[int]:
    """Return a column that is left out when it is all zeros."""
    return list(numbers) if any(numbers) else []


def scaled(vital: int, value: float | None) -> int | None:
    """Return the value as an integer of its vital's scale, rounded half to even."""
    return None if value is None else round(value * _SCALE[vital])


def _scaled(vital: Sequence[int], value: Sequence[float | None]) -> list[int | None]:
    if None in value:
        return [scaled(at, v) for at, v in zip(vital, value, strict=True)]
    return list(map(round, map(mul, value, map(_SCALE.__getitem__, vital))))


def gather(
    sources: list[Source],
    source: list[int],
    readings: Sequence[Reading],
    alerts: Iterable[tuple[int, DeviceAlert]] = (),
) -> Columns:
    """Return columns of ``readings``, the i-th from ``sources[source[i]]``, in the order given.

    Every line of a ward passes here. One tuple a reading, then `zip`, costs 1.2 µs for six
    readings; a comprehension a column cost 2. Scaling is half of the rest.
    """
    if not readings:
        return Columns(sources, [], [], [], [], [], alerts=list(alerts))
    vital, value, time, received, status, site, channel, time_source, reason = zip(
        *map(astuple, readings), strict=True
    )
    return Columns(
        sources=sources,
        source=source,
        vital=list(vital),
        value=_scaled(vital, value),
        time=_deltas(time),
        received=_deltas(received),
        status=sparse(status),
        site=sparse(site),
        channel=sparse(channel),
        time_source=sparse(time_source),
        reason=sparse(reason),
        alerts=list(alerts),
    )


def pack(
    sources: list[Source],
    rows: Iterable[tuple[int, Reading]],
    alerts: Iterable[tuple[int, DeviceAlert]] = (),
) -> Columns:
    """Return columns of (source index, reading) rows, in the order given, and alerts beside."""
    listed = list(rows)
    source = [at for at, _ in listed]
    return gather(sources, source, [reading for _, reading in listed], alerts)


def check(columns: Columns) -> None:
    """Raise FrameMalformed unless columns agree in length and everything is in range."""
    count = len(columns.vital)
    if count > limits.FRAME_READINGS_MAX:
        raise FrameMalformed(f"{count} readings are over {limits.FRAME_READINGS_MAX}; set it aside")
    if not (
        len(columns.source) == len(columns.value) == count
        and len(columns.time) == len(columns.received) == count
    ):
        raise FrameMalformed("columns differ in length; set the frame aside")
    # Most records of a live ward have a dozen rows and no sparse column: each look counts.
    if columns.status or columns.site or columns.channel or columns.time_source or columns.reason:
        _check_sparse(columns)
    if count:
        if not (
            0 <= min(columns.source) <= max(columns.source) < len(columns.sources)
            and 0 <= min(columns.vital) <= max(columns.vital) < len(VITALS)
        ):
            raise FrameMalformed("a source or vital index is out of range; set the frame aside")
        if not (
            _within(list(accumulate(columns.time)), TIME_MS_MAX)
            and _within(list(accumulate(columns.received)), TIME_MS_MAX)
            and _valued(columns.value)
        ):
            raise FrameMalformed("a value, time or code is out of range; set the frame aside")
    if columns.alerts:
        _check_alerts(columns)


def _check_sparse(columns: Columns) -> None:
    for name, highest in _SPARSE:
        if column := getattr(columns, name):
            if len(column) != len(columns.vital):
                raise FrameMalformed("columns differ in length; set the frame aside")
            if not 0 <= min(column) <= max(column) <= highest:
                raise FrameMalformed("a value, time or code is out of range; set the frame aside")


_STATUS_MAX: Final = int(max(Status))
_SPARSE: Final = (
    ("status", _STATUS_MAX),
    ("site", int(max(Site))),
    ("channel", CHANNEL_MAX),
    ("time_source", int(max(TimeSource))),
    ("reason", int(max(Absence))),
)
"""Columns that may be left out, and their highest code."""


def _valued(value: Sequence[int | None]) -> bool:
    numbers = [v for v in value if v is not None] if None in value else cast("list[int]", value)
    return not numbers or -VALUE_MAX <= min(numbers) <= max(numbers) <= VALUE_MAX


def _check_alerts(columns: Columns) -> None:
    if len(columns.alerts) > limits.FRAME_ALERTS_MAX:
        raise FrameMalformed(f"over {limits.FRAME_ALERTS_MAX} device alerts; set the frame aside")
    for source, alert in columns.alerts:
        if not (
            0 <= source < len(columns.sources)
            and _within([alert.time_ms, alert.received_ms], TIME_MS_MAX)
            and _within([alert.status], _STATUS_MAX)
            and (alert.vital is None or 0 <= alert.vital < len(VITALS))
            and _CODED.fullmatch(alert.name)
            and _CODED.fullmatch(alert.id)
        ):
            raise FrameMalformed("a device alert is out of range; set the frame aside")


def _within(numbers: list[int], highest: int) -> bool:
    return not numbers or 0 <= min(numbers) <= max(numbers) <= highest


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Columns)


def encode(columns: Columns) -> bytes:
    """Return the columns as msgpack."""
    return _encoder.encode(columns)


def decode(data: bytes) -> Columns:
    """Return checked columns of msgpack bytes; raise FrameMalformed."""
    try:
        columns = _decoder.decode(data)
    except UNREADABLE as error:
        raise FrameMalformed("the body is not columns of a known shape; set it aside") from error
    check(columns)
    return columns

"""What one line-protocol connection has said so far, and what its next line means with that.

Law: sans-IO. Readings go to the device and patient last named on this connection; whenever a
line that was refused may have named others, nothing named before is believed any more: better an
unassociated reading than one in the wrong record. What a device says that the admission policy
does not know is told from what the others say: it names nobody for them, and what follows without
a name is still its own.

A line of words that were seen before takes a short way (`edge.words`); every other one, and every
refusal, the plain one. Both end in the same readings.
"""

import re
from collections.abc import Sequence
from datetime import tzinfo
from functools import lru_cache
from typing import Final

from edge import normalize
from edge.admission import Caller
from edge.decode_line import Said, decode, moment
from edge.device_map import with_units
from edge.entry import Answer, Entry, accepted, noted, rejection
from edge.lines import LineReader, Oversize
from edge.moment import Moment
from edge.refusal import Reason, Refuse, Refused
from edge.setting import Setting
from edge.words import Words
from vitals import limits
from vitals.codes import VITALS, TimeSource
from vitals.reading import Patient

PREFIX_BYTES_MAX: Final = 160
"""Words of device and patient that are remembered as they were written: 10,000 connections hold
1.6 MB of them at most; 90 bytes are common. Longer ones are read again each time."""

TIMES_MAX: Final = 1024
"""Times remembered, 200 KB: all devices of a ward write the same second."""

_CARRIAGE_RETURN: Final = ord("\r")
_BRACE: Final = ord("{")

_NAMES_SOMEONE: Final = re.compile(rb"device|mrn|name|dob|birth|sex|gender|bed|\\u", re.IGNORECASE)
_ASKS_REPLY: Final = re.compile(rb'\breply"?\s*[=:]\s*"?(yes|true)\b', re.IGNORECASE)
_NAMING: Final = re.compile(
    r"(?:(?:device|mrn|name|dob|birth_date|sex|gender|bed|ward)="
    r'(?:"(?:[^"\\]|\\["\\])*+"|[^\s,"]*+)[\s,]++)++',
    re.IGNORECASE,
)
"""The words at a line's begin that name someone, with the separators after them."""

_TOO_LONG: Final = Refused(Reason.TOO_LONG, "", f"at most {limits.LINE_BYTES_MAX} bytes a line")
_HALF_LINE: Final = Refused(Reason.HALF_LINE, "", "end every line with a newline")
_UNKNOWN: Final = Refused(
    Reason.UNKNOWN_DEVICE, "device", "not listed at this gateway; have it listed under [known]"
)

_words: Final = Words()
_DEVICE: Final = int(TimeSource.DEVICE)
_RECEIVED: Final = int(TimeSource.RECEIVED)

# A remembered prefix and known words can not be over the limit of fields: "bed= " is the shortest
# field that names, each vital sign stands in known words once, and then there is a time.
assert PREFIX_BYTES_MAX // len("bed= ") + len(VITALS) + 1 <= limits.LINE_FIELDS_MAX  # noqa: S101


@lru_cache(maxsize=TIMES_MAX)
def _said_ms(text: str, zone: tzinfo) -> int:
    """Return a device's time in milliseconds; raise Refuse."""
    return normalize.to_ms(moment(text), zone)


def _ok(failure: Reason | None) -> bytes:
    return b"ok\n" if failure is None else f"rejected {failure}: nothing was kept\n".encode()


def _refusal(refused: Refused) -> Answer:
    text = f"rejected {refused.reason} {refused.field or '-'}: {refused.detail}\n".encode()

    def answer(failure: Reason | None) -> bytes:
        return text if failure is None else _ok(failure)

    return answer


def reply(entry: Entry) -> bytes:
    """Return the answer to a line that was kept, asked for or not."""
    if not entry.rejected:
        return _ok(None)
    first = entry.rejected[0]
    return _refusal(Refused(Reason(first.reason), first.field, first.detail))(None)


class LineTalk:
    """One connection's reader, named device and patient. Feed `receive`, end with `leave`."""

    __slots__ = (
        "_admission",
        "_admitted",
        "_bare",
        "_caller",
        "_lines",
        "_prefix",
        "_replies",
        "_said",
        "_setting",
        "_source",
        "_stranger",
        "_version",
    )

    def __init__(self, caller: Caller, setting: Setting) -> None:
        """Take the caller: its address names the device until the device does itself."""
        self._caller, self._setting = caller, setting
        self._admission = setting.admission
        self._lines: LineReader | None = None
        """Made when half a line came, gone with it: ten thousand connections have none."""
        self._replies = False
        self._stranger: str | None = None
        """Name of the device that spoke last, when the policy does not know it."""
        self._nobody()

    def receive(self, data: bytes, received_ms: int) -> list[Entry]:
        """Return one entry a complete line; blank lines make none."""
        setting = self._setting
        if setting.version != self._version:
            self._reread()
        # What nearly always comes: one whole line, of words that are known.
        if (
            self._lines is None
            and self._bare
            and 1 < len(data) <= limits.LINE_BYTES_MAX
            and data.find(b"\n") == len(data) - 1
            and data[-2] != _CARRIAGE_RETURN
            and data[0] != _BRACE
        ):
            entry = self._quick(data[:-1], received_ms)
            if entry is not None:
                return [entry]
        entries = []
        for line in self._cut(data):
            if isinstance(line, Oversize):
                entries.append(self._refuse(_TOO_LONG, line.head, line.total_bytes, received_ms))
                continue
            entry = None
            if self._bare and line[:1] != b"{":
                entry = self._quick(line, received_ms)
            entry = entry or self._plain(line, received_ms)
            if entry is not None:
                entries.append(entry)
        return entries

    def _cut(self, data: bytes) -> Sequence[bytes | Oversize]:
        """Return the lines that ``data`` ends."""
        reader = self._lines or LineReader()
        lines = reader.receive(data)
        self._lines = reader if reader.held_bytes() else None
        return lines

    def held_bytes(self) -> int:
        """Return how many bytes are held of something unfinished: the collector bounds them all."""
        return 0 if self._lines is None else self._lines.held_bytes()

    def half(self) -> bool:
        """Tell whether a line has begun and not ended."""
        return self._lines is not None

    def leave(self, received_ms: int) -> Entry | None:
        """Return the unfinished line as refused input, or None; the connection is over."""
        half = None if self._lines is None else self._lines.half()
        if half is None:
            return None
        return self._refuse(_HALF_LINE, half.head, half.total_bytes, received_ms)

    # -- what a line means ----------------------------------------------------------------------

    def _quick(self, line: bytes, received_ms: int) -> Entry | None:
        """Return the entry of an admitted line of known words; None leaves it to `_plain`."""
        try:
            read = _words.read(line.removeprefix(self._prefix).decode())
            if read is None:
                return None
            rows, time, layout = read
            if not rows:
                return None
            if not time:
                moment = Moment(rows, received_ms, received_ms, _RECEIVED, layout)
                return noted(self._source, moment, _ok if self._replies else None)
            said_ms = _said_ms(time, self._setting.zone)
        except (UnicodeDecodeError, Refuse):
            return None
        return self._dated(normalize.timed(rows, said_ms, received_ms, layout))

    def _dated(self, moment: Moment) -> Entry:
        """Return the entry of what the source said, its time judged."""
        answer = _ok if self._replies else None
        if not moment.rows:  # it only named somebody
            return accepted(self._source, (), answer)
        if moment.time_source == _DEVICE:
            dated = self._setting.skews.date_moment(self._source.device, moment)
            if dated is not None:
                return accepted(self._source, dated, answer)
        return noted(self._source, moment, answer)

    def _plain(self, line: bytes, received_ms: int) -> Entry | None:
        said = decode(line)
        if said is None:
            return None
        if isinstance(said, Refused):
            return self._refuse(said, line, len(line), received_ms)
        device = self._device() if said.device is None else said.device
        if not self._knows(device):
            return self._turn_away(said, device, line, received_ms)
        try:
            device_ms = (
                None if said.time is None else normalize.to_ms(said.time, self._setting.zone)
            )
            measures = said.measures
            units = self._setting.devices.of(device).units
            if units:
                measures = with_units(measures, units)
            found = normalize.moment(measures, device_ms, received_ms, said.status)
        except Refuse as refuse:
            return self._refuse(refuse.refused, line, len(line), received_ms)
        if said.reply is not None:
            self._replies = said.reply
        if said.device is not None or said.patient:
            self._attach(said, line)
            # Read again by its words, for rows that others say too: ten thousand devices that say
            # something for the first time would each hold half a kilobyte of their own.
            quick = self._quick(line, received_ms) if self._bare else None
            if quick is not None:
                return quick
        return self._dated(found)

    # -- who speaks -----------------------------------------------------------------------------

    def _device(self) -> str:
        return self._source.device if self._stranger is None else self._stranger

    def _knows(self, device: str) -> bool:
        return self._caller.welcome or self._admission.known(device)

    def _nobody(self) -> None:
        """Forget who was named."""
        self._stranger = None
        self._became(f"addr-{self._caller.address}", None, b"")

    def _became(self, device: str, said: Patient | None, prefix: bytes) -> None:
        """Take who speaks from now on, and words that say just that again."""
        setting = self._setting
        self._said, self._prefix, self._version = said, prefix, setting.version
        self._source = setting.devices.source(device, said, setting.ward)
        self._admitted = self._stranger is None and self._knows(device)
        # A device whose bare numbers have a unit of their own is none for words that all share.
        self._bare = self._admitted and not setting.devices.of(device).units

    def _attach(self, said: Said, line: bytes) -> None:
        """Take whom an admitted line named."""
        device, patient = self._source.device, self._said or Patient()
        if said.device is not None and said.device != device:
            device, patient = said.device, Patient()
        mentioned = said.patient
        if "mrn" in mentioned and mentioned["mrn"] != patient.mrn:
            patient = Patient()
        fields = {name: getattr(patient, name) for name in patient.__struct_fields__}
        fields |= mentioned
        self._stranger = None
        # Decoded first: what separates words is a matter of characters, not of bytes.
        found = _NAMING.match(line.decode())
        prefix = found[0].encode() if found is not None else b""
        patient = Patient(**fields)
        known = len(prefix) <= PREFIX_BYTES_MAX
        self._became(device, patient if any(fields.values()) else None, prefix if known else b"")

    # -- what is not taken ----------------------------------------------------------------------

    def _turn_away(self, said: Said, device: str, line: bytes, received_ms: int) -> Entry:
        """Refuse what a device says that the policy does not know."""
        if said.reply is not None:
            self._replies = said.reply
        self._stranger, self._admitted, self._bare = device, False, False
        return self._refused(_UNKNOWN, device, line, len(line), received_ms)

    def _refuse(self, refused: Refused, raw: bytes, raw_bytes: int, received_ms: int) -> Entry:
        said_by = self._device()
        if raw_bytes > len(raw) or _NAMES_SOMEONE.search(raw):
            self._nobody()
        if _ASKS_REPLY.search(raw):
            self._replies = True
        return self._refused(refused, said_by, raw, raw_bytes, received_ms)

    def _refused(
        self, refused: Refused, device: str, raw: bytes, raw_bytes: int, received_ms: int
    ) -> Entry:
        answer = _refusal(refused) if self._replies else None
        if self._admission.policy == "refuse" and not self._knows(device):
            return Entry(None, (), (), 0, answer=answer, turned_away=True)
        reject = rejection(refused, device, raw, raw_bytes, received_ms)
        return Entry(None, (), (reject,), len(raw), answer=answer)

    # -- another configuration ------------------------------------------------------------------

    def _reread(self) -> None:
        """Go on under the configuration as it now is."""
        setting, caller = self._setting, self._caller
        if setting.admission is not self._admission:
            self._admission = setting.admission
            self._caller = setting.admission.caller(caller.address, caller.certificate)
        device, said, prefix = self._source.device, self._said, self._prefix
        if self._stranger is not None and self._knows(self._stranger):
            if self._stranger != device:  # what it said of a patient was not believed
                device, said, prefix = self._stranger, None, b""
            self._stranger = None
        self._became(device, said, prefix)

"""Why input is refused: a closed set of reasons, and the refusal itself.

Law: a refusal names a reason, a field and what would be right. It never repeats a value, a name
or a number of a patient, because reason and detail travel back to the sender and into counters.
"""

from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """Every reason a decoder may give; stored in quarantine, shown in metrics and replies."""

    NOT_UTF8 = "not-utf8"
    """The line is not UTF-8 text."""
    BINARY = "binary"
    """Control characters: a TLS hello or another protocol on the line port."""
    TOO_LONG = "too-long"
    """Over limits.LINE_BYTES_MAX; its head is kept."""
    HALF_LINE = "half-line"
    """The sender fell silent, or left, before the end of the line."""
    NO_FIELDS = "no-fields"
    """Not one ``key=value``."""
    BAD_FIELD = "bad-field"
    """A word that is no ``key=value``, or a quotation mark that does not close."""
    BAD_JSON = "bad-json"
    """Starts with ``{`` but is not one flat JSON object."""
    UNKNOWN_FIELD = "unknown-field"
    """A key that is neither a vital sign nor a field of the line protocol."""
    DUPLICATE_FIELD = "duplicate-field"
    """One field twice with different values."""
    TOO_MANY_FIELDS = "too-many-fields"
    """Over limits.LINE_FIELDS_MAX."""
    BAD_NUMBER = "bad-number"
    """Not a decimal number (NaN and infinity included)."""
    BAD_UNIT = "bad-unit"
    """A unit that is unknown, or that this vital sign is not measured in."""
    BAD_TIME = "bad-time"
    """Not an ISO 8601 date and time of day."""
    BAD_VALUE = "bad-value"
    """A text field whose content is not among what it may be."""
    HL7_FRAMING = "hl7-framing"
    """Bytes outside an MLLP block, or a block that a new one cut off."""
    HL7_TOO_LONG = "hl7-too-long"
    """Over limits.HL7_MESSAGE_BYTES_MAX; its head is kept."""
    HL7_NO_MSH = "hl7-no-msh"
    """Does not start with a usable MSH segment: there is nothing to answer to."""
    HL7_CHARSET = "hl7-charset"
    """The bytes are not in the character set that MSH-18 names."""
    HL7_TYPE = "hl7-type"
    """A message type or version that is not taken here."""
    HL7_REQUIRED = "hl7-required"
    """A required segment or field is missing."""
    HL7_CONFLICT = "hl7-conflict"
    """Code, value type and unit of an OBX contradict each other."""
    HL7_NO_READING = "hl7-no-reading"
    """Not one OBX of the message is a vital sign known here."""
    HL7_TOO_MANY = "hl7-too-many"
    """More readings than one message may carry."""
    HL7_REPEAT_CONFLICT = "hl7-repeat-conflict"
    """A control id that this sender used a moment ago for other content."""
    UNKNOWN_DEVICE = "unknown-device"
    """Neither address, certificate nor device name is listed, and the policy is not to accept."""
    BAD_PROXY = "bad-proxy"
    """No PROXY protocol header where one is required."""
    SPOOL_FULL = "spool-full"
    """The spool's quota is reached and its policy is to refuse: nothing was kept."""
    SPOOL_FAILED = "spool-failed"
    """The disk did not take it: nothing was kept."""


class Refused(NamedTuple):
    """One refusal: reason, name of the offending field or empty, and a sentence for the sender."""

    reason: Reason
    field: str
    detail: str


class Refuse(Exception):
    """Raised inside a decoder to leave it; decoders' public functions return `Refused`."""

    def __init__(self, reason: Reason, field: str, detail: str) -> None:
        """Take what `Refused` holds."""
        super().__init__(reason)
        self.refused = Refused(reason, field, detail)

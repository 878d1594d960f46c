"""Every cap, with its unit in its name and its reason above it. Relations are asserted below."""

from typing import Final

# A bedside line is under 300 bytes in practice; 8 KiB leaves room for long names in UTF-8 and
# still bounds 10,000 connections at 80 MB in the very worst case.
LINE_BYTES_MAX: Final = 8 * 1024

# A PCD-01 message with 60 OBX is about 9 KiB; waveforms (NA) reach some hundred KiB.
HL7_MESSAGE_BYTES_MAX: Final = 1024 * 1024

# Half a line and then silence: long enough for a person who types into nc, short enough that a
# dead sender does not hold its buffer for a shift.
LINE_IDLE_S_MAX: Final = 300.0
HALF_LINE_S_MAX: Final = 60.0

# Device connections one gateway serves; beyond it a newcomer is refused in words.
CONNECTIONS_MAX: Final = 10_000

# Fields on one line: 17 vitals, 8 patient fields, room for aliases.
LINE_FIELDS_MAX: Final = 64

# Text of one field (a name, a bed), in characters, after decoding.
TEXT_CHARS_MAX: Final = 256

# Group commit: whichever comes first closes a frame. 10 ms keeps an acknowledgement within one
# fsync of its line; 256 KiB keeps one frame's loss and one transaction small.
COMMIT_WINDOW_S: Final = 0.010
COMMIT_BYTES_MAX: Final = 256 * 1024

# Readings in one frame: bounds what ingest must hold decoded at once.
FRAME_READINGS_MAX: Final = 20_000

# Device alerts in one frame: a keep-alive of every alarm of a ward each 10 s stays far below.
FRAME_ALERTS_MAX: Final = 2_000

# Sealed frame as it lies on disk and travels.
FRAME_BYTES_MAX: Final = 1024 * 1024

# Body of a frame after decompression; a hostile edge cannot make the cloud inflate more.
FRAME_BODY_BYTES_MAX: Final = 8 * 1024 * 1024

# Clear header of a frame.
FRAME_HEADER_BYTES_MAX: Final = 1024

# One websocket message: a frame and its few bytes of envelope.
SESSION_MESSAGE_BYTES_MAX: Final = FRAME_BYTES_MAX + 64 * 1024

# AES-GCM with a counter nonce is safe far beyond this; a new epoch long before keeps one key's
# exposure short (hours).
EPOCH_FRAMES_MAX: Final = 2**32 - 1
EPOCH_S_MAX: Final = 4 * 3600.0

# Raw input kept with a quarantined entry; the rest is cut and its length noted.
QUARANTINE_RAW_BYTES_MAX: Final = 64 * 1024

# Default quota of the spool on disk.
SPOOL_BYTES_MAX: Final = 4 * 1024**3

# Default quota of refused input: weeks of one badly set monitor, an hour of a flood of garbage.
QUARANTINE_BYTES_MAX: Final = 256 * 1024**2

# No time of measurement lies further ahead of its arrival: an edge puts its own in its place
# (earlier where it trusts its clock, edge/skew.py), detect draws it back.
FUTURE_MS_MAX: Final = 120_000

# Frames an edge may have in flight to ingest before it must wait for credit.
CREDIT_FRAMES: Final = 256

assert LINE_BYTES_MAX <= QUARANTINE_RAW_BYTES_MAX  # noqa: S101 - a whole bad line is kept
assert HALF_LINE_S_MAX <= LINE_IDLE_S_MAX  # noqa: S101
assert COMMIT_BYTES_MAX < FRAME_BYTES_MAX < SESSION_MESSAGE_BYTES_MAX  # noqa: S101
assert QUARANTINE_RAW_BYTES_MAX < FRAME_BYTES_MAX <= FRAME_BODY_BYTES_MAX  # noqa: S101
assert HL7_MESSAGE_BYTES_MAX <= FRAME_BODY_BYTES_MAX  # noqa: S101

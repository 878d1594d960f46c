"""What lies in Redis, written once: keys, fields, places and the header of a newest-wins value.

============================= ====== ===========================================================
key                           type   content
============================= ====== ===========================================================
``latest:{subject}``          hash   ``{vital}``, ``{vital}:{site}`` or
                                     ``{vital}:{site}:{channel}`` -> head + sealed `Latest`
``recent:{subject}:{minute}`` hash   ``{edge}/{epoch}/{seq}`` -> sealed columns; expires
``recent:{subject}``          zset   minutes that have a bucket, scored by the second it expires
``identity:{subject}``        string head + sealed `Identity`
``subjects``                  set    every subject seen
``mrn:{blind index}``         string sealed subject
``alert:{subject}``           hash   episode -> head + sealed `AlertEvent` JSON
``episode:{episode}``         string subject the episode belongs to
``offsets:project``           hash   ``topic/partition`` -> next offset
============================= ====== ===========================================================

Law: only times, subjects, pseudonyms and episode ids stand in clear. A sealed value is bound to
its key and field. The head is big-endian: 8 bytes time, 8 bytes rank, 4 bytes tie-break; of two
values the one with the greater head stays, whatever order they came in. An alert's first two are
its step's number (see `alert_head`) and its time.
"""

import struct
from typing import Final

import msgspec

from cloud.records import AlertEvent
from vitals.codes import VITALS
from vitals.columns import TIME_MS_MAX
from vitals.reading import Reading

CHANNEL: Final = "live"
SUBJECTS: Final = "subjects"
OFFSETS: Final = "offsets:project"

MINUTE_MS: Final = 60_000

# REST answers from here until the archive has it: far longer than an archive flush, and long
# enough to ride out an S3 outage of a coffee break and a lunch.
RECENT_S: Final = 2 * 3600

# The index of buckets outlives them a little, so that it never misses one that is still there.
RECENT_INDEX_SLACK_S: Final = 120

NUMBERED: Final = 1 << 50
"""What a step's number is counted from in a head: beyond any time, and still exact in the double
that Redis's Lua makes of it."""
assert TIME_MS_MAX < NUMBERED < 1 << 52  # noqa: S101

_HEAD: Final = struct.Struct(">QQI")
HEAD_BYTES: Final = _HEAD.size


class Latest(msgspec.Struct, frozen=True):
    """The newest reading of one vital (and site), and the pseudonym of its device."""

    device: str
    reading: Reading


def latest_key(subject: str) -> str:
    """Return the key of a subject's newest readings."""
    return f"latest:{subject}"


def latest_field(reading: Reading) -> str:
    """Return the field a reading competes for: its vital; its site and channel if it has them."""
    name = VITALS[reading.vital].name
    if reading.channel:
        return f"{name}:{reading.site}:{reading.channel}"
    return f"{name}:{reading.site}" if reading.site else name


def recent_key(subject: str, minute: int) -> str:
    """Return the key of one minute (time of measurement) of a subject's live window."""
    return f"recent:{subject}:{minute}"


def recent_index(subject: str) -> str:
    """Return the key of the list of a subject's minutes."""
    return f"recent:{subject}"


def identity_key(subject: str) -> str:
    """Return the key of who a subject is."""
    return f"identity:{subject}"


def mrn_key(index: str) -> str:
    """Return the key that leads from a record number's blind index to its subject."""
    return f"mrn:{index}"


def alert_key(subject: str) -> str:
    """Return the key of a subject's alert episodes."""
    return f"alert:{subject}"


def episode_key(episode: str) -> str:
    """Return the key that leads from an episode to its subject."""
    return f"episode:{episode}"


def place(key: str, field: str = "") -> bytes:
    """Return what a sealed value at ``key``, ``field`` is bound to."""
    return f"{key}|{field}".encode()


def head(time_ms: int, rank: int, tie: int) -> bytes:
    """Return the clear head of a newest-wins value; negative times count as zero."""
    return _HEAD.pack(max(0, time_ms), max(0, rank), tie)


def head_of(value: bytes) -> tuple[int, int, int]:
    """Return (time_ms, rank, tie) of a value read back; raise struct.error if it is too short."""
    time_ms, rank, tie = _HEAD.unpack_from(value)
    return time_ms, rank, tie


def alert_head(event: AlertEvent, tie: int) -> bytes:
    """Return the head of a step of an episode: the highest number stands.

    Steps of a version that did not number them are before every numbered one, and among each
    other in order of time; of one time an end follows a beginning.
    """
    if event.number:
        return head(NUMBERED + event.number, event.at_ms, tie)
    return head(event.at_ms, 1 if event.state == "ended" else 0, tie)

"""How a partition's memory comes back: turns replayed on top of chunks, bounded in time.

Law: memory is a pure function of what was given, in order. So it is not written at every change:
each transaction writes one small `Turn` a partition, which says what was given (offsets of
``samples``, instructions, the clock), and now and then a chunk of subjects as they are after it.
Restoring takes the newest chunks and gives the later turns again, keeping nothing of what comes
out: it left in its own time, in the transaction that wrote the turn.

State topic, keys and values (msgpack):

================================== ========================================================
``{partition}/dedupe/{edge}/{epoch}`` `partition.Seen`, in every transaction that changed it
``{partition}/turn/{number mod TURNS}`` `Turn`
``{partition}/chunk/{n}``             `Chunk`: the subjects of one of CHUNKS slices
``{partition}/marks``                 `Marks`: up to which turn each chunk holds
================================== ========================================================

A chunk is written every CHUNK_RECORDS records or CHUNK_TURNS turns, in rotation, and so is what
nothing was given to since: reading the topic may therefore begin at the oldest of the newest
chunks (`floor`), which the offsets carry as their metadata. An idle partition writes its changed
chunks one by one, and then there is nothing to replay.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

CHUNKS: Final = 64
"""Slices of a partition's subjects; one more holds what belongs to no subject."""

COMMON: Final = CHUNKS
"""Index of the chunk that holds the gateways and the policy."""

CHUNK_RECORDS: Final = 500
"""Replayed at most: a rotation, 32,500 records a partition, some 0.4 s of one core."""

CHUNK_TURNS: Final = 32
"""For a partition that gets its records one by one."""

TURNS: Final = 4_096
"""Turns kept: well over a rotation's, so that one to be replayed was never overwritten."""


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """What one transaction gave a partition. Fields are only added at the end."""

    number: int
    """1, 2, 3 ...: each partition counts its own."""
    begin: int
    """Offset in ``samples`` of the first record, `end` if there was none."""
    end: int
    """Offset after the last."""
    now_ms: int
    """Clock of this turn."""
    skipped: list[int] = []
    """Offsets of records that changed nothing: seen before, or poison."""
    instructions: list[bytes] = []
    """Records of ``commands`` given before the samples."""
    side: int = 0
    """Offset in ``commands`` after the last one given."""
    tick: bool = False
    """The clock was looked at."""
    away: list[str] = []
    """Gateways that were away. Of the chunk COMMON, but every subject's silence hangs on it."""
    back: list[str] = []
    """Gateways that came back in this turn."""
    ticked_ms: int = 0
    """When the clock was last looked at."""
    everybody: bool = False
    """The clock was set back: waits that counted on the old one were looked at, all of them."""
    paused: bool = False
    """Nobody had looked at the clock for so long that everybody got time to be heard."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Subjects of one slice after a turn: what `Subject.stored` gives. COMMON has one entry."""

    kept: dict[str, Any]


class Marks(msgspec.Struct, frozen=True, array_like=True):
    """Up to which turn each chunk holds (CHUNKS + 1 numbers)."""

    turns: list[int]


def slice_of(subject: str) -> int:
    """Return the chunk of a subject (32 hex digits; the head chose the partition)."""
    return int(subject[8:12], 16) % CHUNKS


class Rotation:
    """When to write which chunk, and from where the state topic has to be read."""

    def __init__(self) -> None:
        """Begin with nothing written."""
        self.turn = 0
        self.side = 0
        self.marks = [0] * (CHUNKS + 1)
        self.dirty = [False] * (CHUNKS + 1)
        self.offsets = [-1] * (CHUNKS + 1)
        """Where in the state topic each chunk was last written; -1: not known."""
        self._next = 0
        self._records = 0
        self._turns = 0

    def due(self, records: int) -> list[int]:
        """Return the chunks to write after one more turn of ``records``."""
        self._records += records
        self._turns += 1
        out: list[int] = []
        while self._records >= CHUNK_RECORDS or self._turns >= CHUNK_TURNS:
            self._records = max(0, self._records - CHUNK_RECORDS)
            self._turns = 0
            if len(out) <= CHUNKS:
                out.append(self._next)
                self._next = (self._next + 1) % (CHUNKS + 1)
        return out

    def idle(self, most: int) -> list[int]:
        """Return chunks that should be written while nothing else happens."""
        return [index for index, dirty in enumerate(self.dirty) if dirty][:most]

    def wrote(self, indices: list[int]) -> None:
        """Take note that chunks were written after the current turn; untouched ones hold too."""
        for index in indices:
            self.dirty[index] = False
        for index, dirty in enumerate(self.dirty):
            if not dirty:
                self.marks[index] = self.turn

    @property
    def floor(self) -> int:
        """Return the offset of ``state`` from which reading is enough; 0 when not known."""
        return max(0, min(self.offsets))


class Journal:
    """What was read of a partition's turns and chunks, until it is complete."""

    def __init__(self) -> None:
        """Begin with nothing read."""
        self.turns: dict[int, Turn] = {}
        self.chunks: dict[int, Mapping[str, Any]] = {}
        self.marks = [0] * (CHUNKS + 1)
        self.offsets = [-1] * (CHUNKS + 1)

    def turn(self, value: bytes) -> None:
        """Take a `Turn`; raises msgspec.DecodeError."""
        turn = _turn.decode(value)
        self.turns[turn.number] = turn

    def chunk(self, index: int, value: bytes, offset: int) -> None:
        """Take a `Chunk`; raises msgspec.DecodeError, or IndexError for one that is none."""
        if not 0 <= index <= CHUNKS:
            raise IndexError(index)
        self.chunks[index] = _chunk.decode(value).kept
        self.offsets[index] = offset

    def mark(self, value: bytes) -> None:
        """Take `Marks`; raises msgspec.DecodeError."""
        marks = _marks.decode(value).turns
        if len(marks) != CHUNKS + 1:
            raise msgspec.DecodeError("marks of another number of chunks")
        self.marks = marks

    def replayed(self) -> list[Turn]:
        """Return the turns to give again, oldest first."""
        last = max(self.turns, default=0)
        first = min(self.marks)
        return [self.turns[n] for n in range(first + 1, last + 1) if n in self.turns]

    def missing(self) -> int:
        """Return how many turns between the oldest chunk and the newest turn were not found."""
        last = max(self.turns, default=0)
        first = min(self.marks)
        return max(0, last - first) - len(self.replayed())


_turn: Final = msgspec.msgpack.Decoder(Turn)
_chunk: Final = msgspec.msgpack.Decoder(Chunk)
_marks: Final = msgspec.msgpack.Decoder(Marks)

# A chunk that is written each CHUNK_TURNS turns at the latest comes round within the turns kept.
assert (CHUNKS + 1) * CHUNK_TURNS < TURNS  # noqa: S101

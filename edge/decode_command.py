"""``healthsync edge decode``: what the gateway would make of a device's bytes; nothing is stored.

Law: the same readers, decoder, normalizer and clocks as `edge.collect` uses, fed from a file, so
that it can not say otherwise than the gateway does. One JSON object a line on stdout, as soon as
its line or message has ended; errors of the command itself on stderr. The caller counts as known:
who is admitted is a matter of the network, not of the bytes. Reads in chunks; closes what it
opened.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TextIO

from edge import normalize
from edge.admission import Caller
from edge.bedside import LineTalk
from edge.decode_line import moment
from edge.entry import Entry
from edge.hl7_file import Framing
from edge.hl7_talk import Hl7Talk
from edge.mllp import START
from edge.refusal import Refuse
from edge.setting import Setting
from edge.told import NO_ADDRESS, tell
from healthsync.runtime.exits import Exit
from healthsync.runtime.lines import read

CHUNK_BYTES: Final = 64 * 1024
"""Read at once: as much as the readers hold anyway of a message."""

_BLANK: Final = b"\r\n\t \xef\xbb\xbf"
_HL7: Final = b"MSH"


class _Talk(Protocol):
    def receive(self, data: bytes, received_ms: int) -> Iterable[Entry]: ...
    def leave(self, received_ms: int) -> Entry | None: ...


def run(options: argparse.Namespace) -> int:
    """Decode one input; return OK when all of it was taken, DEGRADED when anything was refused."""
    setting = _setting(options.config)
    try:
        now_ms = _clock(options.received, setting)
    except Refuse as refuse:
        print(f"healthsync: --received: {refuse.refused.detail}", file=sys.stderr)
        return Exit.USAGE

    def work(stream: BinaryIO) -> int:
        entries = decoded(chunks(stream), options.protocol, setting, now_ms)
        return _print(entries, sys.stdout, ack=options.ack)

    return read(options.file, work)


def _setting(config: Path | None) -> Setting:
    if config is None:
        return Setting()
    from edge import config as files
    from edge import hl7_map

    loaded = files.load(config)
    setting = Setting(loaded.ward, loaded.zone)
    if loaded.hl7_map:
        setting.vendor = hl7_map.load(Path(loaded.hl7_map))
    return setting


def _clock(received: str | None, setting: Setting) -> Callable[[], int]:
    """Return the time of receipt, milliseconds of UTC; raise Refuse for one that is none."""
    if received is None:
        return lambda: time.time_ns() // 1_000_000
    fixed_ms = normalize.to_ms(moment(received), setting.zone)
    return lambda: fixed_ms


def chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield what is there to read, as it comes: a person types line by line."""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    while data := read(CHUNK_BYTES):
        yield data


def decoded(
    data: Iterable[bytes], protocol: str | None, setting: Setting, now_ms: Callable[[], int]
) -> Iterator[Entry]:
    """Yield the entries of one input, the unfinished rest as refused."""
    caller = Caller(NO_ADDRESS)
    head, framing = b"", Framing()
    talk: _Talk | None = None
    for chunk in data:
        head += chunk
        if talk is None:
            found = protocol or _detect(head)
            if found is None:
                continue
            talk = _talk(found, caller, setting)
        if isinstance(talk, Hl7Talk):
            head = framing.receive(head)
        yield from talk.receive(head, now_ms())
        head = b""
    if talk is None:
        talk = LineTalk(caller, setting)
        yield from talk.receive(head, now_ms())
    yield from talk.receive(framing.end(), now_ms())
    last = talk.leave(now_ms())
    if last is not None:
        yield last


def _talk(protocol: str, caller: Caller, setting: Setting) -> _Talk:
    return (Hl7Talk if protocol == "hl7" else LineTalk)(caller, setting)


def _detect(head: bytes) -> str | None:
    """Return hl7 or line, or None when more bytes are needed to tell."""
    said = head.lstrip(_BLANK)
    if said.startswith((START, _HL7)):
        return "hl7"
    undecided = _HL7.startswith(said) and len(head) < CHUNK_BYTES
    return None if undecided else "line"


def _print(entries: Iterable[Entry], out: TextIO, *, ack: bool) -> int:
    code = Exit.OK
    for entry in entries:
        if entry.rejected:
            code = Exit.DEGRADED
        out.writelines(json.dumps(told) + "\n" for told in tell(entry, ack=ack))
        out.flush()
    return code

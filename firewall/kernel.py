"""The kernel's nf_tables: change a table whole, read it back, compare, keep others' rules alone.

Law: only the table that is named is touched. A change is one batch; whoever changed anything
meanwhile makes it start again. An answer that was lost is never taken for a yes. Everything acts
in the network namespace of the calling thread and needs CAP_NET_ADMIN there.

Base chains stay where they are while their rules are replaced: a new one accepts everything until
the end of the commit, so packets in flight would get through a table that is made anew (nft(8)
does so; 7 to 90 packets in 97 to 900 replacements).
"""

import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from pyroute2.netlink.nfnetlink import nftsocket

from firewall import snapshot as shape
from firewall import wire
from firewall.messages import (
    base_chains,
    contents,
    create,
    elements,
    remove,
    table,
    timed,
)
from firewall.ruleset import Ruleset, SourceSet
from firewall.snapshot import Snapshot
from firewall.wire import Message, Part

T = TypeVar("T")

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_EXTENDED_ACK: Final = 11
_CAPPED_ACK: Final = 10
_SEND_BUFFER_FORCE: Final = 32
_RECEIVE_BUFFER_FORCE: Final = 33
_CLONE_NEWNET: Final = 0x40000000

BUFFER_BYTES: Final = 4 << 20
BATCH_ROOM_BYTES: Final = 64 << 10
"""What a send buffer needs beside the batch."""
READ_BYTES: Final = 1 << 20

TRIES: Final = 8
"""How often something is read or changed anew because somebody else changed something."""
ANSWER_S: Final = 10.0


class Refused(Exception):
    """The kernel refused a batch: nothing of it is in force."""

    def __init__(self, errors: list["Fault"]) -> None:
        self.errors = errors
        super().__init__("; ".join(str(one) for one in errors))

    @property
    def overtaken(self) -> bool:
        """True when somebody changed something since the batch was made."""
        return any(one.number == errno.ERESTART for one in self.errors)


class Unknown(Exception):
    """It is not known what the kernel did: answers were lost. Read the table back."""


class Fault(NamedTuple):
    """One refusal."""

    at: int
    """Index of the message in its batch; -1: the batch itself."""
    number: int
    text: str

    def __str__(self) -> str:
        name = errno.errorcode.get(self.number, str(self.number))
        where = "batch" if self.at < 0 else f"message {self.at}"
        return f"{where}: {name}{f' ({self.text})' if self.text else ''}"


class Blocked(NamedTuple):
    """A source that is blocked, and for how long yet."""

    set: str
    address: bytes
    left_ms: int


class Kernel:
    """A netlink socket in the namespace of the thread that made it."""

    def __init__(self) -> None:
        """Open it; raises PermissionError without CAP_NET_ADMIN."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _EXTENDED_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _CAPPED_ACK, 1)
            for option in (_SEND_BUFFER_FORCE, _RECEIVE_BUFFER_FORCE):
                self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
            # Not settimeout: Python would wait for it where MSG_DONTWAIT says not to.
            wait = struct.pack("@ll", int(ANSWER_S), 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    # -- changing ------------------------------------------------------------------------------

    def send(self, raw: bytes) -> None:
        """Commit an encoded batch; raises Refused, or Unknown when answers were lost.

        The kernel works inside send(), so that every answer lies ready when it returns.
        """
        if len(raw) + BATCH_ROOM_BYTES > BUFFER_BYTES:
            size = len(raw) + BATCH_ROOM_BYTES
            self._socket.setsockopt(socket.SOL_SOCKET, _SEND_BUFFER_FORCE, size)
        self._socket.send(raw)
        faults: list[Fault] = []
        ended = lost = False
        while True:
            try:
                answer = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            for one in wire.received(answer):
                if one.kind != wire.ERROR:
                    continue
                number = -struct.unpack_from("=i", one.body)[0]
                if number:
                    faults.append(Fault(one.sequence - 2, number, _text(one)))
                else:
                    ended = True  # only the batch's end is acknowledged
        if faults:
            raise Refused(faults)
        if lost or not ended:
            raise Unknown("the kernel's answer was lost; read the rules back with `verify`")

    def replace(self, ruleset: Ruleset, wanted: Snapshot | None = None) -> None:
        """Bring the table to a ruleset, whatever is there of it; blocked sources stay blocked.

        ``wanted``: what `made` says of it. Then sets that are the same stay as they are, with what
        packets put there; one that is made anew can be seen empty while the kernel commits.
        Raises Refused, Unknown.
        """
        for attempt in range(TRIES):
            messages, generation = self.changes(ruleset, wanted)
            try:
                self.send(wire.batch(messages, generation))
            except Refused as refused:
                if not refused.overtaken or attempt == TRIES - 1:
                    raise
            else:
                return

    def changes(
        self, ruleset: Ruleset, wanted: Snapshot | None = None
    ) -> tuple[list[Message], int]:
        """Return what `replace` would send, and for which generation."""
        snapshot, generation = self.snapshot(ruleset.table)
        if snapshot is None:
            return create(ruleset), generation
        bases = base_chains(ruleset)
        kept = {
            name for name, raw in snapshot.chains.items() if shape.hooked(raw) and name in bases
        }
        same = set() if wanted is None else shape.same_sets(wanted, snapshot)
        messages = [table(ruleset.table), _flush(ruleset.table)]
        messages += [
            _gone(nftsocket.NFT_MSG_DELCHAIN, ruleset.table, 3, name)
            for name in snapshot.chains
            if name not in kept
        ]
        messages += [
            _gone(nftsocket.NFT_MSG_DELSET, ruleset.table, 2, name)
            for name, raw in snapshot.sets.items()
            if not shape.anonymous(raw) and name not in same
        ]
        messages += [
            (nftsocket.NFT_MSG_DELOBJ, 0, _named(ruleset.table, 2, name) + raw)
            for name, raw in snapshot.others.items()
        ]
        messages += contents(ruleset, same)
        sets = {one.name for one in ruleset.sets if isinstance(one, SourceSet) and one.timeout_s}
        sets -= same
        blocked: dict[str, list[tuple[bytes, int]]] = {}
        for one in self.blocked(ruleset.table):
            if one.set in sets and one.left_ms > 0:
                blocked.setdefault(one.set, []).append((one.address, one.left_ms))
        for name, sources in blocked.items():
            messages += timed(ruleset.table, name, sources)
        return messages, generation

    def remove(self, name: str) -> None:
        """Remove a table, there or not."""
        self.send(wire.batch(remove(name)))

    # -- reading -------------------------------------------------------------------------------

    def capture(self, name: str) -> bytes:
        """Return the batch that brings a table back as it is now, blocked sources included.

        For a table that is not there: what removes it.
        """
        messages, _ = self._steady(lambda: list(self._captured(name)))
        return wire.batch([*remove(name), *messages])

    def _captured(self, name: str) -> Iterator[Message]:
        """Yield what makes a table, from what the kernel says of it."""
        if name not in self.tables():
            return
        yield table(name)
        flags = wire.CREATE
        sets = list(self._of_table(nftsocket.NFT_MSG_GETSET, name))
        for at, parts in enumerate(sets, 1):
            # It is told without the number that it has to be made with.
            body = shape.without(parts, shape.SET_OWN) + wire.attribute(10, struct.pack("!I", at))
            yield nftsocket.NFT_MSG_NEWSET, flags, body
        for parts in self._of_table(nftsocket.NFT_MSG_GETOBJ, name):
            yield nftsocket.NFT_MSG_NEWOBJ, flags, shape.without(parts, {5, 6, 7})
        chains = list(self._of_table(nftsocket.NFT_MSG_GETCHAIN, name))
        for parts in sorted(
            chains, key=lambda parts: any(p.kind == shape.CHAIN_HOOK for p in parts)
        ):
            yield nftsocket.NFT_MSG_NEWCHAIN, flags, shape.without(parts, shape.CHAIN_OWN)
        for parts in sets:
            of_set = shape.string(parts, 2)
            given = (
                wire.attribute(1, element, nested=True) for element in self._elements(name, of_set)
            )
            yield from elements(name, of_set, given)
        for parts in self._of_table(nftsocket.NFT_MSG_GETRULE, name):
            kept = b"".join(
                wire.attribute(4, shape.acceptable(part.value), nested=True)
                if part.kind == 4
                else part.raw
                for part in parts
                if part.kind not in {3, 6, 8}
            )
            yield nftsocket.NFT_MSG_NEWRULE, flags | wire.APPEND, kept

    def generation(self) -> int:
        """Return the number that every change moves."""
        body = self._ask(nftsocket.NFT_MSG_GETGEN, 0, b"")[0]
        found = {part.kind: part.value for part in wire.parts(body)}
        return int(struct.unpack("!I", found[1])[0])

    def tables(self) -> list[str]:
        """Return the names of all tables of family inet."""
        bodies = self._ask(nftsocket.NFT_MSG_GETTABLE, wire.DUMP, b"")
        return [shape.text_of(body, 1) for body in bodies]

    def snapshot(self, name: str) -> tuple[Snapshot | None, int]:
        """Return a table as it is, None when there is none, and its generation."""
        return self._steady(lambda: self._snapshot(name))

    def blocked(self, name: str) -> list[Blocked]:
        """Return what packets or people put into sets with a timeout of a table."""
        return self._steady(lambda: list(self._blocked(name)))[0]

    def _steady(self, read: Callable[[], T]) -> tuple[T, int]:
        """Read until nobody changed anything meanwhile."""
        for _ in range(TRIES):
            before = self.generation()
            try:
                found = read()
            except (InterruptedError, FileNotFoundError):
                continue
            if self.generation() == before:
                return found, before
        raise Unknown("the rules keep changing; somebody else is at work")

    def _snapshot(self, name: str) -> Snapshot | None:
        if name not in self.tables():
            return None
        out = Snapshot({}, {}, {}, {}, {})
        for parts in self._of_table(nftsocket.NFT_MSG_GETCHAIN, name):
            chain = shape.string(parts, 3)
            out.chains[chain] = shape.without(parts, shape.CHAIN_OWN)
            out.rules[chain] = []
        intervals = set()
        for parts in self._of_table(nftsocket.NFT_MSG_GETSET, name):
            of_set = shape.string(parts, 2)
            # 13 is how nft(8) prints it
            out.sets[of_set] = shape.without(parts, {*shape.SET_OWN, 13})
            flags = shape.number(parts, 3)
            if flags & shape.SET_INTERVAL:
                intervals.add(of_set)
            if not flags & shape.SET_DYNAMIC:
                out.elements[of_set] = []
        for of_set in out.elements:
            found = [shape.plain(element) for element in self._elements(name, of_set)]
            found.sort()
            out.elements[of_set] = shape.without_lead(found) if of_set in intervals else found
        for parts in self._of_table(nftsocket.NFT_MSG_GETOBJ, name):
            out.others[shape.string(parts, 2)] = b"".join(p.raw for p in parts if p.kind == 3)
        for parts in self._of_table(nftsocket.NFT_MSG_GETRULE, name):
            expressions = next(part.value for part in parts if part.kind == 4)
            named = b"".join(part.raw for part in parts if part.kind == 7)
            out.rules[shape.string(parts, 2)].append(shape.uncounted(expressions) + named)
        return out

    def _blocked(self, name: str) -> Iterator[Blocked]:
        if name not in self.tables():
            return
        for parts in self._of_table(nftsocket.NFT_MSG_GETSET, name):
            flags = shape.number(parts, 3)
            if not (flags & shape.SET_DYNAMIC and flags & shape.SET_TIMEOUT):
                continue
            of_set = shape.string(parts, 2)
            for element in self._elements(name, of_set):
                inner = {part.kind: part.value for part in wire.parts(element)}
                if 7 in inner:  # counts something: a meter, nobody is blocked there
                    continue
                key = next(part.value for part in wire.parts(inner[1]))
                left = struct.unpack("!Q", inner[5])[0] if 5 in inner else 0
                yield Blocked(of_set, key, left)

    def _of_table(self, number: int, name: str) -> Iterator[list[Part]]:
        wanted = name.encode() + b"\0"
        for body in self._ask(number, wire.DUMP, b""):
            parts = list(wire.parts(body))
            if any(part.kind == 1 and part.value == wanted for part in parts):
                yield parts

    def _elements(self, name: str, of_set: str) -> Iterator[bytes]:
        asked = wire.attribute(1, name.encode() + b"\0") + wire.attribute(
            2, of_set.encode() + b"\0"
        )
        for body in self._ask(nftsocket.NFT_MSG_GETSETELEM, wire.DUMP, asked):
            for part in wire.parts(body):
                if part.kind == 3:
                    yield from (element.value for element in wire.parts(part.value))

    def _ask(self, number: int, flags: int, body: bytes) -> list[bytes]:
        """Return the attributes of every message of an answer of family inet."""
        self._socket.send(wire.encode((number, flags, body), 1))
        out: list[bytes] = []
        while True:
            try:
                answer = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                raise Unknown(f"the kernel gave no answer within {ANSWER_S:.0f} s") from None
            for one in wire.received(answer):
                if one.flags & wire.INTERRUPTED:
                    self._drain()
                    raise InterruptedError
                if one.kind in {wire.ERROR, wire.DONE}:
                    failed = -struct.unpack_from("=i", one.body)[0] if len(one.body) >= 4 else 0
                    if failed:
                        raise OSError(failed, os.strerror(failed))
                    return out
                if not flags or one.body[0] == wire.INET:
                    out.append(one.body[4:])
            if not flags:
                return out

    def _drain(self) -> None:
        """Read away what is left of an answer."""
        while True:
            try:
                self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return


def made(ruleset: Ruleset) -> Snapshot:
    """Return what the kernel makes of a ruleset, tried in a namespace of its own.

    So every default is the kernel's, and comparing is exact; and what the kernel would refuse is
    refused here. Raises Refused; PermissionError without CAP_SYS_ADMIN.
    """
    return made_of(wire.batch(create(ruleset)), ruleset.table)


def made_of(raw: bytes, name: str) -> Snapshot:
    """Return what the kernel makes of a batch; as `made`."""
    found: list[Snapshot | BaseException] = []

    def work() -> None:
        try:
            # Of this thread alone; with it the namespace ends.
            _unshare()
            with Kernel() as kernel:
                kernel.send(raw)
                snapshot, _ = kernel.snapshot(name)
            found.append(Unknown("a table is not there") if snapshot is None else snapshot)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (result,) = found
    if isinstance(result, BaseException):
        raise result
    return result


def _unshare() -> None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"a network namespace of its own: {os.strerror(number)}")


def _text(one: wire.Received) -> str:
    """Return the kernel's own words for a refusal, often none."""
    if not one.flags & wire.TLVS:
        return ""
    for part in wire.parts(one.body[20:]):
        if part.kind == 1:
            return part.value.rstrip(b"\0").decode(errors="replace")
    return ""


def _named(table_name: str, kind: int, name: str) -> bytes:
    return wire.attribute(1, table_name.encode() + b"\0") + wire.attribute(
        kind, name.encode() + b"\0"
    )


def _gone(number: int, table_name: str, kind: int, name: str) -> Message:
    return number, 0, _named(table_name, kind, name)


def _flush(table_name: str) -> Message:
    """Return what deletes every rule of a table."""
    return nftsocket.NFT_MSG_DELRULE, 0, wire.attribute(1, table_name.encode() + b"\0")

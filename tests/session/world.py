"""A gateway, two ingest processes, Kafka and a consumer, with everything between them in hand.

Real: `edge.link`, `edge.outbox`, `cloud.ingest.session`, `cloud.ingest.delivered`, detect's
`Partition`. Modelled: the spool (a dict), the connection (lists of messages), Kafka (a log, and
what is on its way to it). A frame's bytes name its readings, so that nothing need be sealed.
"""

from collections import deque
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cloud.detect.partition import Partition
from cloud.ingest.delivered import Delivered
from cloud.ingest.keys import CloudKeys
from cloud.ingest.session import IngestSession, Refused
from cloud.records import SamplesRecord, encode
from edge.backlog import Held, Stored
from edge.link import Acked, Link, Measured, Opened, Room, State
from edge.outbox import Order, Outbox, Wanted
from vitals import session
from vitals.columns import Columns
from vitals.epoch import WrappedEpoch, key_id
from vitals.errors import SessionError
from vitals.session import Waiting

EDGE = "ward-1"
PRIVATE = [X25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2)]
KEY_IDS = [key_id(one.public_key()) for one in PRIVATE]
CREDIT = 4


class Content(NamedTuple):
    """What stands for a sealed frame."""

    epoch: str
    seq: int
    readings: list[int]


def seal(content: Content) -> bytes:
    return msgspec.msgpack.encode(content)


def unseal(data: bytes) -> Content:
    return msgspec.msgpack.decode(data, type=Content)


class Record(NamedTuple):
    """One record on its way to Kafka, or in it."""

    content: Content
    floor: int


class Spool:
    """What is on the gateway's disk."""

    def __init__(self) -> None:
        self.rows: dict[int, Held] = {}
        self.epochs: dict[str, WrappedEpoch] = {}
        self.next_id = 1

    def put(self, content: Content) -> Held:
        held = Held(self.next_id, content.epoch, content.seq, seal(content))
        self.rows[held.id] = held
        self.next_id += 1
        return held

    def lowest(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in self.rows.values():
            found[row.epoch] = min(row.seq, found.get(row.epoch, row.seq))
        return found

    def stored(self) -> Stored:
        return Stored(max(self.rows, default=0), len(self.rows), self.lowest())

    def waiting(self) -> list[Waiting]:
        return [Waiting(epoch, low, low, {0: 1}) for epoch, low in self.lowest().items()]

    def after(self, wanted: Wanted) -> list[Held]:
        ids = sorted(
            (id_ for id_ in self.rows if wanted.after < id_ <= wanted.last),
            reverse=wanted.newest_first,
        )
        return [self.rows[id_] for id_ in ids[: wanted.count_max]]


class Served:
    """One session at an ingest process: what arrived, what waits, what it says."""

    def __init__(self, process: "Process") -> None:
        self.process = process
        self.state = IngestSession(EDGE, process.keys, CREDIT, process.delivered)
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.live: deque[session.Data] = deque()
        self.late: deque[session.Data] = deque()
        self.pending: list[Record] = []
        self.over = False

    def end(self, reason: str) -> None:
        self.over = True
        self.live.clear()
        self.late.clear()
        self.down.append(session.encode(session.Close(reason)))

    def is_busy(self) -> bool:
        """Tell whether it has something left to do though nobody listens."""
        return bool(self.pending) or (not self.over and bool(self.up or self.live or self.late))

    def hear(self) -> None:
        """Take the next message that arrived."""
        if self.over or not self.up:
            return
        try:
            message = self.state.receive(self.up.popleft(), 0)
        except Refused as refused:
            self.end(refused.reason)
            return
        if isinstance(message, session.Data):
            (self.late if message.late else self.live).append(message)

    def work(self) -> None:
        """Open the next frame and hand it to the producer."""
        if self.live or self.late:
            data = (self.live or self.late).popleft()
            content = unseal(data.frame)
            # as `unpack` does: a floor is believed up to the frame's own number
            self.pending.append(Record(content, min(data.floor, content.seq)))

    def say(self) -> None:
        if not self.over:
            self.down.extend(self.state.drain(0))


class Process:
    """One ingest process."""

    def __init__(self) -> None:
        self.keys = CloudKeys(PRIVATE)
        self.delivered = Delivered()
        self.sessions: list[Served] = []


class Consumer:
    """Reads the log with detect's own rule for what was seen."""

    def __init__(self) -> None:
        self.partition = Partition(0)
        self.read = 0
        self.taken: list[int] = []
        self.frames: set[tuple[str, int]] = set()

    def poll(self, log: list[Record]) -> None:
        for offset, record in enumerate(log[self.read :], self.read):
            content = record.content
            sent = SamplesRecord(
                EDGE,
                content.epoch,
                content.seq,
                record.floor,
                0,
                Columns([], [], [], [], [], []),
            )
            made = self.partition.turn([(offset, encode(sent))], [], 0)
            assert not made.poison
            name = (content.epoch, content.seq)
            if made.duplicates:
                assert name in self.frames, f"{name} was passed over and never taken"
            else:
                assert name not in self.frames, f"{name} was taken twice"
                self.frames.add(name)
                self.taken += content.readings
        self.read = len(log)


class World:
    """All of it. Every method is one thing that may happen at any time."""

    def __init__(self, order: Order) -> None:
        self.order: Order = order
        self.now_s = 0.0
        self.spool = Spool()
        self.processes = [Process(), Process()]
        self.log: list[Record] = []
        self.consumer = Consumer()
        self.readings = 0
        self.starts = 0
        self.served: Served | None = None
        self.uplink: deque[bytes] = deque()
        """Said by the gateway, still on the wire."""
        self.begun = False
        self.start_edge()

    # -- the gateway ------------------------------------------------------------------------------

    def start_edge(self) -> None:
        """Start the gateway's program: a new epoch, and nothing in memory."""
        if self.served is not None:
            self.cut(arrived=0)
        name = f"{self.starts:032x}"
        self.epoch = WrappedEpoch(EDGE, name, KEY_IDS[self.starts % 2], b"", self.starts)
        self.starts += 1
        self.seq = 0
        self.spool.epochs[name] = self.epoch
        self.outbox = Outbox(self.order, live_bytes_max=200)
        self.link = Link(EDGE, "test", self.outbox)
        self.unflushed: list[tuple[str, list[tuple[int, int]]]] = []
        self.sending: deque[Held] = deque()
        self.reading: tuple[Wanted, list[Held]] | None = None

    def commit(self, readings: int) -> None:
        self._delete_acked()
        new = list(range(self.readings, self.readings + readings))
        self.readings += readings
        held = self.spool.put(Content(self.epoch.epoch, self.seq, new))
        self.seq += 1
        self.link.offer([held], self.epoch, self.now_s)

    def _delete_acked(self) -> None:
        """Acknowledged frames leave with the next transaction."""
        in_kafka = {(one.content.epoch, one.content.seq) for one in self.log}
        for epoch, ranges in self.unflushed:
            for low, high in ranges:
                for id_, row in list(self.spool.rows.items()):
                    if row.epoch == epoch and low <= row.seq <= high:
                        assert (row.epoch, row.seq) in in_kafka, "acknowledged and not in Kafka"
                        del self.spool.rows[id_]
        self.unflushed = []

    def fold(self, first: int, count: int) -> None:
        """Make one frame of several; only without a session, only of what was never sent."""
        if self.served is not None:
            return
        highest = self.link.highest_sent().get(self.epoch.epoch, -1)
        rows = [
            row
            for row in self.spool.rows.values()
            if row.epoch == self.epoch.epoch and row.seq > highest
        ][first : first + count]
        if len(rows) < 2:
            return
        readings = [one for row in rows for one in unseal(row.data).readings]
        for row in rows:
            del self.spool.rows[row.id]
        self.spool.put(Content(self.epoch.epoch, self.seq, readings))
        self.seq += 1

    def connect(self, to: int) -> None:
        if self.served is not None:
            return
        self._delete_acked()
        self.served = Served(self.processes[to])
        self.served.process.sessions.append(self.served)
        self.begun = False
        lowest = self.spool.lowest()
        epochs = {name: self.spool.epochs[name] for name in lowest}
        epochs[self.epoch.epoch] = self.epoch
        waiting = self.spool.waiting()
        self.uplink.append(self.link.greet(epochs.values(), waiting, 0, self.now_s))

    def cut(self, arrived: int) -> None:
        """Lose the connection; ``arrived`` messages of the wire still reach ingest."""
        if self.served is None:
            return
        for _ in range(min(arrived, len(self.uplink))):
            self.served.up.append(self.uplink.popleft())
        self.uplink.clear()
        self.served = None  # a session that ingest may go on serving, to nobody
        self.sending.clear()
        self.reading = None
        self.link.end()

    def hear(self) -> None:
        """The gateway takes the next message that reached it."""
        if self.served is None or not self.served.down:
            return
        try:
            event = self.link.receive(self.served.down.popleft(), 0, self.now_s)
        except SessionError:
            self.cut(arrived=len(self.uplink))
            return
        match event:
            case Opened():
                self.unflushed += event.resume
                self._delete_acked()
                self.link.begin(self.spool.stored(), event.withheld)
                self.begun = True
            case Acked():
                self.unflushed.append((event.epoch, event.ranges))
            case _:
                assert event is None or isinstance(event, Room | Measured)

    def send_live(self) -> None:
        if self.link.state is State.OPEN and self.begun:
            live = self.outbox.next_live()
            if live is not None:
                self.uplink.extend(self.link.data(live.frame, live.since_s, late=False))

    def ask_disk(self) -> None:
        if self.link.state is State.OPEN and self.begun and not self.sending and not self.reading:
            wanted = self.outbox.wanted()
            if wanted is not None:
                self.reading = wanted, self.spool.after(wanted)

    def take_read(self) -> None:
        if self.reading is not None:
            wanted, frames = self.reading
            self.reading = None
            self.sending.extend(self.outbox.read(wanted, frames))
            if not self.sending:
                self.outbox.caught_up()

    def send_late(self) -> None:
        if self.sending:
            self.uplink.extend(self.link.data(self.sending.popleft(), self.now_s, late=True))
            if not self.sending:
                self.outbox.caught_up()

    def ping(self) -> None:
        if self.served is not None and self.begun:
            self.uplink.append(self.link.ping(0))

    # -- the wire ---------------------------------------------------------------------------------

    def arrive(self, count: int) -> None:
        for _ in range(count):
            if self.served is not None and self.uplink:
                self.served.up.append(self.uplink.popleft())

    def disturb(self, at: int, to: int, *, twice: bool) -> None:
        """Frames on the wire change places, or one comes twice."""
        data = [
            n
            for n, one in enumerate(self.uplink)
            if isinstance(session.decode_edge(one), session.Data)
        ]
        if not data:
            return
        wire = list(self.uplink)
        here, there = data[at % len(data)], data[to % len(data)]
        if twice:
            wire.insert(there, wire[here])
        else:
            wire[here], wire[there] = wire[there], wire[here]
        # a frame of an epoch may not come before the epoch's own message: that is another defect
        epochs = [n for n, one in enumerate(wire) if not _is_data(one)]
        if epochs and min(here, there) < max(epochs):
            return
        self.uplink = deque(wire)

    # -- ingest and Kafka -------------------------------------------------------------------------

    def all_served(self) -> list[Served]:
        """Sessions that may still do something, the gateway's own first."""
        for process in self.processes:
            process.sessions = [
                one for one in process.sessions if one is self.served or one.is_busy()
            ]
        found = [one for process in self.processes for one in process.sessions]
        return sorted(found, key=lambda one: one is not self.served)

    def hand_to_kafka(self, which: int) -> None:
        served = _pick(self.all_served(), which)
        if served is not None:
            served.hear()
            served.work()

    def supersede(self, which: int) -> None:
        """The process learns that an older session of the gateway is a dead line."""
        served = _pick([one for one in self.all_served() if one is not self.served], which)
        if served is not None:
            served.end("superseded")

    def durable(self, which: int, at: int) -> None:
        """Kafka took a record."""
        served = _pick([one for one in self.all_served() if one.pending], which)
        if served is not None:
            record = served.pending.pop(at % len(served.pending))
            self.log.append(record)
            served.state.delivered(record.content.epoch, record.content.seq)

    def fail(self, which: int, *, written: bool) -> None:
        """The producer gave a record up; the broker may have it all the same."""
        served = _pick([one for one in self.all_served() if one.pending], which)
        if served is not None:
            record = served.pending.pop(0)
            if written:
                self.log.append(record)
            served.end("overload")

    def say(self, which: int) -> None:
        served = _pick(self.all_served(), which)
        if served is not None:
            served.say()

    def set_credit(self, which: int, credit: int) -> None:
        served = _pick(self.all_served(), which)
        if served is not None:
            served.state.set_credit(credit)

    def restart_ingest(self, which: int, written: int) -> None:
        """Kill one process: ``written`` records on their way reach Kafka, nobody is told."""
        process = self.processes[which]
        for served in process.sessions:
            self.log += served.pending[:written]
        if self.served in process.sessions:
            self.cut(arrived=0)
        self.processes[which] = Process()

    def lose_key(self, which: int) -> None:
        """A process is started with the first key only."""
        self.restart_ingest(which, 0)
        self.processes[which].keys = CloudKeys(PRIVATE[:1])

    # -- the end ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Nothing is disturbed any more: everything stored must arrive, within bounds."""
        for which, process in enumerate(self.processes):
            if len(process.keys.ids) < 2:
                self.restart_ingest(which, 0)
        for turn in range(40):
            self.cut(arrived=0)
            if not self.spool.rows:
                break
            self.connect(turn % 2)
            self.until_quiet()
        self.until_quiet()
        self.cut(arrived=0)
        assert not self.spool.rows, "stored and never sent"

    def take_all(self) -> None:
        """What was sent arrives and becomes durable; nothing is said of it yet."""
        self.arrive(len(self.uplink))
        for served in self.all_served():
            while served.up and not served.over:
                served.hear()
            while served.live or served.late:
                served.work()
            while served.pending:
                record = served.pending.pop(0)
                self.log.append(record)
                served.state.delivered(record.content.epoch, record.content.seq)

    def tell_all(self) -> None:
        """What ingest has to say reaches the gateway."""
        for served in self.all_served():
            served.say()
        while self.served is not None and self.served.down:
            self.hear()

    def until_quiet(self) -> None:
        """Let it run without trouble, in bounded turns."""
        for _ in range(400):
            before = self._motion()
            self.now_s += 0.01
            for served in self.all_served():
                served.state.set_credit(CREDIT)
            self.take_all()
            for served in self.all_served():
                served.say()
            for _ in range(8):
                self.hear()
                self.send_live()
                self.ask_disk()
                self.take_read()
                self.send_late()
            self._delete_acked()
            if self._motion() == before:
                return

    def _motion(self) -> tuple[int, ...]:
        served = self.served
        return (
            len(self.log),
            len(self.spool.rows),
            len(self.uplink),
            self.outbox.in_flight,
            self.outbox.late_left,
            len(served.down) if served else -1,
            int(self.begun),
        )


def _is_data(message: bytes) -> bool:
    return isinstance(session.decode_edge(message), session.Data)


def _pick(among: list[Served], which: int) -> Served | None:
    return among[which % len(among)] if among else None

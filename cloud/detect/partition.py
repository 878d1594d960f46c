"""What detect remembers of one partition, and what it makes of what it is given.

Law: pure of I/O. Everything given comes in turns (`turn`), and giving the same turns again gives
the same memory, whatever was restored in between (cloud/detect/journal.py). A record is taken
whole or not at all: everything that can be wrong with it is found before anything is remembered.
A frame seen before changes nothing but a count.

Order within a turn: instructions, the clock, readings.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, cast

import msgspec

from cloud.detect import journal, silence
from cloud.detect.alerts import Episodes, answer, due, give, tick
from cloud.detect.journal import CHUNKS, COMMON, Chunk, Journal, Marks, Rotation, Turn
from cloud.detect.lifecycle import SKEW_MS, Raised, Returned
from cloud.detect.rules import Rules, RulesOf
from cloud.detect.silence import Gateway, gateway_event
from cloud.detect.subject import LIMIT, Kept, Subject
from cloud.fhir import resources
from cloud.fhir.charting import Given, Leaving
from cloud.fhir.ids import is_subject
from cloud.policy.model import Policy
from cloud.policy.resolve import resolve
from cloud.policy.seal import open_published
from cloud.records import (
    AlertEvent,
    Command,
    Instruction,
    NewPolicy,
    Presence,
    SamplesRecord,
    decode_samples,
)
from vitals import columns as columns_of
from vitals.codes import VITALS, decimal_scale
from vitals.columns import TIME_MS_MAX, Columns, Source
from vitals.errors import ConfigError, VitalsError
from vitals.interval import IntervalSet
from vitals.limits import FUTURE_MS_MAX
from vitals.reading import Reading
from vitals.tally import Sums, Tally
from vitals.topics import home_of, partition_of

TICK_MS: Final = 1_000
"""How often the clock is looked at: an escalation or a silence is told a second late at most."""

GATEWAYS_MAX: Final = 10_000
"""Gateways watched; further ones are served all the same, but nobody misses them."""

CHARTED_MAX: Final = 400
"""Observations in one Bundle of charting by the minute: below chart.BUNDLE_BYTES_MAX."""

IDLE_CHUNKS: Final = 8
"""Chunks written in a turn that was given nothing."""

SCALE: Final = tuple(decimal_scale(vital) for vital in VITALS)


class Poison(Exception):
    """A record that is no samples record, or not of this partition. Says why in a closed word."""

    def __init__(self, reason: str) -> None:
        """``reason``: malformed, range, subject, partition or unjudgeable."""
        super().__init__(reason)
        self.reason = reason


class Unjudged(Exception):
    """Judging a record failed in a way nobody foresaw: memory is not to be trusted any more."""

    def __init__(self, offset: int) -> None:
        """``offset`` of the record."""
        super().__init__(offset)
        self.offset = offset


class Seen(msgspec.Struct, frozen=True):
    """The stored form of what was seen of one (edge, epoch)."""

    floor: int
    ranges: list[tuple[int, int]]
    readings: int
    frames: int
    again: int = 0
    """Records that had been seen before."""
    sums: Sums | None = None
    """Of `vitals.tally` over the frames taken; None: begun by a version that kept none."""


class Message(NamedTuple):
    """One message to produce to the record's own partition."""

    key: bytes
    value: bytes


class Poisoned(NamedTuple):
    """A record that was set aside."""

    offset: int
    reason: str
    value: bytes


class Made:
    """What a turn gave."""

    __slots__ = ("alerts", "duplicates", "fhir", "late", "poison", "readings", "refused")

    def __init__(self) -> None:
        """Begin empty."""
        self.fhir: list[Message] = []
        self.alerts: list[AlertEvent] = []
        self.poison: list[Poisoned] = []
        self.readings = self.duplicates = self.late = self.refused = 0


class _Edge:
    """Memory of one (edge, epoch)."""

    __slots__ = ("again", "seen", "summed", "tally")

    def __init__(self, stored: Seen | None = None) -> None:
        if stored is None:
            stored = Seen(0, [], 0, 0, 0, (0, 0, 0))
        self.seen = IntervalSet(stored.ranges, stored.floor)
        self.tally = Tally(stored.frames, stored.readings, stored.sums or (0, 0, 0))
        self.again = stored.again
        self.summed = stored.sums is not None

    def stored(self) -> Seen:
        return Seen(
            self.seen.floor,
            list(self.seen),
            self.tally.readings,
            self.tally.frames,
            self.again,
            self.tally.sums if self.summed else None,
        )


class _Common(msgspec.Struct, array_like=True):
    """What belongs to no subject. Fields are only added at the end."""

    gateways: dict[str, Gateway] = {}
    episodes: dict[str, Episodes] = {}
    policy: str = ""
    """Its text."""
    who: str = ""
    """Who gave it."""


_encoder: Final = msgspec.msgpack.Encoder()
_seen_decoder: Final = msgspec.msgpack.Decoder(Seen)
_instruction_decoder: Final = msgspec.json.Decoder(Instruction)
_alert_encoder: Final = msgspec.json.Encoder()


class Partition:
    """The state of one partition: `restore` it, `replay`, then `turn` after turn, with `state`."""

    def __init__(self, number: int) -> None:
        """Begin empty, without a policy: the first instruction must be one."""
        self.number = number
        self.policy: Policy | None = None
        self._edges: dict[tuple[str, str], _Edge] = {}
        self._changed: set[tuple[str, str]] = set()
        self._subjects: dict[str, Subject] = {}
        self._common = _Common()
        self._rules = RulesOf()
        self._rotation = Rotation()
        self._ticked_ms = 0
        self._journal = Journal()
        self._turn: Turn | None = None
        self._records = 0
        self._number = self._now_ms = 0
        self._frozen: list[int] | None = None
        """While restoring: up to which turn each chunk holds."""
        self._everything = False

    # -- restoring ---------------------------------------------------------------------------

    def restore(self, key: bytes, value: bytes | None, offset: int) -> None:
        """Take one record of the state topic; raises Poison for one that nobody of us wrote.

        A value of None (a tombstone) forgets.
        """
        try:
            number, kind, rest = (*key.decode("ascii").split("/", 2), "")[:3]
            if int(number) != self.number:
                raise Poison("partition")
            if kind == "dedupe":
                edge, _, epoch = rest.rpartition("/")
                if value is None:
                    self._edges.pop((edge, epoch), None)
                else:
                    self._edges[edge, epoch] = _Edge(_seen_decoder.decode(value))
            elif value is None or kind == "subject":
                return  # of a version that kept each subject by itself
            elif kind == "turn":
                self._journal.turn(value)
            elif kind == "chunk":
                self._journal.chunk(int(rest), value, offset)
            elif kind == "marks":
                self._journal.mark(value)
            else:
                raise Poison("malformed")
        except (ValueError, IndexError, msgspec.DecodeError) as error:
            raise Poison("malformed") from error

    def begin(self) -> list[Turn]:
        """Take up what `restore` was given; return the turns to `replay`, oldest first."""
        read = self._journal
        turns = read.replayed()
        self._rotation.marks = list(read.marks)
        self._rotation.offsets = list(read.offsets)
        self._rotation.turn = max([*read.turns, *read.marks])
        newest = read.turns.get(self._rotation.turn)
        if newest is not None:
            self._rotation.side, self._ticked_ms = newest.side, newest.ticked_ms
        common = read.chunks.get(COMMON)
        if common is not None:
            self._common = msgspec.convert(common[""], _Common)
            if self._common.policy:
                self.policy = open_published(self._common.policy)
        for index, kept in read.chunks.items():
            if index != COMMON:
                for name, stored in kept.items():
                    self._subjects[name] = Subject(name, msgspec.convert(stored, Kept))
        oldest = turns[0] if turns else newest
        self._now_ms = oldest.now_ms if oldest is not None else 0
        if self.policy is not None:
            for subject in self._subjects.values():
                self._ruled(subject)
        self._frozen = list(read.marks)
        self._journal = Journal()
        return turns

    def wants(self, who: str, policy: str) -> bool:
        """Tell whether a policy of ``who`` has to be given: none is there, or an older of his."""
        return self.policy is None or (self._common.who == who and self._common.policy != policy)

    @property
    def side(self) -> int:
        """Offset in ``commands`` after what was given."""
        return self._rotation.side

    @property
    def floor(self) -> int:
        """Offset of the state topic from which reading is enough."""
        return self._rotation.floor

    def replay(self, turn: Turn, samples: Iterable[tuple[int, bytes | None]]) -> None:
        """Give a committed turn again; ``samples``: (offset, value) of its records."""
        made = Made()
        skipped = set(turn.skipped)
        self._number, self._now_ms = turn.number, turn.now_ms
        common = self._holds(COMMON)
        back: list[str] = []
        if turn.paused:
            self._resume(turn.now_ms)
        for raw in turn.instructions:
            self._instruct(raw, turn.now_ms, made, back)
        if turn.tick and common:
            self._tick_gateways(turn.now_ms, made)
        self._heard_again(turn.back, turn.now_ms)
        if turn.tick:
            away = frozenset(turn.away)
            self._tick_subjects(turn.now_ms, away, made, everybody=turn.everybody)
        for offset, value in samples:
            if offset not in skipped:
                self._judge(self.read(value), made)

    def restored(self) -> None:
        """Take note that everything was replayed."""
        self._frozen = None
        self._rotation.dirty = [mark < self._rotation.turn for mark in self._rotation.marks]

    def _holds(self, index: int) -> bool:
        """Tell whether a chunk is not yet as far as the turn that is given."""
        return self._frozen is None or self._frozen[index] < self._number

    # -- turns -------------------------------------------------------------------------------

    def turn(
        self,
        samples: Sequence[tuple[int, bytes | None]],
        instructions: Sequence[tuple[int, bytes]],
        now_ms: int,
        condemned: Iterable[int] = (),
    ) -> Made:
        """Return what records (offset, value) make; `state` then says what to write.

        ``condemned``: offsets of records that are set aside unread. Raises Unjudged.
        """
        made = Made()
        self._now_ms = now_ms
        rotation = self._rotation
        rotation.turn += 1
        # A clock that was set back is looked at too: nothing may wait for the old one.
        tick = not 0 <= now_ms - self._ticked_ms < TICK_MS
        paused = now_ms - self._ticked_ms > silence.PAUSE_MS
        if paused:
            self._resume(now_ms)
        back: list[str] = []
        for offset, raw in instructions:
            self._instruct(raw, now_ms, made, back)
            rotation.side = offset + 1
        everybody = now_ms < self._ticked_ms
        if tick:
            self._ticked_ms = now_ms
            self._tick_gateways(now_ms, made)
        away = [edge for edge, gateway in self._common.gateways.items() if gateway.away]
        self._heard_again(back, now_ms)
        if tick:
            self._tick_subjects(now_ms, frozenset(away), made, everybody=everybody)
        skipped = []
        for offset, value in samples:
            try:
                record = None if offset in condemned else self.read(value)
                reason = "unjudgeable"
            except Poison as error:
                record, reason = None, error.reason
            if record is None:
                made.poison.append(Poisoned(offset, reason, value or b""))
                skipped.append(offset)
                continue
            if not self._once(record):
                made.duplicates += 1
                skipped.append(offset)
                continue
            try:
                self._judge(record, made)
            except Exception as error:
                raise Unjudged(offset) from error
        for alert in made.alerts:
            # A changed limit is no issue of the patient's; a gateway has no patient.
            issue = None if alert.kind == LIMIT else resources.issue_bundle(alert)
            if issue is not None:
                made.fhir.append(Message(alert.subject.encode(), issue))
        begin, end = (samples[0][0], samples[-1][0] + 1) if samples else (0, 0)
        self._turn = Turn(
            rotation.turn,
            begin,
            end,
            now_ms,
            skipped,
            [raw for _, raw in instructions],
            rotation.side,
            tick,
            away,
            back,
            self._ticked_ms,
            everybody,
            paused,
        )
        self._records = len(samples)
        return made

    def state(self) -> list[tuple[Message, int]]:
        """Return what brings the state topic up to date after a `turn`, in this order.

        Each with the chunk it is, or -1; say with `wrote` where a chunk came to lie.
        """
        turn, rotation = self._turn, self._rotation
        if turn is None:
            return []
        self._turn = None
        due = rotation.due(self._records)
        if self._everything:
            self._everything, due = False, list(range(CHUNKS + 1))
        elif not turn.end and not turn.instructions:
            due = list(dict.fromkeys([*due, *rotation.idle(IDLE_CHUNKS)]))
        out: list[tuple[Message, int]] = []
        by_slice: dict[int, dict[str, Kept]] = {index: {} for index in due}
        if due:
            for subject in self._subjects.values():
                if subject.slice in by_slice:
                    by_slice[subject.slice][subject.name] = subject.stored()
        for index in due:
            kept = {"": self._common} if index == COMMON else by_slice[index]
            out.append((self._message(f"chunk/{index}", Chunk(kept)), index))
            self._changed |= {name for name in self._edges if _edge_slice(name) == index}
        if due:
            rotation.wrote(due)
            out.append((self._message("marks", Marks(rotation.marks)), -1))
        for name in sorted(self._changed):
            key = f"dedupe/{name[0]}/{name[1]}"
            out.append((self._message(key, self._edges[name].stored()), -1))
        self._changed.clear()
        # Last, so that whoever reads from the oldest chunk on finds the newest turn.
        out.append((self._message(f"turn/{turn.number % journal.TURNS}", turn), -1))
        return out

    def wrote(self, index: int, offset: int) -> None:
        """Take note that a chunk lies at an offset of the state topic."""
        self._rotation.offsets[index] = offset

    def _message(self, key: str, value: msgspec.Struct) -> Message:
        return Message(f"{self.number}/{key}".encode(), _encoder.encode(value))

    def due(self, now_ms: int) -> bool:
        """Tell whether the clock alone would do something now; asked once a second."""
        if 0 <= now_ms - self._ticked_ms < TICK_MS or self.policy is None:
            return False
        if now_ms < self._ticked_ms:
            return True  # set back: everybody is looked at
        if now_ms - self._ticked_ms > silence.PAUSE_MS:
            return True  # a turn notices the pause
        if any(subject.due_ms <= now_ms for subject in self._subjects.values()) or any(
            self._gateway_due(edge, gateway, now_ms)
            for edge, gateway in self._common.gateways.items()
        ):
            return True
        self._ticked_ms = now_ms
        return False

    @property
    def unwritten(self) -> bool:
        """True while a chunk has changed since it was written."""
        return any(self._rotation.dirty)

    def read(self, value: bytes | None) -> SamplesRecord:
        """Return a samples record that is safe to judge; raises Poison."""
        try:
            record = decode_samples(value or b"")
            columns_of.check(record.columns)
        except (msgspec.DecodeError, VitalsError) as error:
            raise Poison("malformed") from error
        for source in record.columns.sources:
            if source.subject in self._subjects:
                continue
            if not is_subject(source.subject):
                raise Poison("subject")
            if partition_of(source.subject) != self.number:
                raise Poison("partition")
        if not all(is_subject(source.device) for source in record.columns.sources):
            raise Poison("subject")
        if record.seq < 0 or record.floor < 0 or not 0 <= record.ingested_ms <= TIME_MS_MAX:
            raise Poison("range")
        return record

    def _once(self, record: SamplesRecord) -> bool:
        """Take note of a record's frame; return False for one that was seen before."""
        name = (record.edge, record.epoch)
        edge = self._edges.get(name)
        if edge is None:
            edge = self._edges[name] = _Edge()
        self._changed.add(name)
        new = edge.seen.add(record.seq)
        edge.seen.raise_floor(record.floor)
        if new:
            edge.tally.add(record.seq, len(record.columns))
        else:
            edge.again += 1
        return new

    # -- what is given -------------------------------------------------------------------------

    def _instruct(self, value: bytes, now_ms: int, made: Made, back: list[str]) -> None:
        """Take one record of ``commands``; what is none, or for nobody here, changes nothing."""
        try:
            given = _instruction_decoder.decode(value)
        except msgspec.DecodeError:
            made.refused += 1
            return
        if isinstance(given, Command):
            self._command(given, now_ms, made)
        elif isinstance(given, Presence):
            if self._holds(COMMON):
                self._presence(given, now_ms, made, back)
        else:
            self._new_policy(given, made)

    def _command(self, command: Command, now_ms: int, made: Made) -> None:
        subject = self._subjects.get(command.subject)
        if subject is None:
            told = self._answer(command, now_ms)
            made.refused += not told
            made.alerts += told
            return
        if not self._holds(subject.slice):
            return
        told = subject.command(command, now_ms)
        if command.kind == "limit":
            self._ruled(subject)
        self._touch(subject)
        made.refused += not told
        made.alerts += told

    def _answer(self, command: Command, now_ms: int) -> list[AlertEvent]:
        """Carry out a command about a gateway's alert."""
        held = self._common.episodes.get(command.subject)
        if held is None or not self._holds(COMMON):
            return []
        self._rotation.dirty[COMMON] = True
        _, told = answer(held, command, now_ms, self._rules_of(command.subject).life)
        if not held:
            del self._common.episodes[command.subject]
        return told

    def _new_policy(self, given: NewPolicy, made: Made) -> None:
        try:
            self.policy = open_published(given.toml)
        except ConfigError:
            made.refused += 1
            return
        self._common.policy, self._common.who = given.toml, given.who
        self._rules = RulesOf()
        for _, subject in sorted(self._subjects.items()):
            self._ruled(subject)
            made.alerts += subject.renounce(self._now_ms)
        # So that no turn is ever replayed under another policy than it was given under.
        self._everything = True

    def _presence(self, given: Presence, now_ms: int, made: Made, back: list[str]) -> None:
        gateways = self._common.gateways
        gateway = gateways.get(given.edge)
        self._rotation.dirty[COMMON] = True
        if gateway is None:
            if given.connected and len(gateways) < GATEWAYS_MAX:
                gateways[given.edge] = Gateway(now_ms, now_ms)
            return
        if not given.connected:
            return  # its time runs: it may be back with another ingest in a second
        gateway.heard_ms = now_ms
        if gateway.away:
            gateway.away = False
            gateway.since_ms = now_ms
            back.append(given.edge)
            made.alerts += self._gateway_lives(given.edge, Returned(now_ms, now_ms), None)

    def _gateway_lives(
        self, edge: str, given: Raised | Returned, event: AlertEvent | None
    ) -> list[AlertEvent]:
        if home_of(edge) != self.number:
            return []
        held = self._common.episodes.setdefault(edge, {})
        out = give(held, silence.GATEWAY_RULE, given, self._rules_of(edge).life, event)
        if not held:
            del self._common.episodes[edge]
        return out

    def _gateway_due(self, edge: str, gateway: Gateway, now_ms: int) -> bool:
        held = self._common.episodes.get(edge)
        return (
            not gateway.away
            and now_ms - gateway.heard_ms > self._rules_of(edge).effective.silence.gateway_ms
        ) or (held is not None and due(held, self._rules_of(edge).life) <= now_ms)

    def _tick_gateways(self, now_ms: int, made: Made) -> None:
        for edge, gateway in self._common.gateways.items():
            if gateway.heard_ms > now_ms + SKEW_MS:
                gateway.heard_ms = now_ms  # the clock was set back: count from now
            if not self._gateway_due(edge, gateway, now_ms):
                continue
            self._rotation.dirty[COMMON] = True
            effective = self._rules_of(edge).effective
            if not gateway.away and now_ms - gateway.heard_ms > effective.silence.gateway_ms:
                gateway.away = True
                event = gateway_event(edge, gateway, now_ms, effective)
                raised = Raised(event.episode, event.began_ms, event.at_ms)
                made.alerts += self._gateway_lives(edge, raised, event)
            if (held := self._common.episodes.get(edge)) is not None:
                made.alerts += tick(held, now_ms, self._rules_of(edge).life)

    def _resume(self, now_ms: int) -> None:
        """Give everybody time to be heard after a pause in which nobody listened."""
        if self._holds(COMMON):
            for gateway in self._common.gateways.values():
                gateway.heard_ms = max(gateway.heard_ms, now_ms)
                self._rotation.dirty[COMMON] = True
        for subject in self._subjects.values():
            if self._holds(subject.slice):
                for origin in subject.origins:
                    if not origin.silent:
                        origin.heard_ms = max(origin.heard_ms, now_ms)
                        self._touch(subject)

    def _heard_again(self, back: Sequence[str], now_ms: int) -> None:
        """Give the devices of gateways that came back their time to be heard."""
        if not back:
            return
        for subject in self._subjects.values():
            if self._holds(subject.slice) and subject.back(back, now_ms):
                self._touch(subject)

    def _tick_subjects(
        self, now_ms: int, away: frozenset[str], made: Made, *, everybody: bool
    ) -> None:
        gone = []
        looked_at = [
            subject
            for subject in self._subjects.values()
            if (everybody or subject.due_ms <= now_ms) and self._holds(subject.slice)
        ]
        # By name: the order of memory is another after a restart.
        for subject in sorted(looked_at, key=lambda one: one.name):
            made.alerts += subject.tick(now_ms, away)
            if subject.minutes.minutes:
                self._leave(subject, subject.close_minutes(now_ms), made)
            if self._ruled(subject):
                made.alerts += subject.renounce(now_ms)
            self._touch(subject)
            if subject.idle:
                gone.append(subject.name)
        for name in gone:
            del self._subjects[name]

    def _judge(self, record: SamplesRecord, made: Made) -> None:
        """Judge a record's readings and render them: the hot path."""
        columns, ingested_ms = record.columns, record.ingested_ms
        subjects = [self._subject(source, record, made) for source in columns.sources]
        told = len(made.alerts)
        self._observe(columns, subjects, ingested_ms, made)
        for at, alert in columns.alerts:
            source = columns.sources[at]
            made.alerts += subjects[at].device_alert(alert, source.device, ingested_ms)
        for subject in subjects:
            self._touch(subject)
        made.readings += len(columns)
        self._render(columns, subjects, made, told)

    def _subject(self, source: Source, record: SamplesRecord, made: Made) -> Subject:
        subject = self._subjects.get(source.subject)
        if subject is None:
            subject = Subject(source.subject)
            if self._holds(subject.slice):
                self._subjects[source.subject] = subject
        elif not self._holds(subject.slice):
            subject = Subject(source.subject)  # as far as it goes already: this one is let go
        origin, new = subject.origin(source.device, record.edge, record.ingested_ms)
        if new:
            subject.edge, subject.device = record.edge, source.device
            self._ruled(subject)
        if origin.silent:
            made.alerts += subject.heard(origin, record.ingested_ms)
        # A backlog is of before: it takes back no time that somebody was given to be heard.
        origin.heard_ms = max(origin.heard_ms, record.ingested_ms)
        return subject

    def _observe(
        self, columns: Columns, subjects: list[Subject], ingested_ms: int, made: Made
    ) -> None:
        times = columns.times_ms()
        plain = not (columns.status or columns.channel or columns.site)
        if times and plain and None not in columns.value:
            values = cast("Sequence[int]", columns.value)
            newest = max(times)
            rules = subjects[0].rules
            late_ms, live_ms = rules.late_ms_max, rules.late_ms_min
            if len(subjects) > 1:
                late_ms = max([subject.rules.late_ms_max for subject in subjects])
                live_ms = min([subject.rules.late_ms_min for subject in subjects])
            if newest < ingested_ms - late_ms:
                made.late += len(times)
                self._observe_late(columns, values, times, subjects, ingested_ms, made)
                return
            if min(times) >= ingested_ms - live_ms and newest <= ingested_ms + FUTURE_MS_MAX:
                self._observe_live(columns, values, times, subjects, ingested_ms, made)
                return
        for row, (at, reading) in enumerate(columns.rows()):
            made.alerts += subjects[at].observe(reading, columns.value[row], ingested_ms)

    def _observe_late(
        self,
        columns: Columns,
        values: Sequence[int],
        times: list[int],
        subjects: list[Subject],
        ingested_ms: int,
        made: Made,
    ) -> None:
        """Observe what breaches a limit, or comes while something is watched; the rest is past."""
        for at, vital, value, time_ms in zip(
            columns.source, columns.vital, values, times, strict=True
        ):
            subject = subjects[at]
            rules = subject.rules
            if subject.watches or not rules.low[vital] <= value <= rules.high[vital]:
                reading = Reading(vital, value / SCALE[vital], time_ms, ingested_ms)
                made.alerts += subject.observe(reading, value, ingested_ms)

    def _observe_live(
        self,
        columns: Columns,
        values: Sequence[int],
        times: list[int],
        subjects: list[Subject],
        ingested_ms: int,
        made: Made,
    ) -> None:
        """Observe what lies outside its hold; take note of the rest. One loop, no calls."""
        for at, vital, value, time_ms in zip(
            columns.source, columns.vital, values, times, strict=True
        ):
            subject = subjects[at]
            if (
                subject.low[vital] <= value <= subject.high[vital]
                and subject.last[vital] <= time_ms
            ):
                if time_ms < subject.until[vital]:
                    subject.last[vital] = time_ms
                    subject.value[vital] = value
                else:
                    made.alerts += subject.sample(vital, value, time_ms, ingested_ms)
            else:
                reading = Reading(vital, value / SCALE[vital], time_ms, ingested_ms)
                made.alerts += subject.observe(reading, value, ingested_ms)

    def _render(self, columns: Columns, subjects: list[Subject], made: Made, told: int) -> None:
        """Make Bundles of a record; ``told``: how many alerts there were before it."""
        if columns.vital:
            rules = subjects[0].rules
            alike = len(subjects) == 1 or all(one.rules is rules for one in subjects)
            if alike and rules.charting.mode == "every":
                for name, body in rules.chart.bundles(columns):
                    made.fhir.append(Message(name.encode(), body))
            elif all(one.rules.charting.mode == "every" for one in subjects):
                own = {one.name: one.rules.chart for one in subjects}
                for name, body in rules.chart.bundles(columns, own):
                    made.fhir.append(Message(name.encode(), body))
            else:
                self._chart(columns, subjects, made, told)
        for subject in subjects:
            if subject.leaving:
                made.fhir.append(_bundle(subject.name, subject.leaving))
                subject.leaving = []

    def _chart(self, columns: Columns, subjects: list[Subject], made: Made, told: int) -> None:
        """Chart what the policy of each subject says."""
        given: dict[str, list[Given]] = {}
        newest = max(columns.times_ms())
        for at, reading in columns.rows():
            device = columns.sources[at].device
            given.setdefault(subjects[at].name, []).append(Given(device, reading))
        by_name = {subject.name: subject for subject in subjects}
        for name, readings in given.items():
            subject = by_name[name]
            self._leave(subject, subject.chart(readings, made.alerts[told:], newest), made)

    def _leave(self, subject: Subject, leaving: Leaving, made: Made) -> None:
        chart = subject.rules.chart
        built: dict[str, bytes] = {}
        for make, those in ((chart.rows, leaving.readings), (chart.minute, leaving.minutes)):
            by_device: dict[str, list[Reading]] = {}
            for device, reading in those:
                by_device.setdefault(device, []).append(reading)
            for device, readings in by_device.items():
                built |= {one.id: one.body for one in make(subject.name, device, readings)}
        entries = list(built.items())
        for at in range(0, len(entries), CHARTED_MAX):
            made.fhir.append(_bundle(subject.name, entries[at : at + CHARTED_MAX]))

    # -- rules ---------------------------------------------------------------------------------

    def _ruled(self, subject: Subject) -> bool:
        """Give a subject the rules that hold for it now; return whether they are others."""
        policy = self.policy
        if policy is None:
            raise RuntimeError("a partition was given readings before a policy")
        own = {rule: limit for rule, (limit, _) in subject.own.items()}
        effective = resolve(
            policy, subject.edge, subject.device, subject.name, own, at_ms=self._now_ms
        )
        rules = self._rules(effective)
        if getattr(subject, "rules", None) is rules:
            return False
        subject.rules = rules
        subject.ask()
        return True

    def _rules_of(self, edge: str) -> Rules:
        if self.policy is None:
            raise RuntimeError("a partition was given presence before a policy")
        return self._rules(resolve(self.policy, edge, "", "", {}))

    def _touch(self, subject: Subject) -> None:
        self._rotation.dirty[subject.slice] = True


def _edge_slice(name: tuple[str, str]) -> int:
    return zlib.crc32("/".join(name).encode()) % CHUNKS


def _bundle(subject: str, built: Sequence[tuple[str, bytes]]) -> Message:
    """Return Observations (id, body) as one transaction Bundle."""
    entries = [(f"Observation/{ident}", body) for ident, body in built]
    return Message(subject.encode(), resources.transaction(entries))


def alert_message(alert: AlertEvent) -> Message:
    """Return an alert event as it lies in its topic."""
    key = f"{alert.subject}/{alert.episode}".encode()
    return Message(key, _alert_encoder.encode(alert))

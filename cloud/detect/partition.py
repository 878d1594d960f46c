"""What detect remembers of one partition, and what it makes of what it is given.

Law: pure of I/O. Everything given comes in turns (`turn`), and giving the same turns again gives
the same memory, whatever was restored in between (cloud/detect/journal.py). A record is taken
whole or not at all: everything that can be wrong with it is found before anything is remembered.
A frame seen before changes nothing but a count.

Order within a turn: instructions, the clock, readings.
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Final, cast

import msgspec

from cloud.detect import clock, journal, orders, silence
from cloud.detect.gateways import Common, Gateways
from cloud.detect.journal import (
    CHUNKS,
    COMMON,
    Chunk,
    Journal,
    Marks,
    Rotation,
    Turn,
    slice_of,
)
from cloud.detect.made import Made, Message, Poison, Poisoned, Unjudged
from cloud.detect.render import leave, render, without_memory
from cloud.detect.rules import Rules, RulesOf
from cloud.detect.seen import Frames, decode_seen
from cloud.detect.subject import LIMIT, Kept, Subject
from cloud.fhir import resources
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
from vitals.limits import FUTURE_MS_MAX
from vitals.reading import Reading
from vitals.topics import partition_of

TICK_MS: Final = 1_000
"""How often the clock is looked at: an escalation or a silence is told a second late at most."""

IDLE_CHUNKS: Final = 8
"""Chunks written in a turn that was given nothing."""

SCALE: Final = tuple(decimal_scale(vital) for vital in VITALS)


_encoder: Final = msgspec.msgpack.Encoder()
_instruction_decoder: Final = msgspec.json.Decoder(Instruction)


class Partition:
    """The state of one partition: `restore` it, `replay`, then `turn` after turn, with `state`."""

    def __init__(self, number: int) -> None:
        """Begin empty, without a policy: the first instruction must be one."""
        self.number = number
        self.policy: Policy | None = None
        self._edges: dict[tuple[str, str], Frames] = {}
        self._changed: set[tuple[str, str]] = set()
        self._subjects: dict[str, Subject] = {}
        self._gateways = Gateways(number, self._rules_of)
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
                    self._edges[edge, epoch] = Frames(decode_seen(value))
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
            self._gateways.common = msgspec.convert(common[""], Common)
            if self._gateways.common.policy:
                self.policy = open_published(self._gateways.common.policy)
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
        common = self._gateways.common
        return self.policy is None or (common.who == who and common.policy != policy)

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
            if offset in skipped:
                continue
            record = self.read(value)
            if any(self._holds(slice_of(source.subject)) for source in record.columns.sources):
                self._judge(record, made)

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
        away = self._gateways.away()
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
            kept = {"": self._gateways.common} if index == COMMON else by_slice[index]
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
        if self._gateways.due(now_ms) or any(
            subject.due_ms <= now_ms for subject in self._subjects.values()
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
            edge = self._edges[name] = Frames()
        self._changed.add(name)
        return edge.once(record.seq, record.floor, len(record.columns))

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
                self._rotation.dirty[COMMON] = True
                came_back, told = self._gateways.presence(given, now_ms)
                made.alerts += told
                if came_back:
                    back.append(given.edge)
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
        told = orders.carry_out(subject, command, now_ms)
        if command.kind == "limit":
            self._ruled(subject)
        self._touch(subject)
        made.refused += not told
        made.alerts += told

    def _answer(self, command: Command, now_ms: int) -> list[AlertEvent]:
        """Carry out a command about a gateway's alert."""
        if not self._holds(COMMON):
            return []
        self._rotation.dirty[COMMON] = True
        return self._gateways.answer(command, now_ms)

    def _new_policy(self, given: NewPolicy, made: Made) -> None:
        try:
            self.policy = open_published(given.toml)
        except ConfigError:
            made.refused += 1
            return
        self._gateways.common.policy, self._gateways.common.who = given.toml, given.who
        self._rules = RulesOf()
        for _, subject in sorted(self._subjects.items()):
            self._ruled(subject)
            made.alerts += orders.renounce(subject, self._now_ms)
        # So that no turn is ever replayed under another policy than it was given under.
        self._everything = True

    def _tick_gateways(self, now_ms: int, made: Made) -> None:
        acted, told = self._gateways.tick(now_ms)
        self._rotation.dirty[COMMON] |= acted
        made.alerts += told

    def _resume(self, now_ms: int) -> None:
        """Give everybody time to be heard after a pause in which nobody listened."""
        if self._holds(COMMON):
            self._gateways.resume(now_ms)
            self._rotation.dirty[COMMON] |= bool(self._gateways.common.gateways)
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
            if self._holds(subject.slice) and clock.back(subject, back, now_ms):
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
            # Nothing else of what rules hang on ends by the clock.
            ending = bool(subject.own) or subject.rules.effective.until_ms is not None
            made.alerts += clock.act(subject, now_ms, away)
            if subject.minutes.minutes:
                leave(subject, subject.close_minutes(now_ms), made)
            if ending and self._ruled(subject):
                made.alerts += orders.renounce(subject, now_ms)
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
        if self._frozen is None or not without_memory(subjects):
            render(columns, subjects, made, told)

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
            subject.edge, subject.device = origin.edge, origin.device
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

"""A partition of its own, given turns: what the engine does, without Kafka."""

from collections.abc import Iterable, Sequence

import msgspec

from cloud.detect.journal import Turn
from cloud.detect.made import Made, Message
from cloud.detect.partition import Partition
from cloud.policy.default import DEFAULT
from cloud.policy.model import Policy
from cloud.policy.seal import publish
from cloud.records import AlertEvent, Instruction, NewPolicy, SamplesRecord, encode

FIRST_MS = 1
"""Clock of the turn that brings the policy: before everything else."""


def policy_record(policy: Policy = DEFAULT) -> NewPolicy:
    """Return a policy as it is pushed."""
    published = publish(policy)
    return NewPolicy(published.version, published.text, "tester", FIRST_MS)


class Log:
    """A partition with the topics it reads and writes: `samples`, `commands`, `state`."""

    def __init__(self, number: int, policy: Policy | None = DEFAULT) -> None:
        """Begin with empty topics, and a policy as the first command if one is given."""
        self.partition = Partition(number)
        self.samples: list[bytes | None] = []
        self.commands: list[bytes] = []
        self.state: list[tuple[bytes, bytes | None]] = []
        self.partition.begin()
        self.partition.restored()
        if policy is not None:
            self.command([policy_record(policy)], FIRST_MS)

    def give(
        self,
        records: Iterable[SamplesRecord | bytes | None],
        now_ms: int = FIRST_MS,
        commands: Sequence[Instruction] = (),
    ) -> Made:
        """Give one turn and commit it."""
        samples = []
        for record in records:
            value = encode(record) if isinstance(record, SamplesRecord) else record
            samples.append((len(self.samples), value))
            self.samples.append(value)
        sides = []
        for command in commands:
            sides.append((len(self.commands), msgspec.json.encode(command)))
            self.commands.append(sides[-1][1])
        made = self.partition.turn(samples, sides, now_ms)
        self.commit()
        return made

    def commit(self) -> list[Message]:
        """Append what the last turn has to write to `state`; return it."""
        written = []
        for message, chunk in self.partition.state():
            if chunk >= 0:
                self.partition.wrote(chunk, len(self.state))
            self.state.append((message.key, message.value))
            written.append(message)
        return written

    def command(self, commands: Sequence[Instruction], now_ms: int) -> list[AlertEvent]:
        """Give a turn of commands alone; return what it told."""
        return self.give([], now_ms, commands).alerts

    def tick(self, now_ms: int) -> list[AlertEvent]:
        """Give a turn of nothing but the clock."""
        return self.give([], now_ms).alerts

    def restart(self, floor: int = 0) -> list[Turn]:
        """Forget everything and read it back from offset ``floor``; return what was replayed."""
        fresh = Partition(self.partition.number)
        for offset, (key, value) in enumerate(self.state):
            if offset >= floor:
                fresh.restore(key, value, offset)
        turns = fresh.begin()
        for turn in turns:
            fresh.replay(turn, list(enumerate(self.samples))[turn.begin : turn.end])
        fresh.restored()
        self.partition = fresh
        return turns

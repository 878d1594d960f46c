"""A batch into Redis: sealed, in one atomic script, with the offsets at its end.

Law: a batch is in Redis whole, with its offsets, or its offsets are not there. A writer lives on
one connection; when that is lost the writer is dead, because the server behind the next one may
have lost its last second: open a new writer and seek to the offsets it reads.
"""

from collections.abc import Callable
from importlib import resources
from typing import Any, Final, NamedTuple

from cloud import records
from cloud.project import layout
from cloud.project.batch import Batch, Held
from cloud.records import LiveUpdate
from vitals.pseudonym import blind_index
from vitals.sealed import Sealer

_SCRIPT: Final = resources.files(__package__).joinpath("apply.lua").read_text(encoding="ascii")

Argument = str | bytes | int


class Seals(NamedTuple):
    """The keys in use."""

    identity: Sealer
    values: Sealer
    index_key: bytes


class Written(NamedTuple):
    """What a write came to: when the gateway received what became the newest, in ms of UTC."""

    fresh_received_ms: list[int]


class Writer:
    """Writes batches over one connection."""

    def __init__(self, client: Any, seals: Seals, now_ms: Callable[[], int]) -> None:
        """Take a redis-py client that raises rather than reconnects; see `connect.once`."""
        self._client = client
        self._script = client.register_script(_SCRIPT)
        self._seals = seals
        self._now_ms = now_ms

    def offsets(self) -> dict[str, int]:
        """Return ``topic/partition`` -> next offset; raises redis.RedisError."""
        raw: dict[bytes, bytes] = self._client.hgetall(layout.OFFSETS)
        return {field.decode(): int(value) for field, value in raw.items()}

    def close(self) -> None:
        """Close the connection; never raises on a dead one."""
        self._client.close()

    def write(self, batch: Batch) -> Written:
        """Apply a batch; raises redis.RedisError, after which nothing certain is known."""
        arguments: list[Argument] = [
            layout.CHANNEL,
            self._now_ms() // 1000,
            layout.RECENT_S,
            layout.RECENT_INDEX_SLACK_S,
        ]
        received: list[int | None] = []
        for subject in batch.latest:
            arguments += ("U", subject)
        # who before what: a listener learns the patient's name before the first number
        for subject, (value, identity) in batch.identities.items():
            key = layout.identity_key(subject)
            message = self._message(LiveUpdate(subject, identity=identity))
            arguments += ("S", key, message, self._seal(self._seals.identity, key, "", value))
            received.append(None)
            arguments += ("U", subject)
            if identity.patient.mrn:
                index = layout.mrn_key(blind_index(self._seals.index_key, identity.patient.mrn))
                sealed = self._seals.identity.seal(subject.encode(), layout.place(index))
                arguments += ("P", index, sealed)
        for subject, fields in batch.latest.items():
            key = layout.latest_key(subject)
            newest = batch.newest[subject]
            message = self._message(LiveUpdate(subject, readings=list(newest.values())))
            arguments += ("H", key, message, len(fields))
            for field, value in fields.items():
                arguments += (field, self._seal(self._seals.values, key, field, value))
            received.append(max(reading.received_ms for reading in newest.values()))
        for (subject, minute), frames in batch.recent.items():
            key = layout.recent_key(subject, minute)
            arguments += ("R", layout.recent_index(subject), minute, key, len(frames))
            for frame, plain in frames.items():
                arguments += (frame, self._seals.values.seal(plain, layout.place(key, frame)))
        for subject, episodes in batch.alerts.items():
            key = layout.alert_key(subject)
            for episode, (value, event) in episodes.items():
                message = self._message(LiveUpdate(subject, alert=event))
                sealed = self._seal(self._seals.values, key, episode, value)
                arguments += ("H", key, message, 1, episode, sealed)
                received.append(None)
                arguments += ("P", layout.episode_key(episode), subject)
        for at, offset in batch.offsets.items():
            arguments += ("O", at, offset)
        answers: list[int] = self._script(args=arguments)
        return Written(
            [at for at, fresh in zip(received, answers, strict=True) if fresh and at is not None]
        )

    def _message(self, update: LiveUpdate) -> bytes:
        return self._seals.values.seal(records.encode(update), layout.place(layout.CHANNEL))

    @staticmethod
    def _seal(sealer: Sealer, key: str, field: str, value: Held) -> bytes:
        return value.head + sealer.seal(value.plain, layout.place(key, field))

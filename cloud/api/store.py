"""Reading what project wrote to Redis. Blocking: call from a thread.

Law: reads only. A value that does not open raises SealError; a server that does not answer
raises redis.RedisError; neither is turned into "nothing there".
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from cloud.project import layout
from cloud.project.layout import Latest
from cloud.records import AlertEvent, Identity, LiveUpdate
from vitals import columns
from vitals.pseudonym import blind_index
from vitals.reading import Reading
from vitals.sealed import Sealer

_latest: Final = msgspec.msgpack.Decoder(Latest)
_identity: Final = msgspec.msgpack.Decoder(Identity)
_alert: Final = msgspec.json.Decoder(AlertEvent)
_update: Final = msgspec.msgpack.Decoder(LiveUpdate)

# Commands of one round trip when the whole ward is read.
PIPELINE_MAX: Final = 500


class Seen(NamedTuple):
    """Everything the ward station shows of one subject at its start."""

    subject: str
    identity: Identity | None
    latest: list[Latest]
    alerts: list[AlertEvent]


class Store:
    """Answers about subjects."""

    def __init__(self, client: Any, identity: Sealer, values: Sealer, index_key: bytes) -> None:
        """Take a pooled redis-py client and the keys."""
        self._client = client
        self._identity_seal = identity
        self._values = values
        self._index = index_key

    def identity(self, subject: str) -> Identity | None:
        """Return who a subject is, or None."""
        return self._open_identity(subject, self._client.get(layout.identity_key(subject)))

    def _open_identity(self, subject: str, raw: bytes | None) -> Identity | None:
        if raw is None:
            return None
        place = layout.place(layout.identity_key(subject))
        return _identity.decode(self._identity_seal.open(raw[layout.HEAD_BYTES :], place))

    def known(self, subject: str) -> bool:
        """Tell whether anything was ever received of a subject."""
        return bool(self._client.sismember(layout.SUBJECTS, subject))

    def subject_of_mrn(self, mrn: str) -> str | None:
        """Return the subject of a record number, or None."""
        key = layout.mrn_key(blind_index(self._index, mrn))
        raw: bytes | None = self._client.get(key)
        return None if raw is None else self._identity_seal.open(raw, layout.place(key)).decode()

    def latest(self, subject: str) -> list[Latest]:
        """Return the newest reading of each vital, site and channel."""
        return self._open_latest(subject, self._client.hgetall(layout.latest_key(subject)))

    def _open_latest(self, subject: str, raw: dict[bytes, bytes]) -> list[Latest]:
        key = layout.latest_key(subject)
        return [
            _latest.decode(
                self._values.open(value[layout.HEAD_BYTES :], layout.place(key, field.decode()))
            )
            for field, value in raw.items()
        ]

    def minutes(self, subject: str) -> list[int]:
        """Return the minutes of measurement in the live window, newest first."""
        found: list[bytes] = self._client.zrange(layout.recent_index(subject), 0, -1)
        return sorted(map(int, found), reverse=True)

    def rows(self, subject: str, minutes: Sequence[int]) -> list[tuple[str, Reading]]:
        """Return (device, reading) of these minutes, in no order."""
        keys = [layout.recent_key(subject, minute) for minute in minutes]
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.hgetall(key)
        rows: list[tuple[str, Reading]] = []
        for key, frames in zip(keys, pipeline.execute(), strict=True):
            for field, value in frames.items():
                opened = columns.decode(self._values.open(value, layout.place(key, field.decode())))
                sources = opened.sources
                rows += [(sources[source].device, reading) for source, reading in opened.rows()]
        return rows

    def alerts(self, subject: str) -> list[AlertEvent]:
        """Return every episode of a subject at its last step."""
        return self._open_alerts(subject, self._client.hgetall(layout.alert_key(subject)))

    def _open_alerts(self, subject: str, raw: dict[bytes, bytes]) -> list[AlertEvent]:
        key = layout.alert_key(subject)
        return [
            _alert.decode(
                self._values.open(value[layout.HEAD_BYTES :], layout.place(key, field.decode()))
            )
            for field, value in raw.items()
        ]

    def alert(self, episode: str) -> AlertEvent | None:
        """Return one episode at its last step, or None."""
        subject: bytes | None = self._client.get(layout.episode_key(episode))
        if subject is None:
            return None
        key = layout.alert_key(subject.decode())
        raw: bytes | None = self._client.hget(key, episode)
        if raw is None:
            return None
        return _alert.decode(
            self._values.open(raw[layout.HEAD_BYTES :], layout.place(key, episode))
        )

    def everyone(self) -> Iterable[Seen]:
        """Yield every subject with all that stands of it."""
        subjects = sorted(raw.decode() for raw in self._client.smembers(layout.SUBJECTS))
        step = PIPELINE_MAX // 3
        for at in range(0, len(subjects), step):
            part = subjects[at : at + step]
            pipeline = self._client.pipeline(transaction=False)
            for subject in part:
                pipeline.get(layout.identity_key(subject))
                pipeline.hgetall(layout.latest_key(subject))
                pipeline.hgetall(layout.alert_key(subject))
            answers = iter(pipeline.execute())
            for subject in part:
                yield Seen(
                    subject,
                    self._open_identity(subject, next(answers)),
                    self._open_latest(subject, next(answers)),
                    self._open_alerts(subject, next(answers)),
                )

    def open_update(self, sealed: bytes) -> LiveUpdate:
        """Return a message of the live channel."""
        return _update.decode(self._values.open(sealed, layout.place(layout.CHANNEL)))

"""Frames set aside raise one alert an hour for a gateway and a reason, with an id of their own."""

import msgspec

from cloud import records
from cloud.ingest.alarm import HOUR_MS, WORDS, Alarms
from cloud.ingest.unpack import REASONS, Unpacker
from tests.cloud.ingest.frames import NOW, Edge

HOUR = NOW - NOW % HOUR_MS


def test_every_reason_has_its_words() -> None:
    assert set(WORDS) == set(REASONS)


def test_one_alert_an_hour_for_a_gateway_and_a_reason() -> None:
    alarms = Alarms()
    first = alarms.set_aside("ward-3", "forged", HOUR)
    assert first is not None
    assert alarms.set_aside("ward-3", "forged", HOUR + HOUR_MS - 1) is None
    assert alarms.set_aside("ward-4", "forged", HOUR) is not None
    assert alarms.set_aside("ward-3", "malformed", HOUR) is not None
    again = alarms.set_aside("ward-3", "forged", HOUR + HOUR_MS)
    assert again is not None
    assert again.episode != first.episode


def test_whichever_process_raises_it_the_id_is_the_same() -> None:
    one, other = (
        Alarms().set_aside("w", "forged", HOUR),
        Alarms().set_aside("w", "forged", HOUR + 9),
    )
    assert one is not None
    assert other is not None
    assert one.episode == other.episode


def test_a_frame_that_does_not_open_brings_its_alert_along(unpacker: Unpacker, edge: Edge) -> None:
    frame = edge.simple(1)
    broken = frame[:-1] + bytes([frame[-1] ^ 1])
    batch = unpacker.unpack("ward-3", edge.opener, broken, 0, NOW)
    kept, alert = batch.records
    assert (kept.topic, alert.topic, alert.partition) == ("quarantine", "alerts", 0)
    event = msgspec.json.decode(alert.value, type=records.AlertEvent)
    assert (event.subject, event.kind, event.state) == ("ward-3", records.GATEWAY, "active")
    assert alert.key == f"ward-3/{event.episode}".encode()
    again = unpacker.unpack("ward-3", edge.opener, broken, 0, NOW)
    assert [record.topic for record in again.records] == ["quarantine"]
    unpacker.forget()
    again = unpacker.unpack("ward-3", edge.opener, broken, 0, NOW)
    assert len(again.records) == 2

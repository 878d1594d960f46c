"""After detect or Kafka stood still, nobody is missed for what nobody listened to."""

import pytest

from cloud.detect.silence import PAUSE_MS
from cloud.policy.bounds import SILENT_S_MIN
from cloud.policy.default import DEFAULT
from cloud.records import AlertEvent, Presence, SamplesRecord
from tests.cloud.detect.records_of import EDGE, T0, reading, record, subject_in
from tests.cloud.detect.turns import Log
from vitals.topics import home_of

HOME = home_of(EDGE)
SUBJECT = subject_in(HOME)
PAUSE = 300_000
GATEWAY_MS = round(DEFAULT.silence.gateway_s * 1000)
AFTER_MS = round(DEFAULT.silence.after_s * 1000)


def told(events: list[AlertEvent]) -> list[tuple[str, str]]:
    return [(event.kind, event.step) for event in events]


def tick(log: Log, first_ms: int, last_ms: int) -> list[tuple[str, str]]:
    """Let the clock be looked at each second, as the engine does."""
    out = []
    for now_ms in range(first_ms, last_ms + 1, 1000):
        if log.partition.due(now_ms):
            out += told(log.tick(now_ms))
    return out


def spo2(seq: int, at_ms: int) -> SamplesRecord:
    return record(seq, [(SUBJECT, reading("spo2", 97, at_ms))], ingested_ms=at_ms)


@pytest.fixture
def log() -> Log:
    """A partition with one bed behind one gateway, both heard at T0."""
    made = Log(HOME)
    made.give([spo2(0, T0)], T0, [Presence(EDGE, True, T0)])
    return made


def test_a_pause_is_shorter_than_any_silence() -> None:
    assert PAUSE_MS < SILENT_S_MIN * 1000 + 1


@pytest.mark.parametrize("pause_ms", [PAUSE, GATEWAY_MS - 5000])
@pytest.mark.parametrize("restarted", [False, True])
def test_after_a_pause_everybody_has_their_time_to_be_heard(
    log: Log, restarted: bool, pause_ms: int
) -> None:
    if restarted:
        log.restart()
    after = T0 + pause_ms
    assert tick(log, after, after + GATEWAY_MS) == []
    # then it is missed, and its bed with it: told once, of the gateway
    assert tick(log, after + GATEWAY_MS + 1000, after + AFTER_MS + 30_000) == [
        ("gateway", "raised")
    ]


def test_a_partition_without_beds_notices_a_pause_too() -> None:
    log = Log(HOME)
    log.command([Presence(EDGE, True, T0)], T0)
    after = T0 + GATEWAY_MS - 5000
    assert tick(log, after, after + GATEWAY_MS) == []
    assert tick(log, after + GATEWAY_MS + 1000, after + AFTER_MS) == [("gateway", "raised")]


def test_a_bed_is_missed_after_its_time_and_not_before(log: Log) -> None:
    after = T0 + PAUSE
    found = []
    for now_ms in range(after, after + AFTER_MS + 5_000, 1000):
        commands = [Presence(EDGE, True, now_ms)] if (now_ms - after) % 10_000 == 0 else []
        step = told(log.give([], now_ms, commands).alerts)
        found += [(now_ms - after, one) for one in step]
    assert found == [(AFTER_MS + 1000, ("silence", "raised"))]


def test_without_a_pause_nobody_gets_more_time(log: Log) -> None:
    assert tick(log, T0, T0 + GATEWAY_MS) == []
    assert tick(log, T0 + GATEWAY_MS + 1000, T0 + GATEWAY_MS + 1000) == [("gateway", "raised")]


@pytest.mark.parametrize(("pause_ms", "rings"), [(PAUSE_MS, True), (PAUSE_MS + 1, False)])
def test_what_counts_as_a_pause(log: Log, pause_ms: int, rings: bool) -> None:
    last_ms = T0 + GATEWAY_MS - 1000
    assert tick(log, T0, last_ms) == []
    assert (told(log.tick(last_ms + pause_ms)) == [("gateway", "raised")]) is rings


def test_a_backlog_does_not_make_its_own_beds_silent(log: Log) -> None:
    after = T0 + PAUSE
    assert told(log.give([spo2(1, T0 + 1000)], after, [Presence(EDGE, True, after)]).alerts) == []
    assert tick(log, after + 1000, after + 20_000) == []


def test_a_gateway_that_was_away_before_stays_away(log: Log) -> None:
    assert tick(log, T0, T0 + GATEWAY_MS + 1000) == [("gateway", "raised")]
    after = T0 + PAUSE
    assert ("gateway", "ended") not in tick(log, after, after + AFTER_MS)
    back = told(log.command([Presence(EDGE, True, after + AFTER_MS)], after + AFTER_MS))
    assert ("gateway", "ended") in back


def test_a_pause_is_replayed_as_it_was(log: Log) -> None:
    def heard() -> tuple[int, int]:
        (origin,) = log.partition._subjects[SUBJECT].origins
        return origin.heard_ms, log.partition._gateways.common.gateways[EDGE].heard_ms

    log.give([spo2(1, T0 + 1000)], T0 + PAUSE)  # with a record, so that no chunk is written
    before = heard()
    assert before == (T0 + PAUSE, T0 + PAUSE)
    assert True in [turn.paused for turn in log.restart()]
    assert heard() == before

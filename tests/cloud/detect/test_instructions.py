"""What people, gateways and the clock do to a patient's alarms: commands, policies, silences."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from cloud.detect.subject import COMMANDS_KEPT, ORIGINS_MAX
from cloud.policy.model import Patient, RuleChange, Silence
from cloud.policy.seal import publish
from cloud.records import AlertEvent, NewPolicy
from tests.cloud.detect.bedside import LIMITS, MONITOR, SUBJECT, Bedside, at, presence, steps
from tests.cloud.detect.policies import HEART, SPO2, SPO2_MILD, limits_only
from tests.cloud.detect.records_of import EDGE, device, reading, record, subject_in
from tests.cloud.detect.turns import policy_record
from vitals.codes import Status
from vitals.topics import SUBJECT_PARTITIONS, home_of

SPO2_LOW, SPO2_MEDIUM, HEART_HIGH = "spo2.low.high", "spo2.low.medium", "heart_rate.high.medium"
MONITOR_SILENT = f"device.silence@{MONITOR[:8]}"
GATEWAY_AWAY = "gateway.silence"


def low() -> tuple[Bedside, AlertEvent]:
    """Return a bedside whose SpO2 alarm was raised at second 10, and the alarm."""
    log = Bedside()
    (raised,) = log.values(0, 11, spo2=85).alerts
    assert (raised.rule, raised.step) == (SPO2_LOW, "raised")
    return log, raised


# -- commands ------------------------------------------------------------------------------------


def test_two_users_acknowledge_at_once_and_the_first_stands() -> None:
    log, raised = low()
    first = log.order("acknowledge", raised.episode, who="nurse-1", why="on my way")
    second = log.order("acknowledge", raised.episode, who="nurse-2")
    made = log.do(12, first, second)
    (told,) = made.alerts
    assert (told.step, told.state, told.number) == ("acknowledged", "active", 2)
    assert (told.who, told.why, told.acknowledged_by) == ("nurse-1", "on my way", "nurse-1")
    assert told.acknowledged_ms == at(12)
    assert made.refused == 1
    assert log.do(13, second).refused == 1


def test_a_repeated_id_changes_nothing_even_when_it_would_mean_something() -> None:
    log, raised = low()
    shelve = log.order("shelve", raised.episode, until_ms=at(300))
    assert len(log.do(12, shelve).alerts) == 1
    assert len(log.do(13, log.order("unshelve", raised.episode)).alerts) == 1
    made = log.do(14, shelve)
    assert (made.alerts, made.refused) == ([], 1)
    log.restart()
    assert log.do(15, shelve).refused == 1


def test_ids_are_remembered_up_to_their_number() -> None:
    log, raised = low()
    first = log.order("shelve", raised.episode, until_ms=at(300))
    log.do(12, first)
    others = [log.order("unshelve", raised.episode) for _ in range(COMMANDS_KEPT)]
    assert len(log.do(13, *others[:-1]).alerts) == 1
    assert log.do(14, first).alerts == []  # still one of the last
    log.do(15, others[-1])
    assert len(log.do(16, first).alerts) == 1


def test_a_shelving_is_cut_to_the_policy_s_longest_and_ends_by_itself() -> None:
    log, raised = low()
    (told,) = log.do(12, log.order("shelve", raised.episode, until_ms=at(90_000))).alerts
    assert (told.step, told.shelved_until_ms) == ("shelved", at(12 + 1800))
    log.clock(1811)
    (back,) = [e for e in log.clock(1812) if e.rule == SPO2_LOW]
    assert (back.step, back.why, back.shelved_until_ms) == ("unshelved", "time", None)


def test_a_shelving_is_taken_back() -> None:
    log, raised = low()
    log.do(12, log.order("shelve", raised.episode, until_ms=at(100)))
    (told,) = log.do(13, log.order("unshelve", raised.episode, who="nurse-2")).alerts
    assert (told.step, told.who, told.shelved_until_ms) == ("unshelved", "nurse-2", None)


def test_a_clearing_of_what_is_still_true_rings_again_as_a_new_episode() -> None:
    log, raised = low()
    (cleared,) = log.do(12, log.order("clear", raised.episode)).alerts
    assert (cleared.step, cleared.state, cleared.who) == ("cleared", "ended", "nurse-1")
    assert log.values(13, 23, spo2=85).alerts == []
    (again,) = log.values(23, 24, spo2=85).alerts
    assert (again.step, again.number) == ("raised", 1)
    assert again.episode != raised.episode


def test_a_clearing_of_what_is_over_stays_quiet() -> None:
    log, raised = low()
    assert steps(log.values(11, 20, spo2=97).alerts) == [(SPO2_LOW, "latched")]
    assert steps(log.do(21, log.order("clear", raised.episode)).alerts) == [(SPO2_LOW, "cleared")]
    assert log.values(22, 60, spo2=97).alerts == []


@pytest.mark.parametrize("kind", ["acknowledge", "shelve", "unshelve", "clear", "nonsense"])
@pytest.mark.parametrize("what", ["subject", "episode", "user"])
def test_what_means_nobody_here_is_counted_and_changes_nothing(kind: str, what: str) -> None:
    log, raised = low()
    order = log.order(kind, raised.episode, until_ms=at(300))
    match what:
        case "subject":
            order = msgspec.structs.replace(order, subject=subject_in(3, 5))
        case "episode":
            order = msgspec.structs.replace(order, episode="0" * 32)
        case _:
            order = msgspec.structs.replace(order, who="")
    made = log.do(12, order)
    assert (made.alerts, made.refused) == ([], 1)
    (held,) = log.partition._subjects[SUBJECT].episodes.values()
    assert held.told == raised
    assert list(log.partition._subjects) == [SUBJECT]


@pytest.mark.parametrize("raw", [b"", b"{}", b"\xff", b'{"type":"other"}', b'{"type":"command"}'])
def test_a_malformed_command_is_counted_and_the_next_one_done(raw: bytes) -> None:
    log, raised = low()
    good = msgspec.json.encode(log.order("acknowledge", raised.episode))
    made = log.partition.turn([], [(7, raw), (8, good)], at(12))
    assert (made.refused, [e.step for e in made.alerts]) == (1, ["acknowledged"])
    assert log.partition.side == 9


def test_commands_are_done_before_the_turn_s_readings() -> None:
    log, raised = low()
    frames = [log.frame(second, spo2=97) for second in range(11, 17)]
    made = log.give(frames, at(16), [log.order("acknowledge", raised.episode)])
    assert [e.step for e in made.alerts] == ["acknowledged", "ended"]


def test_how_far_commands_were_read_outlives_a_restart() -> None:
    log, raised = low()
    log.do(12, log.order("acknowledge", raised.episode), log.order("clear", "0" * 32))
    side = log.partition.side
    assert side == len(log.commands) == 3
    log.restart()
    assert log.partition.side == side
    log.do(13)  # nothing given
    log.restart()
    assert log.partition.side == side


# -- limits by command ---------------------------------------------------------------------------


def test_a_changed_limit_takes_hold_at_once() -> None:
    log = Bedside()
    log.values(0, 5, spo2=97)
    made = log.do(5, log.order("limit", rule=SPO2_LOW, limit=80.0, why="COPD"))
    (told,) = made.alerts
    assert (told.kind, told.step, told.state, told.rule) == ("limit", "limit", "ended", SPO2_LOW)
    assert (told.who, told.why, told.limit) == ("nurse-1", "COPD", 80)
    assert made.refused == 0
    assert log.values(6, 30, spo2=85).alerts == []
    (rang,) = log.values(30, 41, spo2=79).alerts
    assert (rang.text, rang.limit) == ("SpO2 79<80", 80)


def test_a_tighter_limit_rings_for_a_value_that_was_in_the_old_one_s_hold() -> None:
    log = Bedside()
    log.values(0, 60, spo2=95)
    log.do(60, log.order("limit", rule=SPO2_LOW, limit=96.0))
    assert steps(log.values(61, 72, spo2=95).alerts) == [(SPO2_LOW, "raised")]


@pytest.mark.parametrize(
    ("rule", "limit", "said"),
    [(SPO2_LOW, 300.0, "refused: "), (SPO2_LOW, -1.0, "refused: "), ("spo2.up", 9.0, "refused: ")],
)
def test_an_implausible_limit_is_refused_with_its_reason(
    rule: str, limit: float, said: str
) -> None:
    log = Bedside()
    log.values(0, 5, spo2=97)
    (told,) = log.do(5, log.order("limit", rule=rule, limit=limit)).alerts
    assert told.why.startswith(said)
    assert len(told.why) > len(said)
    assert steps(log.values(6, 17, spo2=85).alerts) == [(SPO2_LOW, "raised")]


def test_a_limit_is_taken_back_once() -> None:
    log = Bedside()
    log.values(0, 5, spo2=97)
    log.do(5, log.order("limit", rule=SPO2_LOW, limit=80.0))
    assert len(log.do(6, log.order("limit", rule=SPO2_LOW)).alerts) == 1
    again = log.do(7, log.order("limit", rule=SPO2_LOW))
    assert (again.alerts, again.refused) == ([], 1)
    assert steps(log.values(8, 19, spo2=85).alerts) == [(SPO2_LOW, "raised")]


def test_a_limit_for_a_time_holds_until_then_and_no_longer() -> None:
    log = Bedside()
    log.values(0, 5, spo2=97)
    log.do(5, log.order("limit", rule=SPO2_LOW, limit=80.0, until_ms=at(40)))
    assert log.values(6, 39, spo2=85).alerts == []
    log.restart()
    log.clock(39)
    assert log.partition._subjects[SUBJECT].own == {SPO2_LOW: (80.0, at(40))}
    log.clock(40)
    assert log.partition._subjects[SUBJECT].own == {}
    assert steps(log.values(41, 52, spo2=85).alerts) == [(SPO2_LOW, "raised")]


# Open: `Subject.command` returns for a limit before it schedules: the next look is up to 15 s off.
def test_a_limit_ends_at_its_time_whenever_it_was_set() -> None:
    log = Bedside()
    log.values(0, 5, spo2=97)
    for second in range(5, 21):
        log.clock(second)
    log.do(21, log.order("limit", rule=SPO2_LOW, limit=80.0, until_ms=at(25)))
    log.clock(25)
    assert log.partition._subjects[SUBJECT].own == {}


# Open: `Partition._ruled` resolves without `at_ms`, so that a patient's part never ends.
def test_a_patient_s_part_of_a_policy_ends_at_its_time() -> None:
    until = datetime.fromtimestamp(at(60) / 1000, UTC)
    change = RuleChange(vital="spo2", direction="low", priority="high", limit=80.0)
    part = Patient(subject=SUBJECT, until=until, rules=(change,))
    log = Bedside(limits_only(patients=(part,)))
    before = [e for second in range(30) for e in log.values(second, second + 1, spo2=85).alerts]
    after = [e for second in range(61, 99) for e in log.values(second, second + 1, spo2=85).alerts]
    assert (before, steps(after)) == ([], [(SPO2_LOW, "raised")])


# -- policies ------------------------------------------------------------------------------------


def test_a_policy_without_the_rule_ends_its_episode() -> None:
    log, raised = low()
    (told,) = log.command([policy_record(limits_only(HEART))], at(12))
    assert (told.episode, told.step, told.state) == (raised.episode, "cleared", "ended")
    assert (told.who, told.why) == ("system", "policy")
    assert log.values(13, 40, spo2=70).alerts == []
    (rang,) = log.values(40, 51, heart_rate=140).alerts
    assert rang.policy == limits_only(HEART).version


def test_a_policy_holds_for_whoever_is_there_already() -> None:
    log = Bedside()
    log.values(0, 30, spo2=95)
    tighter = msgspec.structs.replace(SPO2, limit=97.0)
    assert log.command([policy_record(limits_only(tighter))], at(30)) == []
    assert steps(log.values(31, 42, spo2=95).alerts) == [(SPO2_LOW, "raised")]


def test_a_rule_that_stays_keeps_its_episode() -> None:
    log, raised = low()
    assert log.command([policy_record(limits_only(SPO2, HEART, gap_s=40.0))], at(12)) == []
    (worse,) = log.values(13, 14, spo2=80).alerts
    assert (worse.step, worse.episode, worse.number) == ("worse", raised.episode, 2)


def spoilt(how: str) -> NewPolicy:
    good = publish(limits_only(HEART))
    match how:
        case "tampered":
            text = good.text.replace("130", "131")
            assert text != good.text
        case "another's version":
            body = good.text.partition("\n")[2]
            text = publish(LIMITS).text.partition("\n")[0] + "\n" + body
        case "unversioned":
            text = good.text.partition("\n")[2]
        case "in clear":
            text = good.text + '\n[[patient]]\nmrn = "M000123"\n'
        case _:
            text = "version ="
    return NewPolicy(good.version, text, "tester", 0)


@pytest.mark.parametrize(
    "how", ["tampered", "another's version", "unversioned", "in clear", "malformed"]
)
def test_a_policy_that_is_not_as_it_was_published_is_refused_and_the_old_one_stays(
    how: str,
) -> None:
    log = Bedside()
    log.values(0, 1, spo2=97)
    made = log.do(1, spoilt(how))
    assert (made.alerts, made.refused) == ([], 1)
    assert log.partition.policy == LIMITS
    log.restart()
    assert log.partition.policy == LIMITS
    (rang,) = log.values(2, 13, spo2=85).alerts
    assert rang.policy == LIMITS.version


def test_a_pushed_policy_outlives_a_restart_whatever_was_written_before() -> None:
    log, _ = low()
    other = limits_only(HEART)
    log.command([policy_record(other)], at(12))
    log.restart(log.partition.floor)
    assert log.partition.policy == other
    assert log.values(13, 40, spo2=70).alerts == []


# -- one explains the other ----------------------------------------------------------------------


def both() -> tuple[Bedside, AlertEvent]:
    """Return a bedside with the urgent alarm raised, which suppresses the milder one."""
    log = Bedside(limits_only(SPO2, SPO2_MILD, HEART))
    told = log.values(0, 11, spo2=85).alerts
    assert [(e.rule, bool(e.suppressed_by)) for e in told] == [
        (SPO2_LOW, False),
        (SPO2_MEDIUM, True),
    ]
    return log, told[0]


def test_the_milder_alarm_rings_when_the_urgent_one_was_cleared() -> None:
    log, urgent = both()
    told = log.do(12, log.order("clear", urgent.episode)).alerts
    assert steps(told) == [(SPO2_LOW, "cleared"), (SPO2_MEDIUM, "released")]
    assert told[1].suppressed_by == ""


def test_an_acknowledged_cause_still_explains() -> None:
    log, urgent = both()
    told = log.do(12, log.order("acknowledge", urgent.episode)).alerts
    assert steps(told) == [(SPO2_LOW, "acknowledged")]


# Open: `Subject.renounce` ends the cause and leaves what it suppressed without a sound.
def test_the_milder_alarm_rings_when_the_policy_drops_the_urgent_rule() -> None:
    log, _ = both()
    told = log.command([policy_record(limits_only(SPO2_MILD, HEART))], at(12))
    assert steps(told) == [(SPO2_LOW, "cleared"), (SPO2_MEDIUM, "released")]


def test_a_suppressed_alarm_does_not_escalate_and_a_released_one_does() -> None:
    log, _ = both()
    for second in range(12, 900, 10):
        log.give([log.frame(second, spo2=85)], at(second))
    episodes = log.partition._subjects[SUBJECT].episodes
    assert episodes[SPO2_LOW].life.level == 2
    assert episodes[SPO2_MEDIUM].life.level == 0


# -- the clock -----------------------------------------------------------------------------------


def test_nobody_answers_and_one_after_another_is_called() -> None:
    log, _ = low()
    log.partition.turn([], [], at(11))
    log.commit()
    told = [log.give([log.frame(second, spo2=85)], at(second)).alerts for second in range(12, 800)]
    found = [(e.step, e.level, (e.at_ms - at(0)) // 1000) for alerts in told for e in alerts]
    assert found == [("escalated", 1, 131), ("escalated", 2, 311)]


def test_an_acknowledgement_ends_while_the_condition_lasts() -> None:
    log, raised = low()
    log.do(12, log.order("acknowledge", raised.episode))
    frames = [log.give([log.frame(second, spo2=85)], at(second)) for second in range(13, 620)]
    found = [(e.step, e.why, (e.at_ms - at(0)) // 1000) for made in frames for e in made.alerts]
    assert found == [("re-alarmed", "time", 612)]


def test_a_turn_within_the_same_second_asks_no_clock() -> None:
    log, _ = low()
    assert not log.partition.due(at(10.999))
    assert log.partition.due(at(11))
    log.clock(11)
    assert not log.partition.due(at(11.5))


def test_a_clock_that_was_set_back_goes_on_from_there() -> None:
    log, _ = low()
    log.clock(20)
    log.clock(21)
    told = [e for second in range(-3_600, -3_400) for e in log.clock(second)]
    assert (SPO2_LOW, "escalated") in steps(told)


# Open: `due` takes the new time for its own last look, so that the turn after it sees no jump.
def test_a_clock_that_was_set_back_is_something_due() -> None:
    log, _ = low()
    log.clock(20)
    log.clock(21)
    assert log.partition.due(at(-3_600))


# -- silent devices ------------------------------------------------------------------------------


def test_a_silent_monitor_is_told_after_a_minute_and_ends_when_heard() -> None:
    log = Bedside()
    log.values(0, 10, spo2=97)
    assert log.clock(69) == []
    (told,) = log.clock(69.001 + 1)
    assert (told.kind, told.rule, told.step) == ("silence", MONITOR_SILENT, "raised")
    assert (told.priority, told.began_ms) == ("medium", at(9))
    assert log.clock(80) == []
    (ended,) = log.values(90, 91, spo2=97).alerts
    assert (ended.rule, ended.step, ended.ended_ms) == (MONITOR_SILENT, "ended", at(90))


@pytest.mark.parametrize(("second", "told"), [(60.0, 0), (60.001, 1)])
def test_after_exactly_a_minute_it_is_not_silent_yet(second: float, told: int) -> None:
    log = Bedside()
    log.values(0, 1, spo2=97)
    assert len(log.clock(second)) == told


def test_a_monitor_that_never_measured_is_not_missed() -> None:
    log = Bedside()
    log.give([log.frame(0, temperature=37)], at(0))
    assert [e for second in range(1, 400, 20) for e in log.clock(second)] == []


def test_a_backlog_that_arrives_now_is_a_word_from_the_device() -> None:
    log = Bedside()
    log.values(0, 1, spo2=97)
    log.give([log.frame(-4000, ingested_s=59, spo2=97)], at(59))
    assert log.clock(100) == []
    assert steps(log.clock(120.1)) == [(MONITOR_SILENT, "raised")]


def test_who_is_silent_for_half_an_hour_is_forgotten() -> None:
    log = Bedside()
    log.values(0, 1, spo2=97)
    log.clock(61)
    assert {e.step for e in log.clock(1800)} == {"escalated"}
    assert SUBJECT in log.partition._subjects
    (told,) = log.clock(1801)
    assert (told.step, told.who, told.why) == ("cleared", "system", "forgotten")
    assert log.partition._subjects == {}
    log.restart()
    assert log.partition._subjects == {}
    assert log.do(1802, log.order("clear", told.episode)).refused == 1


def test_a_latched_alarm_is_not_forgotten_with_its_device() -> None:
    log, raised = low()
    log.values(11, 20, spo2=97)
    for second in range(60, 2000, 30):
        log.clock(second)
    assert log.partition._subjects[SUBJECT].episodes[SPO2_LOW].life.episode == raised.episode
    assert steps(log.do(2001, log.order("acknowledge", raised.episode)).alerts) == [
        (SPO2_LOW, "acknowledged"),
        (SPO2_LOW, "ended"),
    ]


def test_silence_can_be_switched_off() -> None:
    log = Bedside(limits_only(silence=Silence(enabled=False)))
    log.values(0, 1, spo2=97)
    assert [e for second in range(1, 4000, 100) for e in log.clock(second)] == []


def test_of_too_many_devices_the_one_silent_for_longest_is_let_go() -> None:
    log = Bedside()
    for nth in range(ORIGINS_MAX + 1):
        frame = log.frame(nth, spo2=97)
        frame.columns.sources[0] = msgspec.structs.replace(
            frame.columns.sources[0], device=device(nth)
        )
        log.give([frame], at(nth))
    kept = [origin.device for origin in log.partition._subjects[SUBJECT].origins]
    assert kept == [device(nth) for nth in range(1, ORIGINS_MAX + 1)]


def test_a_signal_that_is_no_longer_sent_is_missed_and_found_again() -> None:
    log = Bedside()
    log.values(0, 5, spo2=97, heart_rate=70)
    told = [e for second in range(5, 60) for e in log.values(second, second + 1, spo2=97).alerts]
    (raised,) = told
    assert (raised.kind, raised.rule, raised.step) == (
        "signal_loss",
        "heart_rate.signal",
        "raised",
    )
    assert raised.text == "HR no longer sent"
    assert (raised.priority, raised.began_ms) == ("low", at(4))
    assert at(34) < raised.at_ms <= at(50)  # looked for every 15 s
    (ended,) = log.values(60, 61, spo2=97, heart_rate=70).alerts
    assert (ended.rule, ended.step, ended.episode) == (
        "heart_rate.signal",
        "ended",
        raised.episode,
    )


def test_a_signal_missed_for_half_an_hour_is_forgotten() -> None:
    log = Bedside()
    log.values(0, 5, spo2=97, heart_rate=70)
    told = [
        e for second in range(5, 1900, 5) for e in log.values(second, second + 1, spo2=97).alerts
    ]
    assert [(e.step, e.why) for e in told] == [("raised", "condition"), ("cleared", "forgotten")]


def test_the_monitor_s_own_word_on_a_signal_comes_first() -> None:
    log = Bedside()
    log.values(0, 5, spo2=97, heart_rate=70)
    for second in range(5, 80):
        rows = [
            (SUBJECT, reading("spo2", 97, at(second))),
            (SUBJECT, reading("heart_rate", None, at(second), Status.MISSING)),
        ]
        made = log.give([record(1000 + second, rows, ingested_ms=at(second))], at(second))
        assert steps(made.alerts) == ([("heart_rate.signal", "raised")] if second == 15 else [])
    (ended,) = log.values(80, 86, spo2=97, heart_rate=70).alerts
    assert (ended.step, ended.text) == ("ended", "HR no signal")


# -- gateways ------------------------------------------------------------------------------------


def test_a_gateway_that_is_gone_is_one_alert_in_one_partition() -> None:
    logs = [Bedside(number=number) for number in range(SUBJECT_PARTITIONS)]
    told: list[tuple[int, AlertEvent]] = []
    for number, log in enumerate(logs):
        log.do(0, presence())
        assert log.clock(30) == []
        told += [(number, event) for event in log.clock(31)]
        assert log.clock(60) == []
    ((number, event),) = told
    assert number == home_of(EDGE)
    assert (event.kind, event.subject, event.rule) == ("gateway", EDGE, GATEWAY_AWAY)
    assert (event.step, event.priority, event.began_ms) == ("raised", "medium", at(0))
    for number, log in enumerate(logs):
        ended = log.do(70, presence()).alerts
        assert steps(ended) == ([(GATEWAY_AWAY, "ended")] if number == home_of(EDGE) else [])


@pytest.mark.parametrize(("second", "told"), [(30.0, 0), (30.001, 1)])
def test_after_exactly_its_time_a_gateway_is_not_gone_yet(second: float, told: int) -> None:
    log = Bedside(number=home_of(EDGE))
    log.do(0, presence())
    assert len(log.clock(second)) == told


def test_presence_now_and_then_is_enough_and_a_short_break_is_no_alert() -> None:
    log = Bedside(number=home_of(EDGE))
    for second in range(0, 300, 25):
        assert log.do(second, presence()).alerts == []
        assert log.do(second + 2, presence(connected=False)).alerts == []
    assert log.clock(303) == []
    assert len(log.clock(306)) == 1  # counted from when it was last connected


def test_a_gateway_s_devices_are_not_silent_while_it_is_away_and_have_their_time_after() -> None:
    log = Bedside()
    log.do(0, presence())
    log.values(0, 10, spo2=97)
    away = [e for second in range(31, 3000, 10) for e in log.clock(second)]
    assert away == []  # neither silent nor forgotten; the alert is another partition's
    assert SUBJECT in log.partition._subjects
    log.do(3000, presence())
    told = []
    for second in range(3001, 3070):
        told += log.do(second, presence()).alerts
    (silent,) = told
    assert (silent.rule, silent.step, silent.at_ms) == (MONITOR_SILENT, "raised", at(3061))


def test_a_gateway_nobody_spoke_of_is_there() -> None:
    log = Bedside(number=home_of(EDGE))
    log.do(0, presence(connected=False))
    assert [e for second in range(0, 900, 10) for e in log.clock(second)] == []


def test_one_gateway_s_absence_hides_no_other_s_devices() -> None:
    log = Bedside()
    log.do(0, presence(edge="edge-2"))
    log.values(0, 10, spo2=97)
    told = [e for second in range(31, 75) for e in log.clock(second)]
    assert steps(told) == [(MONITOR_SILENT, "raised")]


def test_a_gateway_s_alert_escalates_too_and_outlives_a_restart() -> None:
    log = Bedside(number=home_of(EDGE))
    log.do(0, presence())
    told = log.clock(31)
    for second in range(32, 400):
        if second == 100:
            log.restart(log.partition.floor)
        told += log.clock(second)
    assert [(e.step, e.level) for e in told] == [("raised", 0), ("escalated", 1)]
    assert len({e.episode for e in told}) == 1


# Open: `Partition._command` looks among patients only, and the subject here is the gateway.
def test_a_gateway_s_alert_can_be_acknowledged() -> None:
    log = Bedside(number=home_of(EDGE))
    log.do(0, presence())
    (raised,) = log.clock(31)
    made = log.do(32, log.order("acknowledge", raised.episode, subject=EDGE))
    assert (steps(made.alerts), made.refused) == ([(GATEWAY_AWAY, "acknowledged")], 0)


# -- alarms of the device itself (PCD-04) --------------------------------------------------------

ALARM = f"device.A1@{MONITOR[:8]}"


def test_a_device_s_alarm_is_raised_goes_on_and_ends() -> None:
    log = Bedside()
    made = log.alarm(0, phase="start", state="active", vital=0, value=140.0, high=130.0)
    (raised,) = made.alerts
    assert (raised.kind, raised.rule, raised.step) == ("device", ALARM, "raised")
    assert (raised.priority, raised.vital, raised.text) == (
        "medium",
        "heart_rate",
        "monitor: HR 140>130",
    )
    assert (raised.limit, raised.worst) == (130, 140)
    assert log.alarm(5, phase="continue", state="active").alerts == []
    (ended,) = log.alarm(9, phase="end", state="inactive").alerts
    assert (ended.step, ended.state, ended.ended_ms) == ("ended", "ended", at(9))
    assert ended.episode == raised.episode
    (again,) = log.alarm(20, phase="start").alerts
    assert (again.step, again.episode != raised.episode) == ("raised", True)


def test_a_device_s_urgent_alarm_latches_like_ours() -> None:
    log = Bedside()
    assert steps(log.alarm(0, priority="high").alerts) == [(ALARM, "raised")]
    assert steps(log.alarm(5, phase="end").alerts) == [(ALARM, "latched")]


@pytest.mark.parametrize("priority", ["none", "unknown", ""])
def test_a_priority_of_no_word_is_low(priority: str) -> None:
    (raised,) = Bedside().alarm(0, priority=priority).alerts
    assert raised.priority == "low"


@pytest.mark.parametrize("status", [Status.TEST, Status.CALIBRATION])
def test_a_test_of_a_device_never_rings(status: Status) -> None:
    log = Bedside()
    assert log.alarm(0, status=int(status), priority="high").alerts == []
    log.alarm(1, priority="medium")
    assert log.alarm(2, status=int(status), phase="end").alerts == []


@pytest.mark.parametrize(("late_s", "late"), [(60.0, False), (60.001, True)])
def test_a_late_alarm_tells_of_the_past(late_s: float, late: bool) -> None:
    log = Bedside()
    (told,) = log.alarm(0, ingested_s=late_s).alerts
    assert (told.retrospective, told.step) == (late, "" if late else "raised")
    assert bool(log.partition._subjects[SUBJECT].episodes) is not late


def test_a_late_end_does_not_end_what_is_live() -> None:
    log = Bedside()
    log.alarm(100)
    (told,) = log.alarm(30, ingested_s=101, phase="end").alerts
    assert told.retrospective
    assert log.partition._subjects[SUBJECT].episodes[ALARM].life.active


def test_an_acknowledgement_at_the_device_is_one_here() -> None:
    log = Bedside()
    (raised,) = log.alarm(0).alerts
    (told,) = log.alarm(3, phase="update", inactivation="alert-acknowledged").alerts
    assert (told.step, told.who, told.episode) == ("acknowledged", "device", raised.episode)
    assert log.alarm(4, phase="update", inactivation="alert-acknowledged").alerts == []


def test_two_devices_of_one_patient_do_not_end_each_other_s_alarm() -> None:
    log = Bedside()
    log.alarm(0)
    assert log.alarm(1, device=device(0xAB << 120 >> 8), phase="end").alerts == []
    assert log.partition._subjects[SUBJECT].episodes[ALARM].life.active


def test_a_user_answers_a_device_s_alarm_like_any_other() -> None:
    log = Bedside()
    (raised,) = log.alarm(0).alerts
    assert steps(log.do(1, log.order("acknowledge", raised.episode)).alerts) == [
        (ALARM, "acknowledged")
    ]


def test_no_free_text_of_a_command_stands_outside_its_event() -> None:
    log, raised = low()
    made = log.do(12, log.order("acknowledge", raised.episode, why="Ada Ng said so"))
    assert [e.why for e in made.alerts] == ["Ada Ng said so"]
    assert all("Ada" not in json.dumps(m.value.decode()) for m in made.fhir)

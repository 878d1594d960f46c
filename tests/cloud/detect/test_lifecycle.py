"""The alert life cycle: every cell of ALERTS.md against the code, and the laws beside it."""

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, get_args

import msgspec
import pytest

import cloud.detect.lifecycle as machine
from cloud.detect.lifecycle import (
    CLOCK,
    DEFAULTS,
    FLAP_COUNT_MAX,
    NEVER,
    RAISES_KEPT_MS,
    SKEW_MS,
    Acknowledge,
    Clear,
    Given,
    Life,
    Raised,
    Release,
    Returned,
    Shelve,
    Step,
    StepName,
    Suppress,
    Tick,
    Unshelve,
    Worsened,
    advance,
    due_ms,
)
from cloud.policy.manners import Manners

CONDITIONS: Final = "Conditions, commands and the clock"
PAGE: Final = Path(machine.__file__).with_name("ALERTS.md").read_text()
T0: Final = 1_790_000_000_000
"""The clock at the start; event time runs a little behind it."""
EVENT: Final = T0 - 3000
MINUTE: Final = 60_000
CALM_MS: Final = 30 * MINUTE
STILL: Final = Manners(True, (), 0, 60 * MINUTE, 0, CALM_MS)
"""Latches; nothing else happens by itself."""
BRISK: Final = Manners(True, (MINUTE, 2 * MINUTE), 10 * MINUTE, 5 * MINUTE, 3, CALM_MS)
REST: Final = Manners(False, (), 0, 60 * MINUTE, 0, CALM_MS)
FLAP: Final = msgspec.structs.replace(STILL, flap_count=2)

Rows = list[dict[str, str]]


def table(heading: str) -> Rows:
    """Return the rows of the first table under a heading of ALERTS.md."""
    _, found, text = PAGE.partition(f"\n## {heading}\n")
    assert found
    text = text.partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows
    assert all(len(row) == len(head) for row in rows)
    return [dict(zip(head, row, strict=True)) for row in rows]


def run(life: Life, *inputs: Given, manners: Manners = STILL) -> tuple[Life, list[Step]]:
    told: list[Step] = []
    for given in inputs:
        life, steps = advance(life, given, manners)
        told += steps
    return life, told


def names(steps: list[Step] | tuple[Step, ...]) -> list[str]:
    return [step.name for step in steps]


def raised(name: str = "e1", at: int = EVENT) -> Raised:
    return Raised(name, at - 10_000, at)


def standing() -> Life:
    """Return an alert that has just begun to flap, in episode e1, and was seen by a tick."""
    life, _ = run(
        Life(),
        raised(),
        Returned(EVENT + 1, EVENT),
        raised("e2", EVENT + 2),
        Tick(T0),
        manners=FLAP,
    )
    assert life.standing
    return life


RETURNED: Final = Returned(EVENT + 10, EVENT + 5)
ACK: Final = Acknowledge("nurse", "seen", T0)
AGAIN: Final[list[Given]] = [raised(), RETURNED]
SHELVED: Final = Shelve("nurse", "bath", T0 + 2 * MINUTE, T0)

STATES: Final[dict[str, Callable[[], Life]]] = {
    "none": Life,
    "active": lambda: run(Life(), raised())[0],
    "acknowledged": lambda: run(Life(), raised(), ACK)[0],
    "latched": lambda: run(Life(), raised(), RETURNED)[0],
    "standing": standing,
    "standing quiet": lambda: run(standing(), RETURNED)[0],
    "standing ack": lambda: run(standing(), ACK)[0],
    "standing ack quiet": lambda: run(standing(), ACK, RETURNED)[0],
}


def seen(life: Life) -> str:
    """Return the state's name in ALERTS.md, from the fields."""
    if not life.live:
        return "none"
    acknowledged = life.acknowledged_ms != 0
    if life.standing:
        return f"standing{' ack' if acknowledged else ''}{'' if life.active else ' quiet'}"
    if life.active:
        return "acknowledged" if acknowledged else "active"
    assert not acknowledged
    return "latched"


def with_flags(state: str, *, shelved: bool, suppressed: bool) -> Life:
    """Return a life in a state, with either flag; in state none as left by an earlier episode."""
    life = STATES[state]()
    if suppressed:
        life, _ = run(life, Suppress("cause", T0))
    if shelved and state == "none":
        life, _ = run(life, raised("e0"), SHELVED, Clear("nurse", "moved", T0))
    elif shelved:
        life, _ = run(life, SHELVED)
    assert seen(life) == state
    assert (life.shelved_until_ms != 0, life.suppressed_by != "") == (shelved, suppressed)
    return life


def check(before: Life, after: Life, told: list[Step], cell: str) -> None:
    """Hold one cell against what happened."""
    if cell == "·":
        assert (after, told) == (before, [])
        return
    state, _, steps = cell.partition(": ")
    assert seen(after) == state
    assert names(told) == ([] if steps == "-" else steps.split(", "))
    assert after != before


MAIN: Final[dict[str, tuple[list[Given], Manners]]] = {
    "Raised": ([raised("e3", EVENT + 20)], STILL),
    "Raised, flap_count reached": ([raised("e3", EVENT + 20)], FLAP),
    "Worsened": ([Worsened(EVENT + 20)], STILL),
    "Returned, latching": ([RETURNED], STILL),
    "Returned, not latching": ([RETURNED], REST),
    "Acknowledge": ([Acknowledge("doctor", "there", T0 + 9)], STILL),
    "Clear": ([Clear("doctor", "there", T0 + 9)], STILL),
    "Tick, escalate_ms over": (
        [Tick(T0 + 1), Tick(T0 + 1 + MINUTE)],
        msgspec.structs.replace(STILL, escalate_ms=(MINUTE,)),
    ),
    "Tick, acknowledge_ms over": (
        [Tick(T0 + MINUTE)],
        msgspec.structs.replace(STILL, acknowledge_ms=MINUTE),
    ),
    "Tick, flap_ms over, latching": ([Tick(T0 + 1), Tick(T0 + 1 + CALM_MS)], STILL),
    "Tick, flap_ms over, not latching": ([Tick(T0 + 1), Tick(T0 + 1 + CALM_MS)], REST),
}
LONG: Final = Shelve("nurse", "bath", T0 + 50 * MINUTE, T0)


def test_the_page_names_the_states_and_steps_that_there_are() -> None:
    assert [row["state"] for row in table("States")] == list(STATES)
    assert [row["step"].strip("`") for row in table("Steps")] != []
    assert {row["step"].strip("`") for row in table("Steps")} == set(get_args(StepName))
    limits = {row["limit"].strip("`"): row["value"] for row in table("Limits")}
    assert limits["FLAP_COUNT_MAX"] == f"{FLAP_COUNT_MAX} raises"
    assert limits["SKEW_MS"] == f"{SKEW_MS // 1000} s"
    assert limits["RAISES_KEPT_MS"].startswith(f"{RAISES_KEPT_MS // 3_600_000} h ")
    for row in table("States"):
        life = STATES[row["state"]]()
        assert (life.live, life.active) == (row["episode"] == "yes", "not" not in row["condition"])
        assert life.state == ("" if row["state"] == "none" else row["told as"].strip("`"))
    main = table(CONDITIONS)
    assert [row["input"] for row in main] == list(MAIN)
    assert all(set(STATES) < set(row) for row in main)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "row", table("Conditions, commands and the clock"), ids=lambda r: r["input"]
)
@pytest.mark.parametrize("suppressed", [False, True], ids=["", "suppressed"])
@pytest.mark.parametrize("shelved", [False, True], ids=["", "shelved"])
def test_conditions_commands_and_the_clock_do_what_the_page_says(
    state: str, row: dict[str, str], suppressed: bool, shelved: bool
) -> None:
    *first, given = MAIN[row["input"]][0]
    manners = MAIN[row["input"]][1]
    before = with_flags(state, shelved=False, suppressed=suppressed)
    if shelved:
        before, _ = run(before, *([LONG] if before.live else ()))
        if not before.live:
            before, _ = run(before, raised("e0"), LONG, Clear("nurse", "moved", T0))
    if not before.live and manners is FLAP:
        before = msgspec.structs.replace(before, raises=(EVENT,))
    if state == "latched" and manners is FLAP:
        before = msgspec.structs.replace(before, raises=(EVENT,))
    before, quiet = run(before, *first, manners=manners)
    assert quiet == []
    after, told = run(before, given, manners=manners)
    cell = row[state]
    if "escalated" in cell and (shelved or suppressed):
        cell = "·"
    check(before, after, told, cell)
    assert (after.shelved_until_ms != 0, after.suppressed_by != "") == (shelved, suppressed)
    assert after.audible == (
        seen(after) in ("active", "latched", "standing", "standing quiet")
        and not shelved
        and not suppressed
    )


SHELVING: Final[dict[str, Given]] = {
    "Shelve": SHELVED,
    "Shelve, another end": Shelve("doctor", "scan", T0 + MINUTE, T0 + 9),
    "Shelve, same end": Shelve("doctor", "scan", T0 + 2 * MINUTE, T0 + 9),
    "Shelve, no time left": Shelve("doctor", "scan", T0 + 9, T0 + 9),
    "Unshelve": Unshelve("doctor", "back", T0 + 9),
    "Tick, shelving over": Tick(T0 + 2 * MINUTE),
}
CAUSES: Final[dict[str, Given]] = {
    "Suppress": Suppress("gateway", T0),
    "Suppress, another cause": Suppress("gateway", T0),
    "Suppress, same cause": Suppress("cause", T0),
    "Suppress, by itself": Suppress("e1", T0),
    "Release": Release(T0),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("row", table("Shelving"), ids=lambda r: f"{r['input']}-{r['before']}")
@pytest.mark.parametrize("suppressed", [False, True], ids=["", "suppressed"])
def test_shelving_does_what_the_page_says(
    state: str, row: dict[str, str], suppressed: bool
) -> None:
    before = with_flags(state, shelved=row["before"] == "yes", suppressed=suppressed)
    after, told = run(before, SHELVING[row["input"]])
    check(before, after, told, row[state])
    if row[state] != "·":
        assert (after.shelved_until_ms != 0) == (row["after"] == "yes")
        assert told[-1].life.state == (before.state or "ended")
    assert bool(after.suppressed_by) == suppressed


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("row", table("Root causes"), ids=lambda r: f"{r['input']}-{r['before']}")
@pytest.mark.parametrize("shelved", [False, True], ids=["", "shelved"])
def test_root_causes_do_what_the_page_says(state: str, row: dict[str, str], shelved: bool) -> None:
    before = with_flags(state, shelved=shelved, suppressed=row["before"] == "yes")
    given = CAUSES[row["input"]]
    if row["input"] == "Suppress, by itself":
        given = Suppress(before.episode, T0)
    after, told = run(before, given)
    check(before, after, told, row[state])
    if row[state] != "·":
        assert (after.suppressed_by != "") == (row["after"] == "yes")
    assert (after.shelved_until_ms != 0) == shelved


def test_the_page_s_tables_have_every_input_in_every_state_of_the_flag() -> None:
    assert {row["input"] for row in table("Shelving")} == set(SHELVING)
    assert {row["input"] for row in table("Root causes")} == set(CAUSES)


def test_who_when_and_why_stand_in_every_step() -> None:
    life, told = run(
        Life(),
        raised(),
        Suppress("cause", T0 + 1),
        Release(T0 + 2),
        Shelve("a", "bath", T0 + 9999, T0 + 3),
        Unshelve("b", "back", T0 + 4),
        Acknowledge("c", "seen", T0 + 5),
        Worsened(EVENT + 6),
        Returned(EVENT + 8, EVENT + 7),
    )
    assert [(s.name, s.at_ms, s.who, s.why) for s in told] == [
        ("raised", EVENT, "", "condition"),
        ("suppressed", T0 + 1, "", "cause"),
        ("released", T0 + 2, "", "cause"),
        ("shelved", T0 + 3, "a", "bath"),
        ("unshelved", T0 + 4, "b", "back"),
        ("acknowledged", T0 + 5, "c", "seen"),
        ("worse", EVENT + 6, "", "condition"),
        ("ended", EVENT + 8, "", "condition"),
    ]
    assert [s.life.number for s in told] == list(range(1, 9))
    assert {s.life.episode for s in told} == {"e1"}
    last = told[-1].life
    assert (last.state, last.began_ms, last.ended_ms) == ("ended", EVENT - 10_000, EVENT + 7)
    assert (last.acknowledged_ms, last.acknowledged_by) == (T0 + 5, "c")
    assert (told[3].life.shelved_until_ms, told[3].life.shelved_by) == (T0 + 9999, "a")
    assert told[1].life.suppressed_by == "cause"
    assert life == Life(raises=life.raises)


def test_of_two_users_who_acknowledge_at_once_the_first_stands() -> None:
    life, told = run(Life(), raised(), ACK, Acknowledge("other", "me too", T0))
    assert names(told) == ["raised", "acknowledged"]
    assert (life.acknowledged_by, life.acknowledged_ms) == ("nurse", T0)
    life, told = run(STATES["latched"](), ACK, Acknowledge("other", "me too", T0))
    assert [(s.name, s.who, s.why) for s in told] == [
        ("acknowledged", "nurse", "seen"),
        ("ended", "", "acknowledged"),
    ]
    assert told[-1].life.acknowledged_by == "nurse"


@pytest.mark.parametrize("kind", [Acknowledge, Unshelve, Clear])
@pytest.mark.parametrize("shelved", [False, True])
def test_a_command_without_a_user_or_for_another_episode_does_nothing(
    kind: type[Acknowledge] | type[Unshelve] | type[Clear], shelved: bool
) -> None:
    life = with_flags("active", shelved=shelved, suppressed=False)
    assert advance(life, kind("", "why", T0), STILL) == (life, ())
    assert advance(life, kind("nurse", "why", T0, "e0"), STILL) == (life, ())
    if shelved or kind is not Unshelve:
        assert advance(life, kind("nurse", "why", T0, "e1"), STILL)[1]
    assert advance(life, Shelve("", "why", T0 + 99, T0), STILL) == (life, ())
    assert advance(life, Shelve("nurse", "why", T0 + 99, T0, "e0"), STILL) == (life, ())


def test_a_raise_without_an_id_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"give it the id of lanes\.episode_id"):
        advance(Life(), Raised("", EVENT, EVENT), STILL)


def test_a_shelving_is_cut_to_its_longest() -> None:
    most = BRISK.shelve_ms_max
    for asked, until in [(most - 1, most - 1), (most, most), (most + 1, most), (NEVER - T0, most)]:
        life, _ = run(Life(), raised(), Shelve("nurse", "bath", T0 + asked, T0), manners=BRISK)
        assert life.shelved_until_ms == T0 + until
        assert due_ms(life, BRISK) == T0 + until
    never = msgspec.structs.replace(BRISK, shelve_ms_max=0)
    assert names(run(Life(), raised(), SHELVED, manners=never)[1]) == ["raised"]


def test_a_shorter_limit_shortens_a_shelving_that_runs() -> None:
    life, _ = run(Life(), raised(), SHELVED)
    short = msgspec.structs.replace(STILL, shelve_ms_max=MINUTE)
    assert due_ms(life, short) == T0 + MINUTE
    assert advance(life, Tick(T0 + MINUTE - 1), short) == (life, ())
    assert names(advance(life, Tick(T0 + MINUTE), short)[1]) == ["unshelved"]


def test_the_end_of_a_shelving_rings_again_and_is_told_with_why() -> None:
    life, _ = run(Life(), raised(), ACK, SHELVED)
    after, told = run(life, Tick(T0 + 2 * MINUTE))
    assert [(s.name, s.who, s.why, s.at_ms) for s in told] == [
        ("unshelved", "", "time", T0 + 2 * MINUTE)
    ]
    assert after.audible
    after, told = run(life, Unshelve("doctor", "back", T0 + 9))
    assert (after.acknowledged_by, after.audible) == ("nurse", False)


def test_a_shelved_alert_that_ends_is_told_and_the_next_raise_stays_silent() -> None:
    shelved = Shelve("nurse", "bath", T0 + 4 * MINUTE, T0)
    life, told = run(Life(), raised(), shelved, RETURNED, manners=REST)
    assert names(told) == ["raised", "shelved", "ended"]
    assert (life.state, life.episode) == ("ended", "e1")
    after, told = run(life, raised("e2", EVENT + 99), manners=REST)
    assert names(told) == ["raised"]
    assert (after.episode, after.number, after.audible) == ("e2", 1, False)
    assert (after.shelved_until_ms, after.shelved_by) == (T0 + 4 * MINUTE, "nurse")
    after, told = run(after, Tick(T0 + 4 * MINUTE), manners=REST)
    assert (names(told), after.audible) == (["unshelved"], True)
    after, told = run(life, Tick(T0 + 4 * MINUTE), manners=REST)
    assert [(s.name, s.life.episode, s.life.state, s.life.number) for s in told] == [
        ("unshelved", "e1", "ended", 4)
    ]
    assert after == Life()
    # A command for what has ended means nothing.
    for late in (ACK, Clear("nurse", "x", T0), Shelve("nurse", "x", T0 + 9, T0)):
        assert advance(life, late, REST) == (life, ())


def test_a_latching_alert_that_returns_while_silenced_latches_and_rings_later() -> None:
    life, told = run(Life(), raised(), SHELVED, Suppress("cause", T0), RETURNED)
    assert (names(told)[-1], life.state, life.audible) == ("latched", "latched", False)
    life, _ = run(life, Tick(T0 + 2 * MINUTE))
    assert not life.audible
    life, told = run(life, Release(T0 + 3 * MINUTE))
    assert (names(told), life.audible) == (["released"], True)


def test_a_raise_under_a_root_cause_is_told_as_suppressed_and_rings_on_release() -> None:
    life, told = run(Life(), Suppress("cause", T0), raised())
    assert names(told) == ["raised"]
    assert (told[0].life.suppressed_by, life.audible) == ("cause", False)
    assert run(life, Release(T0))[0].audible
    # Never by itself.
    assert run(Life(), Suppress("e1", T0), raised("e1"))[0].audible


def test_a_latched_alert_ends_only_by_a_user() -> None:
    life = STATES["latched"]()
    for given in (RETURNED, Worsened(T0), Release(T0), Tick(T0 + 10**12), Tick(0)):
        for manners in (STILL, REST, BRISK, *DEFAULTS.values()):
            assert advance(life, given, manners)[0].state == "latched"
    again, told = run(life, raised("e9", EVENT + 99))
    assert [(s.name, s.life.episode, s.life.began_ms) for s in told] == [
        ("raised-again", "e1", EVENT - 10_000)
    ]
    assert (again.state, again.audible, again.latched) == ("active", True, False)


def test_escalation_goes_level_by_level_while_it_rings() -> None:
    life, _ = run(Life(), raised(), manners=BRISK)
    assert due_ms(life, BRISK) == 0
    late = T0 + 20 * MINUTE  # read after an outage: nobody could have answered yet
    life, told = run(life, Tick(late), manners=BRISK)
    assert (told, due_ms(life, BRISK)) == ([], late + MINUTE)
    assert advance(life, Tick(late + MINUTE - 1), BRISK) == (life, ())
    life, told = run(life, Tick(late + MINUTE), manners=BRISK)
    assert [(s.name, s.life.level, s.why) for s in told] == [("escalated", 1, "time")]
    assert due_ms(life, BRISK) == late + 3 * MINUTE
    # An engine that was away does not skip a level.
    life, told = run(life, Tick(late + 60 * MINUTE), manners=BRISK)
    assert (names(told), life.level, due_ms(life, BRISK)) == (["escalated"], 2, NEVER)
    assert advance(life, Tick(late + 10**9), BRISK) == (life, ())


def test_an_answer_stops_escalation_and_the_next_ringing_begins_at_level_0() -> None:
    rings, _ = run(Life(), raised(), Tick(T0), Tick(T0 + MINUTE), manners=BRISK)
    at = T0 + MINUTE
    life, _ = run(rings, Acknowledge("nurse", "seen", at), manners=BRISK)
    assert (life.level, due_ms(life, BRISK)) == (1, at + 10 * MINUTE)
    assert advance(life, Tick(at + 10 * MINUTE - 1), BRISK) == (life, ())
    life, told = run(life, Tick(at + 10 * MINUTE), manners=BRISK)
    assert [(s.name, s.why, s.life.level) for s in told] == [("re-alarmed", "time", 0)]
    assert (life.audible, due_ms(life, BRISK)) == (True, at + 11 * MINUTE)
    life, _ = run(rings, Shelve("n", "w", at + 1000, at), Unshelve("n", "w", at + 1), manners=BRISK)
    assert (life.level, due_ms(life, BRISK)) == (0, 0)
    # A root cause is nobody's answer: the level stays, the wait begins anew.
    life, _ = run(rings, Suppress("cause", at), manners=BRISK)
    assert due_ms(life, BRISK) == NEVER
    life, _ = run(life, Release(at + 99), manners=BRISK)
    assert (life.level, due_ms(life, BRISK)) == (1, 0)
    # A new episode begins at level 0, also when a shelving is all that lasts from the old one.
    quick = msgspec.structs.replace(BRISK, latch=False)
    life, _ = run(rings, Shelve("n", "w", at + 1000, at), RETURNED, manners=quick)
    assert (life.state, life.level) == ("ended", 1)
    assert run(life, raised("e9"), manners=quick)[0].level == 0
    # A return that nobody saw is no answer either.
    life, _ = run(rings, RETURNED, raised("e9", EVENT + 99), manners=BRISK)
    assert (life.level, due_ms(life, BRISK)) == (1, at + 2 * MINUTE)


def test_an_acknowledgement_for_ever_waits_for_nothing() -> None:
    life, _ = run(Life(), raised(), ACK)
    assert due_ms(life, STILL) == NEVER
    assert advance(life, Tick(T0 + 10**12), STILL) == (life, ())


def test_flapping_is_one_episode_that_tells_no_storm_and_rings() -> None:
    life, told = Life(), []
    for n in range(50):
        at = EVENT + n * MINUTE
        life, steps = run(life, raised(f"e{n}", at), Returned(at + 1, at), manners=BRISK)
        told += steps
    assert names(told) == [
        *["raised", "latched", "raised-again", "latched", "raised-again", "flapping"]
    ]
    assert (life.state, life.audible, life.raises) == ("active", True, ())
    assert {s.life.episode for s in told} == {"e0"}
    assert [s.life.number for s in told] == [1, 2, 3, 4, 5, 6]


def test_flapping_of_what_does_not_latch_stands_in_the_running_episode() -> None:
    quick = msgspec.structs.replace(BRISK, latch=False, escalate_ms=())
    life, told = Life(), []
    for n in range(9):
        at = EVENT + n * MINUTE
        life, steps = run(life, raised(f"e{n}", at), Returned(at + 1, at), manners=quick)
        told += steps
    assert [(s.name, s.life.episode) for s in told] == [
        ("raised", "e0"),
        ("ended", "e0"),
        ("raised", "e1"),
        ("ended", "e1"),
        ("raised", "e2"),
        ("flapping", "e2"),
    ]
    assert due_ms(life, quick) == 0
    life, _ = run(life, Tick(T0), manners=quick)
    assert due_ms(life, quick) == T0 + CALM_MS
    assert advance(life, Tick(T0 + CALM_MS - 1), quick) == (life, ())
    life, told = run(life, Tick(T0 + CALM_MS), manners=quick)
    assert [(s.name, s.why, s.life.ended_ms) for s in told] == [("ended", "calm", at)]
    assert life == Life()


def test_a_standing_alert_whose_condition_is_true_waits_for_its_return() -> None:
    life = standing()
    assert due_ms(life, STILL) == NEVER
    life, told = run(life, Tick(T0 + 2 * CALM_MS), RETURNED, manners=STILL)
    assert (told, due_ms(life, STILL)) == ([], T0 + CALM_MS)
    # A raise begins the calm anew.
    life, _ = run(life, raised("e5", EVENT + 99), RETURNED, Tick(T0 + 2 * CALM_MS))
    assert due_ms(life, STILL) == T0 + 3 * CALM_MS


@pytest.mark.parametrize(("apart", "stands"), [(CALM_MS - 1, True), (CALM_MS, False)])
@pytest.mark.parametrize("sign", [1, -1], ids=["forward", "back"])
def test_raises_count_within_flap_ms_whichever_way_event_time_goes(
    apart: int, stands: bool, sign: int
) -> None:
    life, _ = run(
        Life(), raised("e1", EVENT), RETURNED, raised("e2", EVENT + sign * apart), manners=FLAP
    )
    assert life.standing == stands


@pytest.mark.parametrize("count", [-1, 0, 1])
def test_a_flap_count_below_two_is_no_guard(count: int) -> None:
    off = msgspec.structs.replace(STILL, flap_count=count)
    life, _ = run(Life(), *AGAIN * 20, manners=off)
    assert (life.standing, life.raises) == (False, ())


def test_raises_are_remembered_up_to_the_cap() -> None:
    many = msgspec.structs.replace(STILL, flap_count=FLAP_COUNT_MAX + 1, flap_ms=NEVER)
    life, _ = run(Life(), *AGAIN * (FLAP_COUNT_MAX - 1), manners=many)
    assert (len(life.raises), life.standing) == (FLAP_COUNT_MAX - 1, False)
    assert run(life, raised(), manners=many)[0].standing


def test_raises_are_forgotten_a_day_later_and_the_life_is_the_default() -> None:
    life, _ = run(Life(), raised(), RETURNED, manners=DEFAULTS["low"])
    due = EVENT + RAISES_KEPT_MS
    assert due_ms(life, DEFAULTS["low"]) == due
    assert advance(life, Tick(due - 1), DEFAULTS["low"]) == (life, ())
    assert advance(life, Tick(due), DEFAULTS["low"]) == (Life(), ())
    long = msgspec.structs.replace(DEFAULTS["low"], flap_ms=RAISES_KEPT_MS + 5)
    assert due_ms(life, long) == due + 5


def test_clear_ends_the_episode_and_the_next_raise_is_a_new_one_that_rings() -> None:
    life, told = run(standing(), ACK, Clear("doctor", "wrong patient", T0 + 5))
    assert [(s.name, s.who, s.why) for s in told] == [
        ("acknowledged", "nurse", "seen"),
        ("cleared", "doctor", "wrong patient"),
    ]
    assert (told[-1].life.state, told[-1].life.ended_ms, life) == ("ended", T0 + 5, Life())
    life, told = run(life, Returned(T0 + 6, T0 + 6), raised("e9", EVENT + 99), manners=FLAP)
    assert (names(told), life.audible, life.standing) == (["raised"], True, False)
    life, _ = run(Life(), raised(), Clear("doctor", "x", T0), raised("e2"), manners=FLAP)
    assert (life.standing, life.raises) == (False, (EVENT,))
    # What had returned keeps the time of its return.
    _, told = run(STATES["latched"](), Clear("doctor", "x", T0 + 5))
    assert told[0].life.ended_ms == RETURNED.ended_ms


def test_silence_that_lies_ahead_of_the_clock_is_not_believed() -> None:
    for ahead, over in [(SKEW_MS, False), (SKEW_MS + 1, True)]:
        for state, step in [("acknowledged", "re-alarmed"), ("active", "unshelved")]:
            life = with_flags(state, shelved=state == "active", suppressed=False)
            life, told = run(life, Tick(T0 - ahead), manners=BRISK)
            assert [(s.name, s.why) for s in told] == ([(step, CLOCK)] if over else [])
            assert life.audible == over


def test_a_clock_set_back_begins_waits_anew() -> None:
    life, _ = run(Life(), raised(), Tick(T0), Tick(T0 - 10**9), manners=BRISK)
    assert due_ms(life, BRISK) == T0 - 10**9 + MINUTE
    life, _ = run(standing(), RETURNED, Tick(T0 - 10**9))
    assert due_ms(life, STILL) == T0 - 10**9 + CALM_MS


@pytest.mark.parametrize("now", [-(2**62), -1, 0, 1, 2**62])
def test_no_time_is_undefined(now: int) -> None:
    inputs: list[Given] = [
        Raised("e1", now, now),
        Worsened(now),
        Acknowledge("nurse", "seen", now),
        Shelve("nurse", "bath", now + 1000, now),
        Tick(now),
        Returned(now, now),
        Tick(now),
        Raised("e2", now, now),
        Tick(-now),
        Clear("nurse", "x", now),
        Unshelve("nurse", "x", now),
        Tick(now),
    ]
    for order in (inputs, inputs[::-1], inputs[::2] + inputs[1::2]):
        life = Life()
        for given in order:
            life, _ = advance(life, given, BRISK)
            assert 0 <= due_ms(life, BRISK) <= NEVER
            assert min(life.since_ms, life.calm_ms, life.acknowledged_ms, life.shelved_ms) >= 0


def test_the_defaults_latch_high_and_bound_every_silence() -> None:
    assert set(DEFAULTS) == {"high", "medium", "low"}
    assert [DEFAULTS[p].latch for p in ("high", "medium", "low")] == [True, False, False]
    for manners in DEFAULTS.values():
        assert manners.acknowledge_ms > 0
        assert 0 < manners.shelve_ms_max <= manners.acknowledge_ms * 2
        assert 2 <= manners.flap_count <= FLAP_COUNT_MAX
        assert manners.escalate_ms
    by_urgency = [DEFAULTS[p] for p in ("high", "medium", "low")]
    for urgent, less in itertools.pairwise(by_urgency):
        assert urgent.escalate_ms[0] < less.escalate_ms[0]
        assert urgent.acknowledge_ms < less.acknowledge_ms
        assert urgent.shelve_ms_max < less.shelve_ms_max


def test_a_life_is_kept_as_an_array_and_nothing_is_a_few_bytes() -> None:
    def kept(life: Life) -> bytes:
        return msgspec.msgpack.encode(life)

    for life in lives():
        assert msgspec.msgpack.decode(kept(life), type=Life) == life
    assert len(kept(Life())) < 24
    # Written by a version that knew fewer fields.
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(["e1", 3]), type=Life) == Life("e1", 3)


def lives() -> Iterator[Life]:
    for state in STATES:
        for shelved, suppressed in itertools.product((False, True), repeat=2):
            yield with_flags(state, shelved=shelved, suppressed=suppressed)


def test_every_word_of_why_stands_on_the_page() -> None:
    for word in ("CONDITION", "TIME", "CLOCK", "CALM", "CAUSE", "ANSWERED"):
        assert re.search(f"`{getattr(machine, word)}`", PAGE)

"""Events into alarms, alarms into episodes, episodes of two policies compared."""

from hypothesis import given
from hypothesis import strategies as st

from cloud.records import AlertEvent
from cloud.whatif.episodes import Alarm, Change, Episode, alarms_of, episodes_of, matched
from cloud.whatif.replay import Told
from cloud.whatif.report import BURST_MS, burst, quantile

END_MS = 1_000_000


def told(
    step: str, at_s: float, rule: str = "spo2.low.high", *, began_s: float = 0, **more: object
) -> Told:
    fields = {
        "episode": "e" * 32,
        "subject": "s" * 32,
        "kind": "threshold",
        "vital": "spo2",
        "priority": rule.rpartition(".")[2] if rule.count(".") == 2 else "low",
        "state": "active",
        "text": "",
        "limit": 90.0,
        "worst": 80.0,
        "began_ms": 0,
        "raised_ms": 0,
        "at_ms": round(at_s * 1000),
        "policy": "test",
        "rule": rule,
        "step": step,
    }
    return Told(AlertEvent(**(fields | more)), round(began_s * 1000))  # type: ignore[arg-type]


def seconds(alarms: list[Alarm]) -> list[tuple[str, float, float, float]]:
    return [
        (one.rule, one.began_ms / 1000, one.rings_ms / 1000, one.until_ms / 1000) for one in alarms
    ]


def test_an_alarm_lasts_from_its_raise_to_its_end() -> None:
    found = alarms_of(
        [told("raised", 20, began_s=10), told("worse", 25), told("ended", 40)], END_MS
    )
    assert seconds(found.alarms) == [("spo2.low.high", 10, 20, 40)]


def test_a_latched_alarm_that_is_true_again_sounds_again() -> None:
    steps = [
        told("raised", 20, began_s=10),
        told("latched", 40),
        told("escalated", 60),
        told("raised-again", 80, began_s=70),
        told("latched", 90),
    ]
    found = alarms_of(steps, END_MS)
    assert seconds(found.alarms) == [
        ("spo2.low.high", 10, 20, 40),
        ("spo2.low.high", 70, 80, 90),
    ]


def test_what_does_not_end_lasts_to_the_end_of_the_data() -> None:
    found = alarms_of([told("raised", 20, began_s=10)], END_MS)
    assert seconds(found.alarms) == [("spo2.low.high", 10, 20, END_MS / 1000)]


def test_a_flapping_alert_is_one_alarm_from_then_on() -> None:
    steps = [told("raised", 20), told("flapping", 20), told("latched", 900)]
    found = alarms_of(steps, END_MS)
    assert len(found.alarms) == found.flapping == 1


def test_what_a_more_urgent_alert_explains_does_not_ring() -> None:
    mild = "spo2.low.medium"
    steps = [told("raised", 20, mild, suppressed_by="x"), told("ended", 40, mild)]
    found = alarms_of(steps, END_MS)
    assert (found.alarms, found.explained) == ([], 1)


def test_what_is_released_while_it_is_true_rings_from_then_on() -> None:
    mild = "spo2.low.medium"
    steps = [
        told("raised", 20, mild, began_s=10, suppressed_by="x"),
        told("released", 30, mild),
        told("ended", 40, mild),
    ]
    found = alarms_of(steps, END_MS)
    assert seconds(found.alarms) == [(mild, 10, 30, 40)]
    assert found.explained == 0


def test_late_data_rings_nothing_and_is_counted_by_episode() -> None:
    steps = [
        told("", 20, retrospective=True, episode="a"),
        told("", 30, retrospective=True, episode="a"),
        told("", 30, retrospective=True, episode="b"),
    ]
    found = alarms_of(steps, END_MS)
    assert (found.alarms, found.retrospective) == ([], 2)


def test_the_two_limits_of_a_side_are_one_episode_and_its_first_sound_counts() -> None:
    steps = [
        told("raised", 20, "spo2.low.medium", began_s=10),
        told("raised", 30, "spo2.low.high", began_s=25),
        told("latched", 40, "spo2.low.high"),
        told("ended", 50, "spo2.low.medium"),
    ]
    alarms = alarms_of(steps, END_MS).alarms
    assert len(alarms) == 2
    assert episodes_of(alarms) == [Episode("spo2.low", 10_000, 20_000, 50_000, "high")]


def test_alarms_that_touch_are_one_episode() -> None:
    steps = [told("raised", 20, began_s=10), told("latched", 40)]
    steps += [told("raised-again", 50, began_s=40), told("latched", 60)]
    alarms = alarms_of(steps, END_MS).alarms
    assert episodes_of(alarms) == [Episode("spo2.low", 10_000, 20_000, 60_000, "high")]


def test_other_vitals_directions_channels_and_detectors_are_episodes_of_their_own() -> None:
    steps = [
        told("raised", 20, rule)
        for rule in ("spo2.low.high", "heart_rate.low.high", "heart_rate.high.high")
    ]
    steps += [told("raised", 20, channel=1), told("raised", 20, "spo2.signal")]
    steps += [told("raised", 20, "spo2.falling"), told("raised", 20, "device.silence@aaaaaaaa")]
    found = [one.family for one in episodes_of(alarms_of(steps, END_MS).alarms)]
    assert sorted(found) == [
        "device.silence@aaaaaaaa",
        "heart_rate.high",
        "heart_rate.low",
        "spo2.falling",
        "spo2.low",
        "spo2.low#1",
        "spo2.signal",
    ]


def episode(began: int, rings: int, until: int, priority: str = "high") -> Episode:
    return Episode("spo2.low", began, rings, until, priority)


def test_episodes_that_overlap_belong_together_and_touching_is_overlap() -> None:
    was, now = episode(10, 20, 40), episode(40, 50, 60)
    assert matched([was], [now]) == [Change("spo2.low", was, now)]
    assert matched([was], [now])[0].lead_ms == -30
    apart = episode(41, 50, 60)
    assert matched([was], [apart]) == [
        Change("spo2.low", was, None),
        Change("spo2.low", None, apart),
    ]


def test_several_episodes_that_are_one_under_the_other_policy_are_none_of_them_lost() -> None:
    was = [episode(10, 20, 30, "medium"), episode(40, 50, 60)]
    now = [episode(5, 15, 70, "medium")]
    (change,) = matched(was, now)
    assert change.baseline == episode(10, 20, 60)
    assert change.lead_ms == 5


_EPISODES = st.lists(
    st.tuples(st.sampled_from(["a.low", "b.low"]), st.integers(0, 60), st.integers(0, 20)).map(
        lambda one: Episode(one[0], one[1], one[1] + one[2] // 2, one[1] + one[2], "high")
    ),
    max_size=12,
)


@given(_EPISODES, _EPISODES)
def test_swapping_the_policies_swaps_the_sides_and_nothing_else(
    was: list[Episode], now: list[Episode]
) -> None:
    there, back = matched(was, now), matched(now, was)
    assert [(one.family, one.baseline, one.new) for one in there] == [
        (one.family, one.new, one.baseline) for one in back
    ]
    assert sum(one.lead_ms or 0 for one in there) == -sum(one.lead_ms or 0 for one in back)


@given(_EPISODES)
def test_nothing_changes_against_itself(was: list[Episode]) -> None:
    assert all(one.baseline == one.new and one.lead_ms == 0 for one in matched(was, was))


def test_a_burst_is_what_lies_within_less_than_ten_minutes() -> None:
    assert burst([]) == 0
    assert burst([0, BURST_MS]) == 1
    assert burst([BURST_MS - 1, 0]) == 2
    assert burst([0, 1, 2, BURST_MS + 1, BURST_MS + 2]) == 3


def test_a_quantile_is_one_of_the_numbers() -> None:
    assert quantile([], 0.5) is None
    assert quantile([1.0], 0.9) == 1.0
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0
    assert quantile([float(n) for n in range(1, 11)], 0.9) == 9.0
    assert quantile([1.0, 2.0], 0.5) == 1.0

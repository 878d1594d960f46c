"""A message sent again gets the same answer and makes no second reading, once the first is kept."""

from edge import hl7_repeat
from edge.admission import Admission, Caller
from edge.entry import Entry
from edge.hl7_repeat import AGE_MS_MAX, ENTRIES_MAX, SENDER_MAX, Repeats, digest, sender
from edge.hl7_talk import Hl7Talk
from edge.mllp import block
from edge.refusal import Reason
from edge.setting import Setting
from tests.edge.hl7_messages import (
    ADDRESS,
    GOOD,
    NOW,
    codes,
    message,
    obx,
    sample,
    setting,
)

ONE = message(*GOOD, msh="|MSG1|P|2.6|||AL|AL")
OTHER = ONE.replace(b"|78|", b"|79|")


def _sent(raw: bytes, under: Setting, at: int = NOW, address: str = ADDRESS) -> Entry:
    """Send on a connection of its own, as after a lost one."""
    (entry,) = Hl7Talk(Caller(address), under).receive(block(raw), at)
    return entry


def _answer(entry: Entry, failure: Reason | None = None) -> bytes:
    assert entry.answer is not None
    return entry.answer(failure)


def test_a_repeat_gets_the_same_bytes_and_makes_nothing() -> None:
    under = setting()
    first = _sent(ONE, under)
    said = _answer(first)
    assert said.count(b"MSA|CA|MSG1") == said.count(b"MSA|AA|MSG1") == 1
    for later in (1, 30_000, AGE_MS_MAX):
        again = _sent(ONE, under, NOW + later)
        assert (again.source, again.readings, again.rejected) == (None, (), ())
        assert (again.message, again.turned_away) == (True, False)
        assert _answer(again) == said
    assert _answer(_sent(ONE, under), Reason.SPOOL_FAILED) == said, "the first one is durable"


def test_a_repeat_on_the_same_connection_is_one_too() -> None:
    under = setting()
    one = Hl7Talk(Caller(ADDRESS), under)
    (first,) = one.receive(block(ONE), NOW)
    _answer(first)
    (again,) = one.receive(block(ONE), NOW)
    assert again.readings == ()


def test_a_repeat_is_not_answered_before_the_first_is_durable() -> None:
    under = setting()
    first = _sent(ONE, under)
    again = _sent(ONE, under)
    assert again.readings == ()
    said = _answer(first)  # in the order of submission, as the committer releases them
    assert _answer(again) == said


def test_a_repeat_whose_first_was_lost_asks_for_another_and_that_is_new() -> None:
    under = setting()
    first, again = _sent(ONE, under), _sent(ONE, under)
    assert b"MSA|CE|MSG1" in _answer(first, Reason.SPOOL_FULL)
    assert b"MSA|CE|MSG1" in _answer(again, None)
    third = _sent(ONE, under)
    assert [r.value for r in third.readings] == [78]
    assert b"MSA|CA|MSG1" in _answer(third)


def test_a_repeat_released_before_its_first_promises_nothing() -> None:
    under = setting()
    first, again = _sent(ONE, under), _sent(ONE, under)
    assert b"MSA|CE|MSG1" in _answer(again)
    assert b"MSA|CA|MSG1" in _answer(first)


def test_what_the_disk_refused_is_new_when_it_comes_again() -> None:
    under = setting()
    _answer(_sent(ONE, under), Reason.SPOOL_FAILED)
    assert len(under.repeats) == 0
    assert len(_sent(ONE, under).readings) == 1


def test_the_same_control_id_with_other_content_is_a_conflict_and_kept() -> None:
    under = setting()
    first = _sent(ONE, under)
    for before in (None, Reason.SPOOL_FULL):  # whether or not the first is durable yet
        conflict = _sent(OTHER, under)
        assert conflict.readings == ()
        (reject,) = conflict.rejected
        assert (reject.reason, reject.field, reject.raw) == ("hl7-repeat-conflict", "MSH-10", OTHER)
        assert reject.device == f"AA/{ADDRESS}"
        assert codes(conflict) == ["CE|MSG1", "AE|MSG1"]
        if before is None:
            _answer(first)
    assert _sent(ONE, under).rejected == (), "the first stays what it was"


def test_content_is_every_byte_the_time_of_the_message_too() -> None:
    under = setting()
    _answer(_sent(ONE, under))
    moved = ONE.replace(b"Fac|||20261123100000", b"Fac|||20261123100001")
    assert _sent(moved, under).rejected[0].reason == "hl7-repeat-conflict"


def test_another_sender_may_use_the_same_control_id() -> None:
    under = setting()
    _answer(_sent(ONE, under))
    for raw, address in (
        (ONE, "10.0.0.10"),
        (ONE.replace(b"Mon^AA", b"Mon^AB"), ADDRESS),
        (ONE.replace(b"|Fac|", b"|Fax|"), ADDRESS),
        (ONE.replace(b"MSG1", b"MSG2"), ADDRESS),
    ):
        assert len(_sent(raw, under, address=address).readings) == 1


def test_parts_of_a_senders_name_are_not_run_together() -> None:
    assert sender("a", "b", "c") != sender("ab", "", "c")
    assert sender("a", "b", "") != sender("a", "", "b")
    assert len(sender("a" * 1000, "b", "c")) == len(digest(b"")) == 16


def test_a_refusal_is_not_remembered_so_that_a_mended_sender_is_taken() -> None:
    under = setting()
    bad = message(*GOOD[:2], obx("1^X^L", "1"), msh="|MSG1|P|2.6")
    for _ in range(2):
        assert _sent(bad, under).rejected[0].reason == "hl7-no-reading"
    assert len(_sent(ONE, under).readings) == 1


def test_a_stranger_that_was_listed_since_is_taken() -> None:
    under = setting(admission=Admission("quarantine", [], ("other",)))
    stranger = Caller(ADDRESS, welcome=False)
    (entry,) = Hl7Talk(stranger, under).receive(block(ONE), NOW)
    assert entry.rejected[0].reason == "unknown-device"
    under.admission = Admission("quarantine", [], ("AA/*",))
    (entry,) = Hl7Talk(stranger, under).receive(block(ONE), NOW)
    assert len(entry.readings) == 1


def test_a_conflict_of_a_watchdog_is_a_conflict_too() -> None:
    under = setting()
    watchdog = sample("draeger-watchdog.hl7")
    for theirs, ours in (
        (b"|0000000000000001^EUI-64|IHE_AR|", b"|Mon^AA^EUI-64|Fac|"),
        (b"1f0e1c7a-0000-4000-8000-000000000002", b"MSG1"),
    ):
        watchdog = watchdog.replace(theirs, ours)
    _answer(_sent(ONE, under))
    assert _sent(watchdog, under).rejected[0].reason == "hl7-repeat-conflict"


def test_a_repeat_is_new_after_some_minutes_however_often_it_came() -> None:
    under = setting()
    _answer(_sent(ONE, under))
    for at in range(0, AGE_MS_MAX + 1, AGE_MS_MAX // 4):
        assert _sent(ONE, under, NOW + at).readings == ()
    later = _sent(ONE, under, NOW + AGE_MS_MAX + 1)
    assert len(later.readings) == 1
    _answer(later)
    back = _sent(ONE, under, NOW - 1)  # the gateway's clock was set back
    assert len(back.readings) == 1


def test_a_restart_forgets_and_says_so() -> None:
    _answer(_sent(ONE, setting()))
    assert len(_sent(ONE, setting()).readings) == 1
    assert "memory only" in (hl7_repeat.__doc__ or "")


# -- bounds -------------------------------------------------------------------------------------


def test_one_sender_is_remembered_for_its_last_messages_only() -> None:
    repeats = Repeats()
    for number in range(SENDER_MAX + 1):
        repeats.begin(b"s", str(number), b"x", NOW, number)
    assert len(repeats) == SENDER_MAX
    assert repeats.find(b"s", "0", NOW) is None
    kept = repeats.find(b"s", "1", NOW)
    assert kept is not None
    assert (kept.number, kept.received_ms, kept.digest) == (1, NOW, b"x")


def test_all_senders_together_are_bounded_the_least_recent_first() -> None:
    repeats = Repeats()
    for number in range(ENTRIES_MAX):
        repeats.begin(b"%d" % number, "1", b"x", NOW, number)
    repeats.begin(b"0", "2", b"x", NOW, 0)  # the first one speaks again
    assert len(repeats) == ENTRIES_MAX
    assert repeats.find(b"0", "1", NOW) is not None
    assert repeats.find(b"1", "1", NOW) is None
    assert repeats.find(b"2", "1", NOW) is not None


def test_a_message_kept_anew_stands_in_the_place_of_the_old() -> None:
    repeats = Repeats()
    old = repeats.begin(b"s", "1", b"x", NOW, 1)
    new = repeats.begin(b"s", "1", b"y", NOW, 2)
    assert len(repeats) == 1
    repeats.forget(old)
    assert repeats.find(b"s", "1", NOW) is new
    repeats.forget(new)
    repeats.forget(new)
    assert (len(repeats), repeats.find(b"s", "1", NOW)) == (0, None)


def test_what_is_too_old_is_dropped_when_it_is_asked_for() -> None:
    repeats = Repeats()
    repeats.begin(b"s", "1", b"x", NOW, 1)
    assert repeats.find(b"s", "1", NOW + AGE_MS_MAX) is not None
    assert repeats.find(b"s", "1", NOW + AGE_MS_MAX + 1) is None
    assert len(repeats) == 0


def test_senders_of_whom_nothing_is_left_are_forgotten_and_no_others() -> None:
    repeats = Repeats()
    repeats.forget(repeats.begin(b"gone", "1", b"x", NOW, 1))
    kept = repeats.begin(b"s", "1", b"x", NOW, 1)
    repeats.forget(repeats.begin(b"s", "2", b"x", NOW, 2))
    assert repeats.find(b"s", "1", NOW) is kept
    for number in range(ENTRIES_MAX + 1):
        repeats.begin(b"%d" % number, "1", b"x", NOW, number)
    assert len(repeats) == ENTRIES_MAX

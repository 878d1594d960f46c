"""What a bed remembers: nothing unanswered is lost or shifted, and nothing grows for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.ledger import WINDOW_LINES, Ledger


def sent(ledger: Ledger) -> list[str]:
    taken = []
    while (line := ledger.take()) is not None:
        taken.append(line)
    return taken


def test_replies_answer_lines_in_their_order() -> None:
    ledger = Ledger(replies=True)
    for name in "abc":
        ledger.add(name)
    assert sent(ledger) == ["a", "b", "c"]
    ledger.heard(b"ok\nrejected unknown-field: no such")
    assert (ledger.acked, ledger.rejected, len(ledger)) == (1, 0, 2)
    ledger.heard(b" field\n")
    assert (ledger.acked, ledger.rejected, len(ledger)) == (1, 1, 1)


def test_a_lost_connection_sends_the_unanswered_again_first_and_in_order() -> None:
    ledger = Ledger(replies=True)
    for name in "abcd":
        ledger.add(name)
    assert [ledger.take(), ledger.take(), ledger.take()] == ["a", "b", "c"]
    ledger.heard(b"ok\nrej")
    ledger.disconnected()
    ledger.connected()
    assert sent(ledger) == ["b", "c", "d"]
    ledger.heard(b"ok\nok\nok\n")
    assert (ledger.acked, ledger.sent, ledger.made, len(ledger)) == (4, 6, 4, 0)


def test_without_replies_a_line_is_gone_when_handed_over() -> None:
    ledger = Ledger(replies=False)
    ledger.add("a")
    assert sent(ledger) == ["a"]
    assert len(ledger) == 0
    ledger.heard(b"welcome\n")
    assert (ledger.acked, ledger.strays) == (0, 1)


def test_without_replies_what_was_made_while_unconnected_is_lost_and_counted() -> None:
    ledger = Ledger(replies=False)
    ledger.disconnected()
    ledger.add("a")
    ledger.add("b")
    ledger.connected()
    assert sent(ledger) == []
    assert ledger.dropped == 2


def test_no_more_than_a_window_awaits_replies() -> None:
    ledger = Ledger(replies=True)
    for number in range(WINDOW_LINES + 5):
        ledger.add(str(number))
    assert len(sent(ledger)) == WINDOW_LINES
    ledger.heard(b"ok\n" * 3)
    assert sent(ledger) == [str(WINDOW_LINES + at) for at in range(3)]


def test_what_is_no_reply_is_counted_and_answers_nothing() -> None:
    ledger = Ledger(replies=True)
    ledger.heard(b"ok\n")
    ledger.add("a")
    ledger.take()
    ledger.heard(b"okay\n\nbusy, try later\n")
    assert (ledger.strays, ledger.acked, len(ledger)) == (4, 0, 1)


def test_a_ledger_smaller_than_its_window_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="window"):
        Ledger(replies=True, lines_max=WINDOW_LINES)


@given(st.lists(st.sampled_from("amtdo"), max_size=400))
def test_every_line_is_answered_dropped_or_held(steps: list[str]) -> None:
    ledger, on_the_wire = Ledger(replies=True, lines_max=WINDOW_LINES + 3), 0
    for step in steps:
        if step == "a":
            ledger.add("x")
        elif step == "m":
            for _ in range(100):
                ledger.add("x")
        elif step == "t":
            on_the_wire += ledger.take() is not None
        elif step == "d":
            ledger.disconnected()
            on_the_wire = 0
        elif on_the_wire:
            ledger.heard(b"ok\n")
            on_the_wire -= 1
        assert ledger.made == ledger.acked + ledger.dropped + len(ledger)
        assert len(ledger) <= WINDOW_LINES + 3
        assert ledger.strays == 0

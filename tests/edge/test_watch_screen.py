"""The table is right cell by cell, and nothing a device says steers the terminal."""

import re
from typing import Any

import pytest

from edge.cells import cells, fit, paint, safe
from edge.complaint import Code, Complaint
from edge.watch_screen import INLINE_WIDTH, Screen, View, age, render
from tests.edge.gateway import NOW

VITALS = [
    {"vital": "heart_rate", "short": "HR", "site": "", "channel": 0, "age_s": 1.2, "status": "ok"},
    {"vital": "spo2", "short": "SpO2", "site": "", "channel": 1, "age_s": 95, "status": "missing"},
]


def _row(name: str, state: str = "ok", **changes: Any) -> dict[str, Any]:
    return {
        "device": name,
        "bed": "12",
        "identified": True,
        "via": "line 10.0.0.7",
        "state": state,
        "rate_per_min": 60.0,
        "inputs": 9,
        "seen_s": 1.0,
        "skew_ms": None,
        "rejects": {},
        "vitals": VITALS,
    } | changes


def _snapshot(*rows: dict[str, Any], **counts: int) -> dict[str, Any]:
    states = dict.fromkeys(("ok", "clock", "late", "silent", "refused"), 0)
    for row in rows:
        states[row["state"]] += 1
    return {
        "at_ms": NOW,
        "status": {
            "version": "0.1.0",
            "uptime_s": 7500.0,
            "live": {"link_up": 1.0, "clock_offset_ms": 12.0, "connections": 5.0},
        },
        "counts": {"remembered": 9, "heard": len(rows), "rate_per_min": 62} | states | counts,
        "rows": list(rows),
    }


def _view(*rows: dict[str, Any], **changes: Any) -> View:
    return View("ward-1", _snapshot(*rows), "ok", [], NOW)._replace(**changes)


def _text(screen: Screen, width: int) -> list[str]:
    return [paint(line, width, colour=False) for line in screen.lines]


def _lines(view: View, width: int = 80, height: int | None = 24) -> list[str]:
    return _text(render(view, width, height), width)


MANY = [_row(f"m-{at:02}") for at in range(40)]


def test_a_screen_of_80_by_24() -> None:
    worst = _row(
        "N1-4412",
        "refused",
        rate_per_min=0.0,
        seen_s=41.0,
        rejects={"bad-unit": 12, "binary": 1},
    )
    view = _view(worst, _row("RS9-0031", "clock", skew_ms=-31_000), state="degraded")
    lines = _lines(view._replace(wrong=[Complaint(Code.BACKLOG, "the oldest waits", "look")]))
    assert lines[:9] == [
        "ward-1  0.1.0  up 2 h  link up  clock +12 ms              10:00:00 UTC  DEGRADED",
        "2 devices: 1 clock 1 refused | 62/min on 5 connections | spool 0 frames",
        "! the oldest waits  [backlog]",
        "",
        "STATE   DEVICE           BED    VIA              /MIN  SEEN  CLOCK REFUSED",
        "REFUSED N1-4412          12     line 10.0.0.7       0   41s        12 bad-unit ~",
        "        HR 1s  SpO2#1 missing 2m",
        "CLOCK   RS9-0031         12     line 10.0.0.7      60    1s   +31s",
        "        HR 1s  SpO2#1 missing 2m",
    ]
    assert lines[23].startswith("1-2 of 2  values hidden  | q quit")
    assert len(lines) == 24


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 189, 190, 250])
@pytest.mark.parametrize("height", [5, 12, 24, 60])
def test_it_fits_every_window(width: int, height: int) -> None:
    view = _view(*MANY, _row("心電計" * 20, "refused", rejects={"x" * 40: 10**9}), top=3)
    for vitals in (None, True, False):
        screen = render(view._replace(vitals=vitals), width, height)
        lines = _text(screen, width)
        assert all(cells(line) <= width for line in lines)
        if height >= 12:
            assert len(lines) == height


def test_a_wide_window_has_vital_signs_beside_the_device() -> None:
    lines = _lines(_view(_row("m-1")), INLINE_WIDTH)
    [titles] = [line for line in lines if line.startswith("STATE")]
    [row] = [line for line in lines if line.startswith("ok")]
    assert titles.index("VITAL SIGNS, AGE") == row.index("HR 1s  SpO2#1 missing 2m")
    without = _lines(_view(_row("m-1"), vitals=False), INLINE_WIDTH)
    assert not [line for line in without if "VITAL" in line or "HR 1s" in line]


def test_vital_signs_are_shown_where_there_is_room_or_when_asked_for() -> None:
    few, many = _view(*MANY[:8]), _view(*MANY[:9])
    assert render(few, 80, 22).vitals
    assert not render(many, 80, 22).vitals
    assert render(many._replace(vitals=True), 80, 22).vitals
    assert not render(few._replace(vitals=False), 80, 22).vitals


def test_the_table_scrolls_to_its_end_and_no_further() -> None:
    view = _view(*MANY, top=1000)
    screen = render(view, 80, 24)
    assert screen.top + screen.page == 40
    lines = _text(screen, 80)
    assert lines[-2].startswith("ok      m-39")
    assert lines[-1].startswith(f"{screen.top + 1}-40 of 40")
    first = render(view._replace(top=-5), 80, 24)
    assert first.top == 0
    assert [line for line in _text(first, 80) if "m-00" in line]


def test_devices_beyond_the_rows_are_counted() -> None:
    snapshot = _snapshot(*MANY, ok=900)
    lines = _lines(View("ward-1", snapshot, "ok", [], NOW))
    assert "1-19 of 900" in lines[-1]
    assert lines[1].startswith("900 devices: 900 ok")
    assert "40 of 900 devices" in _lines(View("ward-1", snapshot, "ok", [], NOW), 80, None)[-1]


def test_a_gateway_that_has_gone_leaves_no_old_row() -> None:
    view = _view(_row("m-1"), snapshot=None, state="failed", trouble="no control socket")
    lines = _lines(view)
    assert not [line for line in lines if "m-1" in line]
    assert [line for line in lines if "NO DATA: no control socket" in line]
    assert "FAILED" in lines[0]


def test_no_device_is_said_in_words() -> None:
    assert [line for line in _lines(_view()) if "no device has been heard" in line]


def test_complaints_beyond_three_are_counted() -> None:
    wrong = [Complaint(Code.BACKLOG, f"thing {at}", "look") for at in range(5)]
    lines = _lines(_view(_row("m-1"), wrong=wrong))
    assert [line for line in lines if line.startswith("! thing")] == [
        f"! thing {at}  [backlog]" for at in range(3)
    ]
    assert "! and 2 more: healthsync edge status" in lines


def test_a_link_that_is_down_is_said_and_its_clock_is_not() -> None:
    view = _view(_row("m-1"))
    assert view.snapshot is not None
    view.snapshot["status"]["live"] = {"link_up": 0.0, "clock_offset_ms": 5.0}
    assert "link DOWN" in _lines(view)[0]
    assert "clock" not in _lines(view)[0]


def test_paused_and_revealed_are_said() -> None:
    last = _lines(_view(_row("m-1"), paused=True, revealed=True))[-1]
    assert last.startswith("PAUSED  1-1 of 1  VALUES SHOWN, LOGGED")


def test_values_are_shown_when_they_are_there() -> None:
    vitals = [VITALS[0] | {"value": 78.0, "unit": "/min"}, VITALS[1] | {"value": None, "unit": "%"}]
    lines = _lines(_view(_row("m-1", vitals=vitals)))
    assert "        HR 78 1s  SpO2#1 missing 2m" in lines


def test_without_any_address_the_column_goes_to_names() -> None:
    long = "a-device-with-a-long-name-42"
    lines = _lines(_view(_row(long, via="")))
    assert not [line for line in lines if "VIA" in line]
    assert [line for line in lines if long[:23] in line]


@pytest.mark.parametrize(
    ("skew_ms", "shown"),
    [
        *((None, ""), (0, "0s"), (400, "0s"), (31_000, "-31s"), (-31_000, "+31s")),
        *((-7_200_000, "+2h"), (10**11, "-999d")),
    ],
)
def test_a_clock_is_shown_as_its_device_shows_it(skew_ms: int | None, shown: str) -> None:
    [row] = [one for one in _lines(_view(_row("m-1", skew_ms=skew_ms))) if one.startswith("ok")]
    assert row[60:67].strip() == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0s"), (59.4, "59s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h")),
        *((172_799, "47h"), (172_800, "2d"), (10**9, "999d")),
    ],
)
def test_an_age_has_at_most_four_cells(seconds: float, text: str) -> None:
    assert age(seconds) == text


# -- text on a terminal ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("bed-12", "bed-12"),
        ("a\x1b[2Jb", "a·[2Jb"),
        ("a\x9b2Jb", "a·2Jb"),
        ("a\r\n\tb\x7f", "a···b·"),
        ("a\u202eb\u200bc\u2028d\ud800e\ue000f", "a·b·c·d·e·f"),
        ("Zoë 心", "Zoë 心"),
    ],
)
def test_what_a_device_says_never_steers_the_terminal(said: str, shown: str) -> None:
    assert safe(said) == shown
    assert fit(said, 20).rstrip() == shown
    assert paint([(said, "red")], 80, colour=False) == shown


def test_a_hostile_name_reaches_the_screen_as_dots() -> None:
    row = _row("\x1b]0;x\x07\x1b[31m", bed="\x1b[2J", via="\x1b[H", rejects={"\x1b[m": 1})
    for line in render(_view(row), 80, 24).lines:
        assert "\x1b" not in re.sub(r"\x1b\[[0-9;]*m", "", paint(line, 80, colour=True))


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        *(("abc", 3, "abc"), ("abcd", 3, "ab~"), ("abc", 5, "abc  "), ("abc", 0, "")),
        *(("心電計", 6, "心電計"), ("心電計", 5, "心電~"), ("心電計", 4, "心~ ")),
        *(("e\u0301e\u0301", 2, "e\u0301e\u0301"), ("abc", 1, "~"), ("a\u20dd", 1, "a\u20dd")),
    ],
)
def test_a_text_takes_exactly_its_cells(text: str, width: int, shown: str) -> None:
    assert fit(text, width) == shown
    assert cells(shown) == width


def test_text_to_the_right_is_padded_on_the_left() -> None:
    assert fit("7", 3, right=True) == "  7"


def test_colour_is_added_and_never_the_only_sign() -> None:
    assert paint([("SILENT", "red"), ("  ", "bold"), ("x", "")], 80, colour=True) == (
        "\x1b[1;31mSILENT\x1b[0m  x"
    )
    for state in ("clock", "late", "silent", "refused"):
        assert [line for line in _lines(_view(_row("m-1", state))) if state.upper() in line]


def test_a_line_is_cut_at_its_width_across_its_parts() -> None:
    assert paint([("abc", ""), ("def", "red"), ("ghi", "")], 4, colour=False) == "abcd"

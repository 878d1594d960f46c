"""Every complaint is true, says its next step, and is gone when its cause is."""

import io
from collections.abc import Callable
from typing import Any

import pytest

from edge import certificate, complaint, status_screen
from edge.complaint import Code, judge
from healthsync.runtime.exits import Exit
from tests.edge.gateway import NOW

Change = Callable[[dict[str, Any]], None]


def _picture() -> dict[str, Any]:
    return {
        "edge": "ward-1",
        "at_ms": NOW,
        "live": {"link_up": 1.0, "clock_offset_ms": 12.0, "sessions_total": 1.0},
        "rejects": {"bad-unit": 3.0},
        "unanswered": "no control socket",
        "program": {
            "version": "0.1.0",
            "started_ms": NOW - 7_500_000,
            "uptime_s": 7500.0,
            "commit_stuck_s": 0.0,
            "devices": {
                **dict.fromkeys(("clock", "late", "silent", "refused"), 0),
                "heard": 2,
                "ok": 2,
            },
            "recent": {"seconds": 60.0, "rejects": {}, "lines_total": 120, "messages_total": 0},
            "reload": {"error": "", "restart_needed": []},
            "late": {"frames": 0, "eta_s": None, "withheld_epochs": 0},
            "settings": {"version": 0, "on_trial": False, "trouble": ""},
            "clock": {"correction_ms": 0},
        },
        "spool": {
            "frames": 5,
            "bytes": 960,
            "bytes_max": 1000,
            "quarantine_bytes_max": 200,
            "oldest_s": 0.4,
            "lanes": {"quarantine": {"frames": 2, "bytes": 160}},
            "totals": {"rejects_spooled": 5, "rejects_acked": 2},
            "aside": [],
        },
        "disk": {"free_bytes": 50, "total_bytes": 1000},
        "certificate": {"ends_ms": NOW + 7 * certificate.DAY_MS, "days_left": 7.0, "begun": True},
    }


def _set(*path: str, to: object) -> Change:
    def change(picture: dict[str, Any]) -> None:
        at = picture
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = to

    return change


def _kept(state: str, left_share: float = 0.5, trouble: str = "") -> Change:
    """Return a certificate that the gateway renews itself; a few days are no reason by then."""

    def change(picture: dict[str, Any]) -> None:
        picture["certificate"] = {
            "ends_ms": NOW + int(30 * left_share * certificate.DAY_MS),
            "days_left": 30 * left_share,
            "begun": True,
            "subject": "ward-1",
            "serial": "0AB1",
            "left_share": left_share,
            "renewal": {
                "state": state,
                "trouble": trouble,
                "told": True,
                "proven": True,
                "fingerprint": "f00d",
            },
        }

    return change


def test_all_in_order_is_in_order() -> None:
    assert judge(_picture()) == (Exit.OK, [])


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (Code.LINK_DOWN, _set("live", "link_up", to=0.0)),
        (Code.LINK_DOWN, _set("live", to={})),
        (Code.CLOCK_OFF, _set("live", "clock_offset_ms", to=2000.1)),
        (Code.CLOCK_OFF, _set("live", "clock_offset_ms", to=-2000.1)),
        (Code.INPUT_NOT_KEPT, _set("program", "recent", "refused_inputs_total", to=1)),
        (Code.FRAMES_DROPPED, _set("program", "recent", "dropped_frames_total", to=2)),
        (Code.CONNECTIONS_FULL, _set("program", "recent", "connections_refused_total", to=1)),
        (Code.COMMIT_STUCK, _set("program", "commit_stuck_s", to=5.1)),
        (Code.DEVICE_REFUSED, _set("program", "devices", "refused", to=1)),
        (Code.NO_DEVICES, _set("program", "devices", "heard", to=0)),
        (Code.SPOOL_UNREADABLE, _set("spool", to=None)),
        (Code.SPOOL_NEAR_FULL, _set("spool", "bytes", to=961)),
        (Code.SPOOL_NEAR_FULL, _set("spool", "quarantine_bytes_max", to=199)),
        (Code.BACKLOG, _set("spool", "oldest_s", to=60.1)),
        (Code.SPOOL_SET_ASIDE, _set("spool", "aside", to=[{"file": "spool.db.damaged-1"}])),
        (Code.SPOOL_SET_ASIDE, _set("spool", "aside", to=[{"file": "spool.db.unknown-1"}])),
        (Code.DISK_LOW, _set("disk", "free_bytes", to=49)),
        (Code.CERTIFICATE_ENDS, _set("certificate", "days_left", to=6.99)),
        (Code.CERTIFICATE_ENDS, _set("certificate", "days_left", to=-1.0)),
        (Code.CERTIFICATE_ENDS, _set("certificate", "begun", to=False)),
        (Code.NOT_ENROLLED, _kept("none")),
        (Code.NOT_ENROLLED, _kept("enrolling")),
        (Code.AWAITING_APPROVAL, _kept("awaiting", -0.1)),
        (Code.CERTIFICATE_EXPIRED, _kept("expired", 0.0)),
        (Code.CERTIFICATE_EXPIRED, _kept("refused", -0.1, "grace-over")),
        (Code.CERTIFICATE_EXPIRED, _kept("renewing", -0.1)),
        (Code.CERTIFICATE_EXPIRING, _kept("renewing", 0.2499, "http-503")),
        (Code.CERTIFICATE_EXPIRING, _kept("refused", 0.4, "certificate-revoked")),
        (Code.CERTIFICATE_UNREADABLE, _set("certificate", to={"error": "PermissionError"})),
        (Code.CONFIG_WRONG, _set("program", "reload", "error", to="line_port: 1")),
        (Code.RESTART_NEEDED, _set("program", "reload", "restart_needed", to=["edge_id"])),
        (Code.NO_CONTROL, _set("program", to=None)),
        (Code.CLOUD_KEY_MISSING, _set("program", "late", "withheld_epochs", to=1)),
        (Code.SETTINGS_REFUSED, _set("program", "settings", "trouble", to="version 3: forged")),
    ],
)
def test_one_thing_wrong_is_one_complaint(code: Code, change: Change) -> None:
    picture = _picture()
    change(picture)
    exit_code, wrong = judge(picture)
    assert (exit_code, [one.code for one in wrong]) == (Exit.DEGRADED, [code])
    assert wrong[0].text
    assert wrong[0].next


@pytest.mark.parametrize(
    "change",
    [
        _set("live", "clock_offset_ms", to=-2000.0),
        _set("live", "dropped_frames_total", to=9.0),
        _set("live", "refused_inputs_total", to=9.0),
        _set("program", "commit_stuck_s", to=5.0),
        _set("program", "late", "frames", to=9),
        _set("program", "settings", "version", to=9),
        _set("program", "clock", "correction_ms", to=-600),
        _set("spool", "oldest_s", to=60.0),
        _set("spool", "oldest_s", to=None),
        _set("certificate", to=None),
        _kept("valid", 0.6),
        _kept("valid", 0.6, "haproxy-not-told"),
        _kept("renewing", 0.25, "http-503"),
        _kept("renewing", 0.1),
        _set("spool", "aside", to=[{"file": "spool.db.salvaged-1"}]),
        _set("disk", to=None),
    ],
)
def test_what_is_no_reason_to_complain(change: Change) -> None:
    picture = _picture()
    change(picture)
    assert judge(picture) == (Exit.OK, [])


def test_a_gateway_that_just_started_may_wait_for_devices() -> None:
    picture = _picture()
    picture["program"]["devices"]["heard"] = 0
    picture["program"]["uptime_s"] = complaint.QUIET_START_S
    assert judge(picture) == (Exit.OK, [])


def test_a_clock_that_is_compared_with_nothing_is_not_judged() -> None:
    picture = _picture()
    picture["live"] = {"link_up": 0.0, "clock_offset_ms": 99_000.0}
    assert [one.code for one in judge(picture)[1]] == [Code.LINK_DOWN]


def test_a_program_that_does_not_answer_is_all_there_is_to_say() -> None:
    picture = _picture() | {"live": None, "program": None, "spool": None}
    code, wrong = judge(picture)
    assert (code, [one.code for one in wrong]) == (Exit.FAILED, [Code.NOT_RUNNING])


def test_without_the_socket_what_happened_since_the_start_counts() -> None:
    picture = _picture() | {"program": None, "unanswered": "no control socket"}
    picture["live"] |= {"dropped_frames_total": 1.0, "refused_inputs_total": 1.0}
    picture["live"] |= {"connections_refused_total": 3.0}
    assert {one.code for one in judge(picture)[1]} == {
        *(Code.FRAMES_DROPPED, Code.INPUT_NOT_KEPT, Code.CONNECTIONS_FULL, Code.NO_CONTROL)
    }


def test_one_and_many_are_said_as_people_say_them() -> None:
    picture = _picture()
    for count, says in ((1, "1 device speaks and is refused"), (2, "2 devices speak and are")):
        picture["program"]["devices"]["refused"] = count
        assert judge(picture)[1][0].text.startswith(says)


# -- the screen ----------------------------------------------------------------------------------


def _screen(picture: dict[str, Any]) -> str:
    code, wrong = judge(picture)
    out = io.StringIO()
    words = {"state": code.name.lower(), "wrong": [one._asdict() for one in wrong]}
    status_screen.write(words | picture, out)
    return out.getvalue()


def test_the_screen_fits_80_columns_and_says_all() -> None:
    picture = _picture()
    picture["program"]["devices"]["refused"] = 1
    picture["program"]["recent"] |= {"rejects": {"bad-unit": 2, "binary": 9}}
    picture["live"]["device_skew_max_ms"] = 31_000.0
    text = _screen(picture)
    assert max(map(len, text.splitlines())) <= 80
    for part in (
        "ward-1: degraded",
        "! 1 device speaks and is refused  [device-refused]",
        "2 ok, 1 refused; 2 heard in 5 min, clocks off by up to 31 s",
        "2.0/s in 60 s: 120 lines, 0 messages",
        "9 binary, 2 bad-unit in 60 s",
        "3 frames, 800 B of 1.0 kB (80 %), oldest 0 s",
        "2 frames, 160 B of 200 B; 5 refused inputs ever",
        "up, 1 sessions",
        "+12 ms against the cloud's",
        "7.0 days left",
        "50 B free of 1.0 kB",
        "2 h ago, version 0.1.0",
    ):
        assert part in text, part
    assert text.index("device-refused") < text.index("spool"), "what is wrong stands first"


def test_the_screen_without_a_program_shows_what_the_disk_says() -> None:
    text = _screen(_picture() | {"live": None, "program": None})
    assert "ward-1: failed" in text
    assert "3 frames" in text
    assert "link" not in text.split("spool")[1]


def test_without_the_socket_the_screen_says_since_the_start() -> None:
    picture = _picture() | {"program": None, "unanswered": "no control socket"}
    picture["live"] |= {"lines_total": 7.0, "devices": 2.0}
    text = _screen(picture)
    assert "7 lines, 0 messages, 0 readings since start" in text
    assert "3 bad-unit since start" in text
    assert "no control socket  [no-control]" in text


def test_what_was_ever_dropped_stays_on_the_screen() -> None:
    picture = _picture()
    picture["spool"]["totals"] |= {"readings_dropped": 12}
    assert "12 readings by the quota, ever" in _screen(picture)
    picture["spool"]["totals"] = {"rejects_dropped": 1}
    assert "refused input by the quota, ever" in _screen(picture)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (172_799, "47 h"),
        (172_800, "2 d 0 h"),
        (1_000_000, "11 d 13 h"),
    ],
)
def test_a_span_is_as_short_as_it_can_be_read(seconds: float, text: str) -> None:
    assert status_screen.span(seconds) == text


@pytest.mark.parametrize(
    ("state", "trouble", "told", "says"),
    [
        ("none", "", True, ["a placeholder: not enrolled"]),
        ("valid", "", True, ["15.0 days left", "ward-1, serial 0AB1", "renewal     valid\n"]),
        ("valid", "", None, ["HAProxy has not been told"]),
        ("renewing", "http-503", True, ["renewing, last http-503"]),
        ("awaiting", "awaiting-approval", True, ["fingerprint f00d"]),
    ],
)
def test_the_screen_shows_the_certificate_and_its_renewal(
    state: str, trouble: str, told: bool | None, says: list[str]
) -> None:
    picture = _picture()
    _kept(state, trouble=trouble)(picture)
    picture["certificate"]["renewal"]["told"] = told
    out = io.StringIO()
    status_screen.write(picture | {"state": "ok", "wrong": []}, out)
    for one in says:
        assert one in out.getvalue()

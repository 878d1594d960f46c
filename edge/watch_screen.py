"""The live table of devices: from a snapshot of the control socket to lines of a screen.

Law: pure. Worst first; a word and a colour for every state; what does not fit is counted, never
left out in silence. A gateway that does not answer leaves no old row on the screen.
"""

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from edge.cells import Line, cells, fit
from edge.complaint import Complaint
from edge.status_screen import span

INLINE_WIDTH: Final = 190
"""Columns from which the ages of nine vital signs fit beside their device, not below it."""

COMPLAINTS_MAX: Final = 3
"""Shown above the table; the rest is counted."""

_STATES: Final = {
    "ok": "green",
    "clock": "cyan",
    "late": "yellow",
    "silent": "red",
    "refused": "red",
}
_STATE_STYLE: Final = {"ok": "green", "degraded": "yellow", "failed": "red"}
_KEYS: Final = "q quit  j k move  space page  v vitals  p pause"


class View(NamedTuple):
    """What there is to show, and how the technician wants it."""

    edge: str
    snapshot: dict[str, Any] | None
    """The newest answer to ``watch``; None when there is none or the gateway has gone."""
    state: str
    wrong: list[Complaint]
    now_ms: int
    trouble: str = ""
    """Why there is no snapshot."""
    top: int = 0
    """First device shown."""
    vitals: bool | None = None
    """Whether vital signs are shown; None: where there is room."""
    paused: bool = False
    revealed: bool = False


class Screen(NamedTuple):
    """The lines, and how far the table can be scrolled."""

    lines: list[Line]
    page: int
    """Devices that the table has room for."""
    top: int
    vitals: bool


def render(view: View, width: int, height: int | None) -> Screen:
    """Return the screen; ``height`` None: all devices, and no line of keys."""
    lines = _head(view, width)
    if view.snapshot is None:
        words = [("  ", ""), (f" NO DATA: {view.trouble} ", "inverse")]
        return Screen([*lines, [], words], 0, 0, vitals=False)
    rows = view.snapshot["rows"]
    inline = width >= INLINE_WIDTH
    room = None if height is None else max(1, height - len(lines) - 3)
    vitals = view.vitals
    if vitals is None:
        vitals = inline or room is None or 2 * len(rows) <= room
    each = 2 if vitals and not inline else 1
    page = len(rows) if room is None else max(1, room // each)
    top = max(0, min(view.top, len(rows) - page))
    columns = _columns(width, via=any(row["via"] for row in rows))
    lines += [[], [(_titles(columns, inline=inline and vitals), "bold")]]
    for row in rows[top : top + page]:
        lines += _row(row, columns, width, vitals=vitals, inline=inline)
    if not rows:
        lines.append([("  no device has been heard since the start", "dim")])
    lines += _foot(view, height, len(lines), top, page)
    return Screen(lines, page, top, vitals)


def _head(view: View, width: int) -> list[Line]:
    at = datetime.fromtimestamp(view.now_ms / 1000, UTC).strftime("%H:%M:%S UTC")
    left = view.edge
    if view.snapshot is not None:
        status = view.snapshot["status"]
        live = status["live"]
        link = "link up" if live.get("link_up") else "link DOWN"
        offset = f"clock {live.get('clock_offset_ms', 0):+.0f} ms" if live.get("link_up") else ""
        parts = [view.edge, status["version"], f"up {span(status['uptime_s'])}", link, offset]
        left = "  ".join(part for part in parts if part)
    word = view.state.upper()
    gap = width - len(at) - len(word) - 4
    lines: list[Line] = [
        [
            (fit(left, gap), "bold"),
            (f"  {at}  ", ""),
            (word, _STATE_STYLE.get(view.state, "red")),
        ]
    ]
    if view.snapshot is not None:
        lines.append(_summary(view.snapshot))
    lines += [
        [("! ", "yellow"), (fit(f"{one.text}  [{one.code}]", width - 2), "")]
        for one in view.wrong[:COMPLAINTS_MAX]
    ]
    if more := view.wrong[COMPLAINTS_MAX:]:
        lines.append([(f"! and {len(more)} more: healthsync edge status", "")])
    return lines


def _summary(snapshot: dict[str, Any]) -> Line:
    counts, live = snapshot["counts"], snapshot["status"]["live"]
    line: Line = [(f"{_known(counts)} devices:", "")]
    for word, style in _STATES.items():
        if counts[word]:
            line += [(f" {counts[word]} ", ""), (word, style)]
    flow = f" | {counts['rate_per_min']:.0f}/min on {live.get('connections', 0):.0f} connections"
    return [*line, (f"{flow} | spool {live.get('spool_frames', 0):.0f} frames", "")]


def _known(counts: dict[str, int]) -> int:
    return sum(counts[word] for word in _STATES)


class _Column(NamedTuple):
    title: str
    size: int
    right: bool = False


def _columns(width: int, *, via: bool) -> list[_Column]:
    """Return the columns: what is over 80 cells goes to names, addresses and reasons."""
    more = max(0, min(width - 80, 40)) + (0 if via else 16)
    columns = [
        _Column("STATE", 7),
        _Column("DEVICE", 16 + min(more // 2, 16)),
        _Column("BED", 6 + min(more // 8, 6)),
        _Column("VIA", 15 + min(more // 6, 8)),
        _Column("/MIN", 5, right=True),
        _Column("SEEN", 5, right=True),
        _Column("CLOCK", 6, right=True),
        _Column("REFUSED", 13 + min(more // 4, 12)),
    ]
    return [one for one in columns if via or one.title != "VIA"]


def _titles(columns: list[_Column], *, inline: bool) -> str:
    titles = [fit(one.title, one.size, right=one.right) for one in columns]
    return " ".join([*titles, "VITAL SIGNS, AGE"] if inline else titles)


def _row(
    row: dict[str, Any], columns: list[_Column], width: int, *, vitals: bool, inline: bool
) -> list[Line]:
    rate = row["rate_per_min"]
    texts = {
        "STATE": row["state"].upper() if row["state"] != "ok" else "ok",
        "DEVICE": row["device"],
        "BED": row["bed"],
        "VIA": row["via"],
        "/MIN": f"{rate:.0f}" if rate >= 10 or not rate else f"{rate:.1f}",
        "SEEN": age(row["seen_s"]),
        "CLOCK": _clock(row["skew_ms"]),
        "REFUSED": _refused(row["rejects"]),
    }
    line: Line = []
    for title, size, right in columns:
        style = _STATES[row["state"]] if title == "STATE" else ""
        line += [(fit(texts[title], size, right=right), style), (" ", "")]
    if not vitals:
        return [line]
    shown = "  ".join(_vital(one) for one in row["vitals"]) or "no vital sign yet"
    if inline:
        room = width - sum(cells(text) for text, _ in line)
        return [[*line, (fit(shown, room), "")]]
    return [line, [(fit(f"        {shown}", width), "dim")]]


def _vital(one: dict[str, Any]) -> str:
    name = one["short"] + (f"#{one['channel']}" if one["channel"] else "")
    status = "" if one["status"] == "ok" else f" {one['status']}"
    value = ""
    if one.get("value") is not None:
        value = f" {one['value']:g}"
    return f"{name}{value}{status} {age(one['age_s'])}"


def _clock(skew_ms: int | None) -> str:
    # As the device's display shows it: one that is behind is minus.
    if skew_ms is None:
        return ""
    seconds = -skew_ms / 1000
    return ("-" if seconds <= -0.5 else "+" if seconds >= 0.5 else "") + age(abs(seconds))


def _refused(rejects: dict[str, int]) -> str:
    if not rejects:
        return ""
    ordered = sorted(rejects.items(), key=lambda one: (-one[1], one[0]))
    (reason, count), rest = ordered[0], sum(number for _, number in ordered[1:])
    return f"{count} {reason}" + (f" +{rest}" if rest else "")


def age(seconds: float) -> str:
    """Return an age in at most four cells."""
    for size, unit in ((60, "s"), (60, "m"), (48, "h")):
        if seconds < size:
            return f"{seconds:.0f}{unit}" if seconds < size - 0.5 else f"{size - 1}{unit}"
        seconds /= size if unit != "h" else 24
    return f"{min(seconds, 999):.0f}d"


def _foot(view: View, height: int | None, used: int, top: int, page: int) -> list[Line]:
    if view.snapshot is None:
        return []
    total, known = len(view.snapshot["rows"]), _known(view.snapshot["counts"])
    hidden = "VALUES SHOWN, LOGGED" if view.revealed else "values hidden"
    if height is None:
        return [[], [(f"{total} of {known} devices, {hidden}", "dim")]]
    pause = "PAUSED  " if view.paused else ""
    shown = f"{min(top + 1, total)}-{min(top + page, total)} of {known}  {hidden}  | {_KEYS}"
    blank: list[Line] = [[] for _ in range(max(0, height - used - 1))]
    return [*blank, [(pause, "yellow"), (shown, "dim")]]

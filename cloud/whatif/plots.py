"""The three plots of the page, as inline SVG. Pure; everything that data said is escaped.

Shapes tell what colours tell: bars are labelled, lost is a full bar under a ▼, gained an outlined
one under a ▲. Colours are classes of page.py's style.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from cloud.whatif.report import Difference, Report, RuleLine
from cloud.whatif.table import instant, rate

WIDTH: Final = 960
LEFT: Final = 250
"""Room for the names of rules and beds."""
RIGHT: Final = 70
"""Room for the number behind the longest bar."""
BEDS_SHOWN_MAX: Final = 60
"""Rows of the timeline: a ward, and a page that can be printed."""
LABEL_CHARS_MAX: Final = 28
MARK_PX_MIN: Final = 4.0
"""A short episode is still seen."""

LEADS_S: Final = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Edges of the histogram's bins on both sides of 0, in seconds; beyond the last is one more."""


def _text(x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> str:
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{name} text-anchor="{anchor}">{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str, title: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}"'
        f' height="{height:.1f}"><title>{escape(title)}</title></rect>'
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="grid" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _svg(height: float, name: str, parts: Iterable[str]) -> str:
    inner = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(name)}">\n'
        f"{inner}\n</svg>"
    )


def by_rule(report: Report) -> str:
    """Return alarms per bed-day by rule, both policies."""
    lines: Sequence[RuleLine] = report.rules
    highest = max(
        (
            number or 0.0
            for line in lines
            for number in (line.baseline_per_bed_day, line.new_per_bed_day)
        ),
        default=0.0,
    )
    scale = (WIDTH - LEFT - RIGHT) / (highest or 1.0)
    parts, y = [], 8.0
    for line in lines:
        parts.append(_text(LEFT - 10, y + 19, f"{line.rule} ({line.priority})", anchor="end"))
        for at, (kind, number) in enumerate(
            (("was", line.baseline_per_bed_day), ("now", line.new_per_bed_day))
        ):
            width, top = (number or 0.0) * scale, y + 15 * at
            name = "baseline" if kind == "was" else "new"
            parts.append(_box(LEFT, top, width, 13, kind, f"{line.rule} {name} {rate(number)}"))
            parts.append(_text(LEFT + width + 5, top + 11, rate(number), kind="small"))
        y += 42
    return _svg(y, "Alarms per bed-day by rule, baseline and new", parts)


def timeline(report: Report) -> str:
    """Return when each bed lost or gained an episode."""
    by_bed: dict[str, list[Difference]] = {}
    for one in report.differences:
        if one.what in {"lost", "gained"}:
            by_bed.setdefault(one.bed, []).append(one)
    shown = [bed for bed in report.beds if bed in by_bed][:BEDS_SHOWN_MAX]
    start_ms = report.start_ms
    lasted_ms = max(report.end_ms - start_ms, 1)
    scale = (WIDTH - LEFT - 20) / lasted_ms
    bottom = 28.0 * len(shown) + 6
    parts = []
    for part in range(5):
        x = LEFT + (WIDTH - LEFT - 20) * part / 4
        parts.append(_line(x, 0, x, bottom))
        day, time = instant(start_ms + lasted_ms * part // 4).split()
        anchor = "end" if part == 4 else "middle" if part else "start"
        parts.append(_text(x, bottom + 16, time, kind="small", anchor=anchor))
        parts.append(_text(x, bottom + 31, day, kind="small", anchor=anchor))
    for row, bed in enumerate(shown):
        y = 28.0 * row + 6
        parts.append(_text(LEFT - 10, y + 16, bed[:LABEL_CHARS_MAX], anchor="end"))
        parts.append(_line(LEFT, y + 11, WIDTH - 20, y + 11))
        for one in by_bed[bed]:
            begin = max(one.began_ms, start_ms) - start_ms
            width = max((one.until_ms - start_ms - begin) * scale, MARK_PX_MIN)
            x = min(LEFT + begin * scale, WIDTH - 20 - width)
            title = f"{bed}: {one.what} {one.family}, {instant(one.began_ms)} UTC"
            parts.append(_box(x, y + 8, width, 12, one.what, title))
            sign = "▼" if one.what == "lost" else "▲"
            parts.append(_text(x + width / 2, y + 6, sign, kind="sign", anchor="middle"))
    return _svg(bottom + 40, "Episodes lost and gained by bed", parts)


def leads(report: Report) -> str:
    """Return a histogram of by how many seconds episodes of both policies rang otherwise."""
    later = [0] * (len(LEADS_S) + 1)
    earlier = [0] * (len(LEADS_S) + 1)
    for one in report.differences:
        if one.lead_s:
            side = earlier if one.lead_s > 0 else later
            side[sum(abs(one.lead_s) > edge for edge in LEADS_S)] += 1
    texts = [*(f"≤ {edge:g} s" for edge in LEADS_S), f"> {LEADS_S[-1]:g} s"]
    left = [("later", text, number) for text, number in zip(texts, later, strict=True)]
    right = [("earlier", text, number) for text, number in zip(texts, earlier, strict=True)]
    bins = [*reversed(left), ("same", "same", report.episodes.same), *right]
    highest = max(number for _, _, number in bins) or 1
    step, base = (WIDTH - 20) / len(bins), 190.0
    parts = [_line(10, base, WIDTH - 10, base)]
    for at, (kind, text, number) in enumerate(bins):
        x, height = 10 + at * step, 150.0 * number / highest
        if number:
            parts.append(_box(x + 4, base - height, step - 8, height, kind, f"{kind} {text}"))
            parts.append(
                _text(x + step / 2, base - height - 5, str(number), kind="small", anchor="middle")
            )
        parts.append(_text(x + step / 2, base + 16, text, kind="small", anchor="middle"))
    middle, half = WIDTH / 2, len(LEADS_S) + 1
    parts.append(_text(10 + step * half / 2, base + 36, "new rings later", anchor="middle"))
    parts.append(
        _text(middle + step * (half + 1) / 2, base + 36, "new rings earlier", anchor="middle")
    )
    return _svg(base + 48, "By how many seconds the new policy rings earlier or later", parts)

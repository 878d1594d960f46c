"""The report as one HTML page: nothing is loaded from anywhere, nothing runs in it. Pure.

Law: no link, no script, no resource; the content policy in its head forbids them too. Everything
that data or a policy said is escaped. Each plot has its numbers in a table beside it. Palette of
the ward station; colours follow the reader's light or dark setting.
"""

from collections.abc import Sequence
from html import escape
from typing import Final

from cloud.whatif import plots
from cloud.whatif.report import Report
from cloud.whatif.table import data_text, episode_lines, few_text, instant, load_lines, rate

_HEAD: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">"""

_KEYS: Final = (
    '<p><span class="key lost"></span>▼ lost: only the baseline rang'
    ' <span class="key gained"></span>▲ gained: only the new policy rang</p>'
)

DIFFERENCES_SHOWN_MAX: Final = 500
"""Rows of the last table; ``--json`` has all."""

_STYLE: Final = """
:root { color-scheme: light dark; --page: #ffffff; --tile: #f2f4f7; --text: #111820;
  --label: #52606d; --was: #5f6c78; --now: #0451ff; --edge: #000000; --rule: #c5ccd4;
  --lost: #d9142a; --gained: #ffd60a; --sound: #00780b; }
@media (prefers-color-scheme: dark) { :root { --page: #0b0f14; --tile: #161d26; --text: #f5f5f0;
  --label: #b8c2cc; --was: #8593a0; --now: #4fa3f7; --edge: #ffffff; --rule: #34404c;
  --sound: #3df56b; } }
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1.25rem 3rem; background: var(--page);
  color: var(--text); font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; } .note { color: var(--label); }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1rem 0; padding: 0; }
.tiles li { list-style: none; background: var(--tile); padding: .6rem 1rem; flex: 1 1 9rem; }
.tiles b { display: block; font-size: 1.25rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.tiles span { color: var(--label); }
.wide { overflow-x: auto; background: var(--tile); padding: .75rem; }
.wide + .wide { margin-top: .75rem; }
svg { display: block; width: 100%; min-width: 40rem; height: auto; }
svg text { fill: var(--text); font: 14px system-ui, sans-serif; }
svg .small { fill: var(--label); font-size: 12px; } svg .sign { font-size: 11px; }
.grid { stroke: var(--rule); } .was { fill: var(--was); } .now { fill: var(--now); }
.lost { fill: var(--lost); stroke: var(--edge); }
.gained { fill: var(--gained); stroke: var(--edge); }
.later { fill: var(--lost); } .same { fill: var(--was); } .earlier { fill: var(--sound); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--label); padding-bottom: .3rem; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--rule);
  vertical-align: top; } th { font-weight: 600; } .number { text-align: right; }
.key { display: inline-block; width: .9em; height: .9em; margin: 0 .35em 0 .9em;
  vertical-align: -.1em; background: currentColor; }
p .key:first-child { margin-left: 0; }
.key.was { color: var(--was); } .key.now { color: var(--now); }
.key.lost { color: var(--lost); } .key.gained { color: var(--gained); }
.key.lost, .key.gained { outline: 1px solid var(--edge); }
@media print { .wide { overflow: visible; } }
"""


def as_html(report: Report) -> str:
    """Return the page."""
    was, now = escape(report.baseline.policy), escape(report.new.policy)
    parts = [
        _HEAD,
        f"<title>What if: {now}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        "<h1>What another alarm policy would have rung</h1>",
        f"<p>Baseline <strong>{was}</strong>, new <strong>{now}</strong>.</p>",
        f'<p class="note">{escape(data_text(report))}</p>',
        f'<p class="note">{escape(few)}</p>' if (few := few_text(report)) else "",
        _tiles(report),
        "<h2>Alarms per bed-day by rule</h2>",
        '<p><span class="key was"></span>baseline <span class="key now"></span>new</p>'
        if report.rules
        else "<p>Neither policy rang.</p>",
        _framed(plots.by_rule(report)) if report.rules else "",
        _rules(report) if report.rules else "",
        "<h2>Episodes lost and gained, by bed</h2>",
        *_timeline(report),
        "<h2>Earlier or later</h2>",
        *_leads(report),
        "<h2>Alarm load</h2>",
        _table("Alarm load of the ward", ("", "baseline", "new", "difference"), load_lines(report)),
        f'<p class="note">{escape(report.remark)}</p>',
        *_differences(report),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(part for part in parts if part)


def _tiles(report: Report) -> str:
    def change(was: float | None, now: float | None) -> str:
        return f"{rate(was)} → {rate(now)}"

    tiles = (
        (change(report.baseline.per_bed_day, report.new.per_bed_day), "alarms per bed-day"),
        (f"{report.episodes.lost}", "episodes lost"),
        (f"{report.episodes.gained}", "episodes gained"),
        (f"{report.episodes.later.count}", "episodes rung later"),
        (f"{report.episodes.less_urgent}", "with a lower priority"),
    )
    inner = "".join(f"<li><b>{escape(a)}</b><span>{escape(b)}</span></li>" for a, b in tiles)
    return f'<ul class="tiles">{inner}</ul>'


def _rules(report: Report) -> str:
    rows = [
        (
            line.rule,
            line.kind,
            line.priority,
            str(line.baseline),
            str(line.new),
            rate(line.baseline_per_bed_day),
            rate(line.new_per_bed_day),
            rate(line.difference_per_bed_day, signed=True),
        )
        for line in report.rules
    ]
    names = ("rule", "kind", "priority", "baseline", "new", "baseline a bed-day", "new a bed-day")
    return _table("Alarms by rule", (*names, "difference"), rows, texts=3)


def _timeline(report: Report) -> list[str]:
    beds = {one.bed for one in report.differences if one.what in {"lost", "gained"}}
    if not beds:
        return ["<p>None: every episode rang under both policies.</p>"]
    more = len(beds) - plots.BEDS_SHOWN_MAX
    return [
        _KEYS,
        _framed(plots.timeline(report)),
        f'<p class="note">{more} more beds are not shown.</p>' if more > 0 else "",
    ]


def _leads(report: Report) -> list[str]:
    table = _table("Episodes under both policies", ("", "episodes"), episode_lines(report))
    if not report.episodes.earlier.count and not report.episodes.later.count:
        return ["<p>No episode rang at another moment.</p>", table]
    return [_framed(plots.leads(report)), table]


def _differences(report: Report) -> list[str]:
    if not report.differences:
        return []
    shown = report.differences[:DIFFERENCES_SHOWN_MAX]
    names = ("bed", "what", "of", "baseline rang (UTC)", "new rang (UTC)", "lead, s")
    rows = [
        (
            one.bed[: plots.LABEL_CHARS_MAX],
            one.what,
            one.family,
            _rang(one.baseline_ms, one.baseline_priority),
            _rang(one.new_ms, one.new_priority),
            "" if one.lead_s is None else f"{one.lead_s:+g}",
        )
        for one in shown
    ]
    more = len(report.differences) - len(shown)
    return [
        "<h2>Every difference</h2>",
        _table("Above 0 s: the new policy rang earlier", names, rows, texts=5),
        f'<p class="note">And {more} more; --json has all.</p>' if more else "",
    ]


def _rang(time_ms: int | None, priority: str | None) -> str:
    if time_ms is None:
        return "never"
    return f"{instant(time_ms)} {priority}"


def _framed(svg: str) -> str:
    return f'<div class="wide" tabindex="0">{svg}</div>'


def _table(
    caption: str, names: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1
) -> str:
    """Return a table whose first column names its rows; from ``texts`` on, numbers."""
    number = ' class="number"'

    def cell(at: int, text: str) -> str:
        kind = number if at >= texts else ""
        return f"<td{kind}>{escape(text)}</td>" if at else f'<th scope="row">{escape(text)}</th>'

    head = "".join(
        f'<th scope="col"{number if at >= texts else ""}>{escape(name)}</th>'
        for at, name in enumerate(names)
    )
    body = "\n".join(
        f"<tr>{''.join(cell(at, text) for at, text in enumerate(row))}</tr>" for row in rows
    )
    return (
        f'<div class="wide" tabindex="0"><table><caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )

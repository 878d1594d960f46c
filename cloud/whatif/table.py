"""The report as text for a terminal. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cloud.whatif.report import BURST_MS, Lead, Load, Report

DIFFERENCES_SHOWN_MAX: Final = 40
"""Lines on a terminal; ``--json`` has all."""

FEW_BED_DAYS: Final = 1.0
"""Below it one alarm is more than one a bed-day."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTES: Final = BURST_MS // 60_000

EXPLAINED: Final = "explained by a more urgent alert"


def instant(time_ms: int) -> str:
    """Return a time in UTC, to the second."""
    return (_EPOCH + timedelta(milliseconds=time_ms)).strftime("%Y-%m-%d %H:%M:%S")


def rate(number: float | None, *, signed: bool = False) -> str:
    """Return a number of alarms a bed-day."""
    if number is None:
        return "-"
    return f"{number:+.2f}" if signed else f"{number:.2f}"


def load_lines(report: Report) -> list[tuple[str, str, str, str]]:
    """Return (what, baseline, new, difference) of the alarm load."""

    def counted(what: str, name: str) -> tuple[str, str, str, str]:
        was, is_ = getattr(report.baseline, name), getattr(report.new, name)
        return what, str(was), str(is_), f"{is_ - was:+d}"

    def rated(what: str, name: str) -> tuple[str, str, str, str]:
        was, is_ = getattr(report.baseline, name), getattr(report.new, name)
        change = None if was is None or is_ is None else is_ - was
        return what, rate(was), rate(is_), rate(change, signed=True)

    return [
        counted("alarms", "alarms"),
        *(counted(f"  of them {priority}", priority) for priority in ("high", "medium", "low")),
        rated("alarms per bed-day", "per_bed_day"),
        rated("  half of the beds at most", "per_bed_day_median"),
        rated("  nine of ten beds at most", "per_bed_day_p90"),
        (
            "part of the loudest tenth of beds",
            _part(report.baseline),
            _part(report.new),
            "",
        ),
        counted(f"most within {_MINUTES} min, whole ward", "burst_ward"),
        counted(f"most within {_MINUTES} min, one bed", "burst_bed"),
        counted("became standing (flapping)", "flapping"),
        counted(f"did not ring: {EXPLAINED}", "explained"),
        counted("did not ring: late data", "retrospective"),
    ]


def _part(load: Load) -> str:
    return "-" if load.top_tenth_share is None else f"{load.top_tenth_share:.0%}"


def lead_text(lead: Lead) -> str:
    """Return how many, and by how much."""
    if lead.median_s is None or lead.p90_s is None or lead.most_s is None:
        return "0"
    return (
        f"{lead.count} (median {lead.median_s:g} s, nine of ten at most {lead.p90_s:g} s,"
        f" most {lead.most_s:g} s)"
    )


def episode_lines(report: Report) -> list[tuple[str, str]]:
    """Return (what, how many) of the episodes."""
    found = report.episodes
    return [
        ("episodes, baseline", str(found.baseline)),
        ("episodes, new", str(found.new)),
        ("LOST: only the baseline rang", str(found.lost)),
        ("gained: only the new policy rang", str(found.gained)),
        ("rang at the same moment", str(found.same)),
        ("the new policy rang earlier", lead_text(found.earlier)),
        ("the new policy rang later", lead_text(found.later)),
        ("rang with a higher priority", str(found.more_urgent)),
        ("rang with a lower priority", str(found.less_urgent)),
    ]


def data_text(report: Report) -> str:
    """Return what was replayed."""
    return (
        f"{len(report.beds)} beds, {report.bed_days:.2f} bed-days monitored"
        f" ({report.gap_hours:.1f} bed-hours of gaps not counted), {report.readings} readings,"
        f" {instant(report.start_ms)} to {instant(report.end_ms)} UTC"
    )


def few_text(report: Report) -> str:
    """Return a warning when rates are read off too little data, or nothing."""
    if report.bed_days >= FEW_BED_DAYS:
        return ""
    return "Less than a bed-day: a single alarm moves the rates much; look at the counts."


def as_text(report: Report) -> str:
    """Return the whole report."""
    out = [
        data_text(report),
        f"baseline: {report.baseline.policy}",
        f"new:      {report.new.policy}",
        *filter(None, [few_text(report)]),
        "",
        *_columns([("", "baseline", "new", "difference"), *load_lines(report)], left=1),
        "",
        *_columns(
            [
                ("kind", "rule", "priority", "baseline", "new", "per bed-day", "new", "difference"),
                *(
                    (
                        line.kind,
                        line.rule,
                        line.priority,
                        str(line.baseline),
                        str(line.new),
                        rate(line.baseline_per_bed_day),
                        rate(line.new_per_bed_day),
                        rate(line.difference_per_bed_day, signed=True),
                    )
                    for line in report.rules
                ),
            ],
            left=3,
        ),
        "",
        *_columns(episode_lines(report), left=2),
    ]
    if report.differences:
        out += ["", *_differences(report)]
    return "\n".join([*out, "", report.remark])


def _differences(report: Report) -> list[str]:
    # What is lost first: it is the price of every alarm saved.
    order = ("lost", "later", "priority", "gained", "earlier")
    found = sorted(report.differences, key=lambda one: order.index(one.what))
    lines = _columns(
        [
            ("bed", "what", "of", "baseline rang", "new rang", "lead s"),
            *(
                (
                    one.bed,
                    one.what,
                    one.family,
                    _rang(one.baseline_ms, one.baseline_priority),
                    _rang(one.new_ms, one.new_priority),
                    "-" if one.lead_s is None else f"{one.lead_s:+g}",
                )
                for one in found[:DIFFERENCES_SHOWN_MAX]
            ),
        ],
        left=5,
    )
    more = len(found) - DIFFERENCES_SHOWN_MAX
    return [*lines, f"and {more} more: --json has all"] if more > 0 else lines


def _rang(time_ms: int | None, priority: str | None) -> str:
    return "never" if time_ms is None else f"{instant(time_ms)} {priority}"


def _columns(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return rows as aligned lines; the first ``left`` columns are texts."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

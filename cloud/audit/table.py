"""The verdict as text for a terminal. Pure."""

from cloud.audit.compare import Line, Verdict

_HEADINGS = (
    "edge",
    "epoch",
    "spooled",
    "acked",
    "in spool",
    "samples",
    "detect",
    "archive",
    "rejects",
    "quarantine",
    "verdict",
)


def _cells(line: Line) -> tuple[str, ...]:
    def number(value: int | None) -> str:
        return "-" if value is None else str(value)

    return (
        line.edge,
        line.epoch[:8] or "-",
        number(line.spooled),
        number(line.acknowledged),
        number(line.waiting),
        number(line.samples),
        number(line.detect),
        number(line.archive),
        number(line.rejects),
        number(line.quarantine),
        line.verdict,
    )


def as_text(verdict: Verdict) -> str:
    """Return the table, the findings under it, and the verdict as the last line."""
    rows = [_HEADINGS, *(_cells(line) for line in verdict.lines)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADINGS))]
    text = [
        "  ".join(
            cell.ljust(width) if at in (0, 1, 10) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    for line in verdict.lines:
        text += [f"{line.edge} {line.epoch[:8] or '-'}: {finding}" for finding in line.findings]
    text += verdict.findings
    readings = sum(line.archive for line in verdict.lines)
    text.append(f"{verdict.verdict}: {len(verdict.lines)} epochs, {readings} readings archived")
    return "\n".join(text)

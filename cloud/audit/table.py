"""The verdict as text for a terminal. Pure."""

from cloud.audit.compare import Line, Verdict

_HEADINGS = (
    "edge",
    "epoch",
    "received",
    "rejected",
    "spooled",
    "dropped",
    "sent",
    "acked",
    "in spool",
    "samples",
    "again",
    "detect",
    "again",
    "archive",
    "again",
    "rejects",
    "quarantine",
    "verdict",
)
_LEFT = (0, 1, len(_HEADINGS) - 1)


def _cells(line: Line) -> tuple[str, ...]:
    received = None
    if line.received_lines is not None and line.received_messages is not None:
        received = line.received_lines + line.received_messages
    numbers = (
        received,
        line.rejected,
        line.spooled,
        line.dropped,
        line.sent,
        line.acknowledged,
        line.waiting,
        line.samples,
        line.samples_again,
        line.detect,
        line.detect_again,
        line.archive,
        line.archive_again,
        line.rejects,
        line.quarantine,
    )
    texts = ("-" if number is None else str(number) for number in numbers)
    return line.edge, line.epoch[:8] or "-", *texts, line.verdict


def as_text(verdict: Verdict) -> str:
    """Return the table, the findings under it, and the verdict as the last line."""
    rows = [_HEADINGS, *(_cells(line) for line in verdict.lines)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEADINGS))]
    text = [
        "  ".join(
            cell.ljust(width) if at in _LEFT else cell.rjust(width)
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

"""The verdict. Pure.

Per epoch, when nothing moves: spooled - dropped = acknowledged = samples = detect = archive, in
distinct readings, and the same for rejected inputs and the quarantine topic. While data moves,
stages were read from the end to the beginning (the spool first and last), so a later stage may
only be behind an earlier one. Behind is "waiting"; ahead, or acknowledged and not in Kafka, is
"differs".
"""

from collections.abc import Iterable

import msgspec

from cloud.audit.evidence import EpochName, Evidence, Held, Quarantined, Spooled
from vitals.interval import IntervalSet

RANGES_SHOWN_MAX = 8
"""Ranges of sequence numbers named in one finding."""


class Line(msgspec.Struct, frozen=True):
    """One epoch's row of the table. Spool columns are None when no spool listed knows it."""

    edge: str
    epoch: str
    spooled: int | None
    acknowledged: int | None
    waiting: int | None
    """Frames still in the spool."""
    samples: int
    detect: int
    archive: int
    rejects: int | None
    quarantine: int
    verdict: str
    """agrees, waiting or differs."""
    findings: list[str]


class Verdict(msgspec.Struct, frozen=True):
    """The whole table."""

    lines: list[Line]
    project_lag: dict[str, int]
    findings: list[str]
    verdict: str


def minus(ranges: Iterable[tuple[int, int]], other: IntervalSet) -> list[tuple[int, int]]:
    """Return the parts of ``ranges`` that ``other`` (with its floor) does not hold."""
    left: list[tuple[int, int]] = []
    for first, last in ranges:
        low = max(first, other.floor)
        for start, end in other:
            if end < low:
                continue
            if start > last:
                break
            if start > low:
                left.append((low, start - 1))
            low = end + 1
        if low <= last:
            left.append((low, last))
    return left


def spell(ranges: list[tuple[int, int]]) -> str:
    """Return ranges as text, such as ``3-7, 9 and 2 more``."""
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in ranges[:RANGES_SHOWN_MAX]]
    more = len(ranges) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


class _Findings:
    """Findings of one epoch, and how bad the worst is."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.wrong = False
        self.behind = False

    def bad(self, text: str) -> None:
        self.texts.append(text)
        self.wrong = True

    def late(self, text: str) -> None:
        self.texts.append(text)
        self.behind = True

    @property
    def verdict(self) -> str:
        return "differs" if self.wrong else "waiting" if self.behind else "agrees"


def _stage(found: _Findings, name: str, samples: Held, stage: Held) -> None:
    """Compare a consumer of the samples topic with the topic."""
    if stage.readings > samples.readings:
        found.bad(f"{name} holds {stage.readings - samples.readings} readings too many")
    missing = [
        f"partition {partition}: {spell(gap)}"
        for partition, seen in sorted(samples.seen.items())
        if (gap := minus(seen, stage.seen.get(partition, IntervalSet())))
    ]
    if missing:
        found.late(f"not in {name} yet, by sequence number: {'; '.join(missing)}")
    elif stage.readings < samples.readings:
        found.bad(f"{name} saw every record but holds {samples.readings - stage.readings} too few")


def _spool(found: _Findings, before: Spooled, after: Spooled, samples: Held) -> None:
    """Compare the spool with the samples topic."""
    if samples.readings < before.readings_acked:
        found.bad(f"{before.readings_acked - samples.readings} readings acknowledged, not in Kafka")
    if samples.readings > after.readings_spooled - after.readings_dropped:
        # a frame may have been taken by Kafka, its ack lost, and then dropped for want of room
        excess = samples.readings - after.readings_spooled
        if excess > 0:
            found.bad(f"Kafka holds {excess} readings more than the gateway ever spooled")
    if after.frames_waiting:
        found.late(f"{after.frames_waiting} frames in the spool are not acknowledged yet")
    if after.readings_dropped or after.rejects_dropped:
        found.texts.append(
            f"the gateway's full spool dropped {after.readings_dropped} readings and"
            f" {after.rejects_dropped} rejected inputs, as its policy says"
        )
    lost = after.readings_unsound + after.readings_lost
    refused = after.rejects_unsound + after.rejects_lost
    if lost or refused:
        found.bad(f"a damaged spool lost {lost} readings and {refused} rejected inputs")
    if after != before:
        found.late("the gateway is still receiving")


def _rejects(found: _Findings, before: Spooled, after: Spooled, held: Quarantined) -> None:
    if held.rejects < before.rejects_acked:
        found.bad(f"{before.rejects_acked - held.rejects} rejected inputs are not in quarantine")
    if held.rejects > after.rejects_spooled:
        found.bad(f"quarantine holds {held.rejects - after.rejects_spooled} rejects too many")


def _line(name: EpochName, evidence: Evidence) -> Line:
    found = _Findings()
    before, after = evidence.spool_before.get(name), evidence.spool_after.get(name)
    samples = evidence.samples.get(name, Held())
    detect = evidence.detect.get(name, Held())
    archive = evidence.archive.get(name, Held())
    quarantine = evidence.quarantine.get(name, Quarantined())
    if evidence.samples_trimmed and samples.readings < archive.readings:
        found.texts.append("Kafka no longer has all samples; detect and archive are compared")
        samples = archive
    _stage(found, "detect", samples, detect)
    _stage(found, "archive", samples, archive)
    if after is not None:
        _spool(found, before or Spooled(), after, samples)
        _rejects(found, before or Spooled(), after, quarantine)
    elif samples.readings or quarantine.rejects:
        found.texts.append("no spool listed knows this epoch; later stages are compared")
    if quarantine.set_aside:
        found.bad(f"frames set aside whole in quarantine: {spell(list(quarantine.set_aside))}")
    if samples.resent:
        found.texts.append(f"{samples.resent} records were sent again; each counts once")
    return Line(
        name.edge,
        name.epoch,
        after.readings_spooled if after else None,
        after.readings_acked if after else None,
        after.frames_waiting if after else None,
        samples.readings,
        detect.readings,
        archive.readings,
        after.rejects_spooled if after else None,
        quarantine.rejects,
        found.verdict,
        found.texts,
    )


def compare(evidence: Evidence) -> Verdict:
    """Return the table of all epochs any stage knows."""
    names = sorted(
        set(evidence.spool_after)
        | set(evidence.samples)
        | set(evidence.detect)
        | set(evidence.archive)
        | set(evidence.quarantine)
    )
    lines = [_line(name, evidence) for name in names]
    findings = [
        f"project is {lag} records of {topic} behind"
        for topic, lag in sorted(evidence.project_lag.items())
        if lag
    ]
    states = {line.verdict for line in lines} | ({"waiting"} if findings else set())
    verdict = next((s for s in ("differs", "waiting") if s in states), "agrees")
    return Verdict(lines, evidence.project_lag, findings, verdict)

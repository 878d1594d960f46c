"""The verdict. Pure.

Per epoch, when nothing moves: spooled - dropped = acknowledged = samples = detect = archive, frame
by frame and in distinct readings, and the same for rejected inputs and the quarantine topic. While
data moves, stages were read from the end to the beginning (the spool first and last), so a later
stage may only be behind an earlier one. Behind is "waiting"; ahead, passed over, or acknowledged
and not in Kafka, is "differs".
"""

from collections.abc import Collection
from typing import Any

import msgspec

from cloud.audit.consumers import compare_consumers, compare_stage
from cloud.audit.evidence import EpochName, Evidence, Held, Produced, Quarantined, Spooled
from cloud.audit.findings import Findings
from cloud.audit.ranges import Named, minus
from vitals import topics
from vitals.interval import IntervalSet

_WORST_FIRST = ("differs", "waiting")


class Line(msgspec.Struct, frozen=True):
    """One epoch's row of the table. Spool columns are None when no spool listed knows it.

    Numbers are readings, if they do not say otherwise.
    """

    edge: str
    epoch: str
    received_lines: int | None
    received_messages: int | None
    rejected: int | None
    """Inputs or parts of inputs, by reason in ``rejected_by``."""
    rejected_by: dict[str, int]
    refused: int | None
    """Inputs answered and never kept."""
    spooled: int | None
    dropped: int | None
    """Readings and rejected inputs that gave way to a quota, by which in ``dropped_by``."""
    dropped_by: dict[str, int]
    sent: int | None
    """Handed to the uplink, repeats included."""
    sent_frames: int | None
    sent_again: int | None
    """Of ``sent_frames``, those sent before."""
    acknowledged: int | None
    waiting: int | None
    """Frames still in the spool."""
    produced: int
    """Records in the samples topic, repeats included."""
    samples: int
    """Distinct."""
    samples_again: int
    """Records that came again."""
    detect: int
    detect_again: int
    archive: int
    archive_again: int
    rejects: int | None
    """Rejected inputs spooled."""
    quarantine: int
    """Rejected inputs in the quarantine topic, distinct."""
    quarantine_again: int
    verdict: str
    """agrees, waiting or differs."""
    findings: list[str]
    ranges: list[Named]
    ranges_more: int
    """Ranges left out of ``ranges``."""


class Verdict(msgspec.Struct, frozen=True):
    """The whole table."""

    lines: list[Line]
    project_lag: dict[str, int]
    findings: list[str]
    verdict: str
    poison: dict[str, int] = {}
    """Reason -> records that detect set aside."""


class _Epoch:
    """Everything of one epoch."""

    def __init__(self, name: EpochName, evidence: Evidence) -> None:
        self.name = name
        self.after = evidence.spool_after.get(name)
        self.before = evidence.spool_before.get(name) or Spooled()
        self.samples = evidence.samples.get(name) or Produced()
        self.detect = evidence.detect.get(name) or Held()
        self.archive = evidence.archive.get(name) or Held()
        self.quarantine = evidence.quarantine.get(name) or Quarantined()
        self.trimmed = evidence.samples_trimmed and self.samples.readings < self.archive.readings

    @property
    def downstream(self) -> int:
        """Return the distinct readings that are safe."""
        return max(self.samples.readings, self.archive.readings if self.trimmed else 0)


def _samples(found: Findings, epoch: _Epoch) -> None:
    """Judge the samples topic by itself."""
    samples = epoch.samples
    altered: dict[int | None, list[tuple[int, int]]] = {
        partition: list(part.altered) for partition, part in sorted(samples.parts.items())
    }
    found.name("samples", "altered", "came again in Kafka with another content", altered)
    if epoch.trimmed:
        return
    short = sorted(seq for seq, left in samples.incomplete.items() if left > 0)
    excess = sorted(seq for seq, left in samples.incomplete.items() if left < 0)
    text = "more readings in Kafka than the gateway sealed"
    found.name_frames("samples", "altered", text, excess)
    acked = epoch.before.acked
    text = "acknowledged, and only a part of its readings in Kafka"
    found.name_frames("samples", "partial", text, [seq for seq in short if seq in acked])
    text = "only a part of its readings in Kafka yet"
    found.name_frames("samples", "late", text, [seq for seq in short if seq not in acked])


def _acknowledged(found: Findings, epoch: _Epoch) -> None:
    """Look downstream for every frame that the gateway was told is safe."""
    before, samples, quarantine = epoch.before, epoch.samples, epoch.quarantine
    nowhere = minus(before.acked, samples.frames)
    nowhere = minus(minus(nowhere, quarantine.seen), quarantine.set_aside)
    if epoch.trimmed:
        for part in epoch.archive.parts.values():
            nowhere = minus(nowhere, part.seen)
    found.name("samples", "lost", "acknowledged, and nowhere in Kafka", {None: nowhere})
    if epoch.downstream < before.readings_acked:
        missing = before.readings_acked - epoch.downstream
        found.bad(f"{missing} readings acknowledged, not in Kafka")
    if quarantine.rejects < before.rejects_acked:
        missing = before.rejects_acked - quarantine.rejects
        found.bad(f"{missing} rejected inputs are not in quarantine")


def _unknown(found: Findings, epoch: _Epoch, after: Spooled) -> None:
    """Look in the spool for every frame that Kafka has."""
    excess = epoch.samples.readings - after.readings_spooled
    if excess > 0:
        found.bad(f"Kafka holds {excess} readings more than the gateway ever spooled")
    if epoch.quarantine.rejects > after.rejects_spooled:
        more = epoch.quarantine.rejects - after.rejects_spooled
        found.bad(f"quarantine holds {more} rejects too many")
    known = IntervalSet([(0, after.highest_seq)] if after.highest_seq >= 0 else [])
    # A frame may have been taken by Kafka, its acknowledgement lost, and then dropped for room.
    if after.by_number and after.waiting is not None:
        known = IntervalSet([*after.acked, *after.waiting])
    text = "in Kafka, and neither acknowledged nor in the spool"
    for stage, seen in (("samples", epoch.samples.frames), ("quarantine", epoch.quarantine.seen)):
        found.name(stage, "unknown", text, {None: minus(seen, known)})


def _spool(found: Findings, epoch: _Epoch, after: Spooled) -> None:
    """Say what the gateway's own counters tell."""
    if after.frames_waiting:
        found.late(f"{after.frames_waiting} frames in the spool are not acknowledged yet")
    if after.readings_dropped or after.rejects_dropped:
        found.note(
            f"the gateway's full spool dropped {after.readings_dropped} readings and"
            f" {after.rejects_dropped} rejected inputs, as its policy says"
        )
    lost = after.readings_unsound + after.readings_lost
    refused = after.rejects_unsound + after.rejects_lost
    if lost or refused:
        found.bad(f"a damaged spool lost {lost} readings and {refused} rejected inputs")
    if after.acked.count() + after.acked_forgotten < after.frames_acked or after.acked_forgotten:
        found.note("not every acknowledged frame is known by its number; totals are compared")
    if after != epoch.before:
        found.late("the gateway is still receiving")


def _line(name: EpochName, evidence: Evidence) -> Line:
    found, epoch = Findings(), _Epoch(name, evidence)
    samples, quarantine, after = epoch.samples, epoch.quarantine, epoch.after
    if epoch.trimmed:
        found.note("Kafka no longer has all samples; detect and archive are compared")
        compare_consumers(found, epoch.detect, epoch.archive)
    else:
        compare_stage(found, "detect", samples, epoch.detect)
        compare_stage(found, "archive", samples, epoch.archive)
    _samples(found, epoch)
    if after is not None:
        _acknowledged(found, epoch)
        _unknown(found, epoch, after)
        _spool(found, epoch, after)
    elif samples.readings or quarantine.rejects:
        found.note("no spool listed knows this epoch; later stages are compared")
    aside: dict[int | None, list[tuple[int, int]]] = {None: list(quarantine.set_aside)}
    found.name("quarantine", "unusable", "frames set aside whole in quarantine", aside)
    if samples.again:
        found.note(f"{samples.again} records were sent again; each counts once")
    return Line(
        edge=name.edge,
        epoch=name.epoch,
        **_of_spool(after),
        produced=samples.records,
        samples=samples.readings,
        samples_again=samples.again,
        detect=epoch.detect.readings,
        detect_again=epoch.detect.again,
        archive=epoch.archive.readings,
        archive_again=epoch.archive.again,
        quarantine=quarantine.rejects,
        quarantine_again=quarantine.again,
        verdict=found.verdict,
        findings=found.texts,
        ranges=found.ranges,
        ranges_more=found.ranges_more,
    )


def _of_spool(after: Spooled | None) -> dict[str, Any]:
    """Return the columns that a spool tells; all None when none knows the epoch."""
    held = after or Spooled()
    dropped = held.split_of("readings_dropped")
    for reason, count in held.split_of("rejects_dropped").items():
        dropped[reason] = dropped.get(reason, 0) + count
    numbers = {
        "received_lines": held.received_lines,
        "received_messages": held.received_messages,
        "rejected": held.rejected,
        "refused": held.refused_inputs,
        "spooled": held.readings_spooled,
        "dropped": held.readings_dropped + held.rejects_dropped,
        "sent": held.readings_sent + held.readings_resent,
        "sent_frames": held.frames_sent + held.frames_resent,
        "sent_again": held.frames_resent,
        "acknowledged": held.readings_acked,
        "waiting": held.frames_waiting,
        "rejects": held.rejects_spooled,
    }
    told = numbers if after else dict.fromkeys(numbers)
    return {**told, "rejected_by": held.split_of("rejected"), "dropped_by": dropped}


def compare(evidence: Evidence, only: Collection[EpochName] | None = None) -> Verdict:
    """Return the table of all epochs any stage knows, or of those of them in ``only``."""
    names = evidence.names() if only is None else evidence.names() & set(only)
    lines = [_line(name, evidence) for name in sorted(names)]
    findings = [
        f"project is {lag} records of {topic} behind"
        for topic, lag in sorted(evidence.project_lag.items())
        if lag
    ]
    states = {line.verdict for line in lines} | ({"waiting"} if findings else set())
    if evidence.poison:
        states.add("differs")
        by = ", ".join(f"{count} {reason}" for reason, count in sorted(evidence.poison.items()))
        total = sum(evidence.poison.values())
        findings.append(f"detect set {total} records aside in {topics.POISON.name} ({by})")
    verdict = next((state for state in _WORST_FIRST if state in states), "agrees")
    return Verdict(lines, evidence.project_lag, findings, verdict, dict(evidence.poison))

"""What of a judged record leaves as FHIR: Bundles of readings and scores, as each policy charts."""

from typing import Final

from cloud.detect.made import Made, Message, bundle
from cloud.detect.subject import Subject
from cloud.fhir.charting import Given, Leaving
from vitals.columns import Columns
from vitals.reading import Reading

CHARTED_MAX: Final = 400
"""Observations in one Bundle of charting by the minute: below chart.BUNDLE_BYTES_MAX."""


def render(columns: Columns, subjects: list[Subject], made: Made, told: int) -> None:
    """Make Bundles of a record; ``told``: how many alerts there were before it."""
    if columns.vital:
        rules = subjects[0].rules
        alike = len(subjects) == 1 or all(one.rules is rules for one in subjects)
        if alike and rules.charting.mode == "every":
            for name, body in rules.chart.bundles(columns):
                made.fhir.append(Message(name.encode(), body))
        elif all(one.rules.charting.mode == "every" for one in subjects):
            own = {one.name: one.rules.chart for one in subjects}
            for name, body in rules.chart.bundles(columns, own):
                made.fhir.append(Message(name.encode(), body))
        else:
            _chart(columns, subjects, made, told)
    for subject in subjects:
        if subject.leaving:
            made.fhir.append(bundle(subject.name, subject.leaving))
            subject.leaving = ()


def without_memory(subjects: list[Subject]) -> bool:
    """Tell whether rendering a record would leave nothing behind: what left long ago need not."""
    return all(one.rules.charting.mode == "every" and not one.leaving for one in subjects)


def _chart(columns: Columns, subjects: list[Subject], made: Made, told: int) -> None:
    """Chart what the policy of each subject says."""
    given: dict[str, list[Given]] = {}
    newest = max(columns.times_ms())
    for at, reading in columns.rows():
        device = columns.sources[at].device
        given.setdefault(subjects[at].name, []).append(Given(device, reading))
    by_name = {subject.name: subject for subject in subjects}
    for name, readings in given.items():
        subject = by_name[name]
        leave(subject, subject.chart(readings, made.alerts[told:], newest), made)


def leave(subject: Subject, leaving: Leaving, made: Made) -> None:
    """Make Bundles of what charting by the minute lets go."""
    chart = subject.rules.chart
    built: dict[str, bytes] = {}
    for make, those in ((chart.rows, leaving.readings), (chart.minute, leaving.minutes)):
        by_device: dict[str, list[Reading]] = {}
        for device, reading in those:
            by_device.setdefault(device, []).append(reading)
        for device, readings in by_device.items():
            built |= {one.id: one.body for one in make(subject.name, device, readings)}
    entries = list(built.items())
    for at in range(0, len(entries), CHARTED_MAX):
        made.fhir.append(bundle(subject.name, entries[at : at + CHARTED_MAX]))

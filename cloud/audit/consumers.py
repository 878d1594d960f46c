"""A consumer of the samples topic (detect, archive) against the topic. Pure.

Law: a consumer takes each partition in the order of its offsets. What it has not taken behind the
last record it took is late; what lies before that is lost. What lies below its floor is judged by
its tally.
"""

from collections import defaultdict

from cloud.audit.evidence import Arrivals, Held, Part, Produced
from cloud.audit.explain import Differences, explain
from cloud.audit.findings import Findings
from cloud.audit.ranges import merged, minus

_Ranges = dict[int | None, list[tuple[int, int]]]

_TEXTS = {
    "lost": "passed over by {}",
    "doubled": "counted twice by {}",
    "altered": "another number of readings in {} than in Kafka",
    "unknown": "in {} and not in Kafka",
    "late": "not in {} yet",
}


def compare_stage(found: Findings, name: str, samples: Produced, stage: Held) -> None:
    """Name what a consumer lost, doubled, altered, or has not taken yet."""
    kinds: defaultdict[str, _Ranges] = defaultdict(dict)
    for partition in sorted(samples.parts.keys() | stage.parts.keys()):
        mine = samples.parts.get(partition) or Arrivals()
        theirs = stage.parts.get(partition) or Part()
        for what, ranges in _partition(found, f"{name} partition {partition}", mine, theirs):
            kinds[what][partition] = ranges
    for what, text in _TEXTS.items():
        found.name(name, what, text.format(name), kinds[what])


def _partition(
    found: Findings, where: str, mine: Arrivals, theirs: Part
) -> list[tuple[str, list[tuple[int, int]]]]:
    """Return (kind, ranges); what cannot be named is said at once."""
    unknown = minus(theirs.seen, mine.seen)
    if theirs.summed and not unknown and mine.tally == theirs.tally:
        return []
    taken = [seq in theirs.seen for seq in mine.seqs]
    end = max((at + 1 for at, has in enumerate(taken) if has), default=0)
    records = list(zip(mine.seqs, mine.readings, strict=True))
    lost = [seq for (seq, _), has in zip(records[:end], taken, strict=False) if not has]
    # An empty record gives the archive no row, so it may not be written for a while.
    late = [seq for seq, readings in records[end:] if readings]
    expected = [record for record, has in zip(records, taken, strict=True) if has]
    differ = Differences()
    if not unknown:
        if theirs.summed:
            differ = explain(expected, theirs.tally)
        if differ.unnamed or not theirs.summed:
            _by_total(found, where, expected, theirs)
    return [
        ("lost", merged([*lost, *differ.lost])),
        ("doubled", merged(differ.doubled)),
        ("altered", merged(differ.altered)),
        ("unknown", unknown),
        ("late", merged(late)),
    ]


def _by_total(found: Findings, where: str, expected: list[tuple[int, int]], theirs: Part) -> None:
    frames = theirs.tally.frames - len(expected)
    readings = theirs.tally.readings - sum(count for _, count in expected)
    if frames or readings or theirs.summed:
        found.bad(
            f"{where} counts {frames:+} frames and {readings:+} readings against Kafka,"
            f" below its floor {theirs.seen.floor}: more than can be named"
        )


def compare_consumers(found: Findings, detect: Held, archive: Held) -> None:
    """Compare both consumers with each other, when Kafka no longer has what they took."""
    behind: dict[str, _Ranges] = {"detect": {}, "archive": {}}
    for partition in sorted(detect.parts.keys() | archive.parts.keys()):
        one, other = detect.parts.get(partition) or Part(), archive.parts.get(partition) or Part()
        gaps = minus(other.seen, one.seen), minus(one.seen, other.seen)
        behind["detect"][partition], behind["archive"][partition] = gaps
        if not any(gaps) and one.tally.readings != other.tally.readings:
            found.bad(
                f"partition {partition}: detect holds {one.tally.readings} readings,"
                f" archive {other.tally.readings}"
            )
    for name, ranges in behind.items():
        found.name(name, "late", _TEXTS["late"].format(name), ranges)

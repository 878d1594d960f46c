"""The policies of `bench.streams`, and the Bundles that the same job gives."""

from collections.abc import Iterator
from typing import Final

import msgspec

from cloud.detect.rules import Rules
from cloud.fhir.chart import Chart
from cloud.policy.default import DEFAULT
from cloud.policy.model import Policy, Rule, Scores
from cloud.policy.resolve import resolve
from cloud.records import SamplesRecord

SAME: Final = msgspec.structs.replace(
    DEFAULT,
    version="bench",
    rules=(
        Rule("spo2", "low", 90, "high", hysteresis=1),
        Rule("heart_rate", "high", 130, "medium", hysteresis=5),
    ),
    trends=(),
    signal_loss=msgspec.structs.replace(DEFAULT.signal_loss, enabled=False),
    silence=msgspec.structs.replace(DEFAULT.silence, enabled=False),
    artefact=msgspec.structs.replace(DEFAULT.artefact, enabled=False),
    scores=Scores(
        msgspec.structs.replace(DEFAULT.scores.news2, enabled=False),
        DEFAULT.scores.qsofa,
        DEFAULT.scores.shock_index,
    ),
)
"""What every contender watches, and nothing more."""

POLICIES: Final[dict[str, Policy]] = {"same": SAME, "default": DEFAULT}

CHART: Final[Chart] = Rules(resolve(SAME, "", "", "0" * 32, {})).chart


def bundles(record: SamplesRecord) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, value) of what a record gives on ``fhir``."""
    for subject, body in CHART.bundles(record.columns):
        yield subject.encode(), body

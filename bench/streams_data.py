"""The data of `bench.streams`: wards of 40 beds as ingest writes them to ``samples``.

Law: pure; the same plan gives the same records. A sample is one line of a bed: five vital signs
of one moment. It goes the real way: a gateway's frame through `cloud.ingest.split`.

Live, a frame is a commit window of the gateway: what came within 10 ms of its first line, a line
or two of 40 beds that speak once a second, each at its own moment. A backlog's frames are folded:
`FOLDED_S` of the whole ward, by bed, time and vital sign (`edge.merge`).
"""

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from cloud.ingest.split import Pseudonyms, split
from cloud.records import SamplesRecord, encode, samples_key
from vitals.codes import BY_NAME
from vitals.columns import Columns, Source
from vitals.limits import COMMIT_WINDOW_S
from vitals.reading import Patient
from vitals.topics import partition_of

BEDS: Final = 40
"""Of one gateway."""

VITALS_SAID: Final = ("heart_rate", "spo2", "resp_rate", "pulse_rate", "temperature")
"""Five Observations; none is part of a panel."""

FOLDED_S: Final = 50
"""A gateway folds 2,000 frames, some 70 s of 40 beds, or 20,000 readings: 100 s; never more."""

BACKLOG_AGE_MS: Final = 3_600_000
"""A backlog's last reading is so old when it comes: what it tells rings nothing any more."""

INGEST_MS: Final = 20
"""From a line to its record."""

IN_FLIGHT: Final = 8
"""Frames a gateway sent that are not acknowledged: how far the floor lies behind."""

WINDOW_MS: Final = int(COMMIT_WINDOW_S * 1000)

ILL_PART: Final = 0.02
"""Subjects that once go below 90 % or above 130 /min for `ILL_S`; half of them each."""
ILL_S: Final = 20

KEY: Final = bytes(range(32))
"""Subject key of the bench."""

_INDEX: Final = tuple(BY_NAME[name].index for name in VITALS_SAID)
_ORDER: Final = sorted(range(len(_INDEX)), key=_INDEX.__getitem__)
_MRN: Final = "M{:06d}".format


class Keyed(NamedTuple):
    """One record of ``samples``; ``due_ms``: when ingest wrote it, in the data's own time."""

    partition: int
    key: bytes
    value: bytes
    due_ms: int


class Plan(NamedTuple):
    """Which data: ``subjects`` say one sample a second for ``seconds``; the last at ``end_ms``."""

    subjects: int
    seconds: int
    end_ms: int
    first: int = 0
    """Number of the first subject: plans that are not to meet differ in it."""
    seed: int = 7

    @property
    def samples(self) -> int:
        """Return how many samples there are."""
        return self.subjects * self.seconds


class _Bed:
    """Values that wander as a monitor's do, scaled as the code table wants."""

    def __init__(self, seed: int, number: int, seconds: int) -> None:
        rng = random.Random(seed * 1_000_003 + number)
        self.source = Source(f"bed-{number}", patient=Patient(mrn=_MRN(number)))
        self.phase_ms = rng.randrange(1000)
        self._rng = rng
        self._base = (
            rng.randrange(58, 95),
            rng.randrange(94, 99),
            rng.randrange(12, 21),
            rng.randrange(364, 376),
        )
        self._ill = ""
        self._ill_at = rng.randrange(max(1, seconds - ILL_S - 10))
        if rng.random() < ILL_PART:
            self._ill = rng.choice(("spo2", "heart_rate"))

    def values(self, second: int) -> tuple[int, int, int, int, int]:
        """Return the five of `VITALS_SAID` in this second."""
        heart, spo2, resp, temperature = self._base
        bits = self._rng.getrandbits(12)
        heart += bits & 7
        spo2 += bits >> 3 & 1
        resp += bits >> 4 & 3
        if self._ill and self._ill_at <= second < self._ill_at + ILL_S:
            if self._ill == "spo2":
                spo2 = 82 + (bits >> 6 & 3)
            else:
                heart = 135 + (bits & 7)
        return heart, spo2, resp, heart + (bits >> 8 & 1), temperature + (bits >> 9 & 1)


class _Gateway:
    """Cuts frames of its beds and numbers them."""

    def __init__(self, plan: Plan, number: int, pseudonyms: Pseudonyms) -> None:
        first = plan.first + number * BEDS
        count = min(BEDS, plan.first + plan.subjects - first)
        self.beds = [_Bed(plan.seed, first + at, plan.seconds) for at in range(count)]
        self._edge = f"ward-{plan.first // BEDS + number}"
        self._epoch = f"{random.Random(-first - 1).getrandbits(128):032x}"
        self._seq = -1
        self._pseudonyms = pseudonyms

    def frame(
        self, rows: list[tuple[_Bed, int, tuple[int, int, int, int, int]]], ingested_ms: int
    ) -> list[Keyed]:
        """Return the records of one frame; ``rows`` are (bed, time, values), in their order."""
        places: dict[int, int] = {}
        sources: list[Source] = []
        columns = Columns(sources, [], [], [], [], [])
        times: list[int] = []
        for bed, time_ms, values in rows:
            at = places.setdefault(id(bed), len(places))
            if at == len(sources):
                sources.append(bed.source)
            columns.source += [at] * len(values)
            columns.vital += [_INDEX[one] for one in _ORDER]
            columns.value += [values[one] for one in _ORDER]
            times += [time_ms] * len(values)
        columns.time = [times[0], *(b - a for a, b in pairwise(times))]
        columns.received = list(columns.time)
        self._seq += 1
        floor = max(0, self._seq - IN_FLIGHT)
        return [
            Keyed(
                partition,
                samples_key(self._edge, self._epoch, self._seq, partition),
                encode(
                    SamplesRecord(
                        self._edge,
                        self._epoch,
                        self._seq,
                        floor,
                        ingested_ms,
                        part,
                        len(columns.vital),
                    )
                ),
                ingested_ms,
            )
            for partition, part in split(self._edge, columns, self._pseudonyms).items()
        ]


def _gateways(plan: Plan) -> list[_Gateway]:
    pseudonyms = Pseudonyms(KEY)
    return [_Gateway(plan, at, pseudonyms) for at in range(-(-plan.subjects // BEDS))]


def live(plan: Plan) -> Iterator[Keyed]:
    """Yield the records in the order in which they came, commit window by commit window."""
    gateways = _gateways(plan)
    begin_ms = plan.end_ms - plan.seconds * 1000
    for second in range(plan.seconds):
        at_ms = begin_ms + second * 1000
        windows = []
        for number, gateway in enumerate(gateways):
            rows: list[tuple[_Bed, int, tuple[int, int, int, int, int]]] = []
            for bed in sorted(gateway.beds, key=lambda bed: bed.phase_ms):
                if rows and at_ms + bed.phase_ms > rows[0][1] + WINDOW_MS:
                    windows.append((rows[0][1] + WINDOW_MS, number, rows))
                    rows = []
                rows.append((bed, at_ms + bed.phase_ms, bed.values(second)))
            windows.append((rows[0][1] + WINDOW_MS, number, rows))
        for closed_ms, number, rows in sorted(windows, key=lambda window: window[:2]):
            yield from gateways[number].frame(rows, closed_ms + INGEST_MS)


def backlog(plan: Plan) -> Iterator[Keyed]:
    """Yield the same samples folded, every gateway's oldest frame first."""
    gateways = _gateways(plan)
    begin_ms = plan.end_ms - BACKLOG_AGE_MS - plan.seconds * 1000
    for since in range(0, plan.seconds, FOLDED_S):
        seconds = range(since, min(since + FOLDED_S, plan.seconds))
        for gateway in gateways:
            said = {
                (second, id(bed)): bed.values(second) for second in seconds for bed in gateway.beds
            }
            rows = [
                (bed, begin_ms + second * 1000 + bed.phase_ms, said[second, id(bed)])
                for bed in gateway.beds
                for second in seconds
            ]
            yield from gateway.frame(rows, plan.end_ms + INGEST_MS)


SHAPES: Final = {"live": live, "backlog": backlog}


# -- probes: the moment of sending is in the subject's name ----------------------------------------

PROBE_EDGE: Final = "probe"
PROBE_DELAY_MS: Final = 10_000
"""The rule's delay: two low values so far apart, and the second one rings."""

_SPO2: Final = BY_NAME["spo2"].index


def probe(rng: random.Random, epoch: str, seq: int, now_us: int) -> Keyed:
    """Return a record whose subject's SpO2 has been low for `PROBE_DELAY_MS`: it alerts at once."""
    subject = f"{rng.getrandbits(64):016x}{now_us:016x}"
    now_ms = now_us // 1000
    columns = Columns(
        [Source(f"{rng.getrandbits(128):032x}", subject)],
        [0, 0],
        [_SPO2, _SPO2],
        [85, 85],
        [now_ms - PROBE_DELAY_MS, PROBE_DELAY_MS],
        [now_ms, 0],
    )
    partition = partition_of(subject)
    record = SamplesRecord(PROBE_EDGE, epoch, seq, max(0, seq - IN_FLIGHT), now_ms, columns, 2)
    return Keyed(partition, samples_key(PROBE_EDGE, epoch, seq, partition), encode(record), now_ms)


def probed_us(subject: str) -> int:
    """Return when the probe of this subject was sent, in microseconds of UTC."""
    return int(subject[16:], 16)

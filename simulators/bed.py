"""One bed of a replayed ward: recorded seconds in, lines of the line protocol out.

Law: pure and deterministic; the same seed and bed give the same values. Heart rate, pulse,
respiration and oxygen saturation are recorded; blood pressure and temperature are made up from
the seed. Names, record numbers and birth dates are made up and look it.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from simulators.recorded import Second, recordings

FIRST_NAMES: Final = ("Ada", "Bo", "Cleo", "Dot", "Eli", "Fay", "Gus", "Hal", "Ivy", "Jo")
LAST_NAMES: Final = ("Sample", "Example", "Specimen", "Fictive", "Placeholder", "Madeup", "Nobody")

# Record numbers SIM000001.. belong to ward.sh; a replayed ward starts here, so that both can run.
MRN_BASE: Final = 100_000

# Cuff and thermometer: every this many samples, as a monitor set to one minute does.
CUFF_SAMPLES: Final = 60

EPISODE_SPO2: Final = 84
EPISODE_SAMPLES: Final = 30
EPISODE_SLOPE_SAMPLES: Final = 4


class Episode(NamedTuple):
    """Oxygen saturation falls to 84 % for 30 samples, from sample ``at`` of bed ``bed`` (1..)."""

    bed: int
    at: int


def fraction(seed: int, *parts: object) -> float:
    """Return a number in [0, 1) that depends on nothing but its arguments."""
    text = "/".join(map(str, (seed, *parts))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big") / 256**7


class Bed:
    """Bed ``number`` (1..) of a ward; ask `body` for sample 0, 1, 2, ..."""

    def __init__(self, number: int, ward: str, seed: int, episodes: Iterable[Episode] = ()) -> None:
        """Choose the patient's recordings and made-up facts from ``seed``."""
        self.name = f"R{number:02d}"
        self.device = f"bed-{self.name}"
        self._number, self._ward, self._seed = number, ward, seed
        self._episodes = sorted(episode.at for episode in episodes if episode.bed == number)
        every = recordings()
        self._order = sorted(range(len(every)), key=lambda index: fraction(seed, "order", index))
        # beds beyond the number of recordings share one, minutes apart
        self._offset = (number - 1) // len(every) * 97

    def second(self, sample: int) -> Second:
        """Return the recorded second of ``sample``; recordings follow each other in a ring."""
        every = recordings()
        at, left = (self._number - 1) % len(every), sample + self._offset
        ring = sum(len(recording) for recording in every)
        left %= ring
        while left >= len(every[self._order[at]]):
            left -= len(every[self._order[at]])
            at = (at + 1) % len(every)
        return self._disturbed(every[self._order[at]][left], sample)

    def _disturbed(self, second: Second, sample: int) -> Second:
        for at in self._episodes:
            outside = max(at - sample, sample - (at + EPISODE_SAMPLES - 1), 0)
            if outside <= EPISODE_SLOPE_SAMPLES:
                usual = 97 if second.spo2 is None else second.spo2
                step = (usual - EPISODE_SPO2) * outside / (EPISODE_SLOPE_SAMPLES + 1)
                return second._replace(spo2=EPISODE_SPO2 + round(step))
        return second

    def pressure(self, sample: int) -> tuple[int, int]:
        """Return a simulated systolic and diastolic pressure in mm[Hg]."""
        base = 108 + 24 * fraction(self._seed, self._number, "bp")
        systolic = round(base + 8 * fraction(self._seed, self._number, "sys", sample) - 4)
        return systolic, round(
            systolic * (0.6 + 0.06 * fraction(self._seed, self._number, "dia", sample))
        )

    def temperature(self, sample: int) -> float:
        """Return a simulated temperature in Cel."""
        base = 36.5 + 0.7 * fraction(self._seed, self._number, "temp")
        return round(base + 0.3 * fraction(self._seed, self._number, "drift", sample) - 0.15, 1)

    def patient(self) -> str:
        """Return the patient's fields: made up, and seen at once to be."""
        index, later = self._number - 1, fraction(self._seed, self._number, "birth")
        first = FIRST_NAMES[index % len(FIRST_NAMES)]
        last = LAST_NAMES[index % len(LAST_NAMES)]
        born = date(1930, 1, 1) + timedelta(days=int(later * 60 * 365))
        sex = "female" if fraction(self._seed, self._number, "sex") < 0.5 else "male"
        return (
            f'mrn=SIM{MRN_BASE + self._number:06d} name="{first} {last}" dob={born} sex={sex}'
            f" bed={self.name} ward={self._ward}"
        )

    def body(self, sample: int, time_ms: int | None) -> str:
        """Return the measurements of ``sample``; without ``time_ms`` the receipt's time counts."""
        second = self.second(sample)
        fields = [
            f"heart_rate={_shown(second.heart_rate)}",
            f"pulse={_shown(second.pulse)}",
            f"resp={_shown(second.resp)}",
            f"spo2={_shown(second.spo2)}",
        ]
        if sample % CUFF_SAMPLES == 0:
            systolic, diastolic = self.pressure(sample)
            fields += [f"bp={systolic}/{diastolic}", f"temperature={self.temperature(sample)}C"]
        line = ", ".join(fields)
        return line if time_ms is None else f"{line} time={_instant(time_ms)}"


def _shown(value: int | None) -> str:
    return "" if value is None else str(value)


def _instant(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

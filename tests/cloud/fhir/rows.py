"""Readings and limits to test with."""

from hypothesis import strategies as st

from cloud.fhir.ranges import Limits
from vitals.codes import BY_NAME, VITALS, Site, Status
from vitals.reading import Reading

SUBJECT, DEVICE = "0123456789abcdef" * 2, "f" * 32
AT = 1_795_428_000_000


def reading(
    vital: str, value: float | None, status: int = 0, site: int = 0, channel: int = 0, at: int = AT
) -> Reading:
    return Reading(BY_NAME[vital].index, value, at, at, status, site, channel)


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    vital = draw(st.sampled_from(VITALS))
    status = draw(st.sampled_from(Status))
    absent = status in {Status.MISSING, Status.IMPLAUSIBLE}
    scale = 10**vital.decimals
    number = draw(st.integers(int(vital.low * scale) + 1, int(vital.high * scale))) / scale
    site = draw(st.sampled_from(Site)) if vital.name == "temperature" else Site.NONE
    at = AT + draw(st.integers(0, 3))
    channel = draw(st.integers(0, 2))
    return Reading(vital.index, None if absent else number, at, at, status, site, channel)


@st.composite
def limits_of(draw: st.DrawFn) -> Limits:
    numbers = st.integers(-20, 350).map(float) | st.integers(-200, 3500).map(lambda n: n / 10)
    low_low, low, high, high_high = sorted(draw(st.tuples(*[numbers] * 4)))
    keep = draw(st.tuples(*[st.booleans()] * 4))
    return Limits(
        low if keep[0] else None,
        high if keep[1] else None,
        low_low if keep[2] else None,
        high_high if keep[3] else None,
    )

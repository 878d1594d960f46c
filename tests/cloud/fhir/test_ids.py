"""Ids: every reading has one name, and the name says which reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.fhir.ids import (
    PANEL_OF,
    PANELS,
    instant,
    observation_id,
    parse_observation_id,
)
from vitals.codes import BY_NAME, Site
from vitals.columns import CHANNEL_MAX, TIME_MS_MAX

SUBJECT = "0123456789abcdef" * 2
NAMES = sorted({*PANELS, *BY_NAME} - set(PANEL_OF))


@given(
    st.sampled_from(NAMES),
    st.integers(0, TIME_MS_MAX),
    st.integers(0, CHANNEL_MAX),
    st.sampled_from(sorted(Site)),
)
def test_an_id_is_a_fhir_id_and_comes_back(vital: str, at: int, channel: int, site: Site) -> None:
    where = int(site) if vital == "temperature" else 0
    ident = observation_id(SUBJECT, vital, at, where, channel)
    assert len(ident) <= 64
    assert set(ident) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert parse_observation_id(ident) == (SUBJECT, vital, at, where, channel)


@given(st.text(max_size=80))
def test_any_other_text_is_no_id(text: str) -> None:
    parsed = parse_observation_id(text)
    assert parsed is None or observation_id(*parsed) == text


def test_known_ids_stay_what_they_are() -> None:
    at = 1_795_428_000_000
    assert observation_id(SUBJECT, "heart_rate", at) == f"{SUBJECT}.heart-rate.mwt3h340"
    assert observation_id(SUBJECT, "temperature", at, 4, 37) == (
        f"{SUBJECT}.temperature.mwt3h340.s4.c11"
    )
    assert observation_id(SUBJECT, "nibp_diastolic", at) == f"{SUBJECT}.nibp.mwt3h340"


@pytest.mark.parametrize(
    "text",
    [
        f"{SUBJECT}.spo2.0mwt3h340",
        f"{SUBJECT}.spo2.mwt3h340.c0",
        f"{SUBJECT}.spo2.mwt3h340.s0",
        f"{SUBJECT}.nibp-systolic.mwt3h340",
        f"{SUBJECT}.heart_rate.mwt3h340",
        f"{SUBJECT.upper()}.spo2.mwt3h340",
        f"{SUBJECT}.spo2.zzzzzzzzzz",
        f"{SUBJECT}.spo2.mwt3h340\n",
    ],
)
def test_a_second_spelling_of_an_id_is_none(text: str) -> None:
    assert parse_observation_id(text) is None


@pytest.mark.parametrize(
    ("subject", "vital", "at", "channel"),
    [
        ("ab", "spo2", 0, 0),
        (SUBJECT, "glucose", 0, 0),
        (SUBJECT, "spo2", -1, 0),
        (SUBJECT, "spo2", TIME_MS_MAX + 1, 0),
        (SUBJECT, "spo2", 0, CHANNEL_MAX + 1),
    ],
)
def test_what_cannot_be_named_is_refused(subject: str, vital: str, at: int, channel: int) -> None:
    with pytest.raises(ValueError):
        observation_id(subject, vital, at, 0, channel)


def test_an_instant_is_utc_with_milliseconds() -> None:
    assert instant(1_795_428_000_007) == "2026-11-23T10:00:00.007Z"
    assert instant(0) == "1970-01-01T00:00:00.000Z"

"""What leaves the desk: nobody by name, one text one version, written in one way only."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.ingest.split import Pseudonyms
from cloud.policy.model import Policy
from cloud.policy.resolve import resolve
from cloud.policy.seal import open_published, publish, seal
from cloud.policy.text import load, read, write
from tests.cloud.policy.files import DEFAULT_TEXT, SUBJECTS, built, change, ward
from vitals.errors import ConfigError

KEY = b"k" * 32
CANARIES = ("MRN-CANARY", "bed-CANARY", "Ada Ng-CANARY", "COPD-CANARY", "comment-CANARY")
HAND_WRITTEN = (
    DEFAULT_TEXT
    + f"""
# {CANARIES[4]}: Ada's own limits
[[ward]]
name = "Respiratory"
gateways = ["gw-1"] # {CANARIES[4]}
[[ward.rule]]
vital = "spo2"
direction = "low"
priority = "high"
limit = 88
[[bed]]
gateway = "gw-1"
device = "{CANARIES[1]}"
[[bed.rule]]
vital = "resp_rate"
direction = "low"
priority = "high"
off = true
[[patient]]
mrn = "{CANARIES[0]}"
spo2_scale = 2
by = "{CANARIES[2]}"
why = "{CANARIES[3]}"
age_years = 77
until = 2026-12-24T18:00:00+01:00
[patient.signal_loss]
enabled = false
"""
)


def sealed(text: str = HAND_WRITTEN) -> Policy:
    return seal(read(text.encode(), "file"), KEY)


def test_nothing_that_was_written_about_anybody_is_published() -> None:
    for canary in CANARIES:
        assert canary in HAND_WRITTEN
    text = publish(sealed()).text
    assert "CANARY" not in text
    for word in ("77", "age_years", "mrn", "#", "device ="):
        assert word not in text
    assert 'gateways = ["gw-1"]' in text
    assert "until = 2026-12-24T17:00:00.000Z" in text


def test_what_is_published_finds_whom_ingest_calls_the_same() -> None:
    policy = open_published(publish(sealed()).text)
    subject, device = Pseudonyms(KEY).of("gw-1", CANARIES[1], CANARIES[0])
    found = resolve(policy, "gw-1", device, subject, {})
    assert [rule.limit for rule in found.rules if rule.vital == "spo2"] == [88]
    assert "resp_rate.low.high" not in {rule.name for rule in found.rules}
    assert found.scores.news2.spo2_scale == 2
    assert not found.losses.enabled
    other = resolve(policy, "gw-2", device, SUBJECTS[0], {})
    assert other.losses.enabled


@pytest.mark.parametrize(("years", "is_young"), [(15, True), (16, None)])
def test_an_age_leaves_as_what_news2_asks(years: int, is_young: bool | None) -> None:
    policy = seal(built(patient=[{"mrn": "1", "age_years": years}]), KEY)
    assert (policy.patients[0].age_years, policy.patients[0].under_16) == (None, is_young)


def test_sealing_a_sealed_policy_changes_nothing() -> None:
    assert seal(sealed(), b"z" * 32) == sealed()


def test_reasons_are_marked_so_that_they_can_be_proved() -> None:
    one, other = sealed(), sealed(HAND_WRITTEN.replace(CANARIES[3], "asthma"))
    assert one.patients[0].why == sealed().patients[0].why
    assert one.patients[0].why != other.patients[0].why
    assert one.patients[0].by == other.patients[0].by
    assert seal(read(HAND_WRITTEN.encode(), "file"), b"z" * 32).patients[0].by != one.patients[0].by


def test_the_order_of_the_file_does_not_leave() -> None:
    patients = [{"mrn": str(n), "rule": [change(limit=80 + n)]} for n in range(6)]
    beds = [{"gateway": "g", "device": str(n)} for n in range(6)]
    here = publish(seal(built(patient=patients, bed=beds), KEY))
    there = publish(seal(built(patient=patients[::-1], bed=beds[::-1]), KEY))
    assert here == there


def test_one_person_named_twice_is_found_when_sealed() -> None:
    subject, device = Pseudonyms(KEY).of("gw-1", "bed-1", "M1")
    with pytest.raises(ConfigError, match="two entries of patient"):
        seal(built(patient=[{"mrn": "M1"}, {"subject": subject}]), KEY)
    with pytest.raises(ConfigError, match="two entries of bed"):
        seal(built(bed=[{"device": "bed-1", "gateway": "gw-1"}, {"device_id": device}]), KEY)


def test_what_names_somebody_is_not_published() -> None:
    with pytest.raises(ConfigError, match="seal it first"):
        publish(built(patient=[{"mrn": "1"}]))


def test_two_texts_never_share_a_version_and_one_text_has_one() -> None:
    one = publish(built())
    assert one.version.startswith("default-2+")
    assert publish(built({"rule.0.limit": 89.5})).version != one.version
    assert (
        publish(built({"version": "default-3"})).version.partition("+")[2]
        != (one.version.partition("+")[2])
    )
    assert publish(open_published(one.text)) == one


@pytest.mark.parametrize(
    "change_text",
    [
        lambda text: text.replace("limit = 90.0", "limit = 80.0"),
        lambda text: text + "# comment\n",
        lambda text: text.replace("default-2+", "default-3+"),
        lambda text: text.partition("\n")[2],
        lambda text: DEFAULT_TEXT,
        lambda text: "",
    ],
)
def test_a_published_text_that_was_changed_is_refused(change_text: Any) -> None:
    text = publish(built()).text
    with pytest.raises(ConfigError, match="version is not of its text"):
        open_published(change_text(text))


def test_a_sealed_text_over_the_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(publish(built()).text.encode())
    monkeypatch.setattr("cloud.policy.seal.TEXT_BYTES_MAX", size)
    publish(built())
    monkeypatch.setattr("cloud.policy.seal.TEXT_BYTES_MAX", size - 1)
    with pytest.raises(ConfigError, match="once sealed"):
        publish(built())


# Reading and writing ------------------------------------------------------------------------------


def everything() -> Policy:
    until = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    return built(
        {"life.low.escalate_s": []},
        ward=[
            ward(
                'I"C\\U Ä',
                "gw-1",
                "gw-2",
                rule=[change(limit=88, off=False), change("etco2", "low", "low", limit=20)],
                trend=[{"vital": "spo2", "direction": "falling", "off": True}],
                silence={"gateway_s": 45},
                scores={"news2": {"single_red": True}, "shock_index": {"at": 1.1}},
            )
        ],
        bed=[{"device": "b", "gateway": "gw-1", "signal_loss": {}}],
        patient=[
            {
                "mrn": "1",
                "why": "a\x7fb\n",
                "until": until,
                "under_16": False,
            }
        ],
    )


def test_what_is_written_reads_back_the_same() -> None:
    policy = everything()
    text = write(policy)
    assert read(text.encode(), "file") == policy
    assert write(read(text.encode(), "file")) == text


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_words_survive(words: str) -> None:
    policy = built(patient=[{"mrn": "1", "why": words}])
    assert read(write(policy).encode(), "file").patients[0].why == words


@settings(deadline=None)
@given(st.floats(0.1, 98, allow_subnormal=False))
def test_any_number_survives(limit: float) -> None:
    policy = built({"rule.0.limit": limit})
    assert read(write(policy).encode(), "file").rules[0].limit == limit


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("limit = 90", "limit = nan", r"file: rule\[0\].limit: nan is no number"),
        ("limit = 90", "limit = inf", "inf is no number"),
        ("gap_s = 30", "gap_s = -inf", "gap_s: -inf is no number"),
        ("escalate_s = [120, 300]", "escalate_s = [120, nan]", r"life.high.escalate_s\[1\]"),
        ("limit = 90", "limt = 90", "did you mean `limit`"),
        ("limit = 90", 'limit = "90"', "Expected `float`"),
        ("limit = 90", "", "missing required field `limit`"),
        ('priority = "high"', 'priority = "urgent"', "urgent"),
        ('direction = "low"', 'direction = "down"', "down"),
        ("latch = true\n", "", "latch"),
        ("gap_s = 30", "gap_s = ", "not valid TOML"),
        ('vital = "spo2"', 'vital = "glucose"', "no such vital"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(old: str, new: str, says: str) -> None:
    assert old in DEFAULT_TEXT
    with pytest.raises(ConfigError, match=says):
        read(DEFAULT_TEXT.replace(old, new, 1).encode(), "file")


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (b"\xff", "is not UTF-8"),
        (b"\nx = " + b"[" * 100_000, "nested too deep"),
        (b'\n[[patient]]\nmrn = "1"\nuntil = 2026-01-01T00:00:00\n', "timezone"),
        (b'\n[[patient]]\nmrn = "1"\nuntil = 2026-01-01\n', "until"),
        (b'\n[[ward]]\nname = "W"\ngateways = ["g"]\nsingle_red = true\n', "single_red"),
    ],
)
def test_bytes_that_cannot_be_meant_are_refused(tail: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read(DEFAULT_TEXT.encode() + tail, "file")


def test_a_file_that_is_not_there_is_named(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"gone.toml: cannot be read \(FileNotFoundError\)"):
        load(tmp_path / "gone.toml")


def test_a_text_of_quotes_fits_a_record() -> None:
    from cloud.policy.bounds import TEXT_BYTES_MAX
    from cloud.policy.push import RECORD_BYTES_MAX
    from cloud.records import NewPolicy

    worst = NewPolicy("v" * 57, '"' * TEXT_BYTES_MAX, "w" * 64, 2**53)
    size = len(msgspec.json.encode(worst))
    assert size <= RECORD_BYTES_MAX
    assert json.loads(msgspec.json.encode(worst))["type"] == "policy"

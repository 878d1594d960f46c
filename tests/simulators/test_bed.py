"""A replayed bed: recorded facts pass unchanged, what is made up is plausible and repeatable."""

import re
from pathlib import Path

import pytest

from edge.decode_line import Said, decode
from simulators.bed import EPISODE_SAMPLES, EPISODE_SPO2, MRN_BASE, Bed, Episode
from simulators.recorded import FILE, Second, recordings
from vitals.codes import BY_NAME, VITALS

AT_MS = 1_795_428_000_123


def said(bed: Bed, sample: int, time_ms: int | None = None) -> Said:
    line = f"device={bed.device} {bed.patient()} {bed.body(sample, time_ms)}"
    heard = decode(line.encode())
    assert isinstance(heard, Said), (line, heard)
    return heard


def test_the_recordings_are_all_there() -> None:
    every = recordings()
    assert len(every) == 53
    assert {len(recording) for recording in every} == {481}
    assert every[0][0] == Second(94, 93, 25, 97)
    assert sum(value is None for one in every for second in one for value in second) == 413
    assert Path(FILE).stat().st_size < 400_000


def test_recorded_values_are_within_what_the_source_states() -> None:
    seconds = [second for recording in recordings() for second in recording]
    for name, low, high in (("heart_rate", 44, 139), ("resp", 0, 34), ("spo2", 83, 100)):
        values = [getattr(second, name) for second in seconds if getattr(second, name) is not None]
        assert (min(values), max(values)) == (low, high)


def test_a_line_says_the_recorded_second() -> None:
    bed = Bed(1, "W1", seed=1)
    for sample in (0, 1, 59, 60, 480, 481, 10_000):
        second, heard = bed.second(sample), said(bed, sample)
        told = {VITALS[m.vital].name: m.number for m in heard.measures}
        assert told["heart_rate"] == second.heart_rate
        assert told["pulse_rate"] == second.pulse
        assert told["resp_rate"] == second.resp
        assert told["spo2"] == second.spo2


def test_a_gap_in_the_recording_is_a_field_without_a_value() -> None:
    bed = Bed(1, "W1", seed=1)
    sample = next(n for n in range(53 * 481) if bed.second(n).resp is None)
    assert re.search(r"resp=,", bed.body(sample, None))
    told = {VITALS[m.vital].name: m.number for m in said(bed, sample).measures}
    assert told["resp_rate"] is None


def test_recordings_follow_each_other_and_begin_again() -> None:
    bed = Bed(1, "W1", seed=1)
    ring = 53 * 481
    assert bed.second(ring) == bed.second(0)
    heard = [bed.second(sample) for sample in range(ring)]
    assert sorted(map(str, heard)) == sorted(str(s) for one in recordings() for s in one)


def test_beds_of_one_seed_start_with_different_recordings() -> None:
    starts = {tuple(Bed(n, "W1", seed=1).second(s) for s in range(60)) for n in range(1, 54)}
    assert len(starts) >= 52


def test_beds_that_share_a_recording_are_apart_in_time() -> None:
    first, later = Bed(1, "W1", seed=1), Bed(54, "W1", seed=1)
    assert later.second(0) == first.second(97)


def test_the_same_seed_gives_the_same_lines_and_another_seed_others() -> None:
    def lines(seed: int) -> list[str]:
        return [Bed(2, "W1", seed).body(sample, None) for sample in range(130)]

    assert lines(7) == lines(7)
    assert lines(7) != lines(8)


def test_pressure_and_temperature_come_once_a_minute_and_are_plausible() -> None:
    for number in range(1, 40):
        bed = Bed(number, "W1", seed=3)
        for sample in range(0, 600, 60):
            told = {VITALS[m.vital].name: m.number for m in said(bed, sample).measures}
            systolic, diastolic = told["nibp_systolic"], told["nibp_diastolic"]
            assert systolic is not None
            assert diastolic is not None
            assert 100 <= systolic <= 140
            assert 55 <= diastolic <= systolic - 30
            assert 36.0 <= (told["temperature"] or 0) <= 37.6
        assert BY_NAME["temperature"].index not in {m.vital for m in said(bed, 61).measures}


def test_a_patient_is_plainly_made_up() -> None:
    heard = said(Bed(3, "W9", seed=1), 0)
    assert heard.device == "bed-R03"
    assert heard.patient["mrn"] == f"SIM{MRN_BASE + 3:06d}" == "SIM100003"
    assert heard.patient["name"] == "Cleo Specimen"
    assert (heard.patient["bed"], heard.patient["ward"]) == ("R03", "W9")
    assert heard.patient["sex"] in {"female", "male"}


def test_every_bed_is_a_patient_of_its_own() -> None:
    patients = [said(Bed(number, "W1", seed=1), 1).patient["mrn"] for number in range(1, 301)]
    assert len(set(patients)) == 300


@pytest.mark.parametrize(("time_ms", "told"), [(AT_MS, "2026-11-23T10:00:00.123000+00:00")])
def test_a_line_carries_the_time_it_was_given(time_ms: int, told: str) -> None:
    moment = said(Bed(1, "W1", seed=1), 0, time_ms).time
    assert moment is not None
    assert moment.isoformat() == told
    assert said(Bed(1, "W1", seed=1), 0).time is None


def test_an_episode_is_a_fall_to_84_for_thirty_samples_in_that_bed_only() -> None:
    episodes = [Episode(2, 20)]
    bed, other = Bed(2, "W1", 1, episodes), Bed(3, "W1", 1, episodes)
    spo2 = [bed.second(sample).spo2 for sample in range(70)]
    assert spo2[20 : 20 + EPISODE_SAMPLES] == [EPISODE_SPO2] * EPISODE_SAMPLES
    assert [value for value in spo2 if value is not None and value < 85] == [84] * EPISODE_SAMPLES
    plain = Bed(2, "W1", 1)
    for sample in (*range(16), *range(54, 70)):
        assert bed.second(sample) == plain.second(sample)
    assert [other.second(s) for s in range(70)] == [Bed(3, "W1", 1).second(s) for s in range(70)]

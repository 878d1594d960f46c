"""What is remembered of each device is right, bounded, and holds no name and no number."""

import pytest

from edge import devices as devices_
from edge.devices import Devices, kind
from edge.normalize import timed
from edge.words import Words
from tests.edge.gateway import NOW
from vitals.columns import Source
from vitals.reading import Patient, Reading

ADA = Patient(mrn="M000123", name="Ada Ng", bed="12", ward="W1")


def _reading(at_ms: int = NOW, vital: int = 0, site: int = 0, channel: int = 0) -> Reading:
    return Reading(vital, 78.0, at_ms, at_ms, site=site, channel=channel)


def _heard(devices: Devices, name: str = "m-1", at_ms: int = NOW, times: int = 1) -> None:
    for _ in range(times):
        devices.heard(Source(name), (_reading(at_ms),))


def test_a_device_is_counted_and_its_newest_readings_are_kept() -> None:
    devices = Devices()
    devices.heard(Source("m-1", patient=ADA), (_reading(), _reading(vital=2)), "line 10.0.0.7")
    newer = _reading(NOW + 1000)
    devices.heard(Source("m-1", patient=ADA), (newer,), "line 10.0.0.8")
    device = devices.get("m-1")
    assert device is not None
    assert (device.inputs, device.readings, device.first_ms, device.last_ms) == (
        *(2, 3),
        *(NOW, NOW + 1000),
    )
    assert device.latest[0] is newer
    assert set(device.latest) == {0, 2}
    assert (device.bed, device.identified, device.via) == ("12", True, "line 10.0.0.8")
    assert devices.get("m-2") is None


def test_neither_name_nor_number_of_a_patient_is_kept() -> None:
    devices = Devices()
    devices.heard(Source("m-1", patient=ADA), (_reading(),))
    device = devices.get("m-1")
    assert device is not None
    for name in device.__slots__:
        assert "M000123" not in repr(getattr(device, name))
        assert "Ada" not in repr(getattr(device, name))


def test_a_patient_who_is_gone_leaves_no_bed() -> None:
    devices = Devices()
    devices.heard(Source("m-1", patient=ADA), (_reading(),))
    devices.heard(Source("m-1"), (_reading(),))
    device = devices.get("m-1")
    assert device is not None
    assert (device.bed, device.identified) == ("", False)


def test_sites_and_channels_are_kinds_of_their_own() -> None:
    found = {
        kind(_reading(vital=vital, site=site, channel=channel))
        for vital in range(17)
        for site in range(9)
        for channel in (0, 1, 65_535)
    }
    assert len(found) == 17 * 9 * 3


def test_refusals_are_counted_by_reason_with_their_time() -> None:
    devices = Devices()
    devices.rejected("m-1", "bad-unit", NOW, "line 10.0.0.7")
    devices.rejected("m-1", "bad-unit", NOW + 5)
    devices.rejected("m-1", "binary", NOW + 9)
    device = devices.get("m-1")
    assert device is not None
    assert device.rejects == {"bad-unit": 2, "binary": 1}
    assert (device.refused_ms, device.last_ms, device.via) == (NOW + 9, 0, "line 10.0.0.7")


def test_the_least_recently_heard_is_forgotten_first() -> None:
    devices = Devices(most=2)
    for at, name in enumerate("ab"):
        _heard(devices, name, NOW + at)
    devices.rejected("a", "binary", NOW + 2)
    _heard(devices, "c", NOW + 3)
    assert [device.name for device in devices] == ["a", "c"]
    assert len(devices) == 2


def test_a_flood_of_made_up_names_pushes_out_a_twentieth_at_once() -> None:
    devices = Devices(most=100)
    sizes = []
    for at in range(1000):
        _heard(devices, f"m-{at}", NOW + at)
        sizes.append(len(devices))
    assert max(sizes) == 100
    assert min(sizes[100:]) == 95
    assert {device.name for device in devices} >= {f"m-{at}" for at in range(906, 1000)}
    alone = Devices(most=1)
    for name in "abc":
        _heard(alone, name)
        assert [device.name for device in alone] == [name]


def test_a_line_is_remembered_as_its_readings_are() -> None:
    lines, messages = Devices(), Devices()
    for at, words in enumerate(("hr=78 spo2=95%", "temp=37@oral", "temp=38@rectal", "hr=79")):
        read = Words().read(words)
        assert read is not None
        rows, _, layout = read
        moment = timed(rows, None, NOW + at, layout)
        device = lines.speaks(Source("m", patient=ADA), moment.received_ms, "line 10.0.0.7")
        lines.noted(device, moment)
        messages.heard(Source("m", patient=ADA), moment.readings, "line 10.0.0.7")
    one, other = lines.get("m"), messages.get("m")
    assert one is not None
    assert other is not None
    assert one.latest == other.latest
    assert sorted(reading.value or 0 for reading in one.latest.values()) == [37, 38, 79, 95]
    for name in ("inputs", "readings", "kept", "first_ms", "last_ms", "bed", "identified", "via"):
        assert getattr(one, name) == getattr(other, name), name


def test_lines_that_differ_in_the_middle_do_not_hide_each_other() -> None:
    devices = Devices()
    for at, words in enumerate(("hr=78 spo2=95% temp=37", "hr=79 rr=16 temp=37")):
        read = Words().read(words)
        assert read is not None
        moment = timed(read[0], None, NOW + at, read[2])
        devices.noted(devices.speaks(Source("m"), NOW + at, ""), moment)
    device = devices.get("m")
    assert device is not None
    assert set(device.latest) == {0, 2, 3, 4}


def test_more_layouts_than_are_kept_apart_are_folded_and_none_is_lost() -> None:
    devices = Devices()
    for at in range(3 * devices_.LAYOUTS_MAX):
        devices.heard(Source("m"), (_reading(NOW + at, channel=at),))
    device = devices.get("m")
    assert device is not None
    assert len(device.latest) == 3 * devices_.LAYOUTS_MAX
    assert device.kept == 3 * devices_.LAYOUTS_MAX
    assert device.others is not None
    assert len(device.others) <= devices_.LAYOUTS_MAX


def test_readings_of_all_devices_together_are_bounded() -> None:
    devices = Devices(readings_most=5)
    for at, name in enumerate("abc"):
        devices.heard(Source(name), (_reading(NOW + at), _reading(NOW + at, vital=1)))
    assert [device.name for device in devices] == ["b", "c"]
    _heard(devices, "b", NOW + 3)
    _heard(devices, "b", NOW + 4)
    assert [device.name for device in devices] == ["b", "c"], "the same reading again is no more"
    devices.heard(Source("d"), tuple(_reading(NOW + 5, channel=at) for at in range(9)))
    assert [device.name for device in devices] == ["d"], "one alone is never forgotten"
    devices.heard(Source("e"), (_reading(NOW + 6),))
    assert [device.name for device in devices] == ["e"]
    for name in "fg":
        devices.heard(Source(name), (_reading(NOW + 7), _reading(NOW + 7, vital=1)))
    assert len(devices) == 3, "what was forgotten is counted no more"


def test_readings_that_were_there_already_are_not_counted_again() -> None:
    devices = Devices(readings_most=6)
    _heard(devices, "a")
    devices.heard(Source("b"), (_reading(), _reading(vital=1)))
    devices.heard(Source("b"), (_reading(), _reading(vital=1), _reading(vital=2)))
    assert len(devices) == 2


def test_one_device_can_not_fill_memory_with_channels() -> None:
    devices = Devices()
    devices.heard(Source("m"), tuple(_reading(channel=at) for at in range(devices_.KINDS_MAX + 9)))
    device = devices.get("m")
    assert device is not None
    assert len(device.latest) == devices_.KINDS_MAX
    assert kind(_reading(channel=devices_.KINDS_MAX + 8)) in device.latest


@pytest.mark.parametrize(
    ("times", "after_ms", "rate"),
    [
        (range(0, 60_000, 1000), 60_000, 60.0),
        (range(0, 600_000, 1000), 599_000, 60.0),
        (range(0, 600_000, 30_000), 600_000, 2.0),
        (range(0, 5_000, 1000), 5_000, 30.0),
        (range(0, 60_000, 1000), 179_000, 0.0),
    ],
)
def test_the_rate_is_of_the_last_minute(times: range, after_ms: int, rate: float) -> None:
    devices, start = Devices(), NOW - NOW % 60_000
    for at in times:
        _heard(devices, at_ms=start + at)
    device = devices.get("m-1")
    assert device is not None
    assert device.rate_per_min(start + after_ms) == pytest.approx(rate, abs=1.1)


def test_the_rate_fades_over_the_next_minute() -> None:
    devices, start = Devices(), NOW - NOW % 60_000
    for at in range(0, 120_000, 1000):
        _heard(devices, at_ms=start + at)
    device = devices.get("m-1")
    assert device is not None
    rates = [device.rate_per_min(start + 120_000 + at) for at in (0, 30_000, 59_000, 60_000)]
    assert rates == pytest.approx([60, 30, 1, 0])


def test_what_was_sent_before_a_silence_is_no_rate_now() -> None:
    devices, start = Devices(), NOW - NOW % 60_000
    _heard(devices, at_ms=start, times=50)
    _heard(devices, at_ms=start + 300_000)
    device = devices.get("m-1")
    assert device is not None
    assert device.rate_per_min(start + 300_000) == 1.0


def test_a_devices_own_pause_is_learned_and_an_outage_is_not() -> None:
    devices = Devices()
    _heard(devices, at_ms=NOW)
    device = devices.get("m-1")
    assert device is not None
    assert device.gap_ms == 0
    _heard(devices, at_ms=NOW + 30_000, times=3)
    assert device.gap_ms == 30_000, "several at once are one input"
    _heard(devices, at_ms=NOW + 30_000 + devices_.GAP_MS_MAX + 1)
    assert device.gap_ms == 30_000
    _heard(devices, at_ms=device.last_ms + 1000)
    assert device.gap_ms == 30_000 - 30_000 // 8
    _heard(devices, at_ms=device.last_ms + devices_.GAP_MS_MAX)
    assert device.gap_ms == devices_.GAP_MS_MAX


def test_what_came_from_a_device_is_told_once() -> None:
    devices = Devices()
    devices.heard(Source("a"), (_reading(NOW), _reading(NOW, vital=2)))
    devices.rejected("b", "binary", NOW + 1)
    assert list(devices.counted()) == [("a", (1, 2, 0, NOW)), ("b", (0, 0, 1, NOW + 1))]
    assert list(devices.counted()) == []
    devices.heard(Source("a"), (_reading(NOW + 2),))
    devices.rejected("a", "bad-unit", NOW + 3)
    telling = devices.counted()
    assert next(telling) == ("a", (1, 1, 1, NOW + 3))
    devices.rejected("b", "binary", NOW + 4)  # counted while it is told
    assert list(telling) == [("b", (0, 0, 1, NOW + 4))]


def test_devices_heard_since_a_moment_are_counted() -> None:
    devices = Devices()
    _heard(devices, "a", NOW)
    _heard(devices, "b", NOW + 10)
    devices.rejected("c", "binary", NOW + 10)
    assert [devices.heard_since(NOW + at) for at in (0, 1, 11)] == [2, 1, 0]

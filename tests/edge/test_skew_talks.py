"""Clocks through the decoders: what a line or a message says of its time reaches `edge.skew`."""

from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from edge.admission import Caller
from edge.bedside import LineTalk
from edge.hl7_talk import Hl7Talk
from edge.mllp import block
from edge.setting import Setting
from edge.skew import Skews
from vitals.codes import TimeSource
from vitals.reading import Reading

NOW = 1_795_428_000_000
MINUTE = 60_000
RECEIVED, DEVICE, CORRECTED = TimeSource


def sources(readings: Iterable[Reading]) -> set[int]:
    return {reading.time_source for reading in readings}


def _stamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def test_a_slow_monitors_lines_are_live_although_it_hangs_up_in_between() -> None:
    skews, said = Skews(), list[Reading]()
    for second in range(60):
        if second % 20 == 0:
            talk = LineTalk(Caller("10.0.0.9"), Setting("", ZoneInfo("UTC"), skews=skews))
        at = NOW + second * 1000
        line = f"device=bed-12 spo2=84 hr=120 time={_stamp(at - 10 * MINUTE)}\n"
        (entry,) = talk.receive(line.encode(), at + 40)
        said += entry.readings
    assert sources(said[:8]) == {DEVICE}
    assert sources(said[8:]) == {CORRECTED}
    assert all(abs(r.time_ms - r.received_ms) <= 1000 for r in said[8:])


def test_a_refused_line_tells_nothing_of_a_clock() -> None:
    skews = Skews()
    talk = LineTalk(Caller("10.0.0.9"), Setting("", ZoneInfo("UTC"), skews=skews))
    for at in range(NOW, NOW + 10_000, 1000):
        list(talk.receive(f"hr=1kPa time={_stamp(at - 10 * MINUTE)}\n".encode(), at))
    assert len(skews) == 0


def test_a_line_that_names_another_device_tells_of_that_ones_clock() -> None:
    skews = Skews()
    talk = LineTalk(Caller("10.0.0.9"), Setting("", ZoneInfo("UTC"), skews=skews))
    for at in range(NOW, NOW + 10_000, 1000):
        for name, slow_ms in (("a", 10 * MINUTE), ("b", 0)):
            line = f"device={name} hr=78 time={_stamp(at - slow_ms)}\n"
            (entry,) = talk.receive(line.encode(), at)
    assert (skews.skew_ms("a"), skews.skew_ms("b")) == (10 * MINUTE, 0)
    assert sources(entry.readings) == {DEVICE}


def test_an_hl7_sender_with_a_connection_a_message_is_corrected() -> None:
    skews, said = Skews(), list[Reading]()
    for minute in range(6):
        at = NOW + minute * MINUTE
        stamp = datetime.fromtimestamp((at + 10 * MINUTE) / 1000, UTC).strftime("%Y%m%d%H%M%S+0000")
        raw = "\r".join(
            (
                f"MSH|^~\\&|Mon^AA^EUI-64|Fac|||{stamp}||ORU^R01^ORU_R01|M{minute}|P|2.6",
                f"OBR|1||||||{stamp}",
                "OBX|1|NM|147842|1.1.1.1|78|264864",
                "",
            )
        )
        talk = Hl7Talk(Caller("10.0.0.9"), Setting("", ZoneInfo("UTC"), skews=skews))
        (entry,) = talk.receive(block(raw.encode()), at + 300)
        said += entry.readings
    assert [r.time_source for r in said] == [RECEIVED] * 2 + [CORRECTED] * 4
    assert all(abs(r.time_ms - r.received_ms) <= 1000 for r in said)


def test_a_line_said_again_keeps_its_time_although_its_clock_was_never_set() -> None:
    talk = LineTalk(Caller("10.0.0.9"), Setting())
    line = b"device=a hr=78 time=1970-01-01T00:05:00Z\n"
    (first,) = talk.receive(line, NOW)[0].readings
    assert (first.time_ms, first.time_source) == (NOW, RECEIVED)
    (again,) = talk.receive(line, NOW + MINUTE)[0].readings
    assert (again.time_ms, again.time_source, again.received_ms) == (NOW, RECEIVED, NOW + MINUTE)
    (other,) = talk.receive(line.replace(b"78", b"79"), NOW + 2 * MINUTE)[0].readings
    assert other.time_ms == NOW + 2 * MINUTE
    (named,) = talk.receive(line.replace(b"=a", b"=b"), NOW + 3 * MINUTE)[0].readings
    assert named.time_ms == NOW + 3 * MINUTE


def test_a_line_with_a_time_tells_of_the_clock_by_either_way() -> None:
    """The first line is read by the plain decoder, the others from known words."""
    setting = Setting("", ZoneInfo("Europe/Berlin"))
    talk = LineTalk(Caller("10.0.0.9"), setting)
    for at in range(NOW, NOW + 10_000, 1000):
        stamp = datetime.fromtimestamp((at - 10 * MINUTE) / 1000, ZoneInfo("Europe/Berlin"))
        said = stamp.replace(tzinfo=None).isoformat()
        (entry,) = talk.receive(f"device=a mrn=M1 hr=78 time={said}\n".encode(), at)
    assert setting.skews.skew_ms("a") == 10 * MINUTE
    assert (entry.readings[0].time_ms, entry.readings[0].time_source) == (at, CORRECTED)

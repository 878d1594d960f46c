"""The command as a user has it: hand-made beds with known alarms under two policies."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud.policy.model import Patient, Policy, RuleChange, Ward
from cloud.whatif import table
from cloud.whatif.report import Report
from healthsync import cli
from healthsync.runtime.exits import Exit
from tests.cloud.detect.policies import SPO2, SPO2_MILD, limits_only
from tests.cloud.whatif.made import T0, Values, file, flat, line, lines, policy_file
from tests.cloud.whatif.test_replay import RECORDINGS
from tests.cloud.whatif.test_sources import READINGS, archived, in_folder
from vitals.limits import TEXT_CHARS_MAX


def spo2(**fields: Any) -> Policy:
    return limits_only(msgspec.structs.replace(SPO2, **fields))


BASELINE = spo2()  # below 90 for 10 s
NEW = spo2(limit=92, delay_s=20)


def bed() -> list[Values]:
    """Return 20 minutes with three dips. Seconds, both ends included.

    | dip | value | baseline rings | new rings |
    |---|---|---|---|
    | 40-59 at 91, 60-100 at 88 | | 70 | 60: 10 s earlier |
    | 300-330 | 91 | never | 320: gained |
    | 400-411 | 88 | 410 | never: lost |
    """
    seconds = flat(1_200, spo2=97, heart_rate=80)
    for first, last, value in ((40, 59, 91), (60, 100, 88), (300, 330, 91), (400, 411, 88)):
        for at in range(first, last + 1):
            seconds[at]["spo2"] = value
    return list(seconds)


class Bench:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.new = policy_file(folder / "new.toml", NEW)
        self.baseline = policy_file(folder / "old.toml", BASELINE)
        self.bed = file(folder / "bed.jsonl", lines(bed()))

    def run(self, *more: str | Path, sources: list[Path | str] | None = None) -> tuple[int, str]:
        arguments = ["whatif", "--policy", self.new, "--baseline", self.baseline, "--from"]
        self._capsys.readouterr()
        code = cli.main([str(one) for one in (*arguments, *(sources or [self.bed]), *more)])
        out, self.errors = self._capsys.readouterr()
        return code, out

    def report(self, *more: str | Path, sources: list[Path | str] | None = None) -> Report:
        return msgspec.json.decode(self.run(*more, "--json", sources=sources)[1], type=Report)


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_a_hand_made_bed_rings_as_it_must_under_both(bench: Bench) -> None:
    code, _ = bench.run()
    assert code == Exit.DEGRADED
    report = bench.report()
    assert report.beds == ["B1"]
    assert (report.start_ms, report.end_ms) == (T0, T0 + 1_199_000)
    assert report.bed_days == pytest.approx(1_199 / 86_400)
    assert report.readings == 2_400
    (rule,) = report.rules
    assert (rule.kind, rule.rule, rule.priority) == ("threshold", "spo2.low.high", "high")
    assert (rule.baseline, rule.new) == (2, 2)
    assert rule.baseline_per_bed_day == pytest.approx(2 * 86_400 / 1_199)
    assert rule.difference_per_bed_day == 0
    found = [
        (
            one.what,
            one.family,
            one.baseline_ms and (one.baseline_ms - T0) / 1000,
            one.new_ms and (one.new_ms - T0) / 1000,
            one.lead_s,
        )
        for one in report.differences
    ]
    assert found == [
        ("earlier", "spo2.low", 70, 60, 10),
        ("gained", "spo2.low", None, 320, None),
        ("lost", "spo2.low", 410, None, None),
    ]
    episodes = report.episodes
    assert (episodes.baseline, episodes.new, episodes.lost, episodes.gained) == (2, 2, 1, 1)
    assert (episodes.same, episodes.later.count) == (0, 0)
    earlier = episodes.earlier
    assert (earlier.count, earlier.median_s, earlier.p90_s, earlier.most_s) == (1, 10, 10, 10)
    assert report.baseline.policy == BASELINE.version
    assert (report.baseline.high, report.baseline.burst_bed, report.new.burst_ward) == (2, 2, 2)


def test_later_rings_count_as_later(bench: Bench) -> None:
    policy_file(bench.new, spo2(delay_s=25))
    report = bench.report()
    assert [(one.what, one.lead_s) for one in report.differences] == [
        ("later", -15),
        ("lost", None),
    ]
    assert report.episodes.later.median_s == 15


def test_an_alarm_that_only_loses_its_priority_is_told(bench: Bench) -> None:
    policy_file(bench.new, spo2(priority="medium"))
    report = bench.report()
    assert [one.what for one in report.differences] == ["priority", "priority"]
    assert (report.episodes.less_urgent, report.episodes.more_urgent) == (2, 0)
    assert [(one.rule, one.baseline, one.new) for one in report.rules] == [
        ("spo2.low.high", 2, 0),
        ("spo2.low.medium", 0, 2),
    ]
    assert bench.run()[0] == Exit.DEGRADED


def test_the_same_policy_twice_changes_nothing(bench: Bench) -> None:
    policy_file(bench.new, BASELINE)
    code, text = bench.run()
    report = bench.report()
    assert code == Exit.OK
    assert report.differences == []
    assert report.alike
    assert msgspec.structs.replace(report.new) == report.baseline
    assert all(one.baseline == one.new for one in report.rules)
    episodes = report.episodes
    assert (episodes.same, episodes.lost, episodes.gained) == (2, 0, 0)
    assert "LOST" in text


def test_without_a_baseline_the_built_in_policy_is_it(bench: Bench) -> None:
    code = cli.main(["whatif", "--policy", str(bench.new), "--from", str(bench.bed), "--json"])
    assert code == Exit.DEGRADED


def test_a_mild_limit_explained_by_the_urgent_one_is_no_alarm_more(bench: Bench) -> None:
    deep = flat(200, spo2=97, heart_rate=80)
    for at in range(50, 100):
        deep[at]["spo2"] = 85
    source = file(bench.folder / "deep.jsonl", lines(deep))
    policy_file(bench.new, limits_only(SPO2, SPO2_MILD))
    report = bench.report(sources=[source])
    assert (report.baseline.alarms, report.new.high) == (1, 1)
    assert (report.new.explained + report.new.medium, report.episodes.same) == (1, 1)


def test_a_flapping_alarm_is_counted_once_it_stands(bench: Bench) -> None:
    seconds = flat(900, spo2=97, heart_rate=80)
    for begin in range(30, 810, 60):
        for at in range(begin, begin + 20):
            seconds[at]["spo2"] = 85
    source = file(bench.folder / "flap.jsonl", lines(seconds))
    report = bench.report(sources=[source])
    assert report.baseline.flapping == 1
    assert report.baseline.alarms == BASELINE.life.high.flap_count


def test_the_order_of_the_files_makes_no_difference(bench: Bench) -> None:
    text = lines(bed())
    other = lines(flat(400, spo2=88, heart_rate=80), device="mon-2", patient="2", bed="B2")
    parts: list[Path | str] = [
        file(bench.folder / "1.jsonl", text[:1_000]),
        file(bench.folder / "2.jsonl", text[900:]),  # overlaps
        file(bench.folder / "3.jsonl", other[::-1]),
    ]
    reports = [bench.report(sources=list(order)) for order in permutations(parts)]
    assert all(report == reports[0] for report in reports)
    assert reports[0].beds == ["B1", "B2"]
    assert reports[0].episodes.lost == 1


def test_the_json_has_the_shape_that_is_promised(bench: Bench) -> None:
    report = json.loads(bench.run("--json")[1])
    assert list(report) == [
        *("format", "start_ms", "end_ms", "beds", "bed_days", "gap_hours", "readings", "passed"),
        *("baseline", "new", "rules", "episodes", "differences", "remark"),
    ]
    assert report["format"] == 1
    assert set(report["differences"][0]) == {
        *("bed", "what", "family", "began_ms", "until_ms", "baseline_ms", "new_ms"),
        *("baseline_priority", "new_priority", "lead_s"),
    }
    schema = msgspec.json.schema(Report)
    assert set(schema["$defs"]["Report"]["required"]) == set(report) - {"remark"}


def test_names_and_numbers_of_patients_are_nowhere(bench: Bench) -> None:
    page = bench.folder / "page.html"
    text = bench.run("--html", page)[1] + bench.errors + bench.run("--json")[1]
    assert "SECRET" not in text + page.read_text(encoding="utf-8")
    assert "mon-1" not in text


def test_what_decode_prints_is_taken_as_it_is(bench: Bench) -> None:
    said = "".join(
        f"device=mon-9 mrn=M1 bed=B9 spo2={85 if 20 <= second < 50 else 97}"
        f" time=2026-11-23T10:{second // 60:02d}:{second % 60:02d}Z\n"
        for second in range(120)
    )
    source = file(bench.folder / "device.txt", [said, "nonsense\n"])
    decoded = bench.folder / "decoded.jsonl"
    with decoded.open("wb") as out:
        ran = subprocess.run(
            [sys.executable, "-m", "healthsync.cli", "edge", "decode", str(source)],
            stdout=out,
            check=False,
            timeout=60,
        )
    assert ran.returncode == Exit.DEGRADED
    report = bench.report(sources=[decoded])
    assert (report.beds, report.readings, report.passed) == (["B9"], 120, 1)
    assert report.baseline.high == 1


# the page -----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Checks that every element is closed; keeps what may not be there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page(bench: Bench, *more: str | Path, sources: list[Path | str] | None = None) -> Page:
    out = bench.folder / "out.html"
    bench.run("--html", out, *more, sources=sources)
    text = out.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=|href=|<script|javascript:", text)
    assert "default-src 'none'" in text
    parsed = Page(text)
    assert parsed.open == []
    return parsed


def test_the_page_is_whole_and_loads_nothing(bench: Bench) -> None:
    made = page(bench)
    assert made.tags.count("svg") == 3
    assert made.tags.count("table") == 4
    assert made.tags.count("caption") == 4
    assert not {"script", "link", "img", "iframe", "object"} & set(made.tags)
    said = " ".join(made.texts)
    for text in ("spo2.low.high", "B1", "lost", "gained", "10 s", BASELINE.version, NEW.version):
        assert text in said
    assert [value for name, value in made.attributes if name == "class"].count("lost") == 1
    assert "nobody answers" in said


def test_the_page_of_no_difference_and_of_no_alarm_says_so(bench: Bench) -> None:
    policy_file(bench.new, BASELINE)
    assert page(bench).tags.count("svg") == 1
    quiet = file(bench.folder / "quiet.jsonl", lines(flat(60, spo2=97)))
    made = page(bench, sources=[quiet])
    assert made.tags.count("svg") == 0
    assert "Neither policy rang." in " ".join(made.texts)


def test_what_a_device_calls_its_bed_cannot_break_the_page(bench: Bench) -> None:
    name = '"><script>alert(1)</script>&amp;'[:TEXT_CHARS_MAX]
    source = file(bench.folder / "evil.jsonl", lines(bed(), bed=name))
    made = page(bench, sources=[source])
    assert "script" not in made.tags
    assert any("<script>" in text for text in made.texts)


def test_a_long_list_is_cut_and_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloud.whatif import page as page_
    from cloud.whatif import plots

    for at, bound in ((table, 2), (page_, 2)):
        monkeypatch.setattr(at, "DIFFERENCES_SHOWN_MAX", bound)
    assert "and 1 more: --json has all" in bench.run()[1]
    assert "And 1 more; --json has all." in " ".join(page(bench).texts)
    monkeypatch.setattr(table, "DIFFERENCES_SHOWN_MAX", 3)
    assert "--json has all" not in bench.run()[1]
    monkeypatch.setattr(plots, "BEDS_SHOWN_MAX", 0)
    assert "1 more beds are not shown." in " ".join(page(bench).texts)


# what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jsonl", b"", "no reading in .*; give recorded data"),
        ("blank.jsonl", b"\n\n", "no reading"),
        ("acks.jsonl", b'{"kind": "ack"}\n', "no reading in .*; 1 lines were none"),
        ("bad.jsonl", b"spo2=97\n", "bad.jsonl: line 1: not JSON"),
        ("bad.csv", b"a,b\n", "bad.csv: line 1"),
        ("head.csv", b"recording,HR,PULSE,RESP,SpO2\n", "no reading"),
    ],
)
def test_data_that_is_none_is_refused_with_words(
    bench: Bench, name: str, content: bytes, said: str
) -> None:
    path = bench.folder / name
    path.write_bytes(content)
    code, out = bench.run(sources=[path])
    assert (code, out) == (Exit.USAGE, "")
    assert re.search(said, bench.errors)


def test_a_file_that_is_not_there_and_an_empty_folder_are_refused(bench: Bench) -> None:
    assert bench.run(sources=[bench.folder / "none.jsonl"])[0] == Exit.USAGE
    assert "No such file" in bench.errors
    empty = bench.folder / "empty"
    empty.mkdir()
    assert bench.run(sources=[empty])[0] == Exit.USAGE
    assert "holds neither" in bench.errors
    assert bench.run("--html", empty)[0] == Exit.USAGE
    assert "Is a directory" in bench.errors


def test_nothing_between_start_and_end_says_so(bench: Bench) -> None:
    window = ("--start", "2030-01-01T00:00:00Z")
    assert bench.run(*window)[0] == Exit.USAGE
    assert "between --start and --end" in bench.errors


def test_a_part_of_the_time_is_replayed_alone(bench: Bench) -> None:
    half = table.instant(T0 + 250_000).replace(" ", "T") + "Z"
    assert bench.report("--end", half).baseline.alarms == 1
    assert bench.report("--start", half).baseline.alarms == 1


def test_a_time_without_a_zone_is_refused(bench: Bench) -> None:
    for text in ("2026-11-23T10:00:00", "yesterday"):
        with pytest.raises(SystemExit) as ended:
            bench.run("--start", text)
        assert ended.value.code == 2


def test_a_wrong_policy_is_refused_as_a_configuration(bench: Bench) -> None:
    bench.new.write_text("version = 'x'\n", encoding="utf-8")
    assert bench.run()[0] == Exit.CONFIG
    assert "new.toml" in bench.errors


def test_a_policy_that_names_somebody_has_to_be_sealed_first(bench: Bench) -> None:
    named = msgspec.structs.replace(NEW, patients=(Patient(mrn="M1"),))
    policy_file(bench.new, named)
    assert bench.run()[0] == Exit.CONFIG
    assert "seal it first" in bench.errors
    assert "M1" not in bench.errors


def test_layers_that_meet_nobody_are_said_and_a_gateway_finds_its_ward(bench: Bench) -> None:
    off = RuleChange(vital="spo2", direction="low", priority="high", off=True)
    layer = Ward(name="W", gateways=("gw-1",), rules=(off,))
    policy_file(bench.new, msgspec.structs.replace(NEW, wards=(layer,)))
    assert bench.report().new.alarms == 2
    assert "1 ward layers of test+" in bench.errors
    assert "not tried" in bench.errors
    report = bench.report("--gateway", "gw-1")
    assert (report.baseline.alarms, report.new.alarms) == (2, 0)
    assert "warning" not in bench.errors


def test_the_archives_files_need_its_keys(bench: Bench) -> None:
    in_folder(bench.folder / "copy", archived(READINGS))
    for source in (bench.folder / "copy", "archive"):
        assert bench.run(sources=[source])[0] == Exit.CONFIG
        assert "give --config archive.toml" in bench.errors


def test_a_recorded_ward_is_found_in_its_folder(bench: Bench) -> None:
    report = bench.report(sources=[RECORDINGS.parent])
    assert len(report.beds) == 53
    assert "real time" in bench.errors


def test_odd_data_crashes_nothing(bench: Bench) -> None:
    odd = [
        line(0, "spo2", 97, time="1970-01-01T00:00:00.001Z"),
        line(0, "spo2", 0, time="9999-12-31T23:59:59.999Z"),
        line(0, "consciousness", 4),
        line(0, "spo2", 3, status="implausible"),
        line(0, "heart_rate", 1e6),
        line(0, "cvp_mean", -50, channel=65_535),
        line(5, "spo2", None, status="ok"),
    ]
    source = file(bench.folder / "odd.jsonl", odd)
    code, text = bench.run("--html", bench.folder / "odd.html", sources=[source])
    assert code in {Exit.OK, Exit.DEGRADED}
    assert "1970-01-01 00:00:00 to 9999-12-31 23:59:59 UTC" in text


def test_one_reading_has_no_rate(bench: Bench) -> None:
    source = file(bench.folder / "one.jsonl", [line(0, "spo2", 97)])
    report = bench.report(sources=[source])
    assert report.bed_days == 0
    assert report.baseline.per_bed_day is None
    assert bench.run(sources=[source])[0] == Exit.OK

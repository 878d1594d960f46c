"""The shell devices, run as they are, against a real listener."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.decode_line import Said, decode
from healthsync.runtime import tls
from simulators.bed import FIRST_NAMES, LAST_NAMES
from tests.healthsync.certs import Authority
from tests.simulators.conftest import WAIT_S, Listener
from vitals.codes import VITALS

HERE = Path(__file__).parents[2] / "simulators"
BEDSIDE, WARD = str(HERE / "bedside.sh"), str(HERE / "ward.sh")
Listen = Callable[..., Listener]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=WAIT_S, check=False, start_new_session=True
    )


def said(line: str) -> Said:
    """What the gateway's own decoder makes of a line."""
    assert line.endswith("\n")
    heard = decode(line.encode().removesuffix(b"\n"))
    assert isinstance(heard, Said), (line, heard)
    return heard


def values(line: str) -> dict[str, float | None]:
    return {VITALS[measure.vital].name: measure.number for measure in said(line).measures}


def timeless(lines: list[str]) -> list[str]:
    return [re.sub(r" time=\S+", "", line) for line in lines]


def session_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Pids of the session the process leads, itself left out; zombies do not count."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == process.pid:
            continue
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat[3]) == process.pid and stat[0] != "Z":
            found.append(int(folder.name))
    return found


def start(*command: str) -> subprocess.Popen[bytes]:
    # Whoever runs the tests in the background has SIGINT ignored, and a shell cannot undo that.
    return subprocess.Popen(
        ["env", "--default-signal=INT", *command],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def assert_stops_without_leaving_anyone(
    process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM
) -> None:
    assert session_of(process), "it should have children to leave behind"
    try:
        process.send_signal(number)
        assert process.wait(WAIT_S) == 0
        until = time.monotonic() + 2
        while session_of(process) and time.monotonic() < until:
            time.sleep(0.02)
        assert session_of(process) == []
    finally:
        for pid in (process.pid, *session_of(process)):
            if process.poll() is None or pid != process.pid:
                os.kill(pid, signal.SIGKILL)


def test_one_shot_sends_one_line_that_the_gateway_understands(listen: Listen) -> None:
    peer = listen()
    done = run(BEDSIDE, "--port", str(peer.port), "--once", "--bed", "03", "--seed", "1")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = peer.texts()
    heard = said(line)
    assert heard.device == "bed-03"
    assert heard.patient["mrn"] == "SIM000003"
    assert (heard.patient["bed"], heard.patient["ward"]) == ("03", "W1")
    first, last = heard.patient["name"].split()
    assert first in FIRST_NAMES
    assert last in LAST_NAMES
    assert heard.time is not None
    assert abs(datetime.now(UTC) - heard.time) < timedelta(minutes=1)
    assert values(line).keys() == {
        "heart_rate",
        "pulse_rate",
        "spo2",
        "resp_rate",
        "temperature",
        "nibp_systolic",
        "nibp_diastolic",
    }


def test_one_shot_without_a_gateway_fails_for_cron_to_see() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        done = run(BEDSIDE, "--port", str(free.getsockname()[1]), "--once")
    assert done.returncode == 69
    assert "no gateway" in done.stderr


def bedside(peer: Listener, *options: str, count: int = 3) -> list[str]:
    done = run(
        BEDSIDE, "--port", str(peer.port), "--count", str(count), "--interval", "0.02", *options
    )
    assert (done.returncode, done.stderr) == (0, "")
    peer.wait(lambda: len(peer.lines) >= count)
    return peer.texts()


def test_a_count_of_lines_tells_the_patient_on_the_first_and_every_thirtieth(
    listen: Listen,
) -> None:
    lines = bedside(listen(), "--seed", "4", count=31)
    assert len(lines) == 31
    assert [at for at, line in enumerate(lines) if said(line).patient] == [0, 30]
    assert all(said(line).device == "bed-01" for line in lines)


def test_the_same_seed_gives_the_same_values_and_another_seed_others(listen: Listen) -> None:
    first = timeless(bedside(listen(), "--seed", "11", count=5))
    again = timeless(bedside(listen(), "--seed", "11", count=5))
    other = timeless(bedside(listen(), "--seed", "12", count=5))
    assert first == again
    assert first != other


def test_all_who_was_given_is_told(listen: Listen) -> None:
    (line,) = bedside(
        listen(),
        *("--device", "mon-7", "--bed", "7", "--ward", "W2", "--mrn", "SIM000777"),
        *("--name", "Zoë Example", "--dob", "1950-02-03", "--sex", "female"),
        count=1,
    )
    heard = said(line)
    assert heard.device == "mon-7"
    assert heard.patient == {
        "mrn": "SIM000777",
        "name": "Zoë Example",
        "birth_date": "1950-02-03",
        "sex": "female",
        "bed": "7",
        "ward": "W2",
    }


@pytest.mark.parametrize(
    ("scenario", "name", "expected"),
    [
        ("desaturation", "spo2", 84),
        ("tachycardia", "heart_rate", 150),
        ("fever", "temperature", 39.6),
        ("sensor-off", "spo2", None),
        ("sensor-off", "pulse_rate", None),
    ],
)
def test_a_scenario_at_its_height(
    listen: Listen, scenario: str, name: str, expected: float | None
) -> None:
    peer = listen()
    assert run(BEDSIDE, "--port", str(peer.port), "--once", "--scenario", scenario).returncode == 0
    (line,) = peer.texts()
    assert values(line)[name] == expected


def test_a_desaturation_begins_after_ten_lines_and_falls_by_one_a_line(listen: Listen) -> None:
    lines = bedside(listen(), "--seed", "3", "--scenario", "desaturation", count=30)
    spo2 = [values(line)["spo2"] or 0 for line in lines]
    assert min(spo2[:10]) >= 94
    assert min(spo2) == spo2[-1] == 84


def test_a_pulled_cable_is_silence_and_then_a_new_connection(listen: Listen) -> None:
    peer = listen()
    done = run(
        BEDSIDE,
        *("--port", str(peer.port), "--count", "72", "--interval", "0.01"),
        *("--scenario", "cable-pulled"),
    )
    assert done.returncode == 0
    peer.wait(lambda: len(peer.lines) == 12)
    assert [number for number, _ in peer.lines] == [0] * 10 + [1] * 2
    assert said(peer.texts()[10]).patient


def test_a_device_does_not_wait_for_ever_for_a_gateway_that_never_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        done = run(BEDSIDE, "--port", str(server.getsockname()[1]), "--once")
        assert done.returncode == 0
        assert time.monotonic() - began < 8


def test_a_device_says_that_it_is_trying_again_and_stops_meanwhile() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        process = subprocess.Popen(
            [BEDSIDE, "--port", str(free.getsockname()[1])],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with process:
            assert process.stderr is not None
            for _ in range(2):
                assert "trying again" in process.stderr.readline()
            process.terminate()
            assert process.wait(WAIT_S) == 0


def test_a_device_connects_again_when_the_peer_goes_away(listen: Listen) -> None:
    peer = listen(cut_after=2)
    process = start(BEDSIDE, "--port", str(peer.port), "--interval", "0.05", "--seed", "1")
    peer.wait(lambda: any(number == 1 for number, _ in peer.lines))
    assert_stops_without_leaving_anyone(process)
    again = next(line for number, line in peer.lines if number == 1)
    assert said(again).patient["mrn"] == "SIM000001"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("interval", ["0.05", "30"])
def test_a_device_stops_at_once_and_leaves_no_child(
    listen: Listen, number: signal.Signals, interval: str
) -> None:
    peer = listen()
    process = start(BEDSIDE, "--port", str(peer.port), "--interval", interval)
    peer.wait(lambda: len(peer.lines) >= 1)
    began = time.monotonic()
    assert_stops_without_leaving_anyone(process, number)
    assert time.monotonic() - began < 5
    peer.wait(lambda: peer.closed == 1)


def test_a_ward_of_three_speaks_and_stops_as_one(listen: Listen) -> None:
    peer = listen()
    process = start(WARD, "--port", str(peer.port), "--beds", "3", "--interval", "0.1")
    peer.wait(lambda: len({said(line).device for line in peer.texts()}) == 3)
    assert {said(line).device for line in peer.texts()} == {"bed-01", "bed-02", "bed-03"}
    assert_stops_without_leaving_anyone(process)
    peer.wait(lambda: peer.closed == 3)


def test_a_wards_scenarios_go_to_the_beds_named(listen: Listen) -> None:
    peer = listen()
    done = run(
        WARD,
        *("--port", str(peer.port), "--beds", "3", "--count", "12", "--interval", "0.02"),
        *("--scenarios", "sensor-off:3"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    peer.wait(lambda: len(peer.lines) == 36)
    off = {said(line).device for line in peer.texts() if values(line)["spo2"] is None}
    assert off == {"bed-03"}


def test_a_ward_is_the_same_for_the_same_seed(listen: Listen) -> None:
    def ward(seed: str) -> list[str]:
        peer = listen()
        options = ("--beds", "3", "--count", "2", "--interval", "0.02", "--seed", seed)
        assert run(WARD, "--port", str(peer.port), *options).returncode == 0
        peer.wait(lambda: len(peer.lines) == 6)
        return sorted(timeless(peer.texts()))

    assert ward("5") == ward("5")
    assert ward("5") != ward("6")


def test_a_device_speaks_tls_to_a_gateway_it_can_trust(listen: Listen, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    peer = listen(tls.server(*authority.issue("gateway")))
    lines = bedside(peer, "--tls", "--ca", str(authority.ca), "--seed", "2")
    assert len(lines) == 3
    peer.wait(lambda: peer.closed == 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_device_tells_nothing_to_a_gateway_of_another_ca(
    listen: Listen, tmp_path: Path, host: str
) -> None:
    stranger = Authority(tmp_path, "another CA")
    peer = listen(tls.server(*stranger.issue("gateway")))
    trusted = Authority(tmp_path, "our CA")
    done = run(
        BEDSIDE,
        *("--host", host, "--port", str(peer.port), "--once", "--tls", "--ca", str(trusted.ca)),
    )
    assert done.returncode == 69
    assert "not signed by" in done.stderr
    assert peer.lines == []


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--port"],
        ["--port", "x"],
        ["--port", "1", "--interval", "0"],
        ["--port", "1", "--interval", "-1"],
        ["--port", "1", "--count", "x"],
        ["--port", "1", "--scenario", "unheard-of"],
        ["--port", "1", "--seed", "x"],
        ["--port", "1", "--name", 'a"b'],
        ["--port", "1", "--bed", "a b"],
        ["--port", "1", "--device", "a=b"],
        ["--port", "1", "--tls"],
        ["--port", "1", "--unheard-of"],
    ],
)
def test_wrong_options_are_refused_in_words(options: list[str]) -> None:
    done = run(BEDSIDE, *options)
    assert done.returncode == 64
    assert done.stderr.startswith("bedside.sh: ")


@pytest.mark.parametrize(
    "options",
    [["--port", "1", "--beds", "0"], ["--port", "1", "--scenarios", "fever:9"], ["--beds", "2"]],
)
def test_a_ward_refuses_wrong_options_before_it_starts_a_bed(options: list[str]) -> None:
    done = run(WARD, *options)
    assert done.returncode == 64
    assert done.stderr.startswith("ward.sh: ")


@pytest.mark.parametrize("script", [BEDSIDE, WARD])
def test_help_lists_every_option(script: str) -> None:
    done = run(script, "--help")
    assert done.returncode == 0
    source = Path(script).read_text(encoding="utf-8")
    cases = re.findall(r"^      (--[a-z-]+)\)", source, re.MULTILINE)
    assert len(cases) > 5
    for option in cases:
        assert f"  {option} " in done.stdout or f" {option} FILE" in done.stdout, option


def test_the_simple_form_in_the_help_is_the_one_the_gateway_takes() -> None:
    assert "printf 'heart_rate=78, oxygen=95%%\\n' | nc" in run(BEDSIDE, "--help").stdout
    assert values("heart_rate=78, oxygen=95%\n") == {"heart_rate": 78.0, "spo2": 95.0}


def test_the_crontab_calls_the_device_with_options_it_has() -> None:
    table = (HERE / "crontab.example").read_text(encoding="utf-8")
    entries = [line for line in table.splitlines() if line.startswith("*")]
    assert len(entries) == 2
    options = {option for entry in entries for option in re.findall(r"--[a-z-]+", entry)}
    assert "--once" in options
    shown = run(BEDSIDE, "--help").stdout
    assert all(option in shown for option in options)


def test_the_scripts_pass_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = sorted(map(str, HERE.glob("*.sh")))
    done = run("shellcheck", "--severity=style", *scripts)
    assert done.returncode == 0, done.stdout

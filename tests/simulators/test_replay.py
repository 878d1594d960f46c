"""The replay, against a real listener: lines, times, replies, reconnects, TLS, stopping."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from edge.decode_line import Said, decode
from healthsync import cli
from healthsync.runtime import tls
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from simulators.bed import Episode
from simulators.replay import Counts, Plan, ward
from tests.healthsync.certs import Authority
from tests.simulators.conftest import WAIT_S, Listener
from vitals.codes import VITALS

AT_MS = 1_795_428_000_000
Listen = Callable[..., Listener]


def said(line: str) -> Said:
    heard = decode(line.encode().removesuffix(b"\n"))
    assert isinstance(heard, Said), (line, heard)
    return heard


def replay(peer: Listener, **changes: Any) -> Counts:
    plain = Plan("127.0.0.1", peer.port, beds=3, seconds=0.4)
    plan = msgspec.structs.replace(plain, **changes)
    counts = trio.run(ward, plan, Log("simulate", lambda: AT_MS, io.StringIO()), lambda: AT_MS)
    peer.wait(lambda: peer.closed >= counts.connects)
    return counts


def test_beds_send_their_samples_each_on_its_own_connection(listen: Listen) -> None:
    peer = listen()
    counts = replay(peer, speed=50)
    assert (counts.beds, counts.connects, counts.reconnects, counts.connected) == (3, 3, 0, 0)
    assert counts.sent == counts.made == len(peer.lines) > 20
    assert (counts.acked, counts.rejected, counts.dropped, counts.waiting) == (0, 0, 0, 0)
    by_connection: dict[int, set[str]] = {}
    for number, line in peer.lines:
        by_connection.setdefault(number, set()).add(str(said(line).device))
    devices = sorted(sorted(names) for names in by_connection.values())
    assert devices == [["bed-R01"], ["bed-R02"], ["bed-R03"]]


def test_the_patient_is_told_first_and_every_thirty_lines(listen: Listen) -> None:
    peer = listen()
    replay(peer, beds=1, speed=100)
    told = [at for at, line in enumerate(peer.texts()) if said(line).patient]
    assert told[:2] == [0, 30]
    assert said(peer.texts()[0]).reply is None


def test_faster_than_life_leaves_the_time_to_the_gateway(listen: Listen) -> None:
    peer = listen()
    replay(peer, speed=20, seconds=0.3)
    assert all(said(line).time is None for line in peer.texts())


def test_in_real_time_a_line_carries_its_time(listen: Listen) -> None:
    peer = listen()
    replay(peer, beds=1, speed=1, seconds=0.3)
    (line,) = peer.texts()
    assert line.endswith(" time=2026-11-23T10:00:00.000Z\n")
    assert {VITALS[m.vital].name for m in said(line).measures} >= {"temperature", "nibp_systolic"}


def test_gaps_are_sent_as_fields_without_a_value(listen: Listen) -> None:
    peer = listen()
    replay(peer, beds=53, speed=60, seconds=0.6)
    missing = [line for line in peer.texts() if re.search(r"(pulse|resp|spo2)=(,| |$)", line)]
    assert missing
    assert any(m.number is None for line in missing for m in said(line).measures)


def test_replies_are_asked_for_and_counted(listen: Listen) -> None:
    def answer(_connection: int, line: str) -> str:
        return "rejected range: no\n" if "bp=" in line else "ok\n"

    peer = listen(answer=answer)
    counts = replay(peer, speed=50, reply=True)
    firsts = [next(line for n, line in peer.lines if n == number) for number in range(3)]
    assert [said(line).reply for line in firsts] == [True] * 3
    assert sum("reply=" in line for line in peer.texts()) == 3
    assert counts.rejected == 3
    assert counts.acked + counts.rejected == counts.sent == counts.made
    assert counts.waiting == 0


def test_what_got_no_reply_goes_out_again_after_a_reconnect(listen: Listen) -> None:
    heard: list[int] = []

    def answer(connection: int, _line: str) -> str:
        heard.append(connection)
        return "" if connection == 0 and len(heard) > 3 else "ok\n"

    peer = listen(cut_after=6, answer=answer)
    counts = replay(peer, beds=1, speed=40, seconds=0.8, reply=True)
    assert counts.reconnects == 1
    assert counts.acked == counts.made
    assert (counts.waiting, counts.dropped) == (0, 0)

    def body(line: str) -> str:
        return re.sub(r"^device=.*?(?=heart_rate)", "", line)

    first = [body(line) for number, line in peer.lines if number == 0]
    second = [body(line) for number, line in peer.lines if number == 1]
    assert second[:3] == first[3:6]
    unique = first[:3] + second
    assert len(unique) == counts.made
    opening = said(next(line for number, line in peer.lines if number == 1))
    assert opening.reply is True
    assert opening.patient


def test_without_replies_a_reconnect_goes_on_with_what_is_new(listen: Listen) -> None:
    peer = listen(cut_after=3)
    counts = replay(peer, beds=1, speed=40, seconds=0.8)
    assert counts.reconnects == 1
    assert counts.made == counts.sent + counts.dropped
    assert any(number == 1 for number, _ in peer.lines)


def test_beds_do_not_all_begin_at_once(listen: Listen) -> None:
    peer = listen()
    replay(peer, beds=10, speed=2, seconds=0.25)
    assert 1 <= len(peer.lines) < 10


def test_an_episode_is_sent(listen: Listen) -> None:
    peer = listen()
    replay(peer, beds=2, speed=60, seconds=0.5, episodes=(Episode(2, 10),))
    low = [line for line in peer.texts() if "spo2=84" in line]
    assert low
    assert {said(line).device for line in low} == {"bed-R02"}


def test_the_replay_speaks_tls(listen: Listen, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    peer = listen(tls.server(*authority.issue("gateway")))
    counts = replay(peer, speed=20, ca=authority.ca, host="localhost")
    assert counts.connects == 3
    assert counts.sent == len(peer.lines) > 0


def test_nothing_is_told_to_a_gateway_of_another_ca(listen: Listen, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "another CA")
    peer = listen(tls.server(*stranger.issue("gateway")))
    counts = replay(peer, speed=20, ca=Authority(tmp_path, "our CA").ca)
    assert (counts.connects, counts.made) == (0, 0)
    assert counts.failures >= 3
    assert peer.lines == []


def test_logs_and_stats_hold_counts_and_no_patient(listen: Listen, tmp_path: Path) -> None:
    peer, out, stats = listen(), io.StringIO(), tmp_path / "stats.json"
    plan = Plan("127.0.0.1", peer.port, beds=2, speed=20, seconds=0.3, stats_file=stats)
    counts = trio.run(ward, plan, Log("simulate", lambda: AT_MS, out), lambda: AT_MS)
    last = json.loads(out.getvalue().splitlines()[-1])
    assert last["event"] == "stopped"
    assert last["sent"] == counts.sent > 0
    assert json.loads(stats.read_text())["sent"] == counts.sent
    assert [file.name for file in tmp_path.iterdir()] == ["stats.json"]
    for told in ("SIM1", "Ada", "heart_rate", "R01"):
        assert told not in out.getvalue() + stats.read_text()


def test_the_command_stops_cleanly_on_sigterm(listen: Listen, tmp_path: Path) -> None:
    peer = listen(answer=lambda _number, _line: "ok\n")
    stats = tmp_path / "stats.json"
    command = [sys.executable, "-m", "healthsync.cli", "simulate", "replay", "--beds", "2"]
    command += ["--port", str(peer.port), "--speed", "20", "--reply", "--stats-file", str(stats)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        peer.wait(lambda: len(peer.lines) > 4)
        os.kill(process.pid, signal.SIGTERM)
        out, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == Exit.OK
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines] == ["started", "stopped"]
    assert lines[-1]["acked"] == lines[-1]["made"] == json.loads(stats.read_text())["made"]


def test_a_gateway_that_was_never_there_gives_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        code = cli.main(["simulate", "replay", "--port", port, "--beds", "1", "--seconds", "0.3"])
    assert code == Exit.UNAVAILABLE
    warning = json.loads(capsys.readouterr().out.splitlines()[1])
    assert (warning["event"], warning["error"]) == ("connect", "ConnectionRefusedError")


@pytest.mark.parametrize(
    "options",
    [
        ["--port", "0"],
        ["--port", "70000"],
        ["--beds", "0"],
        ["--speed", "0"],
        ["--speed", "nan"],
        ["--seconds", "-1"],
        ["--ward", 'a"b'],
        ["--ward", "a b"],
        ["--tls"],
        ["--desaturate", "3"],
        ["--desaturate", "0@5"],
        ["--desaturate", "9@5"],
    ],
)
def test_wrong_options_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["simulate", "replay", "--port", "7010", *options])
    assert ended.value.code != 0
    assert options[0] in capsys.readouterr().err

"""An alarm's way from the bed to whoever answers it, and a gateway that is cut off: real servers.

The waits are the default policy's own: 30 s until a gateway is missed, 60 s until a bed is.
"""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud.audit.config import AuditConfig
from cloud.audit.topics import TopicReader
from cloud.policy.default import DEFAULT
from cloud.records import GATEWAY, LIMIT, AlertEvent
from healthsync.runtime import config
from tests.system.box import Box, until
from tests.system.test_ward_page import Monitor, stamp
from vitals import topics

pytestmark = pytest.mark.system

SILENT_S = DEFAULT.silence.after_s
GATEWAY_S = DEFAULT.silence.gateway_s
LATE_S = 25
"""What a loaded machine may need on top."""


class Ward:
    """A onebox of its own: of its alerts, each is accounted for."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.monitors: list[Monitor] = []
        kafka = config.load(Path(box.info["audit_config"]), AuditConfig).kafka
        self._reader = TopicReader(kafka, topics.ALERTS)
        self._told: list[AlertEvent] = []

    def close(self) -> None:
        for one in self.monitors:
            one.close()
        self._reader.close()
        self.box.stop()

    def monitor(self, bed: str, mrn: str) -> Monitor:
        made = Monitor(self.box, f'device=al-{bed} mrn={mrn} name="Ada Ng" bed={bed} ward=W1')
        self.monitors.append(made)
        return made

    def told(self, *kinds: str) -> list[AlertEvent]:
        """Return every step so far of alerts of these kinds, in order."""
        for message in self._reader.new():
            self._told.append(msgspec.json.decode(message.value(), type=AlertEvent))
        return [event for event in self._told if event.kind in kinds and not event.retrospective]

    def steps(self, *kinds: str) -> list[str]:
        return [event.step for event in self.told(*kinds)]

    def alarms(self, bed: str) -> list[dict[str, Any]]:
        """Return what the ward page is given of a bed's alarms."""
        request = urllib.request.Request(  # noqa: S310 - our own https address
            f"{self.box.info['ward_url']}/state",
            headers={"Authorization": f"Bearer {self.box.info['token']}"},
        )
        with urllib.request.urlopen(request, timeout=15, context=self.box.context()) as answer:  # noqa: S310
            state = json.load(answer)
        return next((tile["alarms"] for tile in state["beds"] if tile["bed"] == bed), [])

    def command(self, what: str, subject: str, *words: str, who: str = "lee.k") -> None:
        fixed = ["--config", self.box.info["operator_config"], "--subject", subject, "--who", who]
        done = self.box.command("cloud", "alert", what, *fixed, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("command ")


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    made = Ward(Box(Path(tmp_path_factory.mktemp("alarms")) / "run"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def silent(ward: Ward) -> str:
    """Return the subject of a bed that spoke once, at the beginning: it falls silent meanwhile."""
    ward.monitor("G9", "ALARM0019").say("heart_rate=70 oxygen=97% resp=15")
    return ward.box.subject("ALARM0019")


@pytest.fixture(scope="module")
def low(ward: Ward) -> str:
    """Return the subject of a patient whose oxygen was low for fifteen seconds, typed into nc."""
    start = datetime.now(UTC) - timedelta(seconds=20)
    lines = "".join(
        f'device=al-L1 mrn=ALARM0001 name="Ada Ng" bed=L1 ward=W1 oxygen={value}%'
        f" time={stamp(start + timedelta(seconds=at))} reply=yes\n"
        for at, value in enumerate([96] * 5 + [84] * 15)
    )
    done = subprocess.run(
        ["nc", "-N", "127.0.0.1", str(ward.box.info["line_port"])],
        input=lines,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.split() == ["ok"] * 20, done
    subject = ward.box.subject("ALARM0001")
    until(lambda: ward.steps("threshold") == ["raised"], 20, "the alert")
    return subject


@pytest.mark.usefixtures("silent")
def test_a_low_oxygen_typed_into_nc_is_raised_and_its_acknowledgement_is_on_the_board(
    ward: Ward, low: str
) -> None:
    (raised,) = ward.told("threshold")
    assert (raised.subject, raised.state, raised.number) == (low, "active", 1)
    until(lambda: len(ward.alarms("L1")) == 1, 10, "the alarm on the board")
    (alarm,) = ward.alarms("L1")
    assert (alarm["id"], alarm["state"]) == (raised.episode, "active")
    assert (alarm["acknowledged"], alarm["by"]) == (None, "")

    began_ms = int(time.time() * 1000)
    ward.command("acknowledge", low, "--episode", raised.episode, "--why", "with the patient")
    until(lambda: ward.steps("threshold") == ["raised", "acknowledged"], 10, "its step")
    until(lambda: ward.alarms("L1")[0]["by"] == "lee.k", 10, "it on the board")
    (alarm,) = ward.alarms("L1")
    assert (alarm["state"], alarm["id"]) == ("active", raised.episode)
    assert began_ms <= alarm["acknowledged"] <= time.time() * 1000
    step = ward.told("threshold")[-1]
    assert (step.number, step.who, step.why) == (2, "lee.k", "with the patient")


def test_a_second_answer_and_one_to_nothing_change_nothing(ward: Ward, low: str) -> None:
    (episode,) = {event.episode for event in ward.told("threshold")}
    ward.command("acknowledge", low, "--episode", episode, who="mia.b")
    ward.command("acknowledge", low, "--episode", "0" * 32)
    ward.command("acknowledge", "0" * 32, "--episode", episode)
    ward.command("shelve", low, "--episode", episode, "--until", "1m")
    until(lambda: len(ward.steps("threshold")) > 2, 10, "the shelving")
    assert ward.steps("threshold") == ["raised", "acknowledged", "shelved"]
    until(lambda: ward.alarms("L1")[0]["shelved"] is not None, 10, "it on the board")
    assert ward.alarms("L1")[0]["by"] == "lee.k"
    (issue,) = ward.box.entries(f"DetectedIssue?patient={low}")
    assert [done["action"]["text"].split()[0] for done in issue["mitigation"]] == [
        "acknowledged",
        "shelved",
    ]
    assert "lee" not in json.dumps(issue)


def test_a_limit_of_ones_own_is_told_and_is_no_alarm(ward: Ward, low: str) -> None:
    before = len(ward.alarms("L1"))
    ward.command("limit", low, "--rule", "spo2.low.high", "--limit", "80", "--why", "target 82-86")
    until(lambda: len(ward.told(LIMIT)) == 1, 10, "the change")
    (event,) = ward.told(LIMIT)
    assert (event.subject, event.who, event.why) == (low, "lee.k", "target 82-86")
    time.sleep(2)
    assert len(ward.alarms("L1")) == before
    assert len(ward.box.entries(f"DetectedIssue?patient={low}")) == 1


def test_a_gateway_that_is_cut_off_is_one_alert_and_no_bed_of_it_is_silent(
    ward: Ward, silent: str, low: str
) -> None:
    talking = [ward.monitor(f"G{at}", f"ALARM001{at}") for at in range(3)]
    for one in talking:
        one.talk("heart_rate=72 oxygen=97% resp=15")
    # A bed that falls silent while its gateway is there is told: what follows could be seen.
    until(
        lambda: {silent, low} <= {event.subject for event in ward.told("silence")},
        SILENT_S + LATE_S,
        "the silence of those who spoke once",
    )
    before = {event.subject for event in ward.told("silence")}
    beds = {ward.box.subject(f"ALARM001{at}") for at in range(3)}
    assert not before & beds
    assert ward.told(GATEWAY) == [], "it was vouched for all the time"

    proxy = ward.box.pids()["haproxy-edge"]
    os.kill(proxy, signal.SIGSTOP)
    cut = time.monotonic()
    try:
        until(lambda: bool(ward.told(GATEWAY)), GATEWAY_S + LATE_S, "the gateway's alert")
        assert time.monotonic() - cut > GATEWAY_S - 12, "not before two presences are missed"
        (raised,) = ward.told(GATEWAY)
        assert (raised.subject, raised.state) == ("ward-gw-1", "active")
        # Longer than a bed may be silent, and than the clock looks for them.
        while time.monotonic() - cut < SILENT_S + 15:
            time.sleep(1)
        assert {event.subject for event in ward.told("silence")} == before
        assert len({event.episode for event in ward.told(GATEWAY)}) == 1
        assert ward.told(GATEWAY)[-1].state == "active"
    finally:
        os.kill(proxy, signal.SIGCONT)
    back = time.monotonic()
    until(
        lambda: ward.told(GATEWAY)[-1].state == "ended", GATEWAY_S + LATE_S, "the gateway's return"
    )
    while time.monotonic() - back < SILENT_S + 5:
        time.sleep(1)
    assert {event.subject for event in ward.told("silence")} & beds == set()
    assert len({event.episode for event in ward.told(GATEWAY)}) == 1
    assert ward.told(GATEWAY)[-1].state == "ended"
    # what the gateway kept meanwhile has come, and is told as of its own time
    assert ward.told("threshold")[-1].subject not in beds


def test_the_stages_agree_after_all_of_it(ward: Ward) -> None:
    for one in ward.monitors:
        one.close()
    done = ward.box.audit(90)
    assert done.returncode == 0, done.stdout + done.stderr


def test_detect_leaves_cleanly_when_told_to(ward: Ward) -> None:
    log = ward.box.run_dir / "log" / "detect.log"
    before = ward.box.pids()["detect"]
    os.kill(before, signal.SIGTERM)
    until(lambda: ward.box.pids()["detect"] not in (0, before), 30, "a new detect")
    until(ward.box.ready, 40, "everything to be ready again")
    said = log.read_text()
    assert said.count('"event": "stopped"') == 1
    assert "Traceback" not in said

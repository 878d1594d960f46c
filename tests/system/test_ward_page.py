"""What a nurse sees: the ward page in a real browser, on real servers."""

import json
import os
import re
import signal
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.system.box import Box, until
from tests.system.browser import Page, key_pin

pytestmark = pytest.mark.system

RED = "rgb(217, 20, 42)"
HOSTILE = "<img src=x onerror=document.title='owned'>"

# Before a sign-in the page asks for the state and is refused: the one complaint that is right.
REFUSED = "Failed to load resource: the server responded with a status of 401 "
"""HAProxy 3 adds the reason phrase behind it, 2.6 does not."""

# Times of day and the device's id may hold any digits; they are no readings.
CLOCK = re.compile(r"\d\d:\d\d(:\d\d)?|device \w+")

# The tile of a bed as a person finds it: by what stands in its head.
TILES = """
window.tileOf = (bed) => [...document.querySelectorAll('.tile')]
  .find((tile) => tile.querySelector('.bed').textContent === bed);
window.digits = (bed, vital) => tileOf(bed)?.querySelector(`.vital.${vital} .num`).textContent;
"""

# Every text that is cut off by its own box, and every two boxes that lie on each other.
FAULTS = """
(() => {
  const faults = [];
  const seen = (node) => node.getClientRects().length > 0 && !node.closest('.unseen');
  const say = (node) => {
    const bed = node.closest('.tile')?.querySelector('.bed').textContent ?? 'top';
    return `${bed} ${node.getAttribute('class') || node.id} "${node.textContent.trim()}"`;
  };
  const apart = (nodes) => {
    const boxes = nodes.filter(seen).map((node) => [node, node.getBoundingClientRect()])
      .filter(([, box]) => box.width && box.height);
    boxes.forEach(([one, a], at) => {
      for (const [other, b] of boxes.slice(at + 1)) {
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 1 && high > 1) faults.push(`${say(one)} on ${say(other)}`);
      }
    });
  };
  const inside = (node, box) => {
    if (!node.textContent.trim() || !seen(node)) return;
    const range = document.createRange();
    range.selectNodeContents(node);
    const text = range.getBoundingClientRect(), around = box.getBoundingClientRect();
    if (text.left < around.left - 1 || text.right > around.right + 1) {
      faults.push(`${say(node)} leaves its box`);
    }
  };
  apart([...document.querySelectorAll('.tile')]);
  apart([...document.querySelectorAll('.top > :not(.tools), .tools > button')]);
  for (const tile of document.querySelectorAll('.tile')) {
    apart([...tile.children]);
    apart([...tile.querySelectorAll('.head > *')]);
    apart([...tile.querySelectorAll('.bar > *')]);
    apart([...tile.querySelectorAll('.foot > *')]);
    apart([...tile.querySelectorAll('.vital')]);
    for (const vital of tile.querySelectorAll('.vital')) {
      apart([...vital.children]);
      inside(vital.querySelector('.label'), vital);
      inside(vital.querySelector('.num'), vital);
      inside(vital.querySelector('.note'), vital.querySelector('.note'));
    }
    for (const node of tile.querySelectorAll('.bar .text, .bar .since, .state, .bed')) {
      inside(node, tile);
      inside(node, node);
    }
  }
  if (document.documentElement.scrollWidth > innerWidth) faults.push('wider than the window');
  return faults;
})()
"""


class Monitor:
    """A bedside monitor that sends a line, or one every second until it is stopped."""

    def __init__(self, box: Box, head: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", box.info["line_port"]), 5)
        self.head = head
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def say(self, text: str) -> None:
        self.socket.sendall(f"{self.head} {text}\n".encode())
        self.head = ""

    def talk(self, text: str) -> None:
        def run() -> None:
            self.say(text)
            while not self._stop.wait(1):
                self.say(text)

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        self.socket.close()


@contextmanager
def monitor(
    box: Box, bed: str, mrn: str, name: str = "Ada Ng", ward: str = "W9"
) -> Iterator[Monitor]:
    one = Monitor(box, f'device=page-{bed} mrn={mrn} name="{name}" bed={bed} ward={ward}')
    try:
        yield one
    finally:
        one.close()


@pytest.fixture(scope="module")
def browser(box: Box, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser on the sign-in page, which has been refused the state, as it must be."""
    url = box.info["ward_url"]
    page = Page(tmp_path_factory.mktemp("chromium") / "profile", key_pin(url, box.context()))
    try:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=TILES)
        page.size(1920, 1080)
        page.go(url)
        page.until("!document.getElementById('signin').hidden", 5)
        (complaint,) = page.complaints
        assert complaint.startswith(REFUSED)
        assert complaint.endswith(f") {origin(url)}/ward/state")
        page.complaints.clear()
        yield page
    finally:
        page.close()


@pytest.fixture
def ward(box: Box, browser: Page) -> Iterator[Page]:
    """The page signed in; at the end it has complained of nothing and asked nobody else."""
    if browser.value("document.getElementById('grid').hidden"):
        sign_in(box, browser, box.info["sign_in"]["password"])
        browser.until("!document.getElementById('grid').hidden", 5)
    yield browser
    browser.value("0")  # everything told before this answer has been read
    assert browser.complaints == []
    ours = origin(box.info["ward_url"])
    assert {url for url in browser.asked if origin(url) != ours} == set()


def origin(url: str) -> str:
    return "://".join(urllib.parse.urlsplit(url)[:2])


def sign_in(box: Box, page: Page, password: str) -> None:
    page.value("document.getElementById('form').reset()")
    page.type("#name", box.info["sign_in"]["user"])
    page.type("#password", password)
    page.click("#form button")


def tile(page: Page, bed: str) -> dict[str, Any]:
    """Return what a tile says, in words."""
    found: dict[str, Any] = page.value(
        f"(() => {{ const t = tileOf({json.dumps(bed)}); const text = (q) => "
        "t.querySelector(q).textContent; return {state: t.dataset.state, who: text('.who'),"
        " bar: text('.bar'), age: text('.age'), all: t.textContent, vitals: Object.fromEntries("
        "[...t.querySelectorAll('.vital')].map((v) => [v.classList[1], {age: v.dataset.age,"
        " num: v.querySelector('.num').textContent.trim(),"
        " note: v.querySelector('.note').textContent}]))}; })()"
    )
    return found


def stamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def desaturate(one: Monitor) -> None:
    """Say the last 25 seconds: oxygen falls to 84 % and stays there for more than ten."""
    start = datetime.now(UTC) - timedelta(seconds=25)
    for at, value in enumerate([96] * 8 + [84] * 17):
        one.say(f"oxygen={value}% time={stamp(start + timedelta(seconds=at))}")


# The tests, in the order of a shift ------------------------------------------------------


def test_a_wrong_password_is_refused_in_words_and_shows_no_bed(box: Box, browser: Page) -> None:
    sign_in(box, browser, "not the password")
    browser.until("document.getElementById('refused').textContent.includes('wrong')", 5)
    assert browser.value("document.getElementById('grid').hidden")
    assert browser.value("document.querySelectorAll('.tile').length") == 0
    assert [line.startswith(REFUSED) for line in browser.complaints] == [True]
    browser.complaints.clear()


def test_signing_in_shows_the_beds(box: Box, ward: Page) -> None:
    with monitor(box, "P1", "PAGE0001", "Zora Quill") as one:
        one.say("heart_rate=71 oxygen=97% resp=15 temperature=36.8C bp=121/82(95)")
        ward.until("tileOf('P1')", 5)
        ward.until("digits('P1', 'temp') === '36.8'", 2)
        said = tile(ward, "P1")
    assert said["who"] == "Quill Z."
    assert {name: vital["num"] for name, vital in said["vitals"].items()} == {
        "hr": "71",
        "spo2": "97",
        "rr": "15",
        "bp": "121/82 (95)",
        "temp": "36.8",
    }
    assert ward.value("document.getElementById('beattext').textContent") == "LIVE"
    assert ward.value("document.getElementById('notlive').hidden")
    assert "PAGE0001" not in ward.value("document.documentElement.outerHTML")


def test_a_line_is_seen_as_digits_on_the_right_tile_within_two_seconds(
    box: Box, ward: Page
) -> None:
    with monitor(box, "P1", "PAGE0001") as one, monitor(box, "P2", "PAGE0002") as other:
        other.say("heart_rate=60 oxygen=99%")
        ward.until("digits('P2', 'hr') === '60'", 5)
        for rate in (83, 84, 85):
            one.say(f"heart_rate={rate} oxygen=96%")
            took = ward.until(f"digits('P1', 'hr') === '{rate}'", 2)
            assert took < 2
        assert tile(ward, "P1")["vitals"]["spo2"]["num"] == "96"
        assert tile(ward, "P2")["vitals"]["hr"]["num"] == "60"


@pytest.mark.parametrize(("bed", "name"), [("P3", HOSTILE), ("P7", HOSTILE.replace(" ", "/"))])
def test_html_in_a_name_is_shown_as_text_and_runs_nothing(
    box: Box, ward: Page, bed: str, name: str
) -> None:
    with monitor(box, bed, f"PAGE-{bed}", name) as one:
        one.say("heart_rate=66")
        ward.until(f"digits('{bed}', 'hr') === '66'", 5)
    who = tile(ward, bed)["who"]
    # a ward says the family name, so that of several words only the last is whole
    assert who == (name if " " not in name else "onerror=document.title='owned'> <.")
    assert ward.value("document.querySelectorAll('.tile img, .tile script').length") == 0
    assert "owned" not in ward.value("document.title")


def test_oxygen_below_the_limit_for_ten_seconds_alarms_in_red_on_its_tile(
    box: Box, ward: Page
) -> None:
    with monitor(box, "P4", "PAGE0004", "Alda Rusk") as one:
        desaturate(one)
        one.talk("heart_rate=88 oxygen=84% resp=15")
        ward.until("tileOf('P4')?.querySelector('.bar').textContent.includes('84<90')", 5)
        assert "*** SpO2 84<90" in tile(ward, "P4")["bar"]
        # half of the time the bar is white with red letters: both phases come within a second
        fill = "getComputedStyle(tileOf('P4').querySelector('.bar')).backgroundColor"
        ward.until(f"{fill} === '{RED}'", 1)
        ward.until(f"{fill} === 'rgb(255, 255, 255)'", 1)
        cell = "getComputedStyle(tileOf('P4').querySelector('.vital.spo2')).backgroundColor"
        ward.until(f"{cell} === '{RED}'", 1)
        assert ward.value(
            "[...document.querySelectorAll('[role=alert]')]"
            ".filter((node) => node.textContent.includes('84<90'))"
            ".map((node) => node.closest('.tile').querySelector('.bed').textContent)"
            ".filter((bed) => bed === 'P4')"  # other tests leave alarms on beds of their own
        ) == ["P4"], "said once, and by the tile itself"
        assert ward.value("tileOf('P4').querySelectorAll('.bar[data-fill=high]').length") == 1
        assert ward.value("tileOf('P2').querySelector('.bar').dataset.fill") != "high"
        counts = ward.value("document.getElementById('counts').textContent")
        assert re.search(r"alarms: [1-9]\d* high", counts), counts


def answer(box: Box, what: str, subject: str, episode: str, *words: str) -> None:
    fixed = ("--config", box.info["operator_config"], "--subject", subject, "--episode", episode)
    done = box.command("cloud", "alert", what, *fixed, *words)
    assert done.returncode == 0, done.stderr


def test_an_alarm_that_somebody_answers_is_steady_says_so_and_rings_no_more(
    box: Box, ward: Page
) -> None:
    bar = "tileOf('P8').querySelector('.bar')"
    count = "(document.getElementById('counts').textContent.match(/(\\d+) high/) ?? [0, 0])[1]"
    fill = f"getComputedStyle({bar}).backgroundColor"
    # every colour of more than one period of the flash
    colours = f"""new Promise((done) => {{ const seen = new Set(); const began = performance.now();
      const look = () => {{ seen.add({fill});
        if (performance.now() - began > 1200) done([...seen]); else requestAnimationFrame(look); }};
      look(); }})"""
    others = int(ward.value(count))
    with monitor(box, "P8", "PAGE0008", "Ida Wolff") as one:
        desaturate(one)
        one.talk("oxygen=84%")
        ward.until("tileOf('P8')?.querySelector('.bar').textContent.includes('84<90')", 8)
        ward.until(f"Number({count}) === {others + 1}", 5)
        subject = box.subject("PAGE0008")
        (issue,) = box.entries(f"DetectedIssue?patient={subject}")
        shelve = ("--until", "1m", "--who", "lee.k")
        answer(box, "shelve", subject, issue["id"], *shelve)
        ward.until(f"/shelved until \\d\\d:\\d\\d/.test({bar}.textContent)", 8)
        answer(box, "unshelve", subject, issue["id"], "--who", "lee.k")
        ward.until(f"!{bar}.textContent.includes('shelved') && {bar}.dataset.quiet !== 'yes'", 8)
        assert len(ward.value(colours)) == 2, "it flashes again"
        answer(box, "acknowledge", subject, issue["id"], "--who", "a.person.with.a.long.name")
        ward.until(f"{bar}.textContent.includes('ack by a.person.wit…')", 8)
        assert ward.value(colours) == [RED]
        assert ward.value(f"{bar}.getAttribute('role')") is None
        assert int(ward.value(count)) == others
        assert "1 quiet" in ward.value("document.getElementById('counts').textContent")
        assert [fault for fault in ward.value(FAULTS) if "P8" in fault] == []
    # it is seen no more, and yet nobody needs to answer it again
    ward.until("tileOf('P8').querySelector('.vital.spo2').dataset.age === 'stale'", 15)
    assert "ack by" in tile(ward, "P8")["bar"]


def test_a_latched_alarm_stays_in_words_until_it_is_answered(box: Box, ward: Page) -> None:
    bar = "tileOf('P9').querySelector('.bar')"
    with monitor(box, "P9", "PAGE0009", "Ivo Quist") as one:
        start = datetime.now(UTC) - timedelta(seconds=35)
        for at, value in enumerate([84] * 15 + [97] * 20):
            one.say(f"oxygen={value}% time={stamp(start + timedelta(seconds=at))}")
        ward.until("tileOf('P9')?.querySelector('.bar').textContent.includes('latched')", 8)
        assert "*** SpO2 84<90" in tile(ward, "P9")["bar"]
        assert ward.value(f"{bar}.getAttribute('role')") == "alert"
        subject = box.subject("PAGE0009")
        (issue,) = box.entries(f"DetectedIssue?patient={subject}")
        assert issue["status"] == "preliminary"
        answer(box, "acknowledge", subject, issue["id"], "--who", "lee.k")
        ward.until(f"{bar}.textContent.includes('was SpO2 84<90')", 12)
    (issue,) = box.entries(f"DetectedIssue?patient={subject}")
    assert issue["status"] == "final"


def test_a_high_alarm_flashes_twice_a_second_and_all_tiles_together(ward: Page) -> None:
    rises = ward.value(
        """new Promise((done) => {
          const bar = tileOf('P4').querySelector('.bar');
          const cell = tileOf('P4').querySelector('.vital.spo2');
          let was = null, rises = 0, apart = 0; const began = performance.now();
          const timer = setInterval(() => {
            const on = getComputedStyle(bar).backgroundColor === 'rgb(217, 20, 42)';
            if (on !== (getComputedStyle(cell).backgroundColor === 'rgb(217, 20, 42)')) apart += 1;
            if (was === false && on) rises += 1;
            was = on;
            if (performance.now() - began > 3000) { clearInterval(timer); done([rises, apart]); }
          }, 25);
        })"""
    )
    assert rises[0] in {5, 6, 7}
    assert rises[1] == 0


def test_a_silent_bed_ages_and_loses_its_numbers_while_another_stays_live(
    box: Box, ward: Page
) -> None:
    with monitor(box, "P5", "PAGE0005") as silent, monitor(box, "P6", "PAGE0006") as talking:
        talking.talk("heart_rate=77 oxygen=98% resp=14")
        for _ in range(2):
            silent.say("heart_rate=141 oxygen=94% resp=27")
            time.sleep(1)
        ward.until("digits('P5', 'spo2') === '94'", 2)
        silent.say("heart_rate=141 oxygen=94% resp=27")
        last = time.monotonic()
        ward.until("tileOf('P5').dataset.state === 'LIVE'", 2)
        ward.until("tileOf('P5').dataset.state === 'AGEING'", 6)
        assert 2 <= time.monotonic() - last <= 5
        ageing = tile(ward, "P5")["vitals"]["spo2"]
        assert ageing["age"] == "ageing"
        assert ageing["num"] == "94"
        assert ageing["note"].endswith(" s"), "grey with its age in words"
        ward.until("tileOf('P5').dataset.state === 'STALE'", 10)
        assert 8 <= time.monotonic() - last <= 12
        said = tile(ward, "P5")
        for name, value in (("hr", "141"), ("spo2", "94"), ("rr", "27")):
            vital = said["vitals"][name]
            assert vital["num"] == "---"
            assert vital["note"].startswith(f"last {value} at ")
            rest = CLOCK.sub("", said["all"]).replace(f"last {value} at ", "")
            assert value not in rest
        assert "no data" in said["bar"]
        other = tile(ward, "P6")
        assert other["state"] == "LIVE"
        assert other["vitals"]["hr"]["num"] == "77"


def test_sixteen_beds_at_their_widest_neither_overlap_nor_are_cut(
    box: Box, ward: Page, tmp_path: Path
) -> None:
    lines = [
        f'device=page-F{at} mrn=PAGEF{at:03} name="Maximilian Papadopoulos-Featherstonehaugh"'
        f" bed=F{at:02} ward=W9 heart_rate=188 oxygen=100% resp=38 temperature=40.2C"
        " bp=218/116(150)\n"
        for at in range(1, 17)
    ]
    box.say("".join(lines))
    ward.until("tileOf('F16') && digits('F16', 'hr') === '188'", 8)
    with monitor(box, "P4", "PAGE0004") as one:
        one.talk("oxygen=84%")
        for width, height, phone in ((1280, 720, False), (390, 844, True), (1920, 1080, False)):
            ward.size(width, height, phone=phone)
            ward.value("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300)))")
            ward.picture(tmp_path / f"ward-{width}.png")
            assert ward.value(FAULTS) == [], f"at {width} x {height}"
            sizes = ward.value(
                "[...document.querySelectorAll('.now .vital[data-age=live] .num')]"
                ".map((node) => parseFloat(getComputedStyle(node).fontSize))"
            )
            assert set(sizes) <= {56}, "never smaller, to be read from two metres"


def test_a_frozen_server_is_seen_by_the_page_itself_and_it_recovers(box: Box, ward: Page) -> None:
    dashes = (
        "[...document.querySelectorAll('.vital .num')]"
        ".every((node) => node.textContent.trim() === '---')"
    )
    with monitor(box, "P6", "PAGE0006") as talking:
        talking.talk("heart_rate=79 oxygen=98% resp=14")
        ward.until("digits('P6', 'hr') === '79'", 3)
        api = box.pids()["api"]
        os.kill(api, signal.SIGSTOP)
        try:
            began = time.monotonic()
            ward.until("!document.getElementById('notlive').hidden", 9)
            assert 3.5 <= time.monotonic() - began <= 7.5
            strip = ward.value("document.getElementById('notlive').textContent")
            assert strip.startswith("STATION NOT LIVE since ")
            assert (
                ward.value("getComputedStyle(document.getElementById('notlive')).backgroundColor")
                == "rgb(91, 42, 134)"
            )
            ward.until(dashes, 9)
            assert time.monotonic() - began <= 11.5
            assert ward.value(FAULTS) == []
        finally:
            os.kill(api, signal.SIGCONT)
        ward.until("document.getElementById('notlive').hidden", 8)
        ward.until("digits('P6', 'hr') === '79' && tileOf('P6').dataset.state === 'LIVE'", 8)
    until(box.ready, 10, "the api to be ready again")


def test_a_page_loaded_anew_shows_the_ward_at_once_without_another_sign_in(
    box: Box, ward: Page
) -> None:
    with monitor(box, "P6", "PAGE0006") as talking:
        talking.talk("heart_rate=82 oxygen=98% resp=14")
        ward.until("digits('P6', 'hr') === '82'", 5)
        ward.go(box.info["ward_url"])
        ward.until("window.tileOf && digits('P6', 'hr') === '82'", 5)
        assert (
            ward.value("document.getElementById('sound').textContent")
            .strip()
            .startswith("SOUND NOT ENABLED")
        )


def test_signing_out_leaves_no_bed_on_the_page(ward: Page) -> None:
    ward.click("#signout")
    ward.until("!document.getElementById('signin').hidden", 5)
    assert ward.value("document.querySelectorAll('.tile').length") == 0
    assert all(line.startswith(REFUSED) for line in ward.complaints)
    ward.complaints.clear()

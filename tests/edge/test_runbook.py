"""Every command of the runbook runs, and prints what the runbook says it prints."""

import re
import shutil
import socket
import string
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from edge.complaint import Code
from tests.edge.process import Process
from tests.edge.test_status_parts import make_certificate
from tests.edge.tty import ROOT, session
from vitals.ports import PORTS

RUNBOOK = ROOT / "edge/RUNBOOK.md"
SERVICES = ROOT / "edge/services"

MESSAGE = (
    b"\x0bMSH|^~\\&|T|T|G|W|20261123||ORU^R01^ORU_R01|9|P|2.6|||NE|NE\rPID|||M000123^^^H^MR\r"
    b"OBR|1\rOBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC||137|||||F|||||||monitor-1\r\x1c\r"
)

ELSEWHERE = {
    "systemctl": "starts and stops services of the machine",
    "chronyc": "speaks to the machine's time daemon",
    "dmesg": "reads the machine's kernel log",
    "haproxy": "reads /etc/haproxy of the machine",
    "ping": "needs a device",
}
"""Tools that may be named outside of console blocks, because a test cannot run them."""


class Command(NamedTuple):
    line: str
    exit: int
    expected: list[str]


def _commands() -> list[Command]:
    found: list[Command] = []
    for block in re.findall(r"```console\n(.*?)```", RUNBOOK.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:], 0, []))
            elif line.startswith("# exit: "):
                found[-1] = found[-1]._replace(exit=int(line[8:]))
            elif line.startswith("# expect: "):
                found[-1].expected.append(line[10:])
            else:
                raise AssertionError(line)
    return found


class Running(NamedTuple):
    process: Process
    pid: int

    def here(self, line: str) -> str:
        """Return the line with this gateway's places for a deployed one's."""
        process = self.process
        for old, new in {
            "/etc/healthsync/edge.toml": str(process.config),
            "/etc/healthsync/gateway.pem": str(process.folder / "gateway.pem"),
            "/var/lib/healthsync": str(process.state),
            "$(systemctl show -p MainPID --value healthsync-edge)": str(self.pid),
            "journalctl -u healthsync-edge -o cat -n 500": f"tail -n 500 {process.folder}/log",
            "sudo ": "",
            "healthsync edge": f"{sys.executable} -m healthsync.cli edge",
        }.items():
            line = line.replace(old, new)
        for port, here in {
            "7010": process.line_port,
            "2575": process.mllp_port,
            "7020": process.uplink_port,
            "9110": process.metrics_port,
        }.items():
            line = re.sub(rf"(?<![\d.]){port}(?!\d)", str(here), line)
        return line


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway with a device that speaks ten times a second, and one that is refused."""
    folder = tmp_path_factory.mktemp("runbook")
    (folder / "gateway.pem").write_bytes(make_certificate(90))
    process = Process(folder)
    process.set(f'link_certificate = "{folder / "gateway.pem"}"')
    over = threading.Event()

    def speak() -> None:
        with (
            socket.create_connection(("127.0.0.1", process.line_port)) as line,
            socket.create_connection(("127.0.0.1", process.mllp_port)) as mllp,
        ):
            while not over.wait(0.1):
                line.sendall(b"device=monitor-1 mrn=M000123 name=Ada heart_rate=137\n")
                mllp.sendall(MESSAGE)

    with process.started() as child:
        with socket.create_connection(("127.0.0.1", process.line_port), timeout=5) as sock:
            sock.sendall(b"reply=yes device=broken-1 hr=x\n")
            assert sock.recv(8) == b"rejected"
        process.logged("uplink-down")
        speaker = threading.Thread(target=speak)
        speaker.start()
        try:
            yield Running(process, child.pid)
        finally:
            over.set()
            speaker.join()


def _tools(line: str) -> list[str]:
    parts = re.split(r"\s\|\s", re.sub(r"'[^']*'", "''", line))
    words = [part.split() for part in parts]
    return [next(w for w in one if w not in {"sudo", "timeout", "10"}) for one in words]


@pytest.mark.parametrize("command", _commands(), ids=lambda one: one.line[:60])
def test_a_command_of_the_runbook_does_what_it_says(running: Running, command: Command) -> None:
    for tool in _tools(command.line):
        if tool != "healthsync" and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed here")
    line = running.here(command.line)
    if line.startswith("htop"):
        with session(line.split(), 80, 24) as screen:
            screen.screen.strict = False
            for expected in command.expected:
                screen.prints(expected)
            screen.press("q")
            assert screen.ended() == 0
        return
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "tcpdump" in line and "permission" in done.stderr:
        pytest.skip("tcpdump may not capture here: it needs CAP_NET_RAW")
    said = done.stdout + (done.stderr if "tcpdump" in line else "")
    assert done.returncode == command.exit, done.stderr
    for expected in command.expected:
        assert running.here(expected) in said, said
    for secret in ("M000123", "Ada"):
        assert secret not in done.stdout
    if "healthsync edge" in line:  # what others print is full of numbers of their own
        assert not re.search(r"\b137\b", done.stdout)


def test_every_complaint_has_its_place_in_the_runbook() -> None:
    text = RUNBOOK.read_text()
    for code in Code:
        assert f"`{code}`" in text, code


def test_no_command_hides_outside_of_the_blocks() -> None:
    text = re.sub(r"```console\n.*?```", "", RUNBOOK.read_text(), flags=re.DOTALL)
    blocks = "\n".join(one.line for one in _commands())
    for inline in re.findall(r"`([^`\n]+)`", text):
        tool = inline.split()[0]
        if len(inline.split()) > 1 and (shutil.which(tool) or tool in ELSEWHERE):
            # A title of a table's row may be the beginning of a command in the block below.
            assert tool in ELSEWHERE or inline.split(" …")[0] in blocks, inline


def test_no_capture_prints_content() -> None:
    for command in _commands():
        if "tcpdump" in command.line:
            assert " -q " in command.line
            assert not re.search(r" -(A|X+|w|x+|v+)\b", command.line)


def test_services_are_the_ports_by_valid_names() -> None:
    named: dict[int, str] = {}
    for line in SERVICES.read_text().splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9-]+)\s+(\d+)/tcp\s+# (.+)", line)
        assert match, line
        name, number, text = match[1], int(match[2]), match[3]
        # RFC 6335 section 5.1.
        assert len(name) <= 15
        assert name.strip("-") == name
        assert "--" not in name
        assert any(char in string.ascii_letters for char in name)
        assert number not in named
        named[number] = name
        [port] = [one for one in PORTS if one.number == number]
        assert text == port.text
        stem = port.name.removeprefix("edge-")
        short = {f"healthsync-{port.name}", f"hs-{port.name}"[:15], f"hs-{stem}"[:15]}
        assert name in short, f"{name} is not made of {port.name}"
    assert set(named) == {port.number for port in PORTS if port.side == "edge"}
    assert len(set(named.values())) == len(named)

"""Marked names, numbers and values are put through both ports, then looked for everywhere.

Everywhere: each file of the run directory, what the process printed, its metrics page, the memory
it maps from files and the files it holds open though they are deleted. Looked for as they are and
as UTF-16, base64 and hex, of any case. Kill -9 and another start change nothing.
"""

import base64
import os
import resource
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from edge.mllp import block
from tests.edge.hl7_messages import STAMP
from tests.edge.process import Process

DEVICE, MRN, NAME, BED, WARD = (f"CANARY{what}7Q" for what in ("DEV", "MRN", "NAM", "BED", "WRD"))
BAD, HALF, FIELD, TEXT, VALUE = (
    *(f"CANARY{what}7Q" for what in ("BAD", "HLF", "KEY", "TXT")),
    "36.918273645",
)
CANARIES = (DEVICE, MRN, NAME, BED, WARD, BAD, HALF, FIELD, TEXT, VALUE, "19710317", "1971-03-17")

WHO = f'device={DEVICE} mrn={MRN} name="{NAME}" dob=1971-03-17 bed={BED} ward={WARD}'
LINES = (
    (f"reply=yes {WHO} hr=78 temp={VALUE}", b"ok"),
    (f"{WHO} hr=79 status=test", b"ok"),
    (
        f'{{"device":"{DEVICE}","mrn":"{MRN}","name":"{NAME}","dob":"19710317","temp":{VALUE}}}',
        b"ok",
    ),
    (f"{WHO} hr={BAD}", b"rejected bad-number"),
    (f"{WHO} {FIELD}=1", b"rejected unknown-field"),
    (f'{{"name":"{NAME}","mrn":["{MRN}"]}}', b"rejected bad-json"),
    (f"{NAME} {MRN} {BAD}", b"rejected"),
    (f"name={NAME}\x07 mrn={MRN}", b"rejected"),
    (f"name={NAME} temp={VALUE} " + BAD * 1000, b"rejected too-long"),
)

PID = f"PID|||{MRN}^^^H^MR||{NAME}^{NAME}||19710317|F"
PV1 = f"PV1||I|{WARD}^^{BED}"
OBR = f"OBR|1|{TEXT}|||||{STAMP}"
HEART = f"OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.1|78|264864|||||R|||||||{DEVICE}"
WARM = f"OBX|2|NM|150344^MDC_TEMP^MDC|1.1.1.2|{VALUE}|268192"
MESSAGES = (
    ("ORU^R01", (PID, PV1, OBR, HEART, WARM), b"|AA|"),
    ("ORU^R01", (PID, PV1, OBR, HEART.replace("|78|", f"|{BAD}|")), b"MSA|"),
    ("ORU^R01", (PID, PV1, OBR, f"OBX|1|ST|{TEXT}^{NAME}^99L|1.1.1.9|{BAD}|{TEXT}"), b"MSA|"),
    ("ADT^A01", (PID, PV1), b"MSA|AR|"),
    (
        "ORU^R40",
        (
            PID,
            PV1,
            f"OBR|1|{TEXT}|{TEXT}^{NAME}||||{STAMP}",
            f"OBX|1|ST|196652^MDC_EVT_HI^MDC|1.1.1.1.1|{TEXT} {NAME}|||||||R|||||||{DEVICE}",
            f"OBX|2|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.1.2|{VALUE}|264864|||||R",
            "OBX|3|ST|68481^MDC_ATTR_EVENT_PHASE^MDC|1.1.1.1.3|start|||||||R",
            "OBX|4|ST|68482^MDC_ATTR_ALARM_STATE^MDC|1.1.1.1.4|active|||||||R",
            f"NTE|1||{TEXT} {NAME}",
        ),
        b"MSA|",
    ),
)


# -- the search ---------------------------------------------------------------------------------


def forms(word: str) -> Iterator[bytes]:
    """Yield a word in every form looked for, in lower case."""
    for codec in ("utf-8", "utf-16-le", "utf-16-be"):
        raw = word.encode(codec)
        yield raw.lower()
        yield raw.hex().encode()
        for ahead in range(3):
            # Three alignments, without the characters that share bits with a neighbour's.
            text = base64.b64encode(b"\0" * ahead + raw)
            yield text[-(-8 * ahead // 6) : 8 * (ahead + len(raw)) // 6].lower()


FORMS = {form: word for word in CANARIES for form in forms(word)}


def marked(data: bytes) -> set[str]:
    """Return the canaries in the data, in any form."""
    low = data.lower()
    return {word for form, word in FORMS.items() if form in low}


PROGRAMS = ("/usr/", "/lib", "/dev/", sys.prefix, sys.base_prefix)
"""Files that a process maps or opens and did not write."""


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        yield "a file's name", str(path).encode()
        if path.is_file():
            yield path.name, path.read_bytes()


def _held(pid: int) -> Iterator[tuple[str, bytes]]:
    """Yield the files that a process has open or maps writable, deleted ones too."""
    for place in (f"/proc/{pid}/fd", f"/proc/{pid}/map_files"):
        if place.endswith("map_files") and os.geteuid():
            continue  # needs CAP_SYS_ADMIN
        for link in Path(place).iterdir():
            try:
                name = str(link.readlink())
                if name.startswith("/") and not name.startswith(PROGRAMS) and link.is_file():
                    yield f"{place} {name}", link.read_bytes()
            except FileNotFoundError:
                continue  # closed meanwhile


def found(places: Iterable[tuple[str, bytes]]) -> dict[str, set[str]]:
    """Return the canaries of each place that has some."""
    return {place: words for place, data in places if (words := marked(data))}


# -- what is sent -------------------------------------------------------------------------------


def _hear(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        part = sock.recv(4096)
        assert part, data
        data += part
    return data


def _send(process: Process, run: int) -> None:
    """Put every canary through both ports, taken, refused, and half."""
    with socket.create_connection(("127.0.0.1", process.line_port), 10) as sock:
        for line, answer in LINES:
            sock.sendall(f"{line}\n".encode())
            said = _hear(sock, b"\n")
            assert said.startswith(answer), said
        sock.sendall(f"name={NAME} mrn={MRN} hr={HALF}".encode())
    with socket.create_connection(("127.0.0.1", process.mllp_port), 10) as sock:
        for number, (kind, segments, answer) in enumerate(MESSAGES):
            head = f"MSH|^~\\&|{DEVICE}|{WARD}|||{STAMP}||{kind}|{run}-{number}|P|2.6"
            sock.sendall(block("\r".join((head, *segments, "")).encode()))
            said = _hear(sock, b"\x1c\r")
            assert answer in said, said
            assert not marked(said) - {DEVICE, WARD}, said  # the receiver's name is the sender's
        sock.sendall(b"\x0bMSH|^~\\&|" + f"{PID}|{HALF}".encode())
    wanted = 'rejected_total{reason="half-line"}'
    for _ in range(200):
        page = _metrics(process)
        if b"half-line" in page and b"hl7-framing" in page:
            return
        time.sleep(0.025)
    raise AssertionError(f"no {wanted}")


def _metrics(process: Process) -> bytes:
    url = f"http://127.0.0.1:{process.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as page:
        data: bytes = page.read()
    return data


def _look(process: Process, pid: int | None) -> dict[str, set[str]]:
    places = list(_files(process.folder))
    if pid is not None:
        places += _held(pid)
        places.append(("metrics", _metrics(process)))
    assert any("spool.db" in place for place, _ in places)
    return found(places)


def test_nothing_that_was_said_of_a_patient_is_found_anywhere(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with process.started() as child:
        _send(process, 1)
        assert _look(process, child.pid) == {}
        child.send_signal(signal.SIGKILL)
        child.wait(10)
    assert (process.state / "spool.db-wal").stat().st_size > 0
    assert _look(process, None) == {}
    printed = (tmp_path / "log").read_bytes()
    with process.started() as child:
        _send(process, 2)
        assert _look(process, child.pid) == {}
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    assert marked(printed) == set()
    assert _look(process, None) == {}


def test_a_damaged_spool_that_is_set_aside_tells_nothing_either(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with process.started() as child:
        _send(process, 1)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
    spool = process.state / "spool.db"
    raw = bytearray(spool.read_bytes())
    raw[:512] = os.urandom(512)
    spool.write_bytes(raw)
    with process.started() as child:
        _send(process, 2)
        process.logged("spool-salvaged")  # it is renamed until then
        assert [one.name for one in process.state.glob("spool.db.salvaged-*")]
        assert _look(process, child.pid) == {}
    assert _look(process, None) == {}


def test_a_crash_writes_no_memory_to_the_disk(tmp_path: Path) -> None:
    process = Process(tmp_path)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    with process.started() as child:
        resource.prlimit(child.pid, resource.RLIMIT_CORE)
        soft, hard = resource.prlimit(child.pid, resource.RLIMIT_CORE)
    assert (soft, hard) == (0, 0), f"core dumps are not off for good ({most} here)"


# -- the search finds ---------------------------------------------------------------------------


@pytest.mark.parametrize("word", CANARIES)
@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
def test_a_planted_word_is_found_in_every_form(word: str, codec: str, ahead: int) -> None:
    raw = os.urandom(ahead) + word.encode(codec) + os.urandom(5)
    for planted in (raw, raw.hex().encode(), raw.hex().upper().encode(), base64.b64encode(raw)):
        assert word in marked(b"\x00\xff" + planted)
    assert word in marked(word.lower().encode(codec))


def test_noise_holds_no_canary() -> None:
    assert marked(os.urandom(1 << 20)) == set()


def test_a_planted_file_is_found_whatever_its_name_and_depth(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / ".spool.db-tmp").write_bytes(os.urandom(5000) + NAME.encode() + os.urandom(5000))
    (tmp_path / MRN).touch()
    assert found(_files(tmp_path)) == {".spool.db-tmp": {NAME}, "a file's name": {MRN}}


def test_a_planted_file_is_found_though_it_is_deleted(tmp_path: Path) -> None:
    with (tmp_path / "gone").open("w+") as file:
        file.write(BAD)
        file.flush()
        (tmp_path / "gone").unlink()
        (place,) = [place for place in found(_held(os.getpid())) if str(tmp_path) in place]
    assert place.endswith("/gone (deleted)")

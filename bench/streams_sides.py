"""Who takes part in `bench.streams`, and how each is started: nothing else differs.

Law: a contender is a command that joins its group, reads ``samples`` and writes ``fhir`` and
``alerts`` until SIGTERM. The peers splice the very pieces that our templates are cut into, so that
all write the same resources.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bench.processes import ROOT
from bench.streams_data import VITALS_SAID
from bench.streams_policy import CHART
from cloud.fhir import resources
from cloud.fhir.ids import NAME_IN_ID, base36, instant
from vitals.codes import BY_NAME, decimal_scale

TOOLS: Final = ROOT / ".tools" / "bench"
PEERS: Final = ROOT / "bench" / "peers"

_SUBJECT, _DEVICE, _TIME_MS = "ab" * 16, "cd" * 16, 1_795_428_000_123
"""What stands in a template's slots while it is cut."""

Command = Callable[[str, str, Path], list[str]]
"""(bootstrap, identity, folder of its own) -> what to run."""


class Side(NamedTuple):
    """One contender."""

    name: str
    group: str
    command: Command
    ready: str
    """What it writes when its state is read back and records are taken."""


def write_templates(path: Path) -> None:
    """Write the pieces of a transaction Bundle with one Observation each (peers' `Bundles`).

    Two lines: head and tail of a Bundle. Then one for each vital and range of values that share a
    text: index, name in ids, decimals, lowest and highest scaled value, the slots in order (i id,
    s subject, t time, d device, v value), and the pieces around them.
    """
    head, tail = "", ""
    lines = []
    for name in VITALS_SAID:
        vital = BY_NAME[name]
        scale = decimal_scale(vital)
        begin, last = 0, ""
        for value in range(round(vital.high * scale) + 2):
            text = ""
            if value <= vital.high * scale:
                entry = CHART.sample(_SUBJECT, _DEVICE, (vital.index,), [value], _TIME_MS).decode()
                shown = f"{value / scale:.{vital.decimals}f}"
                text = entry.replace(f'"valueQuantity":{{"value":{shown},', _VALUE, 1)
            if text != last:
                if last:
                    kind = (vital.index, NAME_IN_ID[name], vital.decimals, begin, value - 1)
                    lines.append("\t".join((*map(str, kind), *_cut(last, NAME_IN_ID[name]))))
                begin, last = value, text
        whole = resources.transaction([("Observation/x", b"slot-body")]).decode()
        head, _, tail = whole.partition('{"request"')
        tail = tail[tail.index("slot-body") + len("slot-body") + 1 :]
    path.write_text("\n".join((head, tail, *lines)) + "\n")


_VALUE: Final = '"valueQuantity":{"value":\0v,'


def _cut(text: str, name: str) -> tuple[str, ...]:
    """Return the slots of a text as one word, and the pieces around them."""
    text = text.replace(f"{_SUBJECT}.{name}.{base36(_TIME_MS)}", "\0i")
    text = text.replace(instant(_TIME_MS), "\0t").replace(_SUBJECT, "\0s").replace(_DEVICE, "\0d")
    first, *others = text.split("\0")
    return "".join(other[0] for other in others), first, *(other[1:] for other in others)


# -- ours ------------------------------------------------------------------------------------------


def _ours(policy: str) -> Command:
    def command(bootstrap: str, identity: str, _folder: Path) -> list[str]:
        program = [sys.executable, "-m", "bench.streams_ours"]
        return ["/usr/bin/env", f"PYTHONPATH={ROOT}", *program, bootstrap, identity, policy]

    return command


OURS: Final = Side("ours", "detect", _ours("same"), '"event": "ready"')
OURS_WHOLE: Final = Side("ours, everything watched", "detect", _ours("default"), OURS.ready)
"""Not a contender: what all our detectors cost beside the job."""


# -- Kafka Streams ---------------------------------------------------------------------------------

QUIET: Final = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
KAFKA_STREAMS: Final = TOOLS / "kafka-streams"


def build_kafka_streams() -> None:
    """Build the peer by Maven unless it is newer than its sources; raise CalledProcessError."""
    source = PEERS / "kafka-streams"
    jar = KAFKA_STREAMS / "peer-kafka-streams-1.jar"
    newest = max(path.stat().st_mtime for path in source.rglob("*") if path.is_file())
    if jar.exists() and jar.stat().st_mtime > newest:
        return
    shutil.rmtree(KAFKA_STREAMS, ignore_errors=True)
    work = KAFKA_STREAMS / "work"
    shutil.copytree(source, work)
    command = ["mvn", "--quiet", "--batch-mode", "package", "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={KAFKA_STREAMS}"]
    subprocess.run(command, cwd=work, check=True, timeout=600)
    (work / "target" / jar.name).rename(jar)
    shutil.rmtree(work)


def kafka_streams(name: str, **settings: str) -> Side:
    """Return the peer with settings of Kafka Streams (``_`` for ``.``), or ``store="memory"``."""
    more = [f"{key.replace('_', '.')}={value}" for key, value in settings.items()]

    def command(bootstrap: str, identity: str, folder: Path) -> list[str]:
        templates = folder / "templates"
        write_templates(templates)
        java = ["java", "-Xms1g", "-Xmx1g", "-XX:+UseSerialGC", QUIET, "-cp", f"{KAFKA_STREAMS}/*"]
        state = folder / f"{identity}-state"
        return [*java, "healthsync.Main", bootstrap, "peer", str(state), str(templates), *more]

    return Side(name, "peer", command, "state RUNNING")


# -- Quix Streams ----------------------------------------------------------------------------------

QUIX_ENV: Final = TOOLS / "quix"


def build_quix() -> None:
    """Make the peer's environment unless its lock is the same; raise CalledProcessError."""
    lock, made = PEERS / "quix" / "requirements.txt", QUIX_ENV / "requirements.txt"
    if made.exists() and made.read_bytes() == lock.read_bytes():
        return
    subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(QUIX_ENV)], check=True, timeout=120
    )
    pip = [str(QUIX_ENV / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--require-hashes", "--requirement", str(lock)]
    subprocess.run(pip, check=True, timeout=600)
    shutil.copyfile(lock, made)


def _quix(bootstrap: str, identity: str, folder: Path) -> list[str]:
    templates = folder / "templates"
    write_templates(templates)
    program = [str(QUIX_ENV / "bin" / "python"), str(PEERS / "quix" / "job.py")]
    return [*program, bootstrap, "peer", str(folder / f"{identity}-state"), str(templates)]


QUIX: Final = Side("quix", "peer", _quix, "The application started and is now processing")

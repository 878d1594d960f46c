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
from cloud.fhir import resources
from cloud.fhir.ids import NAME_IN_ID
from cloud.fhir.templates import SINGLES
from vitals.codes import BY_NAME

TOOLS: Final = ROOT / ".tools" / "bench"
PEERS: Final = ROOT / "bench" / "peers"

SLOTS: Final = ("slot-id", "slot-subject", "slot-time", "slot-value", "slot-device")
"""Of an Observation, in the order of `cloud.fhir.templates`."""

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
    """Write the pieces of a transaction Bundle with one Observation each (peers' `Bundles`)."""
    empty = resources.transaction([("Observation/x", b"slot-body")]).decode()
    head, _, rest = empty.partition('{"fullUrl"')
    entry, tail = '{"fullUrl"' + rest[: -len("]}")], rest[-len("]}") :]
    lines = [head, tail]
    for name in VITALS_SAID:
        vital = BY_NAME[name]
        template = SINGLES[vital.index, 0, 0, 0]
        body = template.pieces[0]
        for slot, piece in zip(SLOTS, template.pieces[1:], strict=True):
            body += f"\0{slot}{piece}"
        whole = entry.replace("Observation/x", "Observation/\0slot-id").replace("slot-body", body)
        for slot in SLOTS:
            whole = whole.replace(slot, "")
        pieces = whole.split("\0")
        lines.append("\t".join((str(vital.index), NAME_IN_ID[name], str(vital.decimals), *pieces)))
    path.write_text("\n".join(lines) + "\n")


# -- ours ------------------------------------------------------------------------------------------


def _ours(bootstrap: str, identity: str, _folder: Path) -> list[str]:
    program = ROOT / "tests" / "cloud" / "detect" / "engine_process.py"
    return ["/usr/bin/env", f"PYTHONPATH={ROOT}", sys.executable, str(program), bootstrap, identity]


OURS: Final = Side("ours", "detect", _ours, '"event": "ready"')


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

"""What a supporter needs to know of a host, without a word about a patient.

`support_bundle.py OUT.tar.gz [HOURS]`. Law: nothing is copied, everything is picked. Of a journal
entry: when, which unit, how grave, and of systemd's own what became of the unit. Of metrics:
numbers, with the labels in `LABELS` alone. Of messages, configuration, keys and data: nothing. So
a name that somebody logged, or that is a gateway's, has no way in.
"""

import io
import json
import re
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

UNITS: Final = ("healthsync-*", "kafka", "redis-server", "haproxy", "prometheus-node-exporter")
PORTS: Final = range(9110, 9140)
"""Where metrics may be (vitals/ports.py); a port that nobody answers at is left out."""

PACKAGES: Final = ("redis-server", "haproxy", "keepalived", "systemd", "openssl", "python3")
STATES: Final = (
    "Id",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "ExecMainStatus",
    "ActiveEnterTimestamp",
    "MemoryCurrent",
    "CPUUsageNSec",
)
LEVELS: Final = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
LABELS: Final = frozenset(
    {"code", "reason", "how", "kind", "lane", "le", "quantile", "state", "topic", "way"}
)
WORD: Final = re.compile(r"[A-Za-z0-9.+_-]{1,40}")
UNIT: Final = re.compile(
    r"(healthsync-(edge|ingest-\d|detect|project|archive|api|est|pull-crl|cloudwatch|deliver|s3)"
    r"|kafka|redis-server|haproxy|prometheus-node-exporter)(\.service)?"
)
SAMPLE: Final = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?P<labels>.*)\})? (?P<value>[-+0-9.eE]+|NaN|[+-]Inf)"
)
LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
LINES_MAX: Final = 200_000
COMMAND_S_MAX: Final = 60
HOURS: Final = 24


def levels(journal: Iterable[str]) -> Iterator[str]:
    """Yield "time unit level" of each JSON line of `journalctl -o json`, and systemd's verdicts."""
    for line in journal:
        try:
            entry = json.loads(line)
            at = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, UTC)
            level = LEVELS[int(entry.get("PRIORITY", 6))]
        except (ValueError, KeyError, IndexError, TypeError):
            continue
        is_systemd = entry.get("_PID") == "1"
        unit = str(entry.get("UNIT" if is_systemd else "_SYSTEMD_UNIT", ""))
        if not UNIT.fullmatch(unit):
            continue
        words = [f"{at:%Y-%m-%dT%H:%M:%S.%fZ}", unit.removesuffix(".service"), level]
        if is_systemd:
            fields = ("JOB_TYPE", "JOB_RESULT", "UNIT_RESULT", "EXIT_CODE", "EXIT_STATUS")
            words += [
                f"{field.lower()}={entry[field]}"
                for field in fields
                if WORD.fullmatch(str(entry.get(field, "")))
            ]
        yield " ".join(words)


def metrics(page: str) -> Iterator[str]:
    """Yield the samples of a Prometheus page; a label that is not in `LABELS` says "-"."""
    for line in page.splitlines():
        found = SAMPLE.fullmatch(line.strip())
        if found is None:
            continue
        labels = [
            f'{name}="{value if name in LABELS and WORD.fullmatch(value) else "-"}"'
            for name, value in LABEL.findall(found["labels"] or "")
        ]
        text = f"{{{','.join(labels)}}}" if labels else ""
        yield f"{found['name']}{text} {found['value']}"


def _said(*command: str) -> list[str]:
    """Return the lines of a command; none when it is not there or does not end."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()[:LINES_MAX]


def _page(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=3) as answer:
            return str(answer.read(8_000_000).decode("utf-8", "replace"))
    except (OSError, urllib.error.URLError, ValueError):
        return ""


def _versions() -> list[str]:
    shown = _said("dpkg-query", "--show", "--showformat=${Package} ${Version}\n", *PACKAGES)
    links = [
        f"{name} {_said('readlink', path)}"
        for name, path in (
            ("release", "/opt/healthsync/cloud/current"),
            ("release-edge", "/opt/healthsync/edge/current"),
            ("kafka", "/opt/kafka/current"),
        )
    ]
    return [*shown, *links, *_said("uname", "--kernel-release", "--machine")]


def collect(hours: int) -> dict[str, str]:
    """Return file names and their text."""
    units = [f"--unit={unit}" for unit in UNITS]
    since = f"--since=-{hours}h"
    journal = _said("journalctl", "--output=json", "--no-pager", "--quiet", since, *units)
    files = {
        "levels.txt": levels(journal),
        "versions.txt": _versions(),
        "units.txt": _said(
            "systemctl", "show", f"--property={','.join(STATES)}", *(f"{u}.service" for u in UNITS)
        ),
        "disks.txt": _said("df", "--output=pcent,ipcent,size,target", "--local"),
        "memory.txt": _said("free", "--mebi"),
    }
    for port in PORTS:
        page = list(metrics(_page(port)))
        if page:
            files[f"metrics-{port}.txt"] = page
    return {name: "".join(f"{line}\n" for line in lines) for name, lines in files.items()}


def main(out: str, hours: str = str(HOURS)) -> int:
    """Write the bundle; return the exit code."""
    with tarfile.open(out, "w:gz") as bundle:
        for name, text in collect(int(hours)).items():
            data = text.encode()
            member = tarfile.TarInfo(f"bundle/{name}")
            member.size, member.mode = len(data), 0o600
            bundle.addfile(member, io.BytesIO(data))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""The command `healthsync edge decode` on a file, with its output read back."""

import json
from pathlib import Path
from typing import Any

import pytest

from healthsync.cli import main

RECEIVED = "2026-11-23T10:00:05Z"
NOW = 1_795_428_005_000
Told = list[dict[str, Any]]

READING = {
    "kind": "reading",
    "device": None,
    "patient": None,
    "bed": None,
    "vital": "heart_rate",
    "value": 78,
    "unit": "/min",
    "site": None,
    "channel": 0,
    "time": "2026-11-23T10:00:05.000Z",
    "time_source": "received",
    "status": "ok",
    "reason": None,
}


class Decode:
    """The command on files, with its output read back."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.capsys = path / "input", capsys
        self.code = -1
        self.errors = ""

    def __call__(self, data: bytes, *options: str) -> Told:
        self.path.write_bytes(data)
        return self.on(str(self.path), "--received", RECEIVED, *options)

    def on(self, *options: str) -> Told:
        self.code = main(["edge", "decode", *options])
        out, self.errors = self.capsys.readouterr()
        return [json.loads(line) for line in out.splitlines()]


def oru(control: str, *rows: str) -> bytes:
    lines = [
        f"MSH|^~\\&|Mon^AA^EUI-64|Fac|||20261123100000+0000||ORU^R01^ORU_R01|{control}|P|2.6",
        "PID|1||M7^^^H^MR||Ng^Ada",
        "OBR|1|||X|||20261123100000+0000",
        *rows,
    ]
    return "\r".join(lines).encode() + b"\r"


HEART = "OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.1|78|264864^MDC_DIM_BEAT_PER_MIN^MDC"
OXYGEN = "OBX|2|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC|1.1.1.2|95|262688^MDC_DIM_PERCENT^MDC"

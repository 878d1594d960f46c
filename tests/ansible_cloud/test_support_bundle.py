"""A support bundle says nothing of a patient: a marked name put wherever one could come from."""

import importlib.util
import io
import json
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from onebox.layout import REPOSITORY

NAME = "Zyxadora Canarybird"
MRN = "M999777333"
SCRIPT = REPOSITORY / "ansible" / "roles" / "monitoring" / "files" / "support_bundle.py"


@pytest.fixture(scope="module", name="bundle")
def _bundle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("support_bundle", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(**fields: str) -> str:
    return json.dumps({"__REALTIME_TIMESTAMP": "1796050573660000", "PRIORITY": "4", **fields})


JOURNAL = [
    entry(_SYSTEMD_UNIT="healthsync-ingest-1.service", MESSAGE=f'{{"name":"{NAME}"}}'),
    entry(_SYSTEMD_UNIT="kafka.service", MESSAGE=MRN, PRIORITY="3"),
    # Whoever names a unit, a field or a result after a patient.
    entry(_SYSTEMD_UNIT=f"healthsync-{MRN}.service", MESSAGE=""),
    entry(_SYSTEMD_UNIT=f"{NAME}.service", MESSAGE=""),
    entry(_PID="1", UNIT="kafka.service", JOB_RESULT="done", UNIT_RESULT=NAME, MESSAGE=MRN),
    entry(_SYSTEMD_UNIT="redis-server.service", SYSLOG_IDENTIFIER=NAME, PRIORITY=MRN),
    f"not json {NAME}",
    json.dumps([MRN]),
]
PAGE = f"""# HELP healthsync_x {NAME}
healthsync_frames_total{{edge="{MRN}",reason="late"}} 12.0
healthsync_wait_seconds_bucket{{le="0.5",bed="{NAME}"}} 3
healthsync_refused_total{{reason="{NAME}"}} 1
healthsync_plain 7
healthsync_odd {MRN}
{NAME} 3
"""


def test_of_the_journal_only_time_unit_and_level_are_left(bundle: ModuleType) -> None:
    lines = list(bundle.levels(JOURNAL))
    assert [line.split(" ", 1)[1] for line in lines] == [
        "healthsync-ingest-1 warning",
        "kafka err",
        "kafka warning job_result=done",
    ]
    assert lines[0].startswith("2026-11-30T14:56:13.660000Z ")


def test_of_metrics_numbers_are_left_and_labels_that_hold_no_names(bundle: ModuleType) -> None:
    assert list(bundle.metrics(PAGE)) == [
        'healthsync_frames_total{edge="-",reason="late"} 12.0',
        'healthsync_wait_seconds_bucket{le="0.5",bed="-"} 3',
        'healthsync_refused_total{reason="-"} 1',
        "healthsync_plain 7",
    ]


def test_a_whole_bundle_holds_no_canary(
    bundle: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def said(*command: str) -> list[str]:
        if command[0] == "journalctl":
            return JOURNAL
        return [" ".join(command)]

    monkeypatch.setattr(bundle, "_said", said)
    monkeypatch.setattr(bundle, "_page", lambda port: PAGE)
    out = tmp_path / "bundle.tar.gz"
    assert bundle.main(str(out), "1") == 0
    with tarfile.open(fileobj=io.BytesIO(out.read_bytes())) as archive:
        members = archive.getmembers()
        texts = [file.read().decode() for m in members if (file := archive.extractfile(m))]
    whole = "\n".join([*texts, *(m.name for m in members)])
    for canary in (NAME, *NAME.split(), MRN):
        assert canary.lower() not in whole.lower()
    assert "healthsync-ingest-1 warning" in whole
    assert "healthsync_plain 7" in whole


def test_the_ports_of_the_bundle_are_those_of_the_table(bundle: ModuleType) -> None:
    from vitals import ports

    wanted = {p.number for p in ports.PORTS if p.name.endswith(("-metrics", "-stats"))}
    assert wanted <= set(bundle.PORTS)

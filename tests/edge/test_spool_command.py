"""The commands say what is so of any spool's file, change nothing, and show no name."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge import merge, remains, spool_command, spool_export, spool_read, spool_schema
from edge.spool import open_spool
from healthsync.cli import main
from healthsync.runtime import whole
from healthsync.runtime.exits import Exit
from tests.edge.spooling import (
    NOW,
    PLENTY,
    PRIVATE,
    ack,
    ask,
    entry,
    fill,
    handed,
    opened,
    put,
    reject,
    sealed,
    sealing,
    store,
    tell,
)
from vitals import epoch as epochs
from vitals.epoch import WrappedEpoch
from vitals.frame import FrameOpener, read_readings

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def spool_path(tmp_path: Path) -> Path:
    """Return a closed spool with two epochs, a folded frame, refused input and a device."""
    path, of, later = tmp_path / "spool.db", sealing(), sealing()
    spool = opened(path)
    for number in range(6):
        store(spool, of, entry(number, "Canary-Bed", at_ms=NOW + number), reject())
    merge.fold(spool, of.epoch.epoch, -1, of.opener(), of.seal_folded, span_ms=0)
    ack(spool, of, (1, 1))
    store(spool, later, entry(1))
    spool.note_devices([("Canary-Bed", spool_command_counts())])
    spool.close()
    return path


def spool_command_counts() -> Any:
    from edge.spool_devices import DeviceCounts

    return DeviceCounts(6, 6, 6, NOW)


def _config(path: Path) -> list[str]:
    config = path.with_name("edge.toml")
    config.write_text(
        f'edge_id = "ward-1"\nstate_dir = "{path.parent}"\nhpke_public = "x"\nline_port = 7010\n'
    )
    return ["--config", str(config)]


def _run(*words: str) -> int:
    return main(["edge", "spool", *words])


def test_status_shows_depth_lanes_quotas_and_counters(spool_path: Path, capsys: Captured) -> None:
    assert _run("status", *_config(spool_path), "--json") == Exit.OK
    said = json.loads(capsys.readouterr().out)
    assert said["frames"] == 7
    assert {name: lane["frames"] for name, lane in said["lanes"].items()} == {
        "live": 1,
        "backlog": 1,
        "quarantine": 5,
    }
    assert said["bytes"] == sum(lane["bytes"] for lane in said["lanes"].values())
    assert said["oldest_s"] >= 0
    assert said["totals"]["frames_merged"] == 6
    assert "highest_seq" not in said["totals"]
    assert (said["devices"], said["unsound"], said["aside"]) == (1, 0, [])
    assert said["bytes_max"] > said["quarantine_bytes_max"] > 0
    assert _run("status", *_config(spool_path)) == Exit.OK
    text = capsys.readouterr().out
    assert "7 frames" in text
    assert "quarantine" in text
    assert "frames_merged" in text
    assert "Canary" not in text


def test_status_without_a_spool_fails(tmp_path: Path, capsys: Captured) -> None:
    assert _run("status", *_config(tmp_path / "spool.db")) == Exit.FAILED
    assert "cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "spool.db").exists()


def test_inspect_sums_up_by_epoch_and_lane(spool_path: Path, capsys: Captured) -> None:
    assert _run("inspect", *_config(spool_path), "--json") == Exit.OK
    said = json.loads(capsys.readouterr().out)
    assert [(one["lane"], one["frames"], one["rows"], one["key"]) for one in said] == [
        ("quarantine", 5, 5, True),
        ("backlog", 1, 6, True),
        ("live", 1, 1, True),
    ]
    backlog = said[1]
    assert (backlog["first_ms"], backlog["last_ms"], backlog["broken"]) == (NOW, NOW + 5, 0)
    assert (said[0]["first_seq"], said[0]["last_seq"]) == (3, 11)
    assert _run("inspect", str(spool_path)) == Exit.OK
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_inspect_shows_frames_one_by_one(spool_path: Path, capsys: Captured) -> None:
    assert _run("inspect", str(spool_path), "--frames", "6") == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert "folds 0..10" in lines[5]
    assert _run("inspect", str(spool_path), "--frames", "99", "--json") == Exit.OK
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 7
    assert all(row["sound"] for row in rows)
    assert "data" not in rows[0]
    assert rows[5]["covers_to"] == 10


def test_a_file_put_aside_is_inspected_verified_and_exported_by_its_path(
    spool_path: Path, tmp_path: Path, capsys: Captured
) -> None:
    data = bytearray(spool_path.read_bytes())
    data[:100] = bytes(100)
    spool_path.write_bytes(data)
    spool, aside = open_spool(spool_path, PLENTY, NOW, refuse_when_full=False)
    assert aside is not None
    spool.close()
    assert _run("inspect", str(aside), "--json") == Exit.OK
    said = json.loads(capsys.readouterr().out)
    assert sum(one["frames"] for one in said) >= 7
    assert all(one["key"] for one in said)  # by the second copy, which the aside left in place
    assert _run("verify", str(aside)) == Exit.DEGRADED
    assert "SQLite cannot read all of it" in capsys.readouterr().out
    assert _run("export", str(aside), "--to", str(tmp_path / "out")) == Exit.OK
    items = list(spool_export.read(tmp_path / "out"))
    assert sum(isinstance(item, bytes) for item in items) >= 7
    assert "Canary" not in capsys.readouterr().out
    assert _run("status", *_config(spool_path), "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out)["aside"] == [
        {"file": aside.name, "bytes": aside.stat().st_size}
    ]


def test_verify_calls_a_sound_file_sound(spool_path: Path, capsys: Captured) -> None:
    assert _run("verify", *_config(spool_path)) == Exit.OK
    assert capsys.readouterr().out == f"{spool_path}: sound\n"
    assert _run("verify", str(spool_path), "--json") == Exit.OK
    assert json.loads(capsys.readouterr().out)["sound"] is True


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE frames SET bytes = zeroblob(size) WHERE lane = 1", "not what was stored"),
        ("UPDATE frames SET crc = 1 WHERE lane = 1", "not what was stored"),
        ("UPDATE frames SET count = 7 WHERE lane = 1", "not what was stored"),
        ("UPDATE frames SET size = 7 WHERE lane = 1", "levels say"),
        ("UPDATE levels SET frames = frames + 1 WHERE lane = 0", "levels say"),
        ("UPDATE levels SET rows = rows + 1 WHERE lane = 0", "levels say"),
        ("UPDATE levels SET bytes = bytes + 1 WHERE lane = 0", "levels say"),
        ("DELETE FROM frames WHERE lane = 0", "1 frames spooled, but 0 gone and 0 stored"),
        ("DELETE FROM epochs WHERE rowid = 1", "key is missing, 6 frames"),
        (
            "UPDATE counters SET value = value + 1 WHERE name = 'rejects_spooled'",
            "7 rejects spooled, but 1 gone and 5 stored",
        ),
        (
            "UPDATE counters SET value = value - 1 WHERE name = 'readings_spooled'",
            "readings spooled",
        ),
        ("UPDATE counters SET value = 1 WHERE name = 'frames_merged'", "frames spooled"),
        ("PRAGMA writable_schema=ON; DELETE FROM sqlite_master WHERE name='unsound'", "structure"),
    ],
)
def test_verify_says_what_is_wrong(
    spool_path: Path, capsys: Captured, change: str, says: str
) -> None:
    tell(spool_path, change)
    assert _run("verify", str(spool_path)) == Exit.DEGRADED
    assert says in capsys.readouterr().out


def test_verify_without_a_file_fails(tmp_path: Path, capsys: Captured) -> None:
    assert _run("verify", str(tmp_path / "none")) == Exit.FAILED
    assert _run("inspect", str(tmp_path / "none")) == Exit.FAILED
    assert _run("export", str(tmp_path / "none"), "--to", str(tmp_path / "x")) == Exit.FAILED
    assert not list(tmp_path.iterdir())
    capsys.readouterr()


def test_verify_works_beside_a_running_gateway_and_shows_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(spool_command, "PROGRESS_FRAMES", 500)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for first in range(0, 1200, 100):
        put(spool, of, *(sealed(of, first + seq, size=300) for seq in range(100)))
    assert _run("verify", str(path)) == Exit.OK
    assert capsys.readouterr().err.splitlines() == ["500 frames read", "1000 frames read"]
    assert put(spool, of, sealed(of, 5000)).frames_now == 1201
    spool.close()


def test_an_epoch_that_begins_while_verify_reads_is_no_fault(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, size=300) for seq in range(600)))

    begun = []

    def meanwhile(_: int) -> None:
        later = sealing()
        begun.append(later)
        put(spool, later, sealed(later, 0, size=300))
        ack(spool, of, (590 + len(begun), 590 + len(begun)))  # before it was read

    assert spool_read.verify(path, meanwhile) == []
    assert len(begun) == 2  # and what is added meanwhile is not chased
    spool.close()


def test_the_commands_change_nothing(spool_path: Path, tmp_path: Path, capsys: Captured) -> None:
    before = spool_path.read_bytes()
    for words in (["status", *_config(spool_path)], ["inspect", str(spool_path)]):
        _run(*words)
    _run("verify", str(spool_path))
    _run("export", str(spool_path), "--to", str(tmp_path / "out"))
    capsys.readouterr()
    assert spool_path.read_bytes() == before


# -- export -----------------------------------------------------------------------------------


def test_an_export_opens_in_the_cloud_and_nowhere_else(
    spool_path: Path, tmp_path: Path, capsys: Captured
) -> None:
    to = tmp_path / "carried"
    assert _run("export", *_config(spool_path), "--to", str(to)) == Exit.OK
    assert "7 frames of 2 epochs" in capsys.readouterr().out
    assert stat.S_IMODE(to.stat().st_mode) == 0o600
    assert b"Canary" not in to.read_bytes()
    keys: dict[str, FrameOpener] = {}
    frames, values = [], []
    for item in spool_export.read(to):
        if isinstance(item, WrappedEpoch):
            keys[item.epoch] = FrameOpener(epochs.unwrap(item, PRIVATE))
            continue
        frames.append(item)
        header, body = next(iter([keys[_epoch(item)].open(item)]))
        if header.lane != 2:
            values += [row.value for _, row in read_readings(body).rows()]
    assert sorted(frames) == sorted(held.data for held in handed(spool_path))
    assert sorted(values, key=str) == [0.0, 1.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def _epoch(frame: bytes) -> str:
    from vitals.frame import read_header

    return read_header(frame).epoch


def test_an_export_never_writes_over_a_file(
    spool_path: Path, tmp_path: Path, capsys: Captured
) -> None:
    to = tmp_path / "carried"
    to.write_bytes(b"mine")
    assert _run("export", str(spool_path), "--to", str(to)) == Exit.USAGE
    assert "another name" in capsys.readouterr().err
    assert to.read_bytes() == b"mine"


def test_an_export_that_does_not_read_back_is_removed(
    spool_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "out"
    monkeypatch.setattr(whole, "sync_folder", lambda _: os.truncate(to, 400))
    with pytest.raises(spool_export.ExportError):
        spool_export.export(spool_path, to, NOW)
    assert not to.exists()


def test_an_export_leaves_out_what_is_broken_or_locked_and_says_so(
    spool_path: Path, tmp_path: Path, capsys: Captured
) -> None:
    tell(spool_path, "UPDATE frames SET bytes = zeroblob(size) WHERE lane = 1")
    tell(spool_path, "DELETE FROM epochs WHERE rowid = 2")
    spool_path.with_name("spool.db.epochs").unlink()
    assert _run("export", str(spool_path), "--to", str(tmp_path / "out")) == Exit.DEGRADED
    assert "2 frames are broken or have no key" in capsys.readouterr().out
    assert len(list(spool_export.read(tmp_path / "out"))) == 1 + 5


def test_an_export_finds_a_key_that_lies_behind_its_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remains, "SLICE_PAGES", 2)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, size=300) for seq in range(60)))
    for number in range(80):
        spool.begin(sealing(NOW + number).epoch)
    spool.close()
    tell(path, "UPDATE epochs SET rowid = 999 WHERE rowid = 1")
    spool_schema.epochs_path(path).unlink()
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    done = spool_export.export(path, tmp_path / "out", NOW)
    assert (done.epochs, done.frames, done.left_out) == (1, 60, 0)


def test_a_damaged_export_is_told(spool_path: Path, tmp_path: Path) -> None:
    to = tmp_path / "out"
    spool_export.export(spool_path, to, NOW)
    data = to.read_bytes()
    whole = list(spool_export.read(to))
    for cut in range(0, len(data), 97):
        to.write_bytes(data[:cut])
        with pytest.raises(spool_export.ExportError):
            list(spool_export.read(to))
    for at in range(0, len(data), 61):
        to.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            found = list(spool_export.read(to))
        except spool_export.ExportError:
            continue
        frames = [item for item in whole if isinstance(item, bytes)]
        assert [item for item in found if isinstance(item, bytes)] == frames
    to.write_bytes(data + b"x")
    with pytest.raises(spool_export.ExportError):
        list(spool_export.read(to))


def test_the_command_line_needs_one_file_and_says_which(tmp_path: Path) -> None:
    for words in (["verify"], ["verify", "x", "--config", "y"], ["export", "x"]):
        done = subprocess.run(
            [sys.executable, "-m", "healthsync.cli", "edge", "spool", *words],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 2
        assert b"usage" in done.stderr


def test_headers_of_the_first_frames_are_read_without_the_rest(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    fill(spool, of, 20)
    spool.close()
    assert [row.seq for row in spool_read.headers(path, 3)] == [0, 1, 2]
    assert ask(path, "SELECT count(*) FROM frames") == [(20,)]

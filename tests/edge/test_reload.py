"""Reading the configuration again changes what can change, at once, and breaks nothing."""

import signal
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge import reload
from edge.config import Certificate, Config, Known
from edge.control_client import ask
from edge.hl7_map import NO_MAP
from edge.reload import LIVE, RESTART, Loaded, compare
from healthsync.runtime.exits import Exit
from tests.edge.process import Process

MAP = '[[code]]\ncode = "ZHR"\nvital = "heart_rate"\n'


def _loaded(**changes: Any) -> Loaded:
    config = Config(edge_id="ward-1", state_dir="/s", hpke_public="/k", line_port=7010)
    return Loaded(msgspec.structs.replace(config, **changes), b"k" * 32, NO_MAP, b"")


OTHER: dict[str, Any] = {
    "edge_id": "ward-2",
    "state_dir": "/t",
    "hpke_public": "/l",
    "ward": "W2",
    "site_zone": "Europe/Berlin",
    "listen_host": "10.0.0.1",
    "line_port": 7011,
    "mllp_port": 2575,
    "line_proxy_port": 7012,
    "mllp_proxy_port": 2577,
    "uplink_port": 7021,
    "metrics_port": 9111,
    "connections_max": 7,
    "spool_bytes_max": 2**30,
    "spool_full": "refuse",
    "spool_age_max_days": 2.0,
    "quarantine_bytes_max": 2**22,
    "unknown_devices": "refuse",
    "known": Known(devices=("N1-*",)),
    "hl7_map": "/m.toml",
    "control_socket": "/c.sock",
    "link_certificate": "/c.pem",
    "backlog_order": "newest-first",
    "settings_key": "/settings.pub",
    "clock_stamp": "/stamp",
    "certificate": Certificate("/pki"),
}


def test_every_key_is_either_live_or_for_a_restart() -> None:
    assert LIVE | RESTART == set(Config.__struct_fields__) == set(OTHER)
    assert not LIVE & RESTART


@pytest.mark.parametrize("key", sorted(OTHER))
def test_a_live_key_changes_and_another_is_named(key: str) -> None:
    now = _loaded()
    change = compare(now, _loaded(**{key: OTHER[key]}))
    if key in LIVE:
        assert (change.applied, change.restart_needed) == ([key], [])
        assert getattr(change.loaded.config, key) == OTHER[key]
    else:
        assert (change.applied, change.restart_needed) == ([], [key])
        assert change.loaded.config == now.config


def test_what_waits_for_a_restart_is_named_again_the_next_time() -> None:
    now, new = _loaded(), _loaded(edge_id="ward-2", ward="W2")
    first = compare(now, new)
    second = compare(first.loaded, new)
    assert (second.applied, second.restart_needed) == ([], ["edge_id"])
    assert compare(second.loaded, now).applied == ["ward"]
    assert compare(second.loaded, now).restart_needed == []


def test_another_key_in_the_same_file_needs_a_restart() -> None:
    now = _loaded()
    change = compare(now, now._replace(public=b"l" * 32))
    assert change.restart_needed == ["hpke_public"]
    assert change.loaded.public == now.public


def test_other_codes_in_the_same_file_are_used_at_once() -> None:
    now = _loaded(hl7_map="/m.toml")
    change = compare(now, now._replace(vendor_file=b"other"))
    assert (change.applied, change.restart_needed) == (["hl7_map"], [])
    assert change.loaded.vendor_file == b"other"


def test_nothing_changed_is_no_change() -> None:
    change = compare(_loaded(), _loaded())
    assert (change.applied, change.restart_needed) == ([], [])


def test_the_vendors_file_is_read_with_the_configuration(tmp_path: Path) -> None:
    process = Process(tmp_path)
    assert reload.load(process.config).vendor is NO_MAP
    (tmp_path / "map.toml").write_text(MAP)
    process.set(f'hl7_map = "{tmp_path / "map.toml"}"')
    loaded = reload.load(process.config)
    assert len(loaded.vendor) == 1
    assert loaded.vendor_file == MAP.encode()


# -- the process -----------------------------------------------------------------------------------


class _Line:
    """An open connection that asks for answers."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=5)

    def __enter__(self) -> "_Line":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, text: str) -> str:
        self.sock.sendall(text.encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = self.sock.recv(4096)
            assert part, answer
            answer += part
        return answer.decode()


def test_an_open_connections_next_line_is_judged_by_the_new_policy(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.set('ward = "W1"', 'unknown_devices = "accept"')
    with process.started() as child, _Line(process.line_port) as line:
        assert line.say("reply=yes device=X-1 hr=70") == "ok\n"
        process.replace('unknown_devices = "accept"', 'unknown_devices = "refuse"')
        process.replace('ward = "W1"', 'ward = "W2"\nknown.devices = ["N1-*"]')
        child.send_signal(signal.SIGHUP)
        event = process.logged("reloaded")
        assert event["changed"] == ["known", "unknown_devices", "ward"]
        assert line.say("hr=71").startswith("rejected unknown-device")
        assert line.say("device=N1-4 hr=72") == "ok\n"
        assert ask(process.state / "control.sock", {"get": "status"})["status"]["reload"] == {
            "at_ms": pytest.approx(_now_ms(event), abs=2000),
            "error": "",
            "applied": ["known", "unknown_devices", "ward"],
            "restart_needed": [],
        }


def _now_ms(event: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(event["time"]).timestamp() * 1000


def test_a_wrong_file_changes_nothing_and_is_logged_with_its_reason(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with process.started() as child, _Line(process.line_port) as line:
        good = process.config.read_text()
        process.set('unknown_devices = "refuse"')
        child.send_signal(signal.SIGHUP)
        assert "takes no device at all" in process.logged("reload-refused")["reason"]
        assert line.say("reply=yes hr=70") == "ok\n"
        control = process.state / "control.sock"
        status = ask(control, {"get": "status"})["status"]
        assert "takes no device" in status["reload"]["error"]
        process.config.write_text(good.replace("ward-1", "ward-9"))
        answer = ask(control, {"do": "reload"})
        assert (answer["error"], answer["restart_needed"]) == ("", ["edge_id"])
        assert process.logged("restart-needed")["keys"] == ["edge_id"]
        assert ask(control, {"get": "status"})["status"]["edge"] == "ward-1"


def test_limits_and_codes_change_live(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with process.started() as child, _Line(process.line_port) as line:
        assert line.say("reply=yes hr=70") == "ok\n"
        (tmp_path / "map.toml").write_text(MAP)
        process.set(
            f'hl7_map = "{tmp_path / "map.toml"}"', "connections_max = 1", 'spool_full = "refuse"'
        )
        child.send_signal(signal.SIGHUP)
        changed = process.logged("reloaded")["changed"]
        assert changed == ["connections_max", "hl7_map", "spool_full"]
        with _Line(process.line_port) as newcomer:
            assert newcomer.sock.recv(100).startswith(b"refused: 1 connections are open")
        message = (
            "\x0bMSH|^~\\&|M|W|G|W|20261123||ORU^R01|7|P|2.6\rPID|||M1\rOBR|1\r"
            "OBX|1|NM|ZHR^Rate||78\r\x1c\r"
        )
        process.replace("connections_max = 1", "connections_max = 9")
        child.send_signal(signal.SIGHUP)
        process.logged("reloaded", 2)
        with socket.create_connection(("127.0.0.1", process.mllp_port), timeout=5) as mllp:
            mllp.sendall(message.encode())
            assert b"MSA|AA|7" in mllp.recv(4096)
        assert line.say("hr=71") == "ok\n"


def test_reloads_while_it_stops_are_harmless(tmp_path: Path) -> None:
    process = Process(tmp_path)
    with process.started() as child, _Line(process.line_port) as line:
        assert line.say("reply=yes hr=70") == "ok\n"
        child.send_signal(signal.SIGHUP)
        child.send_signal(signal.SIGTERM)
        for _ in range(50):
            if child.poll() is None:
                child.send_signal(signal.SIGHUP)
        assert child.wait(10) == Exit.OK
        assert line.sock.recv(100) == b""
    assert process.events()[-1]["event"] == "stopped"
    assert not (process.state / "control.sock").exists()


def test_many_reloads_at_once_end_with_the_last_file(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.set('ward = "W0"')
    with process.started() as child:
        for at in range(1, 20):
            process.replace(f'ward = "W{at - 1}"', f'ward = "W{at}"')
            child.send_signal(signal.SIGHUP)
        process.logged("reloaded")
        answer = ask(process.state / "control.sock", {"do": "reload"})
        assert answer["error"] == ""
        answer = ask(process.state / "control.sock", {"do": "reload"})
        assert answer["applied"] == []

"""A second gateway comes to the ward: enrols, sends, renews, is revoked; the first goes on."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onebox import ports
from onebox.layout import RunDir
from onebox.render import template
from onebox.values import Values
from tests.system.box import HEALTHSYNC, ROOT, Box, until
from vitals.ports import PORTS

pytestmark = pytest.mark.system

NAME = "ward-gw-2"


class Second:
    """Another gateway of the box: its program and its HAProxy, from the roles' templates."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box, self.folder = box, folder
        self.certificates = folder / "certificate"
        self.state = folder / "state"
        for made in (self.certificates, self.state):
            made.mkdir(mode=0o700)
        own = (*(port.name for port in PORTS if port.side == "edge"),)
        self.ports = dict(zip(own, ports.free(len(own)), strict=True))
        first = Values(RunDir(box.run_dir))
        self.est = first.ports["est"]
        first.ports.update(self.ports)
        socket = folder / "haproxy.sock"
        values: dict[str, Any] = {
            **first.haproxy_values("edge"),
            **first.edge_values(),
            "hs_edge_id": NAME,
            "hs_edge_state_dir": self.state,
            "hs_edge_ward": "W2",
            "hs_edge_certificate_folder": self.certificates,
            "hs_edge_certificate_haproxy_socket": socket,
            "hs_haproxy_socket": socket,
            "hs_gateway_crt": self.certificates / "gateway.pem",
        }
        del values["hs_edge_settings_key"]
        self.config = template("healthsync_edge", "edge.toml", values, folder / "edge.toml")
        self.proxy = template("haproxy", "edge.cfg", values, folder / "haproxy.cfg")
        self.log = folder / "edge.log"
        self.env = {
            "PATH": os.environ["PATH"],
            "OPENSSL_CONF": str(box.run_dir / "config" / "healthsync-openssl.cnf"),
        }

    def pki(self, *words: str) -> subprocess.CompletedProcess[str]:
        authority = str(self.box.run_dir / "pki" / "gateways")
        return subprocess.run(
            [*HEALTHSYNC, "cloud", "pki", words[0], "--folder", authority, *words[1:]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
        )

    def edge(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HEALTHSYNC, "edge", words[0], "--config", str(self.config), *words[1:]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
            env=self.env,
        )

    def enrolment_file(self, name: str = NAME) -> Path:
        file = self.folder / "enrolment.toml"
        done = self.pki(
            "token",
            name,
            "--enrolment-file",
            str(file),
            "--est",
            f"https://localhost:{self.est}",
            "--server-ca",
            str(self.box.run_dir / "pki" / "services-ca.pem"),
        )
        assert done.returncode == 0, done.stderr
        return file

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        programs = (
            ["/usr/sbin/haproxy", "-db", "-f", str(self.proxy)],
            [*HEALTHSYNC, "edge", "run", "--config", str(self.config)],
        )
        started: list[subprocess.Popen[bytes]] = []
        try:
            for program, log in zip(programs, (self.folder / "haproxy.log", self.log), strict=True):
                with log.open("ab") as out:
                    started.append(
                        subprocess.Popen(program, stdout=out, stderr=out, cwd=ROOT, env=self.env)
                    )
            until(lambda: "serving" in self.log.read_text(), 30, "the second gateway")
            yield
        finally:
            ended = [process.poll() for process in started]
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
                process.wait(30)
            assert ended == [None, None], f"HAProxy, gateway: ended by themselves with {ended}"

    def say(self, text: str) -> None:
        with socket.create_connection(("127.0.0.1", self.ports["line"]), 5) as sock:
            sock.sendall(text.encode())

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(one) for one in self.log.read_text().splitlines() if one[:1] == "{"]
        return [one for one in lines if one["event"] == name]

    def seen(self, name: str) -> bool:
        return bool(self.events(name))

    def ends(self) -> list[str]:
        return [one["reason"] for one in self.events("uplink-down")]

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.edge("status", "--json").stdout)
        return found


def test_a_gateway_enrols_sends_and_is_revoked_while_the_other_goes_on(
    box: Box, tmp_path: Path
) -> None:
    second = Second(box, tmp_path)
    done = second.edge("enrol", "--placeholder")
    assert done.returncode == 0, done.stderr
    with second.running():
        until(lambda: second.seen("uplink-down"), 20, "a refusal without a certificate")
        assert not second.events("uplink-up")
        second.say("device=bed-41 mrn=ENR000041 heart_rate=81\n")  # collected all the same

        file = second.enrolment_file()
        token = tomllib.loads(file.read_text())["token"]
        done = second.edge("enrol", "--file", str(file))
        assert done.returncode == 0, done.stderr + done.stdout
        assert not file.exists()
        until(lambda: second.seen("uplink-up"), 30, "a session with the new certificate")
        until(lambda: second.status()["spool"]["frames"] == 0, 20, "what waited to be sent")
        assert box.subject("ENR000041")

        (row,) = [
            one for one in json.loads(second.pki("list", "--json").stdout) if one["name"] == NAME
        ]
        assert row["state"] == "good"
        done = second.pki("revoke", NAME)
        assert done.stdout.strip() == f"revoked {row['serial']}"
        until(lambda: "ingest closed: revoked" in second.ends(), 60, "the session to be ended")
        second.say("device=bed-41 mrn=ENR000041 heart_rate=82\n")
        until(lambda: second.status()["spool"]["frames"] > 0, 20, "the spool to keep what comes")

        box.say("device=bed-42 mrn=ENR000042 heart_rate=83\n")
        assert box.subject("ENR000042"), "the first gateway goes on"

        again = tmp_path / "again.toml"
        again.write_text(
            f'name = "{NAME}"\ntoken = "{token}"\nest = "https://localhost:{second.est}"\n'
            f"expires = 2099-01-01T00:00:00Z\nca = '''\n"
            + (box.run_dir / "pki" / "services-ca.pem").read_text()
            + "'''\n"
        )
        done = second.edge("enrol", "--file", str(again))
        assert done.returncode == 2, done.stdout + done.stderr
        assert "token" in done.stdout + done.stderr

        done = second.edge("enrol", "--file", str(second.enrolment_file()))
        assert done.returncode == 0, done.stderr + done.stdout
        up = len(second.events("uplink-up"))
        until(
            lambda: len(second.events("uplink-up")) > up or not second.status()["spool"]["frames"],
            30,
            "it to be back",
        )
        until(lambda: second.status()["spool"]["frames"] == 0, 20, "what it kept to be sent")
    for text in (second.log.read_text(), (box.run_dir / "log" / "est.log").read_text()):
        assert token not in text
        assert "ENR0000" not in text


def test_another_gateways_certificate_carries_nobody_elses_frames(box: Box, tmp_path: Path) -> None:
    """The program says ward-gw-2, its certificate says another name: the session ends."""
    second = Second(box, tmp_path)
    pki = box.run_dir / "pki"
    (second.certificates / "gateway.pem").write_bytes((pki / "ward-gw-1.bundle.pem").read_bytes())
    with second.running():
        until(lambda: "ingest closed: identity" in second.ends(), 30, "the session to be ended")
    refused = [
        json.loads(line)
        for name in ("ingest-1", "ingest-2")
        for line in (box.run_dir / "log" / f"{name}.log").read_text().splitlines()
        if '"identity"' in line
    ]
    assert refused
    assert box.ready()

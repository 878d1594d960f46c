"""Any one process killed hard: started again, and every acknowledged reading still counts once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.system.box import HEALTHSYNC, ROOT, Box, until

pytestmark = pytest.mark.system

VICTIMS = (
    "edge",
    "haproxy-edge",
    "haproxy-cloud",
    "ingest-1",
    "ingest-2",
    "detect",
    "project",
    "archive",
    "api",
    "redis",
    "kafka",
    "s3",
    "aws",
    "cloudwatch",
    "est",
    "pull-crl",
)


def test_every_process_can_be_killed_under_load_and_the_counts_agree(box: Box) -> None:
    assert set(VICTIMS) == set(box.pids()), "a new process must be killed here too"
    load = subprocess.Popen(
        [
            *HEALTHSYNC,
            "simulate",
            "replay",
            "--host",
            "127.0.0.1",
            "--port",
            str(box.info["line_port"]),
            "--beds",
            "8",
            "--speed",
            "5",
            "--reply",
            "--seed",
            "7",
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=sys.stderr,
    )
    try:
        for name in VICTIMS:
            before = box.pids()[name]
            os.kill(before, signal.SIGKILL)
            until(lambda n=name, b=before: box.pids()[n] not in (0, b), 30, f"a new {name}")  # type: ignore[misc]
            until(box.ready, 40, f"everything after {name}")
            time.sleep(0.5)  # some load between two faults
    finally:
        load.send_signal(signal.SIGTERM)
        load.wait(20)
    audit = box.audit(90)
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_an_edge_that_loses_its_link_keeps_collecting_and_delivers_later(box: Box) -> None:
    proxy = box.pids()["haproxy-edge"]
    os.kill(proxy, signal.SIGSTOP)
    try:
        answer = box.say("device=bed-95 mrn=SYS000095 heart_rate=70 reply=yes\n")
        assert answer.strip() == "ok", "collection does not depend on the link"
    finally:
        os.kill(proxy, signal.SIGCONT)
    assert box.subject("SYS000095")
    assert box.audit().returncode == 0

"""The process around the archiver: when it ends, and with what code."""

from io import StringIO
from typing import Any

from cloud.archive import main
from cloud.archive.main import ArchiveConsumer
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from onebox import ports
from tests.cloud.deserted import deserted


class Idle:
    """An archiver with nothing to do."""

    def work(self) -> dict[int, int]:
        return {}


class Turns:
    """Asks to stop after some turns, so that a loop that does not end by itself ends too."""

    def __init__(self, turns: int) -> None:
        self._left = turns

    def __bool__(self) -> bool:
        self._left -= 1
        return self._left < 0


def test_a_client_that_calls_no_broker_any_more_ends_the_process() -> None:
    (port,) = ports.free(1)
    said = StringIO()
    log = Log("archive", lambda: 0, said)
    config = {"bootstrap.servers": f"127.0.0.1:{port}", "group.id": "archive", "log_level": 0}
    consumer = ArchiveConsumer(config, log)
    idle: Any = Idle()
    stop: Any = Turns(3)
    try:
        consumer._watch = deserted()
        assert main._loop(consumer, idle, stop, log) is Exit.RESTART
    finally:
        consumer.close()
    assert "kafka-deserted" in said.getvalue()

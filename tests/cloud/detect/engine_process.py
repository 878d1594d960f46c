"""An engine in a process of its own, to be killed: ``engine_process.py BOOTSTRAP IDENTITY``."""

import sys

from cloud.detect.detectors import ready
from cloud.detect.engine import Engine
from cloud.detect.main import serve
from cloud.detect.policy import DEFAULT
from healthsync.runtime.clock import now_ms
from healthsync.runtime.log import Log
from healthsync.runtime.stop import Stop

if __name__ == "__main__":
    bootstrap, identity = sys.argv[1:]
    log = Log("detect", now_ms)
    stop = Stop()
    base: dict[str, str | int | bool] = {
        "bootstrap.servers": bootstrap,
        "broker.address.family": "v4",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
    }
    sys.exit(serve(Engine(base, identity, ready(DEFAULT), log), stop, log))

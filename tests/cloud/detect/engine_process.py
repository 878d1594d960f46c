"""An engine in a process of its own, to be killed.

``engine_process.py BOOTSTRAP IDENTITY NOW_MS``: its clock stands still at NOW_MS, so that what it
tells does not hang on when it was killed.
"""

import sys

from cloud.detect.engine import Engine
from cloud.detect.main import serve
from cloud.policy.default import DEFAULT
from cloud.policy.seal import publish
from healthsync.runtime.clock import now_ms
from healthsync.runtime.log import Log
from healthsync.runtime.stop import Stop

if __name__ == "__main__":
    bootstrap, identity, stands_ms = sys.argv[1:]
    log = Log("detect", now_ms)
    stop = Stop()
    base: dict[str, str | int | bool] = {
        "bootstrap.servers": bootstrap,
        "broker.address.family": "v4",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 500,
    }
    text = publish(DEFAULT).text
    sys.exit(serve(Engine(base, identity, text, log, lambda: int(stands_ms)), stop, log))

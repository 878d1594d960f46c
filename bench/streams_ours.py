"""Our engine as a contender, a process: ``streams_ours.py BOOTSTRAP IDENTITY POLICY``.

POLICY: ``same``, the two limits that every contender watches; or ``default``, all that we watch.
"""

import sys

from bench.streams_policy import POLICIES
from cloud.detect.engine import Engine
from cloud.detect.main import serve
from cloud.policy.seal import publish
from healthsync.runtime.clock import now_ms
from healthsync.runtime.log import Log
from healthsync.runtime.stop import Stop

if __name__ == "__main__":
    bootstrap, identity, policy = sys.argv[1:]
    log = Log("detect", now_ms)
    stop = Stop()
    base: dict[str, str | int | bool] = {
        "bootstrap.servers": bootstrap,
        "broker.address.family": "v4",
    }
    text = publish(POLICIES[policy]).text
    sys.exit(serve(Engine(base, identity, text, log, now_ms), stop, log))

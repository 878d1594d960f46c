"""A real redis-server for tests: loopback, free port, own directory, stopped by its own pid."""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cloud.project.connect import single


class RedisServer:
    """Start with `start`, stop with `stop`; data survives in between unless `wipe` is called."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hs-redis-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                "redis-server",
                *("--bind", "127.0.0.1", "--port", str(self.port), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "no", "--dir", str(self.directory)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            client = self.client()
            try:
                client.ping()
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return
            finally:
                client.close()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis(
            host="127.0.0.1", port=self.port, protocol=2, retry=Retry(NoBackoff(), 0)
        )

    def once(self) -> redis.Redis:
        """A client as project uses it: it never reconnects."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=single(),
        )

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

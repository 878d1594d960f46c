"""What comes out of Kafka, and how long it took: a read_committed consumer and a probe, a process.

Law: beside whatever load runs, a probe of its own says lines whose ``time=`` is now, at random
moments; the latency is from before that line is sent to after its record was polled, on one clock.
Counts readings of everything else. On stdin ``mark`` begins anew; each word gets one JSON line.
"""

import argparse
import json
import random
import re
import socket
import sys
import threading
import time
from datetime import UTC, datetime

from confluent_kafka import OFFSET_END, Consumer, Message, TopicPartition

from cloud import records
from vitals.codes import BY_NAME

PROBE = "perfusion_index"
"""A vital sign that the load does not say."""

LARGE_BYTES = 16 * 1024
"""Records above are counted later: what they take to read is not to look like latency."""

_LINE = re.compile(rb"perfusion_index=\S+ time=(\S+)")
_PROBED = BY_NAME[PROBE].index


class Tap:
    """Consumes in a thread, probes in another."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._topic, self._lines = options.topic, options.topic != "samples"
        self._consumer = Consumer(
            {
                "bootstrap.servers": options.bootstrap,
                "security.protocol": "ssl",
                "ssl.ca.location": options.ca,
                "ssl.certificate.location": options.cert,
                "ssl.key.location": options.key,
                "group.id": "bench",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                "fetch.message.max.bytes": 8 * 1024 * 1024,
            }
        )
        found = self._consumer.list_topics(options.topic, timeout=20).topics[options.topic]
        parts = [TopicPartition(options.topic, at, OFFSET_END) for at in found.partitions]
        self._consumer.assign(parts)
        self._probe_hz, self._address = options.probe, ("127.0.0.1", options.port)
        self._dice = random.Random(7)
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._waits: list[float] = []
        self._since_s = 0.0
        self._large: list[bytes] = []
        self._readings = self._records = self._bytes = self._probes = 0
        self._threads = [threading.Thread(target=self._consume, daemon=True)]
        if self._probe_hz:
            self._threads.append(threading.Thread(target=self._probe, daemon=True))
        for thread in self._threads:
            thread.start()

    def _consume(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.2)
            now_s = time.time()
            if message is None or message.error():
                continue
            with self._mutex:
                self._take(message, now_s)

    def _take(self, message: Message, now_s: float) -> None:
        value = message.value() or b""
        self._records += 1
        self._bytes += len(value)
        if self._lines:
            self._readings += 1
            for said in _LINE.findall(value):
                self._probed(datetime.fromisoformat(said.decode()).timestamp(), now_s)
        elif len(value) > LARGE_BYTES:
            self._large.append(value)
        else:
            self._count(value, now_s)

    def _count(self, value: bytes, now_s: float) -> None:
        columns = records.decode_samples(value).columns
        self._readings += len(columns)
        if now_s and _PROBED in columns.vital:
            for ms, vital in zip(columns.times_ms(), columns.vital, strict=True):
                if vital == _PROBED:
                    self._probed(ms / 1000, now_s)

    def _probed(self, said_s: float, now_s: float) -> None:
        if said_s >= self._since_s:
            self._waits.append(now_s - said_s)

    def _probe(self) -> None:
        pause_s = 1 / self._probe_hz
        with socket.create_connection(self._address, timeout=10) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            nth = 0
            while not self._stop.is_set():
                nth += 1
                now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
                value = f"{1 + nth % 10 / 10:.1f}"
                sock.sendall(f"device=probe mrn=M999999 {PROBE}={value} time={now}\n".encode())
                with self._mutex:
                    self._probes += 1
                # Not in step with the load, whose lines come at even distances.
                self._stop.wait(pause_s * 2 * self._dice.random())

    def mark(self) -> None:
        """Count and measure from now on."""
        with self._mutex:
            self._waits, self._large, self._since_s = [], [], time.time()
            self._readings = self._records = self._bytes = self._probes = 0

    def tell(self) -> dict[str, float]:
        """Return what was counted and measured since `mark`; milliseconds."""
        with self._mutex:
            large, self._large = self._large, []
            for value in large:
                self._count(value, 0.0)
            waits = sorted(self._waits)
            found: dict[str, float] = {
                "readings": self._readings,
                "records": self._records,
                "bytes": self._bytes,
                "probes": self._probes,
                "measured": len(waits),
            }
        if waits:
            for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
                at = min(len(waits) - 1, int(part * len(waits)))
                found[name] = round(waits[at] * 1000, 1)
        return found

    def close(self) -> None:
        """Stop both threads."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._consumer.close()


def main() -> int:
    """Run until stdin ends."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "ca", "cert", "key", "topic"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True, help="of the lines to probe")
    parser.add_argument("--probe", type=float, default=50.0, help="lines a second")
    tap = Tap(parser.parse_args())
    print("ready", flush=True)
    for said in sys.stdin:
        if said.strip() == "mark":
            tap.mark()
        print(json.dumps(tap.tell()), flush=True)
    tap.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

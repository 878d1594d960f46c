"""How long from a record to its alert: a consumer of ``alerts``, a process.

Law: the latency is from before the probe's record was handed to the producer to after its alert
was polled, on one clock. An alert that comes again (a transaction done over) counts the first time,
as for a sink that is idempotent by the episode's id.

On stdin ``mark`` begins anew; each word gets one JSON line.
"""

import argparse
import json
import sys
import threading
import time

from confluent_kafka import OFFSET_END, Consumer, TopicPartition

from bench.streams_data import probed_us

PROBE_AGE_US_MAX = 600_000_000
"""What is older is no probe: other subjects hold no time."""


class Watch:
    """Consumes in a thread."""

    def __init__(self, bootstrap: str, isolation: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"bench-watch-{isolation}",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        found = self._consumer.list_topics("alerts", timeout=20).topics["alerts"]
        self._consumer.assign([TopicPartition("alerts", at, OFFSET_END) for at in found.partitions])
        self._stop = threading.Event()
        self._mutex = threading.Lock()
        self._since_us = 0
        self._waits: dict[str, int] = {}
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self._thread.start()

    def _consume(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.2)
            now_us = time.time_ns() // 1000
            if message is None or message.error():
                continue
            subject = (message.key() or b"").decode().partition("/")[0]
            sent_us = probed_us(subject) if len(subject) == 32 else 0
            if 0 <= now_us - sent_us <= PROBE_AGE_US_MAX:
                with self._mutex:
                    if sent_us >= self._since_us:
                        self._waits.setdefault(subject, now_us - sent_us)

    def mark(self) -> None:
        """Measure probes from now on."""
        with self._mutex:
            self._waits, self._since_us = {}, time.time_ns() // 1000

    def tell(self) -> dict[str, float]:
        """Return what was measured since `mark`; milliseconds."""
        with self._mutex:
            waits = sorted(self._waits.values())
        found: dict[str, float] = {"measured": len(waits)}
        for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            at = min(len(waits) - 1, int(part * len(waits)))
            found[name] = round(waits[at] / 1000, 1) if waits else float("inf")
        return found

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(10)
        self._consumer.close()


def main() -> int:
    """Run until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--isolation", required=True)
    options = parser.parse_args()
    watch = Watch(options.bootstrap, options.isolation)
    print("ready", flush=True)
    for said in sys.stdin:
        if said.strip() == "mark":
            watch.mark()
        print(json.dumps(watch.tell()), flush=True)
    watch.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

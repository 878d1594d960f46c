"""Live readings at a stated rate into ``samples``, and probes among them, as a process.

Law: records are made before; what is sent is late by the grain of the loop and says so. A probe's
subject holds the moment before it was handed to the producer.

On stdin ``go`` begins; at the end one JSON line says what was sent.
"""

import argparse
import json
import random
import sys
import time
from typing import Final

from confluent_kafka import Producer

from bench.streams_data import Keyed, Plan, live, probe

TICK_S: Final = 0.001
MADE_S: Final = 60e-6
"""To make a sample, at most; more makes the data older than it says, by as much."""

CALL_S: Final = 30.0


def send(producer: Producer, record: Keyed) -> None:
    """Hand one record to the producer."""
    producer.produce("samples", record.value, record.key, record.partition)


def run(producer: Producer, records: list[Keyed], probe_hz: float, seed: int) -> dict[str, float]:
    """Send all when they are due, and probes at random moments between; return counts."""
    dice = random.Random(seed)
    epoch = f"{dice.getrandbits(128):032x}"
    begin_ms = records[0].due_ms
    time.sleep(max(0.0, begin_ms / 1000 - time.time()))
    since_s = time.monotonic()
    at = probes = 0
    next_s = 0.0
    late_s = 0.0
    while at < len(records):
        now_s = time.monotonic() - since_s
        late_s = max(late_s, now_s - (records[at].due_ms - begin_ms) / 1000)
        while at < len(records) and (records[at].due_ms - begin_ms) / 1000 <= now_s:
            send(producer, records[at])
            at += 1
        if now_s >= next_s:
            send(producer, probe(dice, epoch, probes, time.time_ns() // 1000))
            probes += 1
            # Not in step with the load.
            next_s = now_s + 2 * dice.random() / probe_hz
        producer.poll(0)
        time.sleep(TICK_S)
    left = producer.flush(CALL_S)
    return {"records": at - left, "probes": probes, "late_ms": round(late_s * 1000, 1)}


def main() -> int:
    """Make the records, say "ready", wait for "go", send, say what was sent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--rate", type=int, required=True, help="samples a second: subjects")
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--probe", type=float, default=50.0, help="a second")
    parser.add_argument("--first", type=int, default=0, help="number of the first subject")
    options = parser.parse_args()
    producer = Producer(
        {
            "bootstrap.servers": options.bootstrap,
            "acks": "all",
            "linger.ms": 1,
            "compression.type": "zstd",
        }
    )
    made_s = 1 + options.rate * options.seconds * MADE_S
    end_ms = int((time.time() + made_s + options.seconds) * 1000)
    plan = Plan(options.rate, options.seconds, end_ms, first=options.first)
    records = list(live(plan))
    print("ready", flush=True)
    if sys.stdin.readline().strip() == "go":
        print(json.dumps(run(producer, records, options.probe, options.first)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

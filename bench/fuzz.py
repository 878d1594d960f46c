"""A million damaged inputs for each protocol: `python -m bench.fuzz --inputs 1000000`.

Law: the same seed gives the same inputs; what must hold of each is in `tests.edge.mutator`. The
first input that breaks it ends the run with the protocol, the seed and the connection's number.
Memory is asserted, not only printed.
"""

import argparse
import resource
import sys
import time
from typing import Final, get_args

from tests.edge.mutator import Fuzz, Protocol

WARM_INPUTS: Final = 20_000
"""Inputs before memory is looked at: by then caches are full and a longest input has come."""

GROWTH_MB_MAX: Final = 64.0
"""Growth of the peak after that: the largest message a few times over; a leak of 100 bytes an
input would be 100 MB in a million."""


def peak_mb() -> float:
    """Return the most that was ever resident, in MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def run(protocol: Protocol, inputs: int, seed: int) -> str:
    """Feed at least ``inputs`` inputs; return a line of the table; raise what they broke."""
    fuzz = Fuzz(protocol, seed)
    warm_mb: float | None = None
    began = time.perf_counter()
    sessions = 0
    try:
        while fuzz.inputs < inputs:
            sessions += 1
            fuzz.session()
            if warm_mb is None and fuzz.inputs >= WARM_INPUTS:
                warm_mb = peak_mb()
    except BaseException:
        print(f"{protocol} seed {seed}: connection {sessions}", file=sys.stderr)
        raise
    rate = fuzz.inputs / (time.perf_counter() - began)
    grown_mb = 0.0 if warm_mb is None else peak_mb() - warm_mb
    assert grown_mb <= GROWTH_MB_MAX, f"peak memory grew by {grown_mb:.0f} MB"
    return (
        f"{protocol:8} {fuzz.inputs:9} {rate:9.0f} {fuzz.accepted:9} {fuzz.rejected:9}"
        f" {grown_mb:10.1f} {peak_mb():8.1f}"
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--protocol", choices=get_args(Protocol))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    wanted: tuple[Protocol, ...] = get_args(Protocol)
    if options.protocol is not None:
        wanted = (options.protocol,)
    print("protocol    inputs  inputs/s  accepted  rejected  grown (MB) peak (MB)")
    for protocol in wanted:
        print(run(protocol, options.inputs, options.seed), flush=True)


if __name__ == "__main__":
    main()

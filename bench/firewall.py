"""The firewall's speed: `python -m bench.firewall`, part of `make bench`.

Law: in a network namespace of its own; the peer, `nft -f`, gets the same rules in the same run.
Ends with 1 when the goal is missed: plan and apply of 10,000 set elements within a second.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from bench.uplink import Goals
from firewall import kernel, report, text, wire
from firewall.compile import compile_policy
from firewall.kernel import Kernel
from firewall.messages import create
from firewall.policy_file import parse
from firewall.ruleset import Ruleset
from tests.firewall.spaces import namespace

ELEMENTS: Final = 10_000
RUNS: Final = 7
GOAL_S: Final = 1.0


def source(count: int) -> str:
    """Return a policy with so many addresses, as a file has it."""
    listed = ", ".join(f'"10.{at >> 7}.{(at & 127) * 2}.0/24"' for at in range(count))
    return (
        f'name = "bench"\n[sets]\nmany = [{listed}]\n'
        '[[inbound.allow]]\nservices = ["ssh"]\naddresses = ["@many"]\n'
    )


def timed(call: Callable[[], object]) -> float:
    """Return the median of seconds of some runs."""
    took = []
    for _ in range(RUNS):
        since_s = time.perf_counter()
        call()
        took.append(time.perf_counter() - since_s)
    return statistics.median(took)


def nft(*words: str, given: str) -> None:
    """Run the peer."""
    subprocess.run(["nft", *words, "-"], input=given, text=True, check=True, timeout=60)


def main() -> int:
    """Print ours beside the peer's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=ELEMENTS)
    count = parser.parse_args().elements
    goals = Goals()
    written = source(count)
    with namespace(), Kernel() as one:

        def compiled() -> Ruleset:
            return compile_policy(parse(written, "bench"))

        ruleset = compiled()
        shown = text.render(ruleset)

        def plan() -> list[str]:
            found, _ = one.snapshot(ruleset.table)
            return report.drift(kernel.made(compiled()), found, ruleset)

        def both() -> None:
            plan()
            one.replace(compiled())

        def checked() -> None:
            nft("-c", "-f", given=shown)
            nft("-f", given=shown)

        rows = [
            ("read and compile the policy", timed(compiled)),
            ("encode", timed(lambda: wire.batch(create(ruleset)))),
            ("apply (replace in place)", timed(lambda: one.replace(ruleset))),
            ("plan (compile, try in a namespace, read back, compare)", timed(plan)),
        ]
        total = timed(both)
        rows += [
            ("plan and apply", total),
            ("peer: nft -f", timed(lambda: nft("-f", given=shown))),
            ("peer: nft -c -f, then nft -f", timed(checked)),
        ]
    for name, seconds in rows:
        print(f"{name:<56} {seconds * 1000:8.1f} ms  ({count} elements)")
    goals.judge(f"s to plan and apply {count} elements", total, GOAL_S)
    return 1 if goals.missed else 0


if __name__ == "__main__":
    sys.exit(main())

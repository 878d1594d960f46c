"""A policy is replaced under load: nothing gets through between, and nothing is lost.

New flows come all the time to a port that every policy of the test opens and to one that none
does. That the load would notice a gap is shown with a table that is known to have one.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgspec
import pytest

from firewall import policy, wire
from firewall.compile import compile_policy
from firewall.kernel import Kernel
from firewall.messages import create, remove
from firewall.ruleset import Ruleset
from tests.firewall.lab import Family, Hammer, Lab, Neighbour, Verdict

FAMILIES: tuple[Family, Family] = (4, 6)
OPEN, CLOSED = 7777, 7778
SECONDS = 10.0
REPLACEMENTS = 200
ENOUGH = 40  # what a machine must come to that has something else to do

DEVICE = Neighbour("device", host_if="dev0", v4="10.77.1.0/24", v6="fd77:1::/64")
OTHER = Neighbour("other", host_if="eth9", v4="10.77.9.0/24", v6="fd77:9::/64")


def ruleset(*services: str, default: str = "drop", outbound: str = "accept") -> Ruleset:
    listed = ", ".join(f'"{one}"' for one in ("open", *services))
    text = f"""
name = "load"

[zones.device]
interfaces = ["dev0"]

[services.open]
udp = [{OPEN}]

[services.beside]
udp = [5000, "6000-6010"]

[inbound]
default = "{default}"

[[inbound.allow]]
services = [{listed}]
zones = ["device"]

[outbound]
default = "{outbound}"
"""
    return compile_policy(policy.parse(text, "test_gapless.py"))


# Neither opens the port by a set of ports; both open it in a chain of their own.
ONE = ruleset()
OTHER_ONE = ruleset("ssh", outbound="drop")
IN_SETS = ruleset("beside"), ruleset("beside", "ssh", "https")


def naive(good: Ruleset) -> bytes:
    """Return a batch that makes the table anew, with no rule at the end of what comes in."""
    chains = tuple(
        msgspec.structs.replace(chain, rules=chain.rules[:-1]) if chain.name == "input" else chain
        for chain in good.chains
    )
    bad = msgspec.structs.replace(good, chains=chains)
    return wire.batch([*remove(bad.table), *create(bad)])


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(DEVICE, OTHER) as made:
        yield made


def under_load(
    lab: Lab, change: Callable[[int], None], *, until_it_leaks: bool = False
) -> tuple[int, list[Hammer]]:
    """Change again and again while flows of both families come; return how often, and them."""
    for family in FAMILIES:
        assert lab.probe("device", "udp", OPEN, family) is Verdict.ACCEPTED
        assert lab.probe("device", "udp", CLOSED, family) is not Verdict.ACCEPTED
    until = time.monotonic() + SECONDS
    changes = 0
    with ExitStack() as stack:
        hammers = [
            stack.enter_context(lab.hammer("device", OPEN, CLOSED, family, seconds=30))
            for family in FAMILIES
        ]
        stack.enter_context(lab.host.entered())
        while time.monotonic() < until and (changes < REPLACEMENTS or until_it_leaks):
            changes += 1
            change(changes)
            if until_it_leaks and any(hammer.leaked_closed for hammer in hammers):
                break
    return changes, hammers


def replaced(lab: Lab, *rulesets: Ruleset) -> tuple[int, list[Hammer]]:
    with ExitStack() as stack:
        with lab.host.entered():
            kernel = stack.enter_context(Kernel())
            kernel.replace(rulesets[0])
        return under_load(lab, lambda at: kernel.replace(rulesets[at % len(rulesets)]))


def test_a_policy_is_replaced_without_a_gap(lab: Lab) -> None:
    changes, hammers = replaced(lab, ONE, OTHER_ONE)
    assert changes >= ENOUGH
    for hammer in hammers:
        assert hammer.sent_open > changes
        assert hammer.leaked_closed == 0
        assert hammer.got_open == hammer.sent_open


def test_the_load_notices_a_table_that_is_made_anew(lab: Lab) -> None:
    """`policy drop` alone is not in force while a chain is made; it takes a second or two."""
    batch = naive(ONE)
    with lab.host.entered(), Kernel() as kernel:
        kernel.send(batch)
        _, hammers = under_load(lab, lambda _: kernel.send(batch), until_it_leaks=True)
    assert sum(hammer.leaked_closed for hammer in hammers) > 0

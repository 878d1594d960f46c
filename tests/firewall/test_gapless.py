"""A policy is replaced under load: nothing gets through between, and nothing is lost.

New flows come all the time to a port that every policy of the test opens and to one that none
does. That the load would notice a gap is shown with a table that is known to have one.
"""

import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from firewall import policy_file, wire
from firewall.compile import compile_policy
from firewall.kernel import Kernel, made
from firewall.messages import create, remove
from firewall.ruleset import Ruleset
from tests.firewall.lab import Family, Hammer, Lab, Neighbour, Verdict

FAMILIES: tuple[Family, Family] = (4, 6)
OPEN, CLOSED = 7777, 7778
# The kernel takes 30 ms for each, and several times that while others use the machine.
SECONDS = 4.0
REPLACEMENTS = 200  # of both families together
ENOUGH = 5

DEVICE = Neighbour("device", host_if="dev0", v4="10.77.1.0/24", v6="fd77:1::/64")


def ruleset(*services: str, default: str = "drop") -> Ruleset:
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
"""
    return compile_policy(policy_file.parse(text, "test_gapless.py"))


# Neither opens the port by a set of ports; both open it in a chain of their own.
ONE = ruleset()
OTHER_ONE = ruleset("ssh", default="reject")
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
    with Lab(DEVICE) as made:
        yield made


def under_load(
    lab: Lab,
    family: Family,
    change: Callable[[int], None],
    *,
    most: int = REPLACEMENTS // 2,
    seconds: float = SECONDS,
    until_it_leaks: bool = False,
) -> tuple[int, Hammer]:
    """Change again and again while new flows come; return how often, and what came."""
    assert lab.probe("device", "udp", OPEN, family) is Verdict.ACCEPTED
    assert lab.probe("device", "udp", CLOSED, family) is not Verdict.ACCEPTED
    until = time.monotonic() + seconds
    changes = 0
    with lab.hammer("device", OPEN, CLOSED, family) as hammer, lab.host.entered():
        while time.monotonic() < until and changes < most:
            changes += 1
            change(changes)
            if until_it_leaks and hammer.leaked_closed:
                break
    return changes, hammer


def replaced(
    lab: Lab, family: Family, *rulesets: Ruleset, seconds: float = SECONDS
) -> tuple[int, Hammer]:
    with lab.host.entered():
        kernel = Kernel()
    with kernel:
        wanted = [made(ruleset) for ruleset in rulesets]
        with lab.host.entered():
            kernel.replace(rulesets[0])

        def change(at: int) -> None:
            which = at % len(rulesets)
            kernel.replace(rulesets[which], wanted[which])

        return under_load(lab, family, change, seconds=seconds)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_is_replaced_without_a_gap(lab: Lab, family: Family) -> None:
    changes, hammer = replaced(lab, family, ONE, OTHER_ONE)
    assert changes >= ENOUGH
    assert hammer.sent_open > changes
    assert hammer.leaked_closed == 0
    assert hammer.got_open == hammer.sent_open


def test_a_port_opened_by_a_set_is_never_closed(lab: Lab) -> None:
    """Both policies open the same ports by the same set, which stays where it is."""
    _, hammer = replaced(lab, 4, *IN_SETS, seconds=SECONDS / 2)
    assert hammer.leaked_closed == 0
    assert hammer.got_open == hammer.sent_open


def test_a_table_that_is_brought_back_leaks_nothing(lab: Lab) -> None:
    """A rollback makes the table anew: the last rule drops while the chain's policy does not."""
    with lab.host.entered(), Kernel() as kernel:
        kernel.replace(ONE)
        batch = kernel.capture(ONE.table)
        changes, hammer = under_load(lab, 4, lambda _: kernel.send(batch), most=500)
    assert changes >= ENOUGH
    assert hammer.leaked_closed == 0
    assert hammer.got_open == hammer.sent_open


def test_the_load_notices_a_table_that_is_made_anew(lab: Lab) -> None:
    """`policy drop` alone is not in force while a chain is made; it takes a second or two."""
    batch = naive(ONE)
    with lab.host.entered(), Kernel() as kernel:
        kernel.send(batch)
        _, hammer = under_load(
            lab, 4, lambda _: kernel.send(batch), most=10_000, seconds=60, until_it_leaks=True
        )
    assert hammer.leaked_closed > 0

"""What a person is shown: how the kernel differs from a ruleset, and two policies from each other.

Law: pure. Rules are named by their comment, which is the policy's entry they come from.
"""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence

from firewall import text
from firewall.ruleset import Ruleset
from firewall.snapshot import Snapshot, rule_name

FOREIGN = "(a rule without a name)"


def drift(wanted: Snapshot, found: Snapshot | None, ruleset: Ruleset) -> list[str]:
    """Return how the kernel's table differs: ``-`` it has and should not, ``+`` it lacks."""
    if found is None:
        return [f"+ table {ruleset.table} with {_count(wanted)} rules: it is not there at all"]
    said = {
        (chain.name, rule.name): text.rule(rule) for chain in ruleset.chains for rule in chain.rules
    }
    out: list[str] = []
    for kind in ("chains", "sets", "others"):
        out += _named(kind[:-1], getattr(wanted, kind), getattr(found, kind))
    for name, elements in wanted.elements.items():
        out += _elements(name, elements, found.elements.get(name, []))
    for chain, rules in wanted.rules.items():
        out += _rules(chain, rules, found.rules.get(chain, []), said)
    for chain, rules in found.rules.items():
        if chain not in wanted.rules:
            out += [f"- {chain}: {rule_name(raw) or FOREIGN}" for raw in rules]
    return out


def difference(old: Ruleset | None, new: Ruleset) -> list[str]:
    """Return the unified difference of two rulesets as nft text."""
    before = [] if old is None else list(text.body(old))
    lines = difflib.unified_diff(
        before, list(text.body(new)), "confirmed", "policy", lineterm="", n=1
    )
    return list(lines)


def _count(snapshot: Snapshot) -> int:
    return sum(map(len, snapshot.rules.values()))


def _named(kind: str, wanted: dict[str, bytes], found: dict[str, bytes]) -> Iterator[str]:
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield f"+ {kind} {name}"
        elif name not in wanted:
            yield f"- {kind} {name}"
        elif wanted[name] != found[name]:
            yield f"~ {kind} {name}: made otherwise"


def _elements(name: str, wanted: Sequence[bytes], found: Sequence[bytes]) -> Iterator[str]:
    if wanted == found:
        return
    lacks = Counter(wanted) - Counter(found)
    extra = Counter(found) - Counter(wanted)
    if lacks:
        yield f"+ set {name}: {lacks.total()} marks of its {len(wanted)}"
    if extra:
        yield f"- set {name}: {extra.total()} marks that it should not have"


def _rules(
    chain: str,
    wanted: Sequence[bytes],
    found: Sequence[bytes],
    said: dict[tuple[str, str], str],
) -> Iterator[str]:
    if wanted == found:
        return
    lacks = Counter(wanted) - Counter(found)
    extra = Counter(found) - Counter(wanted)
    for raw in lacks.elements():
        name = rule_name(raw)
        yield f"+ {chain}: {said.get((chain, name), name)}"
    for raw in extra.elements():
        yield f"- {chain}: {rule_name(raw) or FOREIGN}"
    if not lacks and not extra:
        yield f"~ {chain}: its rules stand in another order"

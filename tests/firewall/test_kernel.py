"""The kernel's table against nft(8)'s reading of the same policy, in any state it is found in."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

import firewall
from firewall import kernel, policy, policy_file, report, text, wire
from firewall.compile import compile_policy
from firewall.kernel import Kernel, Refused
from firewall.messages import create, timed
from firewall.policy import Policy
from firewall.ruleset import (
    AddressIn,
    Chain,
    Counter,
    Family,
    Jump,
    Rule,
    Ruleset,
    SourceSet,
    Verdict,
)
from firewall.snapshot import Snapshot
from tests.firewall.policies import policies
from tests.firewall.spaces import load, namespace, nft

OURS = Path(firewall.__file__).parent / "policies"
GOLDEN = Path(__file__).parent / "golden"
EDGE = compile_policy(policy_file.load(OURS / "edge.toml"))
CLOUD = compile_policy(policy_file.load(OURS / "cloud.toml"))
FOREIGN = """\
table ip other {
  chain in {
    type filter hook input priority 5;
    tcp dport 7 accept
  }
}
table inet beside {
  set s {
    type ipv4_addr
    elements = { 192.0.2.1 }
  }
  chain in {
    type filter hook input priority 6;
    ip saddr @s accept
  }
}
"""


@pytest.fixture
def own() -> Iterator[Kernel]:
    """A kernel's tables of a namespace of the test's own."""
    with namespace(), Kernel() as one:
        yield one


def snapshot(one: Kernel, ruleset: Ruleset) -> Snapshot | None:
    return one.snapshot(ruleset.table)[0]


# -- the same in every language ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["edge", "cloud"])
def test_our_policies_read_as_they_were_reviewed(name: str) -> None:
    found = text.render(compile_policy(policy_file.load(OURS / f"{name}.toml")))
    assert found == (GOLDEN / f"{name}.nft").read_text(), "review it, then write it to golden/"


@pytest.mark.parametrize("ruleset", [EDGE, CLOUD])
def test_netlink_and_nft_make_the_same_table(own: Kernel, ruleset: Ruleset) -> None:
    load(text.render(ruleset))
    assert snapshot(own, ruleset) == kernel.made(ruleset)
    listed = nft("-s", "list", "table", "inet", ruleset.table)
    nft("flush", "ruleset")
    load(listed)  # what nft says of the table, nft takes back
    assert snapshot(own, ruleset) == kernel.made(ruleset)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(policies())
def test_any_policy_is_the_same_by_netlink_and_by_nft(given_: Policy) -> None:
    ruleset = compile_policy(given_)
    with namespace(), Kernel() as one:
        wanted = kernel.made(ruleset)
        load(text.render(ruleset))
        assert snapshot(one, ruleset) == wanted
        one.replace(ruleset, wanted)
        assert snapshot(one, ruleset) == wanted
        one.replace(ruleset)
        assert report.drift(wanted, snapshot(one, ruleset), ruleset) == []


# -- replacing ------------------------------------------------------------------------------------


STATES = [
    "",
    text.render(EDGE),
    text.render(CLOUD),
    "table inet healthsync",
    """\
table inet healthsync {
  chain input {
    type filter hook input priority 0; policy accept;
  }
}
""",
    """\
table inet healthsync {
  counter c { }
  set x {
    type ipv4_addr
    elements = { 9.9.9.9 }
  }
  chain sub {
    counter name c
  }
  chain input {
    tcp dport { 1, 5 } jump sub
  }
  chain extra {
    type filter hook input priority 7; policy accept;
    tcp dport vmap { 5 : jump sub }
  }
}
""",
]


@pytest.mark.parametrize("before", STATES)
def test_from_any_state_to_the_wanted_one(own: Kernel, before: str) -> None:
    load(before)
    own.replace(EDGE)
    assert snapshot(own, EDGE) == kernel.made(EDGE)


def test_base_chains_stay_where_they_are(own: Kernel) -> None:
    own.replace(EDGE)

    def handles() -> list[str]:
        listed = nft("-a", "list", "table", "inet", EDGE.table).splitlines()
        bases = ("chain input", "chain forward", "chain output")
        return [line for line in listed if line.strip().startswith(bases)]

    before = handles()
    own.replace(EDGE)
    assert handles() == before
    assert len(before) == 3


def test_sets_that_stay_the_same_stay_where_they_are(own: Kernel) -> None:
    def handles() -> dict[str, str]:
        listed = nft("-a", "list", "table", "inet", EDGE.table).splitlines()
        lines = [line.split() for line in listed if line.strip().startswith("set ")]
        return {words[1]: words[-1] for words in lines}

    own.replace(EDGE)
    before = handles()
    own.send(wire.batch(timed("healthsync", "rate_in_0_4", [(b"\xc0\0\2\7", 50_000)])))
    wanted = kernel.made(EDGE)
    own.replace(EDGE, wanted)
    assert handles() == before
    assert "192.0.2.7" in nft("list", "set", "inet", "healthsync", "rate_in_0_4")
    # One that somebody changed is made anew, and no other.
    load("add element inet healthsync set_admins_4 { 198.51.100.0/24 }")
    own.replace(EDGE, wanted)
    after = handles()
    assert {name for name in before if after[name] != before[name]} == {"set_admins_4"}
    assert snapshot(own, EDGE) == wanted
    # and from another policy's sets of the same names
    own.replace(CLOUD, kernel.made(CLOUD))
    own.replace(EDGE, wanted)
    assert snapshot(own, EDGE) == wanted


def test_others_rules_are_left_alone(own: Kernel) -> None:
    load(FOREIGN)
    before = nft("-a", "list", "table", "ip", "other"), nft("-a", "list", "table", "inet", "beside")
    own.replace(EDGE)
    own.replace(CLOUD)
    own.send(own.capture("healthsync"))
    own.remove("healthsync")
    after = nft("-a", "list", "table", "ip", "other"), nft("-a", "list", "table", "inet", "beside")
    assert after == before
    assert own.tables() == ["beside"]


def test_nothing_is_half_applied(own: Kernel) -> None:
    own.replace(EDGE)
    before = snapshot(own, EDGE)
    loop = Chain("a", (Rule("to b", (Jump("b"),)),)), Chain("b", (Rule("to a", (Jump("a"),)),))
    into = Chain("input", (Rule("to a", (Jump("a"),)),), "input", "drop")
    bad = Ruleset(EDGE.table, (), (*loop, into))
    with pytest.raises(Refused) as caught:
        own.replace(bad)
    assert {one.number for one in caught.value.errors} <= {errno.EMLINK, errno.ELOOP}
    assert "message" in str(caught.value)
    assert snapshot(own, EDGE) == before
    with pytest.raises(Refused):
        kernel.made(bad)


def test_whoever_was_overtaken_begins_again(own: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = own.changes
    meddled: list[str] = []

    def overtaken(ruleset: Ruleset, wanted: Snapshot | None) -> tuple[list[wire.Message], int]:
        found = changes(ruleset, wanted)
        if len(meddled) < 2:
            meddled.append(nft("add", "table", "inet", f"other{len(meddled)}"))
        return found

    monkeypatch.setattr(own, "changes", overtaken)
    own.replace(EDGE)
    assert len(meddled) == 2
    assert snapshot(own, EDGE) == kernel.made(EDGE)


def test_whoever_is_overtaken_for_ever_says_so(
    own: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = own.changes
    count = 0

    def overtaken(ruleset: Ruleset, wanted: Snapshot | None) -> tuple[list[wire.Message], int]:
        nonlocal count
        found = changes(ruleset, wanted)
        count += 1
        nft("add", "table", "inet", f"other{count}")
        return found

    monkeypatch.setattr(own, "changes", overtaken)
    with pytest.raises(Refused) as caught:
        own.replace(EDGE)
    assert caught.value.overtaken
    assert count == kernel.TRIES


# -- blocked sources ------------------------------------------------------------------------------


def blocked(one: Kernel) -> dict[bytes, int]:
    return {found.address: found.left_ms for found in one.blocked("healthsync")}


def test_a_blocked_source_stays_blocked_over_a_change(own: Kernel) -> None:
    own.replace(EDGE)
    sources = [(bytes([192, 0, 2, at]), 600_000) for at in range(1, 6)]
    own.send(wire.batch(timed("healthsync", "blocked_4", sources)))
    six = bytes.fromhex("20010db8000000000000000000000007")
    own.send(wire.batch(timed("healthsync", "blocked_6", [(six, 30_000)])))
    back = own.capture("healthsync")
    own.replace(CLOUD)
    left = blocked(own)
    assert left.keys() == {six, *(source for source, _ in sources)}
    assert 20_000 < left[six] <= 30_000
    assert all(590_000 < left[source] <= 600_000 for source, _ in sources)
    own.send(back)
    assert blocked(own).keys() == left.keys()
    assert snapshot(own, EDGE) == kernel.made(EDGE)


def test_a_capture_brings_a_strange_table_back(own: Kernel) -> None:
    load(STATES[-1])
    before, _ = own.snapshot("healthsync")
    back = own.capture("healthsync")
    own.replace(EDGE)
    own.send(back)
    assert own.snapshot("healthsync")[0] == before


def test_a_capture_of_nothing_removes(own: Kernel) -> None:
    back = own.capture("healthsync")
    own.replace(EDGE)
    own.send(back)
    assert own.tables() == []


# -- drift ----------------------------------------------------------------------------------------

DRIFTS = [
    ("add rule inet healthsync input tcp dport 99 accept", "- input: (a rule without a name)"),
    ("flush chain inet healthsync forward", "+ forward: counter drop comment"),
    ("add element inet healthsync set_admins_4 { 198.51.100.0/24 }", "- set set_admins_4: 2 marks"),
    ("delete element inet healthsync set_admins_4 { 192.0.2.0/24 }", "+ set set_admins_4: 2 marks"),
    ("add chain inet healthsync more", "- chain more"),
    ("add set inet healthsync more { type ipv4_addr; }", "- set more"),
    ("add counter inet healthsync more", "- other more"),
    ("chain inet healthsync input { policy accept; }", "~ chain input: made otherwise"),
    ("delete table inet healthsync", "+ table healthsync with"),
]


@pytest.mark.parametrize(("command", "said"), DRIFTS)
def test_what_differs_is_found_and_named(own: Kernel, command: str, said: str) -> None:
    own.replace(EDGE)
    wanted = kernel.made(EDGE)
    assert report.drift(wanted, snapshot(own, EDGE), EDGE) == []
    load(command)
    lines = report.drift(wanted, snapshot(own, EDGE), EDGE)
    assert any(line.startswith(said) for line in lines), lines


def test_another_order_is_found(own: Kernel) -> None:
    one, other = (Rule(name, (Counter(), Verdict("accept"))) for name in ("one", "other"))
    rulesets = [
        Ruleset("healthsync", (), (Chain("input", rules, "input", "drop"),))
        for rules in ((one, other), (other, one))
    ]
    own.replace(rulesets[1])
    lines = report.drift(kernel.made(rulesets[0]), snapshot(own, rulesets[0]), rulesets[0])
    assert lines == ["~ input: its rules stand in another order"]


def test_what_packets_count_is_no_drift(own: Kernel) -> None:
    own.replace(EDGE)
    own.send(wire.batch(timed("healthsync", "blocked_4", [(b"\xc0\0\2\7", 60_000)])))
    assert report.drift(kernel.made(EDGE), snapshot(own, EDGE), EDGE) == []


# -- sizes ----------------------------------------------------------------------------------------


def test_ten_thousand_addresses_are_one_batch(own: Kernel) -> None:
    listed = tuple(f"10.{at >> 7}.{(at & 127) * 2}.0/24" for at in range(10_000))
    given_ = Policy("w", sets={"many": listed}, inbound=policy.Inbound(allow=(
        policy.Allow(("ssh",), addresses=("@many",)),)))  # fmt: skip
    ruleset = compile_policy(given_)
    own.replace(ruleset)
    found = snapshot(own, ruleset)
    assert found == kernel.made(ruleset)
    assert found is not None
    assert len(found.elements["set_many_4"]) == 20_000


def test_a_full_meter_refuses_nobody_by_being_full(own: Kernel) -> None:
    # The kernel says so of a set of sources: what does not fit does not match.
    small = Ruleset(
        "healthsync",
        (SourceSet("b", Family.V4, 2, 60),),
        (
            Chain(
                "input", (Rule("r", (AddressIn(Family.V4, "b"), Verdict("drop"))),), "input", "drop"
            ),
        ),
    )
    own.replace(small)
    with pytest.raises(Refused) as caught:
        own.send(
            wire.batch(
                timed("healthsync", "b", [(bytes([10, 0, 0, at]), 60_000) for at in range(3)])
            )
        )
    assert {one.number for one in caught.value.errors} == {errno.ENFILE}


def test_a_batch_is_encoded_the_same_each_time() -> None:
    assert wire.batch(create(EDGE)) == wire.batch(create(EDGE))

"""What iptables-restore says of the same policies, and that its rules do the same."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

import firewall
from firewall import policy_file
from firewall.compile import compile_policy
from firewall.iptables import MULTIPORT_MAX, render
from firewall.policy import Allow, Inbound, Policy, Service
from firewall.ruleset import FAMILIES, Family
from tests.firewall.policies import policies
from tests.firewall.spaces import namespace

OURS = Path(firewall.__file__).parent / "policies"
GOLDEN = Path(__file__).parent / "golden"
RESTORE = {Family.V4: "iptables-nft-restore", Family.V6: "ip6tables-nft-restore"}
SAVE = {Family.V4: "iptables-nft-save", Family.V6: "ip6tables-nft-save"}


def restored(family: Family, text: str, *words: str) -> None:
    done = subprocess.run(
        [RESTORE[family], *words], input=text, text=True, capture_output=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["edge", "cloud"])
def test_our_policies_read_as_they_were_reviewed(name: str) -> None:
    found = render(compile_policy(policy_file.load(OURS / f"{name}.toml")))
    for family in FAMILIES:
        golden = GOLDEN / f"{name}.iptables-{family.number}"
        assert found[family] == golden.read_text(), "review it, then write it to golden/"


@pytest.mark.parametrize("name", ["edge", "cloud"])
def test_what_is_restored_is_saved_again(name: str) -> None:
    found = render(compile_policy(policy_file.load(OURS / f"{name}.toml")))
    for family in FAMILIES:
        with namespace():
            restored(family, found[family])
            saved = subprocess.run(
                [SAVE[family]], capture_output=True, text=True, check=True, timeout=30
            ).stdout
        # One rule for one rule: nothing is merged, nothing dropped.
        assert saved.count("\n-A ") == found[family].count("\n-A ")


@settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
@given(policies())
def test_any_policy_is_taken(given_: Policy) -> None:
    with namespace():
        for family, text in render(compile_policy(given_)).items():
            restored(family, text, "--test")


def test_many_ports_are_several_matches() -> None:
    own = Service(tcp=(*range(1000, 1060, 2), "2000-2010"))
    given_ = Policy("w", services={"own": own}, inbound=Inbound(allow=(Allow(("own",)),)))
    lines = [
        line
        for line in render(compile_policy(given_))[Family.V4].splitlines()
        if "multiport" in line
    ]
    sizes = []
    for line in lines:
        ports = line.partition("--dports ")[2].split()[0].split(",")
        sizes.append(sum(2 if ":" in port else 1 for port in ports))
    assert sizes == [15, 15, 2]
    assert max(sizes) == MULTIPORT_MAX


def test_each_family_has_its_own() -> None:
    given_ = Policy(
        "w",
        inbound=Inbound(allow=(Allow(("ssh",), addresses=("192.0.2.0/24", "2001:db8::/32")),)),
    )
    found = render(compile_policy(given_))
    assert "192.0.2.0/24" in found[Family.V4]
    assert "192.0.2.0/24" not in found[Family.V6]
    assert "2001:db8::/32" in found[Family.V6]
    assert "2001:db8::/32" not in found[Family.V4]
    assert "icmp6" not in found[Family.V4]

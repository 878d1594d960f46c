"""A policy that is wrong says where, what and what to do; one that is right says nothing."""

from pathlib import Path

import pytest

import firewall
from firewall import policy, policy_file
from firewall.policy import (
    ALLOWS_MAX,
    BLOCK_S_MAX,
    CONNECTIONS_MAX,
    INTERFACE_BYTES_MAX,
    PORT_MAX,
    RATE_MAX,
    SET_ADDRESSES_MAX,
    ZONES_MAX,
    Policy,
)
from firewall.policy_file import parse
from firewall.ruleset import Rate
from vitals.errors import ConfigError

OURS = Path(firewall.__file__).parent / "policies"

GOOD = """\
name = "ward"
ping = "10/second"

[zones.device]
interfaces = ["dev0"]

[sets]
admins = ["192.0.2.0/24"]

[services.own]
tcp = [9000, "9100-9110"]

[[inbound.allow]]
services = ["line"]
zones = ["device"]

[[inbound.allow]]
services = ["ssh"]
addresses = ["@admins"]
rate = "6/minute"
block = "10m"

[outbound]
default = "drop"

[[outbound.allow]]
services = ["own"]
"""


@pytest.mark.parametrize("name", ["edge", "cloud"])
def test_our_policies_are_right(name: str) -> None:
    assert policy_file.load(OURS / f"{name}.toml").inbound.default == "drop"


def test_a_good_one_is_taken() -> None:
    found = parse(GOOD, "ward.toml")
    assert found.inbound.allow[1].block == "10m"
    assert found.services["own"].tcp == (9000, "9100-9110")


WRONG = [
    ('name = "ward"', 'name = "Ward 7"', "line 1: name: 'Ward 7' is not a name; begin with a-z"),
    ('name = "ward"', 'nmae = "ward"', "line 1: nmae: Object contains unknown field `nmae`"),
    ('name = "ward"', "name = 7", "line 1: name: Expected `str`, got `int`"),
    ('"10/second"', '"10/fortnight"', "line 2: ping: '10/fortnight' is not a rate; use as"),
    ('"10/second"', f'"{RATE_MAX + 1}/second"', "line 2: ping:"),
    ('["dev0"]', "[]", "line 5: zones.device.interfaces: empty; name one"),
    ('"dev0"', f'"{"x" * (INTERFACE_BYTES_MAX + 1)}"', "line 5: zones.device.interfaces:"),
    ('"dev0"', '"de*v"', "line 5: zones.device.interfaces: 'de*v' is not an interface"),
    (
        '"192.0.2.0/24"',
        '"192.0.2.7/24"',
        "line 8: sets.admins: '192.0.2.7/24' is not a network; its bits beyond",
    ),
    ('"192.0.2.0/24"', '"ward"', "line 8: sets.admins: 'ward' is not a network; use as"),
    ('"192.0.2.0/24"', '"@admins"', "line 8: sets.admins: there is no set 'admins' here"),
    ("[services.own]", "[services.ssh]", "line 10: services.ssh: ssh is a known service"),
    ("[9000,", "[0,", "line 11: services.own.tcp: 0 is not a port; use 1 to 65535"),
    ("9100-9110", "9110-9100", "line 11: services.own.tcp: 9110-9100 is not a port"),
    ("9100-9110", f"9100-{PORT_MAX + 1}", "line 11: services.own.tcp: 9100-65536 is not"),
    ('["line"]', '["lime"]', "line 14: inbound.allow[0].services: there is no service 'lime'"),
    ('["line"]', "[]", "line 14: inbound.allow[0].services: empty"),
    (
        'zones = ["device"]',
        'zones = ["devices"]',
        "line 15: inbound.allow[0].zones: there is no zone 'devices'; known: device",
    ),
    (
        '["@admins"]',
        '["@admin"]',
        "line 19: inbound.allow[1].addresses: there is no set 'admin' here; known: admins",
    ),
    ('rate = "6/minute"\n', "", "line 20: inbound.allow[1].block: needs a rate"),
    ('"6/minute"', '"6 a minute"', "line 20: inbound.allow[1].rate: '6 a minute' is not a rate"),
    ('"10m"', '"8d"', 'line 21: inbound.allow[1].block: \'8d\'; use "30s", "10m", "6h", up to'),
    ('"10m"', '"soon"', "line 21: inbound.allow[1].block: 'soon'; use"),
    ('block = "10m"', "burst = 0", "line 21: inbound.allow[1].burst: 0; use 1 to"),
    ('block = "10m"', f"connections = {CONNECTIONS_MAX + 1}", "line 21: inbound.allow[1].conn"),
    ('default = "drop"', 'default = "accept"', "line 26: outbound.allow[0]: everything may leave"),
    ('default = "drop"', 'default = "deny"', "line 24: outbound.default: Invalid enum value"),
    (
        'services = ["own"]',
        'services = ["own"]\nrate = "1/second"',
        "line 26: outbound.allow[0]: limits are for what comes in; leave them out here",
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG)
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, said: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(old, new, 1), "ward.toml")
    assert str(caught.value).startswith(f"ward.toml: {said}")


def test_limits_that_another_entry_undoes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"line 21: inbound.allow\[2\]: line is open to device"):
        parse(
            GOOD.replace(
                "[outbound]",
                '[[inbound.allow]]\nservices = ["line"]\nzones = ["device"]\nconnections = 3\n'
                "[outbound]",
            ).replace('rate = "6/minute"\nblock = "10m"\n', ""),
            "ward.toml",
        )


def test_what_is_no_toml_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid TOML: Invalid value"):
        parse("name =", "ward.toml")
    with pytest.raises(ConfigError, match="no such file; give --policy FILE"):
        policy_file.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigError, match="cannot be read"):
        policy_file.load(tmp_path / "latin.toml")


def zones(count: int) -> str:
    return 'name = "w"\n' + "".join(
        f'[zones.z{at}]\ninterfaces = ["e{at}"]\n' for at in range(count)
    )


def entries(count: int) -> str:
    return 'name = "w"\n' + '[[inbound.allow]]\nservices = ["ssh"]\n' * count


def addresses(count: int) -> str:
    listed = ", ".join(f'"10.{at >> 16}.{at >> 8 & 255}.{at & 255}"' for at in range(count))
    return f'name = "w"\n[sets]\nmany = [{listed}]\n'


@pytest.mark.parametrize(
    ("make", "most", "place"),
    [
        (zones, ZONES_MAX, "zones"),
        (entries, ALLOWS_MAX, "inbound.allow"),
        (addresses, SET_ADDRESSES_MAX, "sets.many"),
    ],
)
def test_caps_hold_at_their_edge(make: object, most: int, place: str) -> None:
    assert callable(make)
    parse(make(most), "w.toml")
    with pytest.raises(ConfigError, match=f"{place}: more than {most}"):
        parse(make(most + 1), "w.toml")


def test_durations_and_rates_mean_what_they_say() -> None:
    assert [policy.seconds(one) for one in ("30s", "10m", "6h", "7d")] == [
        30,
        600,
        21_600,
        BLOCK_S_MAX,
    ]
    assert policy.rate("6/minute", 10) == Rate(6, 60, 10)
    assert policy.ports([22, "20-21", 22, "80-90", 85]) == [(20, 22), (80, 90)]


def test_a_policy_without_anything_lets_nobody_in() -> None:
    assert parse('name = "w"', "w.toml") == Policy("w")


def test_a_host_in_a_network_s_place_is_told_the_network() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 192\.0\.2\.0/24\?"):
        parse(GOOD.replace("192.0.2.0/24", "192.0.2.7/24"), "ward.toml")

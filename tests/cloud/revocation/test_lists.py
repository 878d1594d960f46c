"""A list counts when its authority signed it, and never goes back."""

from pathlib import Path

import pytest

from cloud.revocation import lists
from cloud.revocation.lists import ListRefused
from tests.cloud.revocation.rig import Gateways


@pytest.fixture
def gateways(tmp_path: Path) -> Gateways:
    return Gateways(tmp_path)


def test_what_both_authorities_say_is_read(gateways: Gateways) -> None:
    among = lists.authorities(gateways.ca.read_bytes())
    found = lists.check(gateways.lists(7, 8, number=5), among)
    assert found.serials == {7, 8}
    assert dict(found.numbers) == {"CN=issuing": 5, "CN=root": 1}
    assert 0 < (found.next_update - gateways.now).total_seconds() <= 24 * 3600


def test_a_list_past_its_time_still_counts(gateways: Gateways) -> None:
    among = lists.authorities(gateways.ca.read_bytes())
    found = lists.check(gateways.lists(7, hours=-1), among)
    assert found.serials == {7}
    assert found.next_update < gateways.now


def test_what_is_not_to_be_believed_is_refused(gateways: Gateways, tmp_path: Path) -> None:
    among = lists.authorities(gateways.ca.read_bytes())
    (tmp_path / "other").mkdir()
    other = Gateways(tmp_path / "other")
    good = gateways.lists(number=5)
    one = good[: good.index(b"-----END X509 CRL-----\n") + 23]
    for pem, why in (
        (other.lists(), "did not sign"),
        (one, "each needs one"),
        (b"", "each needs one"),
        (good + one, "two lists"),
        (good.replace(b"M", b"N", 1), "PEM|sign"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "PEM"),
        (bytes(lists.BYTES_MAX + 1), "bytes"),
    ):
        with pytest.raises(ListRefused, match=why):
            lists.check(pem, among)
    with pytest.raises(ListRefused, match="not known"):
        lists.check(good, among[:1])
    with pytest.raises(ListRefused, match="certificates"):
        lists.authorities(b"nothing")


def test_an_older_list_is_refused_the_same_one_is_not(gateways: Gateways) -> None:
    among = lists.authorities(gateways.ca.read_bytes())
    used = lists.check(gateways.lists(7, number=5), among)
    assert lists.check(gateways.lists(7, number=5), among, used.numbers).serials == {7}
    with pytest.raises(ListRefused, match="replay"):
        lists.check(gateways.lists(number=4), among, used.numbers)

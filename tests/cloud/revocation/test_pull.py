"""Lists are asked for, checked, written, and given to HAProxy; what fails leaves the old ones."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest

from cloud.revocation import main
from cloud.revocation.config import PullConfig, Source
from cloud.revocation.main import Puller
from cloud.settings import Metrics
from healthsync.runtime import whole
from healthsync.runtime.log import Log
from tests.cloud.revocation.rig import Gateways, Proxy
from vitals.errors import ConfigError


class Rig:
    def __init__(self, folder: Path, socket: str = "") -> None:
        self.gateways = Gateways(folder)
        self.answer: bytes | Exception = self.gateways.lists()
        self.said = StringIO()
        self.now = self.gateways.now
        none = folder / "none"
        self.settings = PullConfig(
            Source("127.0.0.1", 1, none, none, none),
            Metrics(1),
            self.gateways.ca,
            self.gateways.crl,
            socket,
        )

    def puller(self) -> Puller:
        return Puller(
            self.settings, self.fetch, lambda: self.now, Log("pull-crl", lambda: 0, self.said)
        )

    def fetch(self) -> bytes:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.said.getvalue().splitlines()]


def test_a_new_list_is_written_and_an_old_or_forged_one_is_not(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    puller = rig.puller()
    new = rig.gateways.lists(7, number=9)
    rig.answer = new
    puller.round()
    assert rig.gateways.crl.read_bytes() == new
    (tmp_path / "other").mkdir()
    for bad in (
        rig.gateways.lists(number=8),
        Gateways(tmp_path / "other").lists(number=99),
        b"nonsense",
        TimeoutError(),
    ):
        rig.answer = bad
        puller.round()
        assert rig.gateways.crl.read_bytes() == new
        assert puller.used is not None
        assert puller.used.serials == {7}
    assert rig.events().count("crl-failed") == 2, "once a reason, not once a round"


def test_an_overdue_list_is_said_each_round(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    puller = rig.puller()
    puller.round()
    assert "crl-overdue" not in rig.events()
    rig.now = datetime.now(UTC) + timedelta(hours=25)
    puller.round()
    puller.round()
    assert rig.events().count("crl-overdue") == 2


def test_haproxy_is_told_and_told_again_when_it_was_away(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    proxy = Proxy(tmp_path, rig.gateways)
    rig.settings = PullConfig(
        rig.settings.source, Metrics(1), rig.gateways.ca, rig.gateways.crl, str(proxy.socket)
    )
    one = rig.gateways.leaf("ward-1")
    puller = rig.puller()
    before = rig.gateways.crl.read_bytes()
    rig.answer = rig.gateways.lists(one.certificate.serial_number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "write", lambda *_args, **_more: None)
        puller.round()  # HAProxy is not there yet, and starts with the old file
    assert rig.gateways.crl.read_bytes() == before
    with proxy.running():
        assert "HTTP/1" in proxy.handshake(one)
        puller.round()
        assert "certificate revoked" in proxy.handshake(one)


def test_a_list_too_long_for_haproxy_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "BUFFER_BYTES", 600)
    rig = Rig(tmp_path, socket=str(tmp_path / "nobody"))
    puller = rig.puller()
    rig.answer = rig.gateways.lists(7)
    for _ in range(3):
        assert not puller.round()
    assert rig.gateways.crl.read_bytes() == rig.answer
    assert rig.said.getvalue().replace(" ", "").count('"reason":"haproxy"') == 1, "once, not each"


def test_authorities_that_cannot_be_read_are_a_matter_of_configuration(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.gateways.ca.write_text("nonsense")
    with pytest.raises(ConfigError, match="no authorities there"):
        rig.puller()
    rig.gateways.ca.unlink()
    with pytest.raises(ConfigError, match="no authorities there"):
        rig.puller()

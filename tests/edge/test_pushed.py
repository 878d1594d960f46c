"""What a pushed document may say, and how it is tried, kept, taken back and remembered."""

import io
import json
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import structs

from edge import pushed
from edge.device_map import DEVICES_MAX
from edge.pushed import TRIAL_INPUTS, TRIAL_S, Counts, understand
from edge.pushed_keeper import FILE_NAME, REFUSED_KEPT, PushedKeeper
from healthsync.runtime.log import Log
from tests.edge.gateway import NOW
from vitals import limits
from vitals.codes import BY_NAME
from vitals.errors import ConfigError
from vitals.session import Settings
from vitals.settings import DOCUMENT_BYTES_MAX, sign

PRIVATE = Ed25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key()
W3 = b'ward = "W3"\n'


# -- documents -----------------------------------------------------------------------------------


def test_a_document_means_what_the_page_says() -> None:
    found = understand(
        b'ward = "W3"\nsite_zone = "Europe/Berlin"\n'
        b'[[device]]\nname = "mon-7"\nbed = "12"\nward = "W4"\n'
        b'[[device]]\nname = "thermo-2"\nunits = { temperature = "F" }\n'
        b'[[code]]\ncode = "ZHR"\nvital = "heart_rate"\n'
    )
    temperature = BY_NAME["temperature"].index
    assert found.ward == "W3"
    assert found.zone is not None
    assert found.zone.key == "Europe/Berlin"
    assert found.devices.of("mon-7") == ("12", "W4", {})
    assert found.devices.of("thermo-2").units == {temperature: "[degF]"}
    assert found.vendor is not None
    assert pushed.understood(found) == [
        "ward      'W3'",
        "site_zone Europe/Berlin",
        "device    'mon-7': bed '12', ward 'W4'",
        "device    'thermo-2': temperature in [degF]",
        "hl7       codes and units of its own, instead of hl7_map's",
    ]


def test_an_empty_document_changes_nothing() -> None:
    assert understand(b"") == pushed.NOTHING
    assert pushed.understood(understand(b"")) == ["nothing: edge.toml stands as it is"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"\xff", "not valid TOML"),
        (b"ward", "not valid TOML"),
        (b"line_port = 1\n", "unknown field `line_port`"),
        (b"spool_bytes_max = 1\n", "unknown field"),
        (b'hpke_public = "x"\n', "unknown field"),
        (b'settings_key = "x"\n', "unknown field"),
        (b"ward = 3\n", "ward"),
        (b'ward = "a\\u0007"\n', "printable"),
        (b'ward = "%s"\n' % (b"w" * (limits.TEXT_CHARS_MAX + 1)), "ward is at most"),
        (b'site_zone = "Mars/Base"\n', "no IANA zone"),
        (b'site_zone = "../../etc/passwd"\n', "no IANA zone"),
        (b'[[device]]\nname = ""\n', "number 1: name is empty"),
        (b'[[device]]\nname = "a"\n[[device]]\nname = "a"\n', "number 2: this name stands twice"),
        (b'[[device]]\nname = "a"\nunits = { pulse_of = "F" }\n', "no vital sign of this name"),
        (b'[[device]]\nname = "a"\nunits = { heart_rate = "F" }\n', "not measured in that unit"),
        (b'[[device]]\nname = "a"\nunits = { temperature = "wat" }\n', "not measured in that unit"),
        (b'[[device]]\nname = "a"\nbeds = "1"\n', "did you mean `bed`"),
        (b'[[code]]\ncode = "Z"\nvital = "wat"\n', "settings"),
        (b"#" * (DOCUMENT_BYTES_MAX + 1), "over 262144 bytes"),
    ],
)
def test_what_is_not_allowed_or_not_understood_refuses_all_of_it(
    document: bytes, says: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        understand(document)


def test_so_many_devices_and_no_more() -> None:
    def listed(count: int) -> bytes:
        return b"".join(b'[[device]]\nname="%x"\n' % at for at in range(count))

    assert len(understand(listed(DEVICES_MAX)).devices) == DEVICES_MAX
    with pytest.raises(ConfigError, match=f"over {DEVICES_MAX} devices"):
        understand(listed(DEVICES_MAX + 1))


# -- keeping -------------------------------------------------------------------------------------


class Kept:
    """A keeper in a folder, with the counts that its gateway would have."""

    def __init__(self, folder: Path, public: Ed25519PublicKey | None = PUBLIC) -> None:
        self.folder, self.logged = folder, io.StringIO()
        self.inputs = Counts()
        self.used: list[str | None] = []
        log = Log("edge", lambda: NOW, self.logged)
        self.keeper = PushedKeeper("ward-1", folder, public, lambda: self.inputs, log)
        self.keeper.use = lambda now: self.used.append(now.ward)
        self.told = self.keeper.start()

    def offer(self, version: int, document: bytes = W3, now_s: float = 1000.0) -> tuple[str, str]:
        return self.keeper.offered(sign("ward-1", version, document, PRIVATE), now_s)

    @property
    def ward(self) -> str | None:
        return self.keeper.pushed.ward

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.logged.getvalue().splitlines()]


def test_good_settings_are_used_at_once_tried_and_kept(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    assert kept.told is None
    assert kept.offer(3) == ("applied", "")
    assert (kept.ward, kept.used, kept.keeper.version, kept.keeper.on_trial) == (
        *("W3", ["W3"], 3),
        True,
    )
    assert kept.keeper.watch(1000 + TRIAL_S - 0.1) is None
    assert kept.keeper.watch(1000 + TRIAL_S) == (3, "kept", "")
    assert kept.keeper.watch(1000 + 2 * TRIAL_S) is None
    assert not kept.keeper.on_trial
    again = Kept(tmp_path)
    assert (again.told, again.ward, again.keeper.version) == (None, "W3", 3)
    assert kept.events == ["settings-on-trial", "settings-kept"]


def test_the_file_is_for_the_gateway_alone(tmp_path: Path) -> None:
    Kept(tmp_path).offer(1)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_older_ones_and_the_same_are_refused(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.offer(3)
    for version in (1, 2, 3):
        assert kept.offer(version, b'ward = "other"\n') == ("refused", "version 3 is in use")
    assert kept.ward == "W3"
    assert kept.keeper.trouble == "version 3: version 3 is in use"
    assert kept.offer(4, b'ward = "W4"\n') == ("applied", "")
    assert (kept.ward, kept.keeper.trouble) == ("W4", "")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (sign("ward-2", 1, W3, PRIVATE), "not of this gateway's key"),
        (sign("ward-1", 1, W3, Ed25519PrivateKey.generate()), "signed by key"),
        (structs.replace(sign("ward-1", 1, W3, PRIVATE), version=2), "not of this gateway's key"),
        (sign("ward-1", 1, b"line_port = 1\n", PRIVATE), "unknown field `line_port`"),
        (sign("ward-1", 1, b"ward = \n", PRIVATE), "not valid TOML"),
    ],
)
def test_what_is_forged_or_not_understood_changes_nothing(
    tmp_path: Path, settings: Settings, why: str
) -> None:
    kept = Kept(tmp_path)
    outcome, said = kept.keeper.offered(settings, 1000.0)
    assert outcome == "refused"
    assert why in said
    assert (kept.ward, kept.used, kept.keeper.version) == (None, [], 0)
    assert not (tmp_path / FILE_NAME).exists()


def test_without_a_key_nothing_is_taken_and_nothing_kept_is_used(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.offer(1)
    kept.keeper.watch(1000 + TRIAL_S)
    closed = Kept(tmp_path, None)
    assert (closed.ward, closed.told) == (None, None)
    outcome, said = closed.offer(2)
    assert outcome == "refused"
    assert "settings_key is not set" in said


# -- trouble -------------------------------------------------------------------------------------


def test_settings_that_make_input_be_refused_are_taken_back(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.offer(1)
    kept.keeper.watch(1000 + TRIAL_S)
    kept.offer(2, b'ward = "W4"\n', 2000.0)
    kept.inputs = Counts(TRIAL_INPUTS - 1, TRIAL_INPUTS - 1)
    assert kept.keeper.watch(2001) is None
    kept.inputs = Counts(TRIAL_INPUTS, TRIAL_INPUTS // 4)
    assert kept.keeper.watch(2002) is None
    kept.inputs = Counts(TRIAL_INPUTS, TRIAL_INPUTS // 4 + 1)
    told = kept.keeper.watch(2003)
    assert told == (2, "rolled-back", "30% of 20 inputs were refused or impossible, 0% before")
    assert (kept.ward, kept.used, kept.keeper.version) == ("W3", ["W3", "W4", "W3"], 1)
    assert kept.keeper.trouble.startswith("version 2: 30%")
    assert kept.offer(2) == ("refused", "it was refused before; sign it anew")
    assert Kept(tmp_path).offer(2) == ("refused", "it was refused before; sign it anew")
    assert Kept(tmp_path).offer(3) == ("applied", "")


def test_the_first_settings_go_back_to_none(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.offer(1)
    kept.inputs = Counts(100, 100)
    assert kept.keeper.watch(1001) is not None
    assert (kept.ward, kept.used, kept.keeper.version) == (None, ["W3", None], 0)


def test_a_ward_that_was_half_refused_before_is_no_reason(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.inputs = Counts(1000, 500)
    kept.offer(1)
    kept.inputs = Counts(1100, 560)
    assert kept.keeper.watch(1001) is None
    kept.inputs = Counts(1100, 576)
    assert kept.keeper.watch(1002) is not None


def test_what_was_long_ago_is_not_before(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.inputs = Counts(100_000, 100_000)  # once, all was refused
    kept.keeper.watch(100)
    kept.inputs = Counts(101_000, 100_000)
    kept.keeper.watch(200)
    kept.inputs = Counts(102_000, 100_000)
    kept.offer(1, now_s=210)
    kept.inputs = Counts(102_100, 100_050)
    assert kept.keeper.watch(211) is not None


def test_a_start_during_the_trial_goes_back(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.offer(1)
    kept.keeper.watch(1000 + TRIAL_S)
    kept.offer(2, b'ward = "W4"\n')
    again = Kept(tmp_path)
    assert again.told == (2, "rolled-back", "the gateway was started anew during the trial")
    assert (again.ward, again.keeper.version, again.keeper.on_trial) == ("W3", 1, False)
    assert again.offer(2) == ("refused", "it was refused before; sign it anew")
    assert Kept(tmp_path).told is None


def test_only_so_many_bad_versions_are_remembered(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for version in range(1, REFUSED_KEPT + 2):
        kept.offer(version)
        kept.inputs = Counts(kept.inputs.inputs + 100, kept.inputs.refused + 100)
        assert kept.keeper.watch(1001) is not None
        kept.keeper._snapshots = [(0.0, kept.inputs)] * 2
        kept.inputs = Counts(kept.inputs.inputs + 100, kept.inputs.refused)
    assert kept.offer(2)[0] == "refused"
    assert kept.offer(1)[0] == "applied"


# -- the disk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [b"", b"{", b'{"kept":3}', b"\xff\xfe", b"[]"])
def test_a_damaged_file_is_said_and_nothing_of_it_used(tmp_path: Path, damage: bytes) -> None:
    Kept(tmp_path).offer(1)
    (tmp_path / FILE_NAME).write_bytes(damage)
    kept = Kept(tmp_path)
    assert (kept.ward, kept.events) == (None, ["settings-unreadable"])
    assert kept.offer(2) == ("applied", "")


def test_a_file_that_was_changed_is_not_used(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.offer(1)
    kept.keeper.watch(1000 + TRIAL_S)
    path = tmp_path / FILE_NAME
    path.write_text(path.read_text().replace("W3", "W9"))
    again = Kept(tmp_path)
    assert (again.ward, again.events) == (None, ["settings-not-used"])


def test_what_cannot_be_written_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path)

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("healthsync.runtime.whole.os.fsync", full)
        assert kept.offer(1) == ("refused", "cannot be kept (OSError)")
    assert (kept.ward, kept.keeper.version, Kept(tmp_path).ward) == (None, 0, None)
    assert kept.offer(1) == ("applied", "")
    with monkeypatch.context() as patched:
        patched.setattr("healthsync.runtime.whole.os.fsync", full)
        assert kept.keeper.watch(1000 + TRIAL_S) is None
    assert kept.keeper.on_trial
    assert kept.keeper.watch(1001 + TRIAL_S) == (1, "kept", "")

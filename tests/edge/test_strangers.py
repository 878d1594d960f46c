"""A device that the policy does not know says nothing for anybody, and changes nothing."""

import ipaddress

import pytest

from edge.admission import Admission, Caller, Policy
from edge.bedside import LineTalk
from edge.entry import Entry
from edge.setting import Setting
from vitals.columns import Source
from vitals.reading import Patient

NOW = 1_795_428_000_000
STRANGER = b"rejected unknown-device device: "
ADA = Patient(mrn="M1", name="Ada")


def _setting(policy: Policy = "quarantine", *devices: str) -> Setting:
    return Setting(admission=Admission(policy, devices=devices or ("bed-*",)))


class Talk:
    """A caller from nowhere listed."""

    def __init__(self, setting: Setting | None = None, *, welcome: bool = False) -> None:
        self.setting = setting or _setting()
        self.talk = LineTalk(Caller("10.0.0.9", welcome=welcome), self.setting)

    def says(self, line: str) -> Entry:
        (entry,) = self.talk.receive(f"{line}\n".encode(), NOW)
        return entry

    def source(self, line: str) -> Source | None:
        entry = self.says(line)
        assert (entry.source is None) == bool(entry.rejected or entry.turned_away)
        return entry.source


def _answer(entry: Entry) -> bytes:
    assert entry.answer is not None
    return entry.answer(None)


@pytest.mark.parametrize("line", ["hr=78", "device=other hr=78", "mrn=M1 hr=78", "device=other"])
def test_a_strangers_line_is_kept_sealed_and_makes_no_reading(line: str) -> None:
    entry = Talk().says(line)
    (kept,) = entry.rejected
    assert (kept.reason, kept.field, kept.raw) == ("unknown-device", "device", line.encode())
    assert kept.device == ("other" if "other" in line else "addr-10.0.0.9")
    assert (entry.source, entry.readings, entry.turned_away) == (None, (), False)
    assert entry.size == len(line)


def test_a_stranger_who_asks_is_answered() -> None:
    talk = Talk()
    assert talk.says("hr=78").answer is None
    assert _answer(talk.says("reply=yes hr=78")).startswith(STRANGER)
    assert _answer(talk.says("hr=78")).startswith(STRANGER)
    assert talk.says("reply=no hr=78").answer is None


def test_under_refuse_nothing_of_a_stranger_is_kept() -> None:
    talk = Talk(_setting("refuse"))
    entry = talk.says("device=other mrn=M1 hr=78")
    assert (entry.source, entry.readings, entry.rejected, entry.size) == (None, (), (), 0)
    assert entry.turned_away
    assert entry.answer is None
    answered = talk.says("reply=yes device=other hr=78")
    assert answered.turned_away
    assert _answer(answered).startswith(STRANGER)


def test_under_refuse_a_strangers_garbage_is_not_kept_either() -> None:
    talk = Talk(_setting("refuse"))
    entry = talk.says("reply=yes hr=x")
    assert (entry.turned_away, entry.rejected) == (True, ())
    assert _answer(entry).startswith(b"rejected bad-number")
    assert talk.says("x" * 9000).turned_away
    talk.talk.receive(b"half", NOW)
    last = talk.talk.leave(NOW)
    assert last is not None
    assert last.turned_away


def test_under_refuse_a_known_devices_garbage_is_kept() -> None:
    talk = Talk(_setting("refuse"))
    assert talk.source("device=bed-1 hr=78") == Source("bed-1")
    entry = talk.says("hr=x")
    assert (entry.turned_away, len(entry.rejected)) == (False, 1)


def test_a_known_device_is_taken_from_any_caller() -> None:
    talk = Talk()
    assert talk.source("device=bed-1 mrn=M1 name=Ada hr=78") == Source("bed-1", patient=ADA)
    assert talk.source("hr=79") == Source("bed-1", patient=ADA)
    assert talk.source("device=bed-1 mrn=M1 name=Ada hr=80") == Source("bed-1", patient=ADA)


@pytest.mark.parametrize("policy", ["quarantine", "refuse"])
def test_a_stranger_names_nobody_for_the_others(policy: Policy) -> None:
    talk = Talk(_setting(policy))
    ada = Source("bed-1", patient=ADA)
    assert talk.source("device=bed-1 mrn=M1 name=Ada hr=78") == ada
    assert talk.source("device=other mrn=M9 name=Eve hr=1") is None
    assert talk.source("device=bed-1 hr=79") == ada
    assert talk.source("device=other mrn=M9 hr=1") is None
    assert talk.source("device=bed-2 hr=80") == Source("bed-2")


def test_what_follows_a_stranger_without_a_name_is_the_strangers() -> None:
    talk = Talk()
    talk.says("device=bed-1 mrn=M1 hr=78")
    talk.says("device=other hr=1")
    assert talk.source("hr=2") is None
    assert talk.source("mrn=M9 hr=3") is None
    assert talk.says("hr=4").rejected[0].device == "other"
    assert talk.source("device=bed-1 hr=79") == Source("bed-1", patient=Patient(mrn="M1"))


def test_a_strangers_bad_line_ends_what_was_named_like_any_other() -> None:
    talk = Talk()
    talk.says("device=bed-1 mrn=M1 hr=78")
    talk.says("device=other hr=1")
    assert talk.says("device=bed-1 hr=x").rejected[0].device == "other"
    assert talk.source("hr=2") is None
    assert talk.source("device=bed-1 hr=79") == Source("bed-1")


def test_a_bad_unit_of_a_stranger_is_a_strangers_line() -> None:
    assert Talk().says("device=other hr=1kPa").rejected[0].reason == "unknown-device"


def test_who_is_welcome_needs_no_listed_name() -> None:
    assert Talk(welcome=True).source("hr=78") == Source("addr-10.0.0.9")
    assert Talk(welcome=True).source("device=other hr=78") == Source("other")


def test_a_strangers_times_tell_nothing_of_a_clock() -> None:
    talk = Talk()
    talk.says("device=other hr=78 time=2026-11-23T10:00:00Z")
    assert len(talk.setting.skews) == 0


# Another policy while connected ----------------------------------------------------------


def test_a_new_policy_holds_from_the_next_line() -> None:
    talk = Talk(Setting(), welcome=True)
    assert talk.source("device=other mrn=M1 hr=78") == Source("other", patient=Patient(mrn="M1"))
    talk.setting.admission = Admission("quarantine", devices=("bed-*",))
    assert talk.source("hr=79") is None
    assert talk.source("device=other mrn=M1 hr=79") is None
    assert talk.source("device=bed-1 hr=80") == Source("bed-1")
    talk.setting.admission = Admission("accept")
    assert talk.source("device=third hr=81") == Source("third")


def test_a_stranger_that_is_listed_while_connected_is_itself_not_the_one_before() -> None:
    talk = Talk()
    talk.says("device=bed-1 mrn=M1 hr=78")
    talk.says("device=other mrn=M9 hr=1")
    talk.setting.admission = Admission("quarantine", devices=("bed-*", "other"))
    assert talk.source("hr=2") == Source("other")
    assert talk.source("device=bed-1 hr=3") == Source("bed-1")


def test_a_stranger_stays_one_under_another_list_that_does_not_name_it() -> None:
    talk = Talk()
    talk.says("device=bed-1 mrn=M1 hr=78")
    talk.says("device=other hr=1")
    talk.setting.admission = Admission("quarantine", devices=("bed-1", "bed-2"))
    assert talk.source("hr=2") is None
    assert talk.source("device=bed-1 hr=3") == Source("bed-1", patient=Patient(mrn="M1"))


def test_a_device_that_is_delisted_and_listed_again_keeps_its_patient() -> None:
    talk = Talk()
    ada = Source("bed-1", patient=Patient(mrn="M1"))
    talk.says("device=bed-1 mrn=M1 hr=78")
    talk.setting.admission = Admission("quarantine", devices=("x",))
    assert talk.source("hr=79") is None
    talk.setting.admission = Admission("quarantine", devices=("bed-1",))
    assert talk.source("hr=80") == ada


def test_an_address_and_a_certificate_that_are_listed_later_are_welcome() -> None:
    network = ipaddress.ip_network("10.0.0.0/8")
    for caller, later in (
        (Caller("10.0.0.9", welcome=False), Admission("refuse", addresses=(network,))),
        (Caller("9.9.9.9", "pump", welcome=False), Admission("refuse", certificates=("pump",))),
    ):
        setting = _setting("refuse")
        talk = LineTalk(caller, setting)
        assert talk.receive(b"hr=78\n", NOW)[0].turned_away
        setting.admission = later
        assert talk.receive(b"hr=79\n", NOW)[0].source == Source(f"addr-{caller.address}")

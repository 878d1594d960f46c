"""HL7 v2 messages for tests: made by hand, or read from tests/edge/data/hl7."""

from pathlib import Path
from zoneinfo import ZoneInfo

from edge import hl7
from edge.admission import Admission, Caller
from edge.entry import Entry
from edge.hl7_map import NO_MAP, VendorMap
from edge.hl7_talk import Hl7Talk
from edge.mllp import block
from edge.refusal import Refused
from edge.setting import Setting
from vitals.codes import VITALS
from vitals.reading import DeviceAlert, Reading

DATA = Path(__file__).with_name("data") / "hl7"
EXAMPLE_MAP = Path(hl7.__file__).with_name("hl7-map.example.toml")
NOW = 1_795_428_000_000  # 2026-11-23T10:00:00Z
STAMP = "20261123100000+0000"
UTC = ZoneInfo("UTC")
ADDRESS = "10.0.0.9"


def setting(
    ward: str = "W9", zone: ZoneInfo = UTC, vendor: VendorMap = NO_MAP, **more: Admission
) -> Setting:
    return Setting(ward, zone, more.get("admission"), vendor)


def message(*segments: str, msh: str = "|MSG1|P|2.6", kind: str = "ORU^R01^ORU_R01") -> bytes:
    head = f"MSH|^~\\&|Mon^AA^EUI-64|Fac|||{STAMP}||{kind}{msh}"
    return "\r".join((head, *segments, "")).encode()


def obx(code: str, value: str, unit: str = "", rest: str = "", path: str = "1.1.1.1") -> str:
    return f"OBX|1|NM|{code}|{path}|{value}|{unit}|{rest}"


HR = obx("147842", "78", "264864")
GOOD = ("PID|||M1^^^H^MR", f"OBR|1||||||{STAMP}", HR)


def sample(name: str) -> bytes:
    """Return a file of ours with the segment ends of the protocol, or one of IPF as it is."""
    path = DATA / "own" / name
    if path.exists():
        return path.read_text(encoding="utf-8").replace("\n", "\r").encode()
    return (DATA / "ipf" / name).read_bytes()


def decode(raw: bytes, under: Setting | None = None) -> hl7.Report | Refused:
    return hl7.decode(raw, hl7.envelope(raw), ADDRESS, under or setting(), NOW)


def report(raw: bytes, under: Setting | None = None) -> hl7.Report:
    found = decode(raw, under)
    assert isinstance(found, hl7.Report), found
    return found


def refusal(raw: bytes, under: Setting | None = None) -> Refused:
    found = decode(raw, under)
    assert isinstance(found, Refused), found
    return found


def readings(raw: bytes, under: Setting | None = None) -> tuple[Reading, ...]:
    (part,) = report(raw, under).parts
    return part.readings


def values(raw: bytes, under: Setting | None = None) -> list[tuple[str, float | None]]:
    return [(VITALS[r.vital].name, r.value) for r in readings(raw, under)]


def alert(raw: bytes, under: Setting | None = None) -> DeviceAlert:
    (part,) = report(raw, under).parts
    (one,) = part.alerts
    return one


def answers(entry: Entry) -> list[str]:
    """Return what is sent once the entry is durable, unframed."""
    assert entry.answer is not None
    return [one.removesuffix(b"\x1c\r").decode() for one in entry.answer(None).split(b"\x0b")[1:]]


def codes(entry: Entry) -> list[str]:
    """Return MSA-1 and MSA-2 of the answers once the entry is durable."""
    return [
        "|".join(text.split("MSA|")[1].split("\r")[0].split("|")[:2]) for text in answers(entry)
    ]


def talk(under: Setting | None = None, caller: Caller | None = None) -> Hl7Talk:
    return Hl7Talk(caller or Caller(ADDRESS), under or setting())


def sent(raw: bytes, under: Setting | None = None, caller: Caller | None = None) -> list[Entry]:
    return talk(under, caller).receive(block(raw), NOW)

"""What edge/HL7.md says of bounds, conflicts and codes is what the program does."""

import re
from pathlib import Path

import pytest

from edge import hl7, hl7_alarm, hl7_message, hl7_observe, hl7_repeat, hl7_watch
from edge.hl7_facets import FACETS
from edge.hl7_map import NO_MAP
from edge.hl7_naming import NO_VITAL
from edge.hl7_row import Rows
from edge.refusal import Reason
from vitals import limits

PAGE = Path(hl7.__file__).with_name("HL7.md").read_text(encoding="utf-8")


def test_every_bound_is_the_one_in_force() -> None:
    said = dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (\d+) \|", PAGE, re.MULTILINE))
    homes = (limits, hl7_message, hl7_observe, hl7_alarm, hl7_repeat, hl7_watch)
    for name, value in said.items():
        (held,) = {getattr(home, name) for home in homes if hasattr(home, name)}
        assert held == int(value), name
    caps = {
        name
        for home in homes[1:]
        for name in vars(home)
        if name.endswith("_MAX") and not name.startswith(("_", "TIME"))
    }
    assert caps <= set(said)


@pytest.mark.parametrize(
    ("row", "conflict"),
    [
        (("NM", "8867-4^^LN^149530^^MDC", "", "", "R"), True),
        (("NM", "150456^MDC_CO2_ET^MDC", "", "", "R"), True),
        (("NM", "150457^MDC_PULS_OXIM_PULS_RATE^MDC", "", "", "R"), True),
        (("NM", "147842^HR^99X", "", "", "R"), True),
        (("NA", "150456", "", "", "R"), True),
        (("NM", "150344", "268160^MDC_DIM_FAHR^MDC", "", "R"), True),
        (("NM", "150456", "mmHg", "", "R"), True),
        (("NM", "150456", "", "", "Q"), True),
        (("NM", "149522^MDC_PULS_RATE^MDC", "", "", "R"), False),
        (("NM", "150017^MDC_PRESS_BLD_NONINV_SYS^MDC", "", "", "R"), False),
    ],
)
def test_every_example_of_a_conflict_is_one(
    row: tuple[str, str, str, str, str], *, conflict: bool
) -> None:
    said = Rows("^", "~", NO_MAP, ()).learn(row)
    assert bool(said.why) == conflict
    assert conflict or said.vital != NO_VITAL


def test_every_facet_code_and_reason_is_named() -> None:
    for code in FACETS:
        assert str(code) in PAGE
    named = set(re.findall(r"`((?:hl7|spool|bad|unknown)-[a-z-]+)`", PAGE))
    reasons = {reason.value for reason in Reason}
    assert named <= reasons
    assert {reason for reason in reasons if reason.startswith("hl7-")} <= named

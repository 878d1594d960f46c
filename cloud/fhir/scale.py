"""One vital with its alarm limits: what a value becomes in an Observation.

Law: the same (vital, limits) is the same `Scale`, so a ward shares one and a patient's own limit
of SpO2 leaves the other vitals' shared. Everything remembered here is bounded.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from cloud.fhir import ranges, templates
from cloud.fhir.ids import PANEL_OF
from cloud.fhir.ranges import Limits
from cloud.fhir.templates import CONSCIOUSNESS, JUDGED, VALUED, Template
from vitals.codes import VITALS, Consciousness, decimal_scale

TEXTS_MAX: Final = 1024
"""Values of one scale whose text is remembered, some 500 bytes each; a heart rate has 391."""

SCALES_MAX: Final = 4096
"""Sets of limits of one vital that are remembered: every bed of a large hospital its own few."""

_VALUED: Final = frozenset(map(int, VALUED))
_JUDGED: Final = frozenset(map(int, JUDGED))


class Texts(dict[int | None, str]):
    """Scaled value -> what follows ``fixed`` in its Observation or component, of status OK."""

    def __init__(self, scale: "Scale") -> None:
        """Begin empty."""
        super().__init__()
        self._scale = scale

    def __missing__(self, scaled: int | None) -> str:
        scale = self._scale
        text = scale.said(None if scaled is None else scaled / scale.per_unit, 0, 0)[1]
        if len(self) < TEXTS_MAX:
            self[scaled] = text
        return text


class Scale:
    """The templates of one vital with its limits filled in."""

    __slots__ = ("_filled", "_format", "_limits", "_shown", "_vital", "per_unit", "texts")

    def __init__(self, vital: int, limits: Limits) -> None:
        """Take a vital's index and limits; raises ValueError for limits that are none.

        Limits of consciousness are left out: a level is no Quantity.
        """
        self._vital = vital
        self._limits = ranges.NONE if vital == CONSCIOUSNESS else ranges.check(vital, limits)
        self._shown = ranges.shown(self._limits)
        self._format = f"{{:.{VITALS[vital].decimals}f}}".format
        self._filled: dict[tuple[int, int, int | None, str], Template] = {}
        self.per_unit = decimal_scale(VITALS[vital])
        self.texts = Texts(self)

    def said(self, value: float | None, status: int, site: int) -> tuple[Template, str]:
        """Return a reading's template, and the text that follows its ``fixed``.

        Raises ValueError for a status, site or level of consciousness that there is not.
        """
        if value is None or status not in _VALUED:
            template = self._template(site, status, None, "")
            return template, template.before
        if self._vital == CONSCIOUSNESS:
            template = self._template(site, status, Consciousness(int(value)), "")
            return template, template.before
        flag = ranges.flag(self._limits, value) if status in _JUDGED else ""
        template = self._template(site, status, 0, flag)
        return template, f"{template.before}{self._number(value)}{template.after}"

    def _template(self, site: int, status: int, level: int | None, flag: str) -> Template:
        key = (site, status, level, flag)
        found = self._filled.get(key)
        if found is None:
            # Limits are shown where a value is compared with them, and nowhere else.
            shown = self._shown if flag else ranges.shown(ranges.NONE)
            if VITALS[self._vital].name in PANEL_OF:
                made = templates.part(self._vital, status, level, shown.shape, flag)
            else:
                made = templates.single(self._vital, site, status, level, shown.shape, flag)
            found = self._filled[key] = made.ranged(shown)
        return found

    def _number(self, value: float) -> str:
        """Return the value with the vital's decimals; never ``-0``."""
        text = self._format(value)
        return text if text[0] != "-" or float(text) else text[1:]


@lru_cache(maxsize=SCALES_MAX)
def of(vital: int, limits: Limits) -> Scale:
    """Return the scale of a vital and its limits, shared; raises ValueError."""
    return Scale(vital, limits)


def of_all(limits: Mapping[int, Limits]) -> tuple[Scale, ...]:
    """Return the scales of every vital, by index; raises ValueError for a vital there is not."""
    if not all(0 <= vital < len(VITALS) for vital in limits):
        raise ValueError("alarm limits of a vital that is not in vitals/codes.py")
    return tuple(of(vital.index, limits.get(vital.index, ranges.NONE)) for vital in VITALS)

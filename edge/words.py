"""Words of lines that were seen before, with their meaning worked out: one look-up a word.

Law: never the judge. A word is known only after the plain decoder (`edge.decode_line`) and
`edge.normalize` took it, alone; what is not known, or needs its neighbours to be understood, is
left to them. Bounded in words and in the length of a word, whatever callers send.

A monitor says the same few hundred words all day: ``heart_rate=78`` costs 3 µs to read and settle
and 0.06 µs to find here.
"""

from typing import Final

from edge import normalize
from edge.decode_line import Said, decode
from edge.moment import MARKED, Row, layout_of
from edge.refusal import Refuse
from vitals import limits
from vitals.codes import VITALS

WORDS_MAX: Final = 4096
"""Words of one generation; two are kept: 3 MB when full, 6 MB of the longest. A ward's pairs of
pressures are a few thousand, everything else a few hundred."""

LAYOUTS_MAX: Final = 1024
"""Layouts shared; a ward has some ten."""

WORD_CHARS_MAX: Final = 48
"""Longer words are read each time: the longest of use, temperature=36.9degC@oesophageal, has 32."""

_TIME: Final = "time="

# A line of known words can not be over the limit of fields: each vital sign stands in it once.
assert len(VITALS) < limits.LINE_FIELDS_MAX  # noqa: S101

Meaning = tuple[int, tuple[Row, ...]]
"""Layout of the word (`edge.moment.layout_of`), and what it says."""

_BLANK: Final[Meaning] = (0, ())


class Words:
    """Two generations of words: when the new one is full it becomes the old one."""

    __slots__ = ("_known", "_layouts", "_max", "_old")

    def __init__(self, words_max: int = WORDS_MAX) -> None:
        """Know nothing yet."""
        self._max = words_max
        self._known: dict[str, Meaning] = {"": _BLANK}
        self._old: dict[str, Meaning] = {}
        self._layouts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._known) + len(self._old)

    def read(self, text: str) -> tuple[tuple[Row, ...], str | None, int] | None:
        """Return what a line says, or None when the plain decoder has to read it.

        Rows, the time as it is written after ``time=`` (None when there is none), the layout.
        """
        # A comma at a word's end belongs to the word: to take it off costs more than to know both.
        read = self._read(text.split(" "))
        if read is None and "," in (spaced := text.replace(", ", " ")):
            read = self._read(spaced.replace(",", " ").split(" "))
        return read

    def _read(self, words: list[str]) -> tuple[tuple[Row, ...], str | None, int] | None:
        known = self._known
        seen, time = 0, None
        rows: list[Row] = []
        for word in words:
            try:
                bits, meant = known[word]
            except KeyError:
                if time is None and word.startswith(_TIME):
                    time = word[len(_TIME) :].rstrip(",")
                    if "," not in time:
                        continue
                met = self._meet(word)
                if met is None:
                    return None
                known, (bits, meant) = self._known, met
            if bits & seen & ~MARKED:
                return None  # said twice: the same again, another site, or a contradiction
            seen |= bits
            rows += meant
        return tuple(rows), time, self._layouts.get(seen) or self._share(seen)

    def _share(self, layout: int) -> int:
        """Return one object for equal layouts: every device holds one."""
        if len(self._layouts) >= LAYOUTS_MAX:
            self._layouts.clear()
        self._layouts[layout] = layout
        return layout

    def _meet(self, word: str) -> Meaning | None:
        """Return the meaning of a word that is not among the new ones, and remember it."""
        meaning = self._old.get(word) or _learn(word)
        if meaning is not None:
            if len(self._known) >= self._max:
                self._old, self._known = self._known, {"": _BLANK}
            self._known[word] = meaning
        return meaning


def _learn(word: str) -> Meaning | None:
    if len(word) > WORD_CHARS_MAX:
        return None
    inner = word.strip(",")
    if not inner:
        return _BLANK
    # One field a word: several that a comma or a tab joins make as many words as there are lines.
    if "," in inner or "=" not in inner or not inner.isprintable():
        return None
    said = decode(word.encode())
    if not isinstance(said, Said) or not said.measures or said != Said(measures=said.measures):
        return None
    try:
        rows = tuple(normalize.row(measure) for measure in said.measures)
    except Refuse:
        return None
    bits = 0
    for row in rows:
        bits |= layout_of(row)
    return bits, rows

"""Text as a terminal shows it: cells, cuts, colours; no I/O.

Law: what came from a device never steers the terminal: control, format and unassigned characters
are shown as a dot. Colour is never the only sign of anything. Widths after Unicode TR 11.
"""

import unicodedata
from typing import Final

Line = list[tuple[str, str]]
"""(text, style) from left to right; a style is a key of `STYLES`, or empty."""

STYLES: Final = {
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "red": "\x1b[1;31m",
    "yellow": "\x1b[33m",
    "green": "\x1b[32m",
    "cyan": "\x1b[36m",
    "inverse": "\x1b[7m",
}
"""The 16-colour set that every terminal has (ECMA-48, SGR)."""

_PLAIN: Final = "\x1b[0m"
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) == "Me":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def safe(text: str) -> str:
    """Return the text with a dot for every character that is not seen."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("·" if unicodedata.category(char) in _UNSEEN else char for char in text)


def cells(text: str) -> int:
    """Return how many cells the text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Return the text made safe in exactly ``width`` cells; a cut ends with a tilde."""
    text = safe(text)
    if cells(text) > width:
        text = _cut(text, width - 1) + "~" if width else ""
    pad = " " * (width - cells(text))
    return pad + text if right else text + pad


def _cut(text: str, width: int) -> str:
    taken = 0
    for at, char in enumerate(text):
        taken += _width(char)
        if taken > width:
            return text[:at]
    return text


def paint(line: Line, width: int, *, colour: bool) -> str:
    """Return the line with its styles, cut at ``width`` cells, without trailing space."""
    painted, left = [], width
    for text, style in line:
        text = safe(text)  # noqa: PLW2901 - what is shown from here on
        if cells(text) > left:
            text = _cut(text, left)  # noqa: PLW2901 - likewise
        left -= cells(text)
        if colour and style and text.strip():
            painted.append(f"{STYLES[style]}{text}{_PLAIN}")
        else:
            painted.append(text)
    return "".join(painted).rstrip()

"""A grammar of RFC 5234, as regular expressions and as a source of texts that follow it.

For pages that promise that each of their rules is true. Rules may not be recursive. Texts in
quotation marks are of any case, as section 2.3 has it.
"""

import random
import re
from typing import Final, NamedTuple

CORE: Final = {
    "digit": "%x30-39",
    "hexdig": '%x30-39 / "A" / "B" / "C" / "D" / "E" / "F"',
    "dquote": "%x22",
    "sp": "%x20",
    "wsp": "%x20 / %x09",
}
"""Those of appendix B.1 that are used."""

MORE: Final = 3
"""Repetitions beyond the least that a made text usually has at most."""

_TOKEN: Final = re.compile(
    r'\s*(?:(?P<text>"[^"]*")|(?P<code>%x[0-9A-Fa-f.-]+)|(?P<repeat>\d*\*\d*|\d+)'
    r"|(?P<name>[A-Za-z][A-Za-z0-9-]*)|(?P<mark>[/()\[\]]))"
)


class Range(NamedTuple):
    """One character of first..last."""

    first: int
    last: int

    def pattern(self) -> str:
        return f"[{re.escape(chr(self.first))}-{re.escape(chr(self.last))}]"

    def make(self, rng: random.Random) -> str:
        return chr(rng.choice([self.first, self.last, rng.randint(self.first, self.last)]))


class Text(NamedTuple):
    """These characters; of any case when they stand in quotation marks."""

    text: str
    any_case: bool

    def pattern(self) -> str:
        return f"(?i:{re.escape(self.text)})" if self.any_case else re.escape(self.text)

    def make(self, rng: random.Random) -> str:
        return rng.choice([self.text, self.text.upper()]) if self.any_case else self.text


class Several(NamedTuple):
    """From least to most of one thing."""

    of: "Node"
    least: int
    most: int | None

    def pattern(self) -> str:
        most = "" if self.most is None else self.most
        return f"(?:{self.of.pattern()}){{{self.least},{most}}}"

    def make(self, rng: random.Random) -> str:
        most = self.least + MORE
        if self.most is not None:
            most = self.most if rng.random() < 0.05 else min(most, self.most)
        return "".join(self.of.make(rng) for _ in range(rng.randint(self.least, most)))


class Row(NamedTuple):
    """One thing after another."""

    parts: "tuple[Node, ...]"

    def pattern(self) -> str:
        return "".join(part.pattern() for part in self.parts)

    def make(self, rng: random.Random) -> str:
        return "".join(part.make(rng) for part in self.parts)


class Either(NamedTuple):
    """One of several things."""

    parts: "tuple[Node, ...]"

    def pattern(self) -> str:
        return f"(?:{'|'.join(part.pattern() for part in self.parts)})"

    def make(self, rng: random.Random) -> str:
        return rng.choice(self.parts).make(rng)


Node = Range | Text | Several | Row | Either


def rules(text: str) -> dict[str, str]:
    """Return name -> elements; comments and line breaks taken out."""
    found: dict[str, str] = {}
    name = ""
    for raw in text.splitlines():
        line = re.sub(r';(?=(?:[^"]*"[^"]*")*[^"]*$).*', "", raw).rstrip()
        begun = re.match(r"([A-Za-z][A-Za-z0-9-]*)\s+=\s+(.*)", line)
        if begun:
            name = begun[1].lower()
            assert name not in found, f"{name} is there twice"
            found[name] = begun[2]
        elif line.strip():
            assert raw.startswith(" "), raw
            found[name] += " " + line.strip()
    return found


class Grammar:
    """The rules, each made into a `Node` when it is asked for."""

    def __init__(self, text: str) -> None:
        self.rules = rules(text)
        self._nodes: dict[str, Node | None] = {}

    def node(self, name: str) -> Node:
        name = name.lower()
        if name not in self._nodes:
            self._nodes[name] = None
            tokens = _tokens(self.rules[name] if name in self.rules else CORE[name])
            node = self._either(tokens)
            assert not tokens, f"{name}: {tokens} is left"
            self._nodes[name] = node
        found = self._nodes[name]
        assert found is not None, f"{name} is recursive"
        return found

    def asked_for(self) -> set[str]:
        """Return the rules that were needed so far."""
        return set(self._nodes)

    def _either(self, tokens: list[tuple[str, str]]) -> Node:
        branches = [self._row(tokens)]
        while tokens and tokens[0][1] == "/":
            tokens.pop(0)
            branches.append(self._row(tokens))
        return branches[0] if len(branches) == 1 else Either(tuple(branches))

    def _row(self, tokens: list[tuple[str, str]]) -> Node:
        parts: list[Node] = []
        while tokens and tokens[0][1] not in {"/", ")", "]"}:
            if tokens[0][0] != "repeat":
                parts.append(self._element(tokens))
                continue
            least, star, most = tokens.pop(0)[1].partition("*")
            end = (int(most) if most else None) if star else int(least)
            parts.append(Several(self._element(tokens), int(least or 0), end))
        return parts[0] if len(parts) == 1 else Row(tuple(parts))

    def _element(self, tokens: list[tuple[str, str]]) -> Node:
        kind, token = tokens.pop(0)
        if kind == "text":
            return Text(token[1:-1], any_case=True)
        if kind == "code":
            return _code(token[2:])
        if kind == "name":
            return self.node(token)
        inner = self._either(tokens)
        assert tokens.pop(0)[1] == {"(": ")", "[": "]"}[token]
        return inner if token == "(" else Several(inner, 0, 1)


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        assert match is not None, text[at:]
        assert match.lastgroup is not None
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return found


def _code(text: str) -> Node:
    if "-" in text:
        first, last = text.split("-")
        return Range(int(first, 16), int(last, 16))
    return Text("".join(chr(int(one, 16)) for one in text.split(".")), any_case=False)

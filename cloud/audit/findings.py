"""What is found of one epoch: sentences, the ranges in them, and how bad the worst is. Pure."""

from collections.abc import Iterable

from cloud.audit.ranges import LATE, RANGES_LISTED_MAX, Named, merged, spell


class Findings:
    """Gathers; `verdict` says agrees, waiting or differs."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.texts: list[str] = []
        self._named: list[Named] = []
        self._wrong = False
        self._behind = False

    def note(self, text: str) -> None:
        """Say what is as it may be."""
        self.texts.append(text)

    def bad(self, text: str) -> None:
        """Say what is wrong."""
        self.texts.append(text)
        self._wrong = True

    def late(self, text: str) -> None:
        """Say what may come yet."""
        self.texts.append(text)
        self._behind = True

    def name(
        self, stage: str, what: str, text: str, parts: dict[int | None, list[tuple[int, int]]]
    ) -> None:
        """Name ranges by partition (None: whole frames), if there are any, after ``text``."""
        parts = {partition: ranges for partition, ranges in parts.items() if ranges}
        if not parts:
            return
        spelled = "; ".join(
            spell(ranges) if partition is None else f"partition {partition}: {spell(ranges)}"
            for partition, ranges in parts.items()
        )
        (self.late if what == LATE else self.bad)(f"{text}, by sequence number: {spelled}")
        self._named += [
            Named(stage, what, partition, first, last)
            for partition, ranges in parts.items()
            for first, last in ranges
        ]

    def name_frames(self, stage: str, what: str, text: str, seqs: Iterable[int]) -> None:
        """Name whole frames."""
        self.name(stage, what, text, {None: merged(seqs)})

    @property
    def ranges(self) -> list[Named]:
        """Return the ranges, at most RANGES_LISTED_MAX."""
        return self._named[:RANGES_LISTED_MAX]

    @property
    def ranges_more(self) -> int:
        """Return how many ranges are left out of `ranges`."""
        return len(self._named) - len(self.ranges)

    @property
    def verdict(self) -> str:
        """Return the worst."""
        return "differs" if self._wrong else "waiting" if self._behind else "agrees"

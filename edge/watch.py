"""``healthsync edge watch``: the live table, or one print of it where there is no terminal.

Law: asks the control socket and shows; changes nothing. Values are shown only after somebody gave
a name, which the gateway logs. When the gateway is gone it says so and goes on trying.
"""

import getpass
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from edge import status
from edge.cells import paint
from edge.complaint import Complaint, judge
from edge.config import Config
from edge.control_client import Stream, Unanswered
from edge.terminal import Terminal
from edge.watch_screen import View, render
from healthsync.runtime import clock
from healthsync.runtime.exits import Exit

SNAPSHOT_S: Final = 1.0
AGAIN_S: Final = 1.0
"""Before the gateway is called again."""
MUTE_S: Final = 5.0
"""Without a snapshot for so long, what is on the screen is no longer true."""
LOCAL_S: Final = 10.0
"""Between two looks at the disk: a full spool takes a moment to count."""
PLAIN_WIDTH: Final = 132
"""Of a print that goes to no terminal."""


def watch(config: Config, *, reveal: bool, who: str, once: bool, as_json: bool) -> int:
    """Show the table until ``q``; print it once when ``once`` or without a terminal."""
    tty = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if reveal and not who:
        if not sys.stdin.isatty():
            print("--reveal without a terminal needs --who NAME", file=sys.stderr)
            return Exit.USAGE
        who = input(f"Values will be shown and logged. Your name [{getpass.getuser()}]: ").strip()
        who = who or getpass.getuser()
    asked: dict[str, Any] = {"reveal": True, "who": who} if reveal else {}
    if once or as_json or not tty:
        return _once(config, asked, as_json=as_json, tty=tty)
    return _Live(config, asked).run()


def _once(config: Config, asked: dict[str, Any], *, as_json: bool, tty: bool) -> int:
    try:
        with Stream(config.control_path) as stream:
            stream.send({"watch": SNAPSHOT_S} | asked)
            snapshot = stream.next()
    except Unanswered as error:
        print(f"{config.edge_id}: {error}", file=sys.stderr)
        return Exit.FAILED
    state, wrong = _judge(config, snapshot)
    if as_json:
        print(json.dumps(snapshot, indent=2))
        return state
    view = View(
        config.edge_id,
        snapshot,
        state.name.lower(),
        wrong,
        snapshot["at_ms"],
        vitals=True,
        revealed=bool(asked),
    )
    width = os.get_terminal_size().columns if tty else PLAIN_WIDTH
    for line in render(view, width, None).lines:
        print(paint(line, width, colour=tty and _colour()))
    return state


def _colour() -> bool:
    return not os.environ.get("NO_COLOR")  # no-color.org


def _judge(config: Config, snapshot: dict[str, Any]) -> tuple[Exit, list[Complaint]]:
    return judge(status.picture(config, dict(snapshot["status"]), ""))


class _Live:
    """The loop: snapshots in, keys in, screen out."""

    def __init__(
        self,
        config: Config,
        asked: dict[str, Any],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._asked, self._monotonic = config, asked, monotonic
        self._stream: Stream | None = None
        self._snapshot: dict[str, Any] | None = None
        self._heard = self._called = self._judged = -LOCAL_S
        self._state, self._wrong = Exit.FAILED, list[Complaint]()
        self._trouble = "calling the gateway"
        self._top = self._page = 0
        self._vitals: bool | None = None
        self._showing = False
        self._paused = False

    def run(self) -> int:
        """Show until asked to end."""
        try:
            with Terminal() as terminal:
                while not terminal.ended:
                    self._call()
                    terminal.draw(self._lines(*terminal.size()))
                    others = [] if self._stream is None else [self._stream.fileno()]
                    keys, ready = terminal.wait(0.5, *others)
                    if ready:
                        self._take()
                    elif self._monotonic() - self._heard > MUTE_S and self._stream is not None:
                        self._lose("the gateway does not answer; is it stuck?")
                    if "q" in keys or "Q" in keys:
                        break
                    for key in keys:
                        self._press(key)
        finally:
            if self._stream is not None:
                self._stream.close()
        return Exit.OK

    def _call(self) -> None:
        now = self._monotonic()
        if self._stream is not None or now - self._called < AGAIN_S:
            return
        self._called = self._heard = now
        try:
            self._stream = Stream(self._config.control_path)
            self._stream.send({"watch": SNAPSHOT_S} | self._asked)
        except Unanswered as error:
            self._lose(str(error))

    def _take(self) -> None:
        if self._stream is None:
            return
        try:
            self._stream.receive()
            while (answer := self._stream.taken()) is not None:
                self._heard = self._monotonic()
                if not self._paused:
                    self._snapshot = answer
        except Unanswered as error:
            self._lose(str(error))
            return
        if self._snapshot is not None and self._monotonic() - self._judged > LOCAL_S:
            self._judged = self._monotonic()
            self._state, self._wrong = _judge(self._config, self._snapshot)

    def _lose(self, trouble: str) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._snapshot, self._trouble = None, None, trouble
        self._state, self._wrong, self._judged = Exit.FAILED, [], -LOCAL_S

    def _lines(self, width: int, height: int) -> list[str]:
        view = View(
            self._config.edge_id,
            self._snapshot,
            self._state.name.lower(),
            self._wrong,
            self._snapshot["at_ms"] if self._snapshot is not None else clock.now_ms(),
            self._trouble,
            self._top,
            self._vitals,
            self._paused,
            revealed=bool(self._asked),
        )
        screen = render(view, width, height)
        self._top, self._page, self._showing = screen.top, screen.page, screen.vitals
        return [paint(line, width, colour=_colour()) for line in screen.lines[:height]]

    def _press(self, key: str) -> None:
        moves = {"j": 1, "k": -1, " ": self._page, "b": -self._page, "g": -(10**9), "G": 10**9}
        if key in moves:
            self._top = max(0, self._top + moves[key])
        elif key == "v":
            self._vitals = not self._showing
        elif key == "p":
            self._paused = not self._paused

"""A command that reads a file or standard input and answers as it goes."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from healthsync.runtime.exits import Exit


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the argument that `read` opens."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="default: stdin")


def read(file: str, work: Callable[[BinaryIO], int]) -> int:
    """Return what ``work`` makes of a file (``-``: standard input), or USAGE when there is none.

    Whoever reads our output may go, as `head` does, and whoever types may stop: both are OK.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream: BinaryIO = sys.stdin.buffer
            if file != "-":
                stream = stack.enter_context(Path(file).open("rb"))
            return work(stream)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.OK
        except KeyboardInterrupt:
            return Exit.OK
        except OSError as error:
            print(f"healthsync: {file}: {error.strerror}", file=sys.stderr)
            return Exit.USAGE


def numbered(stream: BinaryIO, bytes_max: int) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line) of lines that are not blank.

    Of a longer one just over ``bytes_max``, the rest is read on: memory stays bounded.
    """
    number = 0
    while line := stream.readline(bytes_max + 1):
        number += 1
        part = line
        while len(part) > bytes_max and not part.endswith(b"\n"):
            part = stream.readline(bytes_max + 1)
        if line.strip():
            yield number, line

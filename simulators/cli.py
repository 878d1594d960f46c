"""``healthsync simulate replay``: a ward of recorded patients on one gateway."""

import argparse
import re
from pathlib import Path

from simulators.bed import Episode

TEXT = (
    "Sends the recorded ICU patients of simulators/recordings as beds R01, R02, ...: heart rate,"
    " pulse, respiration and oxygen saturation are recorded; blood pressure and temperature are"
    " simulated; names and record numbers are made up. At --speed 1 each line carries its time;"
    " faster, the time of receipt counts."
)


def register(parser: argparse.ArgumentParser) -> None:
    """Add ``replay`` to ``healthsync simulate``."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    replay = kinds.add_parser("replay", help="recorded patients as beds", description=TEXT)
    add = replay.add_argument
    add("--host", default="127.0.0.1", help="the gateway (127.0.0.1)")
    add("--port", type=_port, required=True, help="its line or line-tls port")
    add("--beds", type=_whole, default=8, help="how many beds (8)")
    add("--speed", type=_positive, default=1.0, help="samples a second of each bed (1)")
    add("--ward", type=_word, default="W1", help="the ward's name (W1)")
    add("--seed", type=int, default=1, help="chooses recordings and simulated values (1)")
    add("--seconds", type=_positive, metavar="S", help="stop after S seconds (run until stopped)")
    add("--tls", action="store_true", help="speak TLS 1.3; needs --ca")
    add("--ca", type=Path, metavar="FILE", help="the CA that signed the gateway's certificate")
    add("--stats-file", type=Path, metavar="FILE", help="keep the counts there as JSON")
    add("--reply", action="store_true", help="ask for replies, send again what got none")
    add(
        "--desaturate",
        type=_episode,
        action="append",
        default=[],
        metavar="BED@SECONDS",
        help="bed BED falls to 84 %% oxygen for 30 s, SECONDS of"
        " recorded time after its start; may be repeated",
    )
    replay.set_defaults(run=_run, parser=replay)


def _run(options: argparse.Namespace) -> int:
    if options.tls and options.ca is None:
        options.parser.error("--tls needs --ca FILE")
    if any(episode.bed > options.beds for episode in options.desaturate):
        options.parser.error("--desaturate names a bed beyond --beds")
    from simulators import replay

    return replay.run(
        replay.Plan(
            host=options.host,
            port=options.port,
            beds=options.beds,
            speed=options.speed,
            ward=options.ward,
            seed=options.seed,
            seconds=options.seconds,
            ca=options.ca if options.tls else None,
            stats_file=options.stats_file,
            reply=options.reply,
            episodes=tuple(options.desaturate),
        )
    )


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError("a number over 0 is needed")
    return number


def _whole(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 10_000:
        raise argparse.ArgumentTypeError("between 1 and 10000")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65_535:
        raise argparse.ArgumentTypeError("between 1 and 65535")
    return number


def _word(text: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,64}", text):
        raise argparse.ArgumentTypeError("letters, digits, . _ - only")
    return text


def _episode(text: str) -> Episode:
    found = re.fullmatch(r"R?0*([1-9][0-9]{0,4})@([0-9]{1,6})", text)
    if not found:
        raise argparse.ArgumentTypeError("write BED@SECONDS, such as 3@20 or R03@20")
    return Episode(int(found[1]), int(found[2]))

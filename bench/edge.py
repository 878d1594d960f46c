"""The gateway's numbers, beside rsyslog in the same run: `make bench` or `python -m bench.edge`.

Law: one table; ours and the peer's by the same load on the same machine one after the other, in
turn, several rounds, the median of each. A number that was not measured is not printed.
"""

import argparse
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.load import line
from bench.processes import Sink, cpu_s, load, process, resident_mb, wait_for_port
from edge.admission import Caller
from edge.bedside import LineTalk
from edge.hl7_talk import Hl7Talk
from edge.mllp import block
from edge.setting import Setting
from edge.status import read_metrics
from onebox import ports

SETTLE_S_MAX = 60.0


class Ours:
    """A gateway in a folder of its own, without a cloud: what it takes stays in the spool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.metrics, uplink = ports.free(3)
        key = folder / "cloud.pub"
        public = X25519PrivateKey.generate().public_key()
        key.write_bytes(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
        self.config = folder / "edge.toml"
        self.config.write_text(
            f'edge_id = "bench"\nstate_dir = "{folder}/state"\nhpke_public = "{key}"\n'
            f"line_port = {self.port}\nmetrics_port = {self.metrics}\nuplink_port = {uplink}\n"
        )
        self.command = [sys.executable, "-m", "healthsync.cli", "edge", "run"]
        self.command += ["--config", str(self.config)]

    def taken(self) -> int:
        """Return how many lines are committed."""
        return int(read_metrics(self.metrics)[0].get("lines_total", 0))


class Rsyslog:
    """rsyslogd with the configuration in bench/peers."""

    def __init__(self, folder: Path, *, sync: bool) -> None:
        self.folder = folder
        (self.port,) = ports.free(1)
        self.sink = Sink()
        text = (Path(__file__).parent / "peers" / "rsyslog.conf").read_text()
        for name, value in (
            ("DIR", str(folder)),
            ("IN", str(self.port)),
            ("OUT", str(self.sink.port)),
            ("SYNC", "on" if sync else "off"),
        ):
            text = text.replace(f"@{name}@", value)
        conf = folder / "rsyslog.conf"
        conf.write_text(text)
        self.command = ["/usr/sbin/rsyslogd", "-n", "-f", str(conf), "-i", str(folder / "pid")]

    def taken(self) -> int:
        """Return how many lines came out again."""
        return self.sink.lines


def settle(side: Ours | Rsyslog, wanted: int) -> None:
    """Wait until every line has arrived where it is to be; raise TimeoutError."""
    ends = time.monotonic() + SETTLE_S_MAX
    while side.taken() < wanted:
        if time.monotonic() > ends:
            raise TimeoutError(f"{side.taken()} of {wanted} lines after {SETTLE_S_MAX:.0f} s")
        time.sleep(0.05)


def measure(
    side: Ours | Rsyslog, connections: int, rate: float, lines: int, warm: int
) -> tuple[float, float, float]:
    """Return CPU µs a line, resident MB, seconds of sending."""
    log = side.folder / "log"
    with process(side.command, log) as child:
        wait_for_port(side.port, child)
        with load(side.port, connections, rate, lines, side.folder / "load") as sender:
            done = 0
            for _ in range(warm):
                done += int(sender.run()["sent"])
                settle(side, done)
            before = cpu_s(child.pid)
            said = sender.run()
            settle(side, done + int(said["sent"]))
            used = cpu_s(child.pid) - before
            return used / said["sent"] * 1e6, resident_mb(child.pid), said["seconds"]


def rounds(options: argparse.Namespace, folder: Path) -> None:
    """Print CPU a line of both sides, in turn."""
    print(f"{options.connections} connections, {options.rate:.0f} lines a second, in turn:")
    found: dict[str, list[tuple[float, float, float]]] = {}
    for nth in range(options.rounds):
        for name in ("ours", "rsyslog"):
            home = folder / f"{name}-{nth}"
            home.mkdir()
            side = Ours(home) if name == "ours" else Rsyslog(home, sync=False)
            got = measure(side, options.connections, options.rate, options.lines, warm=1)
            found.setdefault(name, []).append(got)
            print(f"  {name} round {nth}: {got[0]:.1f} µs a line, {got[1]:.0f} MB", flush=True)
            shutil.rmtree(home)
    for name, what in (
        ("ours", "to committed sealed spool, fsync"),
        ("rsyslog", "imptcp, disk queue without fsync, omfwd"),
    ):
        cpu = statistics.median(one[0] for one in found[name])
        print(f"{name:<8} {cpu:6.1f} µs CPU a line   {what}")


def many(folder: Path, connections: int) -> None:
    """Print resident memory with many connections that all send, and the commit's p99."""
    side = Ours(folder)
    with process(side.command, folder / "log") as child:
        wait_for_port(side.port, child)
        idle = resident_mb(child.pid)
        with load(side.port, connections, connections, 3 * connections, folder / "load") as sender:
            before = cpu_s(child.pid)
            said = sender.run()
            settle(side, int(said["sent"]))
            used = cpu_s(child.pid) - before
            print(
                f"ours     {resident_mb(child.pid):6.1f} MB with {connections} connections at 1 Hz"
                f" ({idle:.0f} MB with none), {used / said['seconds'] * 100:.0f} % of a core"
            )
        buckets = read_buckets(side.metrics)
        print(f"ours     {quantile(buckets, 0.99) * 1000:6.1f} ms commit p99 (bucket's end)")


def read_buckets(port: int) -> list[tuple[float, float]]:
    """Return (end in s, count) of the commit histogram."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.findall(r'commit_seconds_bucket\{le="([^"]+)"\} (\S+)', text)
    return [(float(end), float(count)) for end, count in found]


def quantile(buckets: list[tuple[float, float]], wanted: float) -> float:
    """Return the end of the bucket that holds a quantile."""
    total = buckets[-1][1]
    return next(end for end, count in buckets if count >= wanted * total)


def parsers() -> None:
    """Print CPU of the decoders alone, without socket, spool or seal."""
    rng = random.Random(3)
    lines = [line(rng, device % 2000) for device in range(20_000)]
    talks = [LineTalk(Caller(f"10.0.{at // 250}.{at % 250}"), Setting()) for at in range(2000)]
    for each in range(2):
        began = time.process_time()
        for at, one in enumerate(lines):
            talks[at % 2000].receive(one, NOW_MS)
        if each:
            cost = (time.process_time() - began) / len(lines) * 1e6
            print(f"ours     {cost:6.1f} µs a line: cut, decoded, normalised, dated")
    talk = Hl7Talk(Caller("10.0.0.1"), Setting())
    messages = [block(pcd01(at)) for at in range(3000)]
    began = time.process_time()
    for one in messages:
        for entry in talk.receive(one, NOW_MS):
            assert len(entry.readings) == len(OBX)
            if entry.answer is not None:
                entry.answer(None)
    cost = (time.process_time() - began) / len(messages) * 1e6
    print(
        f"ours     {cost:6.0f} µs a PCD-01 message of {len(OBX)} OBX with its acknowledgement:",
        end="",
    )
    print(f" {1e6 / cost:.0f} a second and core")


NOW_MS = 1_795_428_000_000
OBX = [
    ("147842^MDC_ECG_HEART_RATE^MDC", 78, "264864^MDC_DIM_BEAT_PER_MIN^MDC"),
    ("150456^MDC_PULS_OXIM_SAT_O2^MDC", 97, "262688^MDC_DIM_PERCENT^MDC"),
    ("149530^MDC_PULS_OXIM_PULS_RATE^MDC", 77, "264864^MDC_DIM_BEAT_PER_MIN^MDC"),
    ("151562^MDC_RESP_RATE^MDC", 16, "264928^MDC_DIM_RESP_PER_MIN^MDC"),
    ("150344^MDC_TEMP^MDC", 37, "268192^MDC_DIM_DEGC^MDC"),
    ("150021^MDC_PRESS_BLD_NONINV_SYS^MDC", 120, "266016^MDC_DIM_MMHG^MDC"),
    ("150022^MDC_PRESS_BLD_NONINV_DIA^MDC", 80, "266016^MDC_DIM_MMHG^MDC"),
    ("150023^MDC_PRESS_BLD_NONINV_MEAN^MDC", 93, "266016^MDC_DIM_MMHG^MDC"),
    ("150037^MDC_PRESS_BLD_ART_ABP_SYS^MDC", 121, "266016^MDC_DIM_MMHG^MDC"),
    ("150038^MDC_PRESS_BLD_ART_ABP_DIA^MDC", 79, "266016^MDC_DIM_MMHG^MDC"),
]


def pcd01(number: int) -> bytes:
    """Return one PCD-01 message of a monitor."""
    rows = [
        f"OBX|{at}|NM|{code}|1.1.{at}.1|{value + number % 3}|{unit}|||||R|||20261123100000+0000"
        for at, (code, value, unit) in enumerate(OBX, 1)
    ]
    profile = "IHE_PCD_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.1.1^ISO"
    sender = "MSH|^~\\&|MON^0012345678ABCDEF^EUI-64||||20261123100000+0000||ORU^R01^ORU_R01"
    head = [
        f"{sender}|M{number}|P|2.6|||AL|NE||UNICODE UTF-8|||{profile}",
        "PID|||M000123^^^H^MR",
        "PV1||I|ICU^^5",
        "OBR|1|A|B|182777000^monitoring of patient^SCT|||20261123100000+0000",
    ]
    return "\r".join([*head, *rows, ""]).encode()


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=10_000.0)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--many", type=int, default=10_000)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="bench-edge-") as name:
        folder = Path(name)
        rounds(options, folder)
        home = folder / "many"
        home.mkdir()
        many(home, options.many)
    parsers()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
